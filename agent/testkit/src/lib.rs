//! What an engine or a queue is tried with, ours or anybody's.
//!
//! | module | holds |
//! |---|---|
//! | [`engine::fake`] | an engine in memory: the shortest answer to what an engine has to do; read it first |
//! | [`engine::conformance`] | what every engine promises |
//! | [`queue::conformance`] | what every queue promises, and [`queue_conformance!`], which makes tests of it |
//! | [`queue::memory`] | a queue in memory, for a worker on a paused clock |
//! | [`story`] | real parts: a RabbitMQ node, a proxy, a sandbox, requests and what is heard of them |

pub mod engine;
pub mod queue;
pub mod story;
