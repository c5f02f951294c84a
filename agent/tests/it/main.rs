//! Tests over real parts.

mod amqps;
mod arrows;
mod asyncapi;
mod authority;
mod browser;
mod cli;
mod containers;
mod page;
mod secrets;
mod soak;
mod spark;
mod stories;
mod systemd;
