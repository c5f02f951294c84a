//! Tests over real parts.

mod arrows;
mod asyncapi;
#[expect(dead_code, reason = "the library's own tests need more of it")]
mod broker;
mod browser;
mod cli;
<<<<<<< HEAD
mod containers;
mod page;
=======
mod secrets;
>>>>>>> auth
mod stories;
mod systemd;
