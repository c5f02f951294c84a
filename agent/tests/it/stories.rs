//! Whole stories: worker processes, a real queue, the sandbox over HTTP.

mod broker_away;
mod broker_faults;
mod drain;
mod harness;
mod hold;
mod kills;
mod reload;
mod page;
mod policy;
mod privilege;
mod sdk;
