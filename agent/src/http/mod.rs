//! What REST engines share.

pub mod pace;
