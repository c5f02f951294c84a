//! For queues.

pub mod conformance;
