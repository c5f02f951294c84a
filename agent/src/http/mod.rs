//! What REST engines share: the client and what lets it in, how fast calls may follow each other, and
//! the headers that say so.

pub mod auth;
pub mod authorities;
pub mod client;
pub mod fault;
pub mod headers;
pub mod pace;
pub mod renewed;
