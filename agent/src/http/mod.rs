//! What REST engines share: how fast calls may follow each other, and the headers that say so.

pub mod headers;
pub mod pace;
