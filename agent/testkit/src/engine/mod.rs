//! For engines.

pub mod conformance;
pub mod fake;
