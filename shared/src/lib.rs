//! The contract of Sparkferry: what producers, operators and the worker agree on.
//!
//! | module | holds |
//! |---|---|
//! | [`key`] | the computed names of runs, results and steps |
//! | [`id`] | the id that a producer gives its request |
//! | [`request`] | a request as a producer builds it and a worker reads it |
//! | [`body`] | Databricks' own request bodies, passed through untouched |
//! | [`mod@decode`] | from bytes on a queue to a [`request::Request`], or why not |
//! | [`result`] | outcomes, attempts, errors: what comes back |
//! | [`event`], [`cancel`] | what is told on the way, and how to stop a run |
//! | [`topology`] | the names of queues and exchanges |
//! | [`schema`], [`asyncapi`] | JSON Schemas of all messages, and how they travel |
//!
//! Deliberately absent: any I/O, any async runtime, any clock. The same types serve the worker and
//! Rust producers.

pub mod asyncapi;
pub mod body;
pub mod cancel;
pub mod decode;
pub mod event;
pub mod id;
pub mod key;
pub mod request;
pub mod result;
pub mod schema;
pub mod topology;

pub use body::Body;
pub use cancel::Cancel;
pub use decode::{Undecodable, decode};
pub use event::{Event, EventType};
pub use id::Id;
pub use key::{Key, Names};
pub use request::{OnFailure, OnTimeout, Request, SparkConnect, Step, Work};
pub use result::{Attempt, ErrorClass, Outcome, RunError, RunResult, TaskError, WorkKind};
pub use topology::Topology;
