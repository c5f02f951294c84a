//! Tests over real parts.

mod arrows;
mod asyncapi;
mod cli;
mod stories;
