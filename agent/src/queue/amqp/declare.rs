//! Seeing to it that all exchanges and queues are there: declaring them, or checking.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Error, ErrorKind, ExchangeKind};
use sparkferry_shared::Topology;

use super::connect::{Broker, short};
use super::topology::{self, Exchange, Queue};
use crate::queue::QueueError;

/// How long a queue that somebody deleted is left so: who consumes from one that is made anew at once is
/// not told that it was deleted.
pub(super) const LEFT_DELETED: Duration = Duration::from_secs(1);

/// Sees to it that everything is there.
pub(super) struct Declarer {
    topology: Topology,
    connections: Vec<String>,
    declare: bool,
    /// Queues and exchanges that the operator made otherwise: they are only looked for.
    foreign: Mutex<HashSet<String>>,
    no_streams: AtomicBool,
}

impl Declarer {
    /// `declare` is false where the operator makes everything.
    pub(super) fn new(topology: &Topology, connections: &[String], declare: bool) -> Self {
        Self {
            topology: topology.clone(),
            connections: connections.to_vec(),
            declare,
            foreign: Mutex::default(),
            no_streams: AtomicBool::new(false),
        }
    }

    /// The names.
    pub(super) fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The broker is too old for streams.
    pub(super) fn no_streams(&self) -> bool {
        self.no_streams.load(Ordering::Relaxed)
    }

    /// Declares everything, or checks that it is there.
    pub(super) async fn ensure(
        &self,
        broker: &Broker,
        connection: &Connection,
    ) -> Result<(), QueueError> {
        let mut desk = Desk::new(self, broker, connection);
        for exchange in topology::exchanges(&self.topology) {
            desk.exchange(&exchange).await?;
        }
        desk.queue(&topology::results(&self.topology)).await?;
        desk.queue(&topology::dead(&self.topology)).await?;
        desk.control(&topology::control(&self.topology)).await?;
        for name in &self.connections {
            desk.queue(&topology::requests(&self.topology, name))
                .await?;
        }
        Ok(())
    }

    /// The same for the queue of one connection.
    pub(super) async fn ensure_requests(
        &self,
        broker: &Broker,
        connection: &Connection,
        name: &str,
    ) -> Result<(), QueueError> {
        let mut desk = Desk::new(self, broker, connection);
        desk.queue(&topology::requests(&self.topology, name)).await
    }

    fn is_foreign(&self, name: &str) -> bool {
        self.foreign().contains(name)
    }

    fn leave_as_it_is(&self, name: &str, why: &str) {
        if self.foreign().insert(name.to_owned()) {
            tracing::warn!("{name}: not as Sparkferry declares it, used as it is: {why}");
        }
    }

    fn foreign(&self) -> MutexGuard<'_, HashSet<String>> {
        self.foreign.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Declares one thing after the other. A refusal closes the channel, so that the next thing needs
/// a new one.
struct Desk<'a> {
    declarer: &'a Declarer,
    broker: &'a Broker,
    connection: &'a Connection,
    channel: Option<Channel>,
}

impl<'a> Desk<'a> {
    fn new(declarer: &'a Declarer, broker: &'a Broker, connection: &'a Connection) -> Self {
        Self {
            declarer,
            broker,
            connection,
            channel: None,
        }
    }

    async fn channel(&mut self) -> Result<Channel, QueueError> {
        match &self.channel {
            Some(channel) if channel.status().connected() => Ok(channel.clone()),
            _ => {
                let made = self.connection.create_channel().await;
                let channel = made.map_err(|error| self.broker.error(&error))?;
                self.channel = Some(channel.clone());
                Ok(channel)
            }
        }
    }

    fn only_looks_for(&self, name: &str) -> bool {
        !self.declarer.declare || self.declarer.is_foreign(name)
    }

    async fn exchange(&mut self, exchange: &Exchange) -> Result<(), QueueError> {
        let kind = match exchange.kind {
            "direct" => ExchangeKind::Direct,
            "topic" => ExchangeKind::Topic,
            _ => ExchangeKind::Fanout,
        };
        let options = ExchangeDeclareOptions {
            passive: self.only_looks_for(&exchange.name),
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let channel = self.channel().await?;
        let name = short(&exchange.name);
        let declared = channel.exchange_declare(name, kind, options, FieldTable::default());
        let declared = declared.await;
        self.judge("exchange", &exchange.name, declared)
    }

    async fn queue(&mut self, queue: &Queue) -> Result<(), QueueError> {
        let declared = self.declare(queue).await?;
        self.judge("queue", &queue.name, declared)?;
        self.bind(queue).await
    }

    /// The control queue: a broker that knows no streams has none, and that is no error.
    async fn control(&mut self, queue: &Queue) -> Result<(), QueueError> {
        if self.declarer.no_streams() {
            return Ok(());
        }
        let declared = self.declare(queue).await?;
        if let Err(error) = &declared
            && soft(error) == Some(&AMQPSoftError::PRECONDITIONFAILED)
            && error.to_string().contains("invalid arg")
        {
            self.declarer.no_streams.store(true, Ordering::Relaxed);
            self.declarer.leave_as_it_is(
                &queue.name,
                "the broker knows no streams: cancels reach running workers only",
            );
            return Ok(());
        }
        self.judge("queue", &queue.name, declared)?;
        self.bind(queue).await
    }

    async fn declare(&mut self, queue: &Queue) -> Result<lapin::Result<()>, QueueError> {
        let options = QueueDeclareOptions {
            passive: self.only_looks_for(&queue.name),
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let channel = self.channel().await?;
        let declared = channel
            .queue_declare(short(&queue.name), options, queue.table())
            .await;
        Ok(declared.map(drop))
    }

    async fn bind(&mut self, queue: &Queue) -> Result<(), QueueError> {
        if !self.declarer.declare {
            return Ok(());
        }
        let channel = self.channel().await?;
        let bound = channel.queue_bind(
            short(&queue.name),
            short(&queue.exchange),
            short(&queue.routing_key),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bound.await.map_err(|error| self.broker.error(&error))
    }

    fn judge(&self, what: &str, name: &str, declared: lapin::Result<()>) -> Result<(), QueueError> {
        let Err(error) = declared else {
            return Ok(());
        };
        match soft(&error) {
            Some(AMQPSoftError::PRECONDITIONFAILED)
                if error.to_string().contains("inequivalent") =>
            {
                self.declarer.leave_as_it_is(name, &error.to_string());
                Ok(())
            }
            // It was the operator's and is gone, or the broker is only starting: next time.
            Some(AMQPSoftError::NOTFOUND) if self.declarer.declare => {
                self.declarer.foreign().remove(name);
                Err(QueueError::Unreachable {
                    place: self.broker.place().to_owned(),
                    why: error.to_string(),
                })
            }
            Some(AMQPSoftError::NOTFOUND) => Err(QueueError::Refused {
                place: self.broker.place().to_owned(),
                why: format!(
                    "the {what} `{name}` is not there: import what `sparkferry topology` prints, \
                     or let the worker make it (queue.declare = true)"
                ),
            }),
            _ => Err(self.broker.error(&error)),
        }
    }
}

fn soft(error: &Error) -> Option<&AMQPSoftError> {
    match error.kind() {
        ErrorKind::ProtocolError(amqp) => match amqp.kind() {
            AMQPErrorKind::Soft(soft) => Some(soft),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}
