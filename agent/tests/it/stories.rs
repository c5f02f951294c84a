//! Whole stories: worker processes, a real queue, the sandbox over HTTP.

mod broker_away;
mod drain;
mod harness;
mod hold;
mod kills;
mod policy;
mod privilege;
mod sdk;
