//! RabbitMQ behind the queue port. Only this room names lapin.
//!
//! | module | holds |
//! |---|---|
//! | `door` | what the URL says |
//! | `connect` | one attempt to connect, errors in words, the pace of attempts |
//! | `inspect` | every frame before lapin parses it: what would end the connection is replaced |
//! | `tls` | certificates: the broker's, and our own |
//! | `version` | the broker's version, and what it means for us |
//! | `link` | a connection that is made again for as long as anybody needs it |
//! | `topology`, `declare` | exchanges and queues: as they should be, and declared or checked |
//! | `privilege` | the same for an operator who gives everybody only what they need |
//! | `consume` | deliveries, one task for each channel |
//! | `ack` | settling deliveries: few frames for many acknowledgements |
//! | `publish`, `confirm` | confirmed publishing, many messages at a time, and what became of each |
//! | `held` | publishing for as long as a lease is held |
//! | `replies` | results for the queues that producers name |
//! | `size` | the largest message that the broker takes |
//! | `control` | cancels, from the stream |
//! | `message`, `trace` | AMQP messages and what the port makes of them |
//! | `board` | what is wrong, as one health |
//! | `producer`, `listen`, `dead` | the producer's side |
//! | [`check`] | what `sparkferry check` asks |
//!
//! What holds: a channel's leases are lost together with it; a delivery is settled on the wire at
//! most once; a result is acknowledged for only after its confirm; the connection that consumes
//! never publishes, so that a blocked broker still takes acknowledgements.

mod ack;
mod board;
mod check;
mod confirm;
mod connect;
mod consume;
mod control;
mod dead;
mod declare;
mod door;
mod held;
mod inspect;
mod link;
mod listen;
mod message;
mod privilege;
mod producer;
mod publish;
mod replies;
mod size;
#[cfg(test)]
mod tests;
mod tls;
mod topology;
mod trace;
mod version;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use sparkferry_ports::queue::{
    Answer, Delivery, Health, Lease, LeaseLost, NotPublished, Outgoing, Queue, QueueError,
    SentCancel,
};
use sparkferry_shared::decode::Unreadable;
use sparkferry_shared::{Event, Topology};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::ack::Slots;
use self::connect::Broker;
use self::consume::{Outlet, Taker};
use self::declare::{Declarer, Role};
use self::link::{Context, Link};
use self::publish::{Confirms, Publisher};
use self::replies::Replies;
use crate::config::{BrokerUrl, QueueSettings};
use crate::observe::metrics;

pub use check::check;
pub use door::place;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use inspect::fuzzing;
pub use privilege::definitions_with_users;
pub use producer::AmqpProducer;
pub use topology::definitions;

/// Deliveries on their way to the worker; the others wait in lapin's buffer and at the broker.
const ON_THEIR_WAY: usize = 64;
/// The largest event that is sent, in bytes: every broker takes as much, unless it is told otherwise,
/// and nothing in an event that is of use is as large.
const EVENT_BYTES: usize = 1024 * 1024;
/// How long closing may take. What is not given back by then, the broker takes back by itself.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);
/// How long the end of subscriptions may take.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// The worker's side of RabbitMQ.
pub struct AmqpQueue {
    context: Arc<Context>,
    receiving: Link,
    publishing: Link,
    slots: Arc<Slots>,
    results: Publisher,
    buried: Publisher,
    replies: Replies,
    events: Publisher,
    stopping: CancellationToken,
    closing: CancellationToken,
    outlets: TaskTracker,
    takers: TaskTracker,
    hold_limit: Duration,
}

impl AmqpQueue {
    /// Opens the queue; it connects in the background. `connections` are those whose queues are
    /// declared (or checked) whenever it connects; `worker` is what the broker's operator sees in the
    /// names of our connections to it. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// Where the URL can't be read.
    pub fn open(
        url: &BrokerUrl,
        settings: &QueueSettings,
        topology: &Topology,
        worker: &str,
        connections: &[String],
    ) -> Result<Arc<Self>, QueueError> {
        let broker = Broker::new(url)?;
        let not_yet = format!("{}: not connected yet", broker.place());
        let role = Role::Worker(connections.to_vec());
        let declarer = Declarer::new(topology, role, settings.declare);
        let context = Context::new(broker, declarer, worker);
        context.board.set(RECEIVING, Some(not_yet.clone()));
        context.board.set(PUBLISHING, Some(not_yet));
        let receiving = Link::start(&context, RECEIVING, None);
        let publishing = Link::start(&context, PUBLISHING, None);
        let publisher =
            |purpose, confirms| Publisher::start(&context, &publishing, purpose, confirms);
        Ok(Arc::new(Self {
            results: publisher("results", Confirms::Yes),
            buried: publisher("dead letters", Confirms::Yes),
            replies: Replies::new(&context, &publishing),
            events: publisher("events", Confirms::No),
            slots: Arc::default(),
            stopping: CancellationToken::new(),
            closing: CancellationToken::new(),
            outlets: TaskTracker::new(),
            takers: TaskTracker::new(),
            hold_limit: settings.hold_limit,
            receiving,
            publishing,
            context,
        }))
    }
}

/// What these connections are for, in the log and to the broker's operator.
const RECEIVING: &str = "worker, receiving";
const PUBLISHING: &str = "worker, publishing";

#[async_trait]
impl Queue for AmqpQueue {
    async fn consume(&self, connection: &str, max_active_runs: u32) -> mpsc::Receiver<Delivery> {
        let (deliveries, receiver) = mpsc::channel(ON_THEIR_WAY);
        for prefetch in consume::shares(max_active_runs) {
            let taker = Taker {
                context: Arc::clone(&self.context),
                receiving: self.receiving.clone(),
                publishing: self.publishing.clone(),
                slots: Arc::clone(&self.slots),
                stopping: self.stopping.clone(),
                closing: self.closing.clone(),
                connection: connection.to_owned(),
                prefetch,
                hold_limit: self.hold_limit,
                untimed: AtomicBool::new(false),
            };
            let outlet = Outlet {
                deliveries: deliveries.clone(),
                _open: self.outlets.token(),
            };
            self.takers.spawn(taker.run(outlet));
        }
        receiver
    }

    async fn cancels(&self) -> mpsc::Receiver<SentCancel> {
        control::read(&self.context, &self.receiving).await
    }

    async fn finish(&self, leases: &[Answer], result: &Outgoing) -> Result<(), NotPublished> {
        self.announce(leases, result).await?;
        let mut settled = false;
        for answer in leases {
            settled |= self.slots.ack(&answer.lease);
        }
        settled.then_some(()).ok_or(NotPublished::LeaseLost)
    }

    async fn announce(&self, leases: &[Answer], result: &Outgoing) -> Result<(), NotPublished> {
        let unheard: Vec<&Answer> = leases.iter().filter(|answer| !answer.announced).collect();
        let Some(first) = unheard.first() else {
            return if leases.is_empty() {
                Err(NotPublished::LeaseLost)
            } else {
                Ok(())
            };
        };
        let began = Instant::now();
        let held = leases.iter().map(|answer| &answer.lease);
        let topology = self.context.declarer.topology();
        let message = || message::result(topology, result, first);
        held::publish(&self.context, &self.results, "results", held, message).await?;
        metrics::publish_confirmed(began.elapsed());

        let mut told: Vec<&str> = Vec::new();
        let asked = unheard.iter().filter_map(|answer| {
            let queue = answer.reply_to.as_deref()?;
            let new = !told.contains(&queue);
            told.push(queue);
            new.then_some((queue, answer))
        });
        let replies = asked.map(|(queue, answer)| {
            let message = move || message::reply(result, answer, queue);
            self.replies.send(queue, message)
        });
        join_all(replies).await;
        Ok(())
    }

    async fn hand_back(&self, lease: &Lease) {
        self.slots.hand_back(lease);
    }

    async fn bury(&self, delivery: &Delivery, why: &Unreadable) -> Result<(), LeaseLost> {
        let topology = self.context.declarer.topology();
        let connection = self.slots.connection(&delivery.lease);
        let (connection, mut max) = (connection.as_deref(), None);
        loop {
            let message = || message::dead_letter(topology, delivery, connection, why, max);
            let lease = std::iter::once(&delivery.lease);
            let letters = &self.buried;
            match held::publish(&self.context, letters, "dead letters", lease, message).await {
                Ok(()) => break,
                Err(NotPublished::LeaseLost) => return Err(LeaseLost),
                Err(NotPublished::TooLarge { max: told }) => max = Some(told),
            }
        }
        let settled = self.slots.ack(&delivery.lease);
        settled.then_some(()).ok_or(LeaseLost)
    }

    async fn reply(&self, reply_to: &str, correlation_id: Option<&str>, body: Bytes) {
        let message = || message::bare_reply(reply_to, correlation_id, body.clone());
        self.replies.send(reply_to, message).await;
    }

    fn tell(&self, event: Event) {
        let message = message::event(self.context.declarer.topology(), &event)
            .filter(|message| message.body.len() <= EVENT_BYTES);
        if !message.is_some_and(|message| self.events.try_publish(message)) {
            metrics::event_dropped();
        }
    }

    fn hold_limit(&self) -> Option<Duration> {
        Some(self.hold_limit)
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.context.board.watch()
    }

    async fn stop_consuming(&self) {
        self.stopping.cancel();
        self.outlets.close();
        if timeout(STOP_LIMIT, self.outlets.wait()).await.is_err() {
            tracing::debug!(
                "the broker does not answer; its subscriptions end with the connection"
            );
        }
    }

    async fn close(&self) {
        let closing = async {
            self.stop_consuming().await;
            self.closing.cancel();
            self.takers.close();
            self.takers.wait().await;
            let (receiving, publishing) = (self.receiving.now(), self.publishing.now());
            let replying = self.replies.now();
            if publishing.is_some() {
                self.events.flushed().await;
            }
            // First: nobody is to be told of an end that is our own doing.
            self.context.shutdown.cancel();
            for live in [receiving, publishing, replying].into_iter().flatten() {
                if let Err(error) = live.connection.close(200, connect::short("closing")).await {
                    tracing::debug!("the connection had ended already: {error}");
                }
            }
        };
        if timeout(CLOSE_LIMIT, closing).await.is_err() {
            tracing::warn!("the broker does not answer; it takes back by itself what was held");
        }
        self.context.shutdown.cancel();
    }
}

impl Drop for AmqpQueue {
    fn drop(&mut self) {
        self.stopping.cancel();
        self.closing.cancel();
        self.context.shutdown.cancel();
    }
}
