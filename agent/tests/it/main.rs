//! Tests over real parts.

mod arrows;
mod asyncapi;
#[expect(dead_code, reason = "the library's own tests need more of it")]
mod broker;
mod cli;
mod proxy;
mod secrets;
mod spark;
mod stories;
