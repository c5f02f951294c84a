//! Spark Connect: worker processes and real servers, Apache Spark and Sail.
//!
//! Apache Spark takes its time to start and its memory to run, so that a server is shared by the
//! stories of one test, and there is one at a time on this machine.

mod adoption;
mod asked;
mod attended;
mod cancel;
mod client;
mod cluster;
mod conformance;
mod crashes;
mod faults;
mod gate;
mod lost;
mod producers;
mod sail;
mod servers;
mod stage;
mod statements;
mod takeover;
mod tls;
mod token;
