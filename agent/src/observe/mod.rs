//! What the worker tells about itself: metrics, health, the status page's data, the log, systemd.

pub mod log;
pub mod metrics;
pub mod notify;
pub mod runs;
pub mod serve;
