//! What the worker tells about itself: metrics, health, the status page and its data, the log.

pub mod log;
pub mod metrics;
mod page;
pub mod runs;
pub mod serve;
