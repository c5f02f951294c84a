//! Sparkferry's agent: takes run requests off a queue, has them run by an engine, and carries the
//! results back. `ARCHITECTURE.md` beside this crate tells how the rooms hang together.
//!
//! | room | holds |
//! |---|---|
//! | [`queue`] | RabbitMQ and SQLite, behind the port to a queue |
//! | [`engine`] | Databricks and Spark Connect, behind the port to an engine |
//! | [`worker`] | deliveries in, one driver for each id, settle, hand back, drain |
//! | [`flow`], [`retry`] | one request from its first attempt to its ending |
//! | [`policy`] | what a connection's requests may ask for |
//! | [`http`] | what REST engines share |
//! | [`config`] | the settings, read and checked once |
//! | [`observe`] | metrics, health and the status page's data |
//! | [`cli`] | the commands, one file each |

pub mod cli;
pub mod config;
pub mod engine;
pub mod flow;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod observe;
pub mod policy;
pub mod queue;
pub mod retry;
pub mod worker;
