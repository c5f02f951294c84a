//! Seeing to it that exchanges and queues are there: declaring them all, or looking for those that are
//! used.
//!
//! RabbitMQ 3.10 to 4.2.5 lets everybody look (declare passively). 4.2.6 and 4.3.0 ask for the permission
//! to configure, later ones for any permission on that very name. So nobody looks for what they don't
//! use, and a look that is refused is no error: what then can't be used says so when it is used.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Error, ErrorKind, ExchangeKind};
use sparkferry_ports::queue::QueueError;
use sparkferry_shared::Topology;

use super::connect::{Broker, short};
use super::topology::{self, Exchange, Queue};

/// How long a queue that somebody deleted is left so: who consumes from one that is made anew at once is
/// not told that it was deleted.
pub(super) const LEFT_DELETED: Duration = Duration::from_secs(1);

/// Who uses the exchanges and queues.
#[derive(Debug, Clone)]
pub(super) enum Role {
    /// A worker that takes the requests of these connections.
    Worker(Vec<String>),
    /// Whoever sends requests, and the operator's commands: each uses one or two of them.
    Producer,
}

/// What a producer publishes to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Destination {
    /// The requests of a connection.
    Requests(String),
    /// The control stream.
    Control,
}

/// Sees to it that everything is there.
pub(super) struct Declarer {
    topology: Topology,
    role: Role,
    declare: bool,
    /// Queues and exchanges that the operator made otherwise: they are only looked for.
    foreign: Mutex<HashSet<String>>,
    no_streams: AtomicBool,
}

impl Declarer {
    /// `declare` is false where the operator makes everything.
    pub(super) fn new(topology: &Topology, role: Role, declare: bool) -> Self {
        Self {
            topology: topology.clone(),
            role,
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

    /// Declares everything; or looks for what the role uses from the beginning to the end, and tells
    /// the names that the user may not look for.
    pub(super) async fn ensure(
        &self,
        broker: &Broker,
        connection: &Connection,
    ) -> Result<Vec<String>, QueueError> {
        let mut desk = Desk::new(self, broker, connection);
        for exchange in self.exchanges() {
            desk.exchange(&exchange).await?;
        }
        if self.declare {
            desk.queue(&topology::results(&self.topology)).await?;
            desk.queue(&topology::dead(&self.topology)).await?;
        }
        if self.declare || matches!(self.role, Role::Worker(_)) {
            desk.control(&topology::control(&self.topology)).await?;
        }
        if let Role::Worker(connections) = &self.role {
            for name in connections {
                desk.queue(&topology::requests(&self.topology, name))
                    .await?;
            }
        }
        Ok(desk.unseen)
    }

    /// Those to see to at the beginning: a producer looks for the one that it is about to publish to.
    fn exchanges(&self) -> Vec<Exchange> {
        let mut exchanges = topology::exchanges(&self.topology);
        if !self.declare {
            let used = match self.role {
                Role::Worker(_) => vec![
                    self.topology.results_exchange(),
                    self.topology.events_exchange(),
                    self.topology.dead_exchange(),
                ],
                Role::Producer => Vec::new(),
            };
            exchanges.retain(|exchange| used.contains(&exchange.name));
        }
        exchanges
    }

    /// Sees to the queue of one connection.
    pub(super) async fn ensure_requests(
        &self,
        broker: &Broker,
        connection: &Connection,
        name: &str,
    ) -> Result<(), QueueError> {
        let mut desk = Desk::new(self, broker, connection);
        desk.queue(&topology::requests(&self.topology, name)).await
    }

    /// Sees to what a producer is about to publish to: declares the queue, or looks for the exchange.
    pub(super) async fn ensure_destination(
        &self,
        broker: &Broker,
        connection: &Connection,
        destination: &Destination,
    ) -> Result<(), QueueError> {
        let name = match destination {
            Destination::Requests(name) if self.declare => {
                return self.ensure_requests(broker, connection, name).await;
            }
            Destination::Requests(_) => self.topology.requests_exchange(),
            Destination::Control => self.topology.control_exchange(),
        };
        let mut desk = Desk::new(self, broker, connection);
        match topology::exchanges(&self.topology)
            .iter()
            .find(|exchange| exchange.name == name)
        {
            Some(exchange) => desk.exchange(exchange).await,
            None => Ok(()),
        }
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
    /// What the user may not look for.
    unseen: Vec<String>,
}

impl<'a> Desk<'a> {
    fn new(declarer: &'a Declarer, broker: &'a Broker, connection: &'a Connection) -> Self {
        Self {
            declarer,
            broker,
            connection,
            channel: None,
            unseen: Vec::new(),
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

    fn judge(
        &mut self,
        what: &str,
        name: &str,
        declared: lapin::Result<()>,
    ) -> Result<(), QueueError> {
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
            Some(AMQPSoftError::ACCESSREFUSED) if self.only_looks_for(name) => {
                tracing::debug!("the {what} `{name}` can't be seen: {error}");
                self.unseen.push(name.to_owned());
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

/// The broker's reason, where it ended the channel and nothing else.
pub(super) fn soft(error: &Error) -> Option<&AMQPSoftError> {
    match error.kind() {
        ErrorKind::ProtocolError(amqp) => match amqp.kind() {
            AMQPErrorKind::Soft(soft) => Some(soft),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}
