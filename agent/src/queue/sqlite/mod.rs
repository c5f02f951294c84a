//! SQLite behind the queue port.
