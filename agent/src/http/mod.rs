//! What REST engines share: the client and what lets it in, how fast calls may follow each other, and
//! the headers that say so.

pub mod auth;
pub mod client;
pub mod headers;
pub mod pace;
pub mod renewed;
pub mod tls;
