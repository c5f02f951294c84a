//! Tests over real parts.

mod amqps;
mod arrows;
mod asyncapi;
mod authority;
#[expect(dead_code, reason = "the library's own tests need more of it")]
mod broker;
mod browser;
mod cli;
mod containers;
mod page;
mod poison;
mod proxy;
mod raw;
mod secrets;
mod soak;
mod spark;
mod stories;
mod systemd;
