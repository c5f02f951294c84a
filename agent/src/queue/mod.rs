//! The queues behind the port [`sparkferry_ports::queue`]: RabbitMQ, and a file of SQLite's.

#[cfg(feature = "rabbitmq")]
pub mod amqp;
pub mod sqlite;
pub mod table;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use amqp::fuzzing;
