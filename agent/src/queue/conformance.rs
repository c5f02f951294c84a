//! What every queue promises.
