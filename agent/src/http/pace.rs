//! How fast calls may follow each other.
