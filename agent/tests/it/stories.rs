//! Whole stories: worker processes, a real queue, the sandbox over HTTP.

mod broker_away;
mod broker_faults;
mod cancels;
mod drain;
pub(crate) mod harness;
mod hold;
mod kills;
mod page;
mod poison;
mod policy;
mod privilege;
mod reload;
mod sdk;
