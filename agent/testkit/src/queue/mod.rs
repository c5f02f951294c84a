//! For queues.

pub mod conformance;
pub mod memory;
