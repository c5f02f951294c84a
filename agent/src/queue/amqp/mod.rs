//! RabbitMQ behind the queue port.
