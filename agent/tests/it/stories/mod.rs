//! Whole stories: worker processes, a real queue, the sandbox over HTTP.

mod bad_days;
mod broker_away;
mod broker_faults;
mod budget;
mod cancels;
mod clocks;
mod disk_full;
mod drain;
mod flood;
pub(crate) mod harness;
mod hold;
mod kills;
mod large;
mod page;
mod poison;
mod policy;
mod privilege;
mod properties;
mod reload;
mod sdk;
mod stops;
