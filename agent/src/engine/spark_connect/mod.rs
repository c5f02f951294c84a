//! Spark Connect: statements and DataFrame programs in a session that outlives its worker.
//!
//! | module | holds |
//! |---|---|
//! | `rows` | a step's rows: Arrow in, JSON out |
//! | `error` | what a call that went wrong means |
#![allow(dead_code, unused_imports, reason = "the engine's core is what calls these")]

mod rows;
