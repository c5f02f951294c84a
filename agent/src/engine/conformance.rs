//! What every engine promises.
