//! What stories are made of that have real parts: a RabbitMQ node and a sandbox of one's own, what
//! stands between them, what is sent, and what is heard of it.

use std::time::Duration;

pub mod broker;
mod heard;
pub mod poison;
pub mod processes;
pub mod proxy;
pub mod raw;
mod workspace;

pub use heard::{Heard, Work, one_run_for_each_attempt};
pub use workspace::{Workspace, count};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);
