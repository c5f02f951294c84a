//! The two ports of Sparkferry's worker, and the types that they speak of.
//!
//! | port | |
//! |---|---|
//! | [`engine`] | where runs happen: Databricks, Spark Connect |
//! | [`queue`] | where requests come from and results go to: RabbitMQ, SQLite |
//!
//! Whoever writes an engine or a queue of their own needs this crate, and the testkit to try it with.

pub mod engine;
pub mod queue;
