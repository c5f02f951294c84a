//! What the worker tells about itself: metrics, health, the status page's data, the log.

pub mod log;
pub mod metrics;
pub mod runs;
pub mod serve;
