//! Whole stories: worker processes, a real queue, the sandbox over HTTP.

mod broker_away;
mod drain;
pub(crate) mod harness;
mod hold;
mod kills;
mod sdk;
