//! The queues behind the port [`sparkferry_ports::queue`]: RabbitMQ, and a file of SQLite's.

pub mod amqp;
pub mod sqlite;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use amqp::fuzzing;
