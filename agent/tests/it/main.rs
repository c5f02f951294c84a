//! Tests over real parts.

mod arrows;
mod asyncapi;
