//! Sparkferry's agent: the map of its rooms is in `ARCHITECTURE.md`.

pub mod sandbox;
