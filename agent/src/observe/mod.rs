//! What the worker tells about itself: metrics, health, the status page and its data, the log, systemd.

pub mod log;
pub mod metrics;
pub mod notify;
mod page;
pub mod runs;
pub mod serve;
