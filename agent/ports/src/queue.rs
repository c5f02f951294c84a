//! The port to a queue: where requests come from and results go to.
//!
//! - [`Queue`] is the worker's side: deliveries, each with a [`Lease`]; finishing, handing back and
//!   burying them; events and cancels.
//! - [`Producer`] is the other side: what `sparkferry submit`, `cancel`, `watch` and `dead` do.
//!
//! Every implementation passes the conformance suite of the testkit.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use sparkferry_shared::decode::Unreadable;
use sparkferry_shared::{Cancel, Event, Id, Outcome, RunResult};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The worker's side of a queue.
///
/// Opening one never waits for a broker: whatever is not there yet is awaited in the background,
/// said in the log and shown by [`Queue::health`].
#[async_trait]
pub trait Queue: Send + Sync {
    /// Takes deliveries from a connection's queue, at most `max_active_runs` unsettled at a time.
    ///
    /// The receiver outlives reconnects; it ends after [`Queue::stop_consuming`] alone. Closed by who
    /// takes from it, it takes no more; what was delivered stays held, also what waits in it.
    async fn consume(&self, connection: &str, max_active_runs: u32) -> mpsc::Receiver<Delivery>;

    /// The cancels of the last 24 hours, then those to come. Each arrives at least once.
    ///
    /// Returns when the past ones are on their way, or after a few seconds where the broker can't
    /// be reached: a request that is cancelled before it is delivered should not be started.
    async fn cancels(&self) -> mpsc::Receiver<SentCancel>;

    /// Publishes a result and, once that is confirmed, acknowledges the deliveries it answers:
    /// to the results exchange once, and to each `reply_to`. Where all of them heard it by
    /// [`Queue::announce`] already, it is acknowledged alone.
    ///
    /// Repeats for as long as one of the leases is held; a result may so be published twice.
    /// Returns once the acknowledgement is on its way.
    ///
    /// # Errors
    /// See [`NotPublished`]: nothing is published, and nothing acknowledged.
    async fn finish(&self, leases: &[Answer], result: &Outgoing) -> Result<(), NotPublished>;

    /// Publishes a result as [`Queue::finish`] does and keeps the deliveries: the request is told of
    /// before it is done. Answers that are [`Answer::announced`] hear no more of it.
    ///
    /// # Errors
    /// See [`NotPublished`].
    async fn announce(&self, leases: &[Answer], result: &Outgoing) -> Result<(), NotPublished>;

    /// Gives a delivery back; another worker, or this one, receives it again. The run goes on.
    async fn hand_back(&self, lease: &Lease);

    /// Moves what can't be read to the dead letters, confirmed, and acknowledges it. Of a body that
    /// is larger than the queue takes the beginning is kept.
    async fn bury(&self, delivery: &Delivery, why: &Unreadable) -> Result<(), LeaseLost>;

    /// Tells the producer of something that had no usable id, if it named a queue for replies.
    /// Best effort: confirmed, or given up after a few seconds.
    async fn reply(&self, reply_to: &str, correlation_id: Option<&str>, body: Bytes);

    /// Tells an event. Never waits: what can't be sent at once, or is too large, is dropped and
    /// counted.
    fn tell(&self, event: Event);

    /// How long a delivery may be held before it must be handed back; `None` for ever.
    fn hold_limit(&self) -> Option<Duration>;

    /// Whether the queue can be reached, now and whenever that changes.
    fn health(&self) -> watch::Receiver<Health>;

    /// Ends the receivers of [`Queue::consume`] and takes nothing more. What is held stays held.
    async fn stop_consuming(&self);

    /// Hands back everything that is still held and closes. Takes at most a few seconds.
    async fn close(&self);
}

/// A request on loan from the queue.
#[derive(Debug)]
pub struct Delivery {
    /// The message's body.
    pub body: Bytes,
    /// The property `message_id`: the request's id, where the body has none.
    pub message_id: Option<String>,
    /// The property `correlation_id`, for the result.
    pub correlation_id: Option<String>,
    /// Where the producer wants the result too.
    pub reply_to: Option<String>,
    /// The headers `traceparent` and `tracestate`, for the result.
    pub trace: TraceContext,
    /// Its properties can't be read, for this reason: it is to be buried. What of them can be read
    /// is here all the same.
    pub unreadable: Option<Unreadable>,
    /// It was delivered before: an earlier worker may have started the run.
    pub seen_before: bool,
    /// When its producer sent it, by the producer's clock. `None` where the message does not say,
    /// and where the queue never delivers an id again that is done.
    pub sent_at: Option<Timestamp>,
    /// When it arrived here.
    pub received_at: Timestamp,
    /// The loan.
    pub lease: Lease,
}

/// A cancel as it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentCancel {
    /// The cancel.
    pub cancel: Cancel,
    /// When it was sent, by its sender's clock; `None` where that is not known.
    pub sent_at: Option<Timestamp>,
}

/// The W3C trace context of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// The header `traceparent`.
    pub parent: Option<String>,
    /// The header `tracestate`.
    pub state: Option<String>,
}

/// The loan of one delivery. While it is held, nobody else has the request.
///
/// Plain numbers to which the queue alone gives a meaning, and a token that tells when the loan
/// ended without us: the channel died, or the lease ran out.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Where it was delivered: a channel's generation, or a connection's number.
    pub slot: u64,
    /// Which delivery it is, there.
    pub number: u64,
    /// Cancelled once the loan has ended without us.
    pub lost: CancellationToken,
}

/// A delivery that a result answers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its loan.
    pub lease: Lease,
    /// Where its producer wants the result too.
    pub reply_to: Option<String>,
    /// Its `correlation_id`, if it had one.
    pub correlation_id: Option<String>,
    /// Its trace context.
    pub trace: TraceContext,
    /// Its producer has the result ([`Queue::announce`]).
    pub announced: bool,
}

/// A result, ready to be published.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The same however often it is published.
    pub message_id: Uuid,
    /// The request's id: the `correlation_id` where the request had none.
    pub id: Id,
    /// The first part of the routing key.
    pub connection: String,
    /// The second part of the routing key.
    pub outcome: Outcome,
    /// The [`RunResult`] as JSON.
    pub body: Bytes,
}

/// Nothing was settled: the broker has already lent the request to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the delivery is no longer ours")]
pub struct LeaseLost;

/// Why a result was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotPublished {
    /// None of the leases is held any more, somebody else has the request.
    #[error("the delivery is no longer ours")]
    LeaseLost,
    /// The queue takes no message of this size: the same result must be made smaller. `SQLite` has no
    /// such limit.
    #[error("the result is larger than the queue takes, which is {max} bytes")]
    TooLarge {
        /// The largest body that it takes, in bytes: at least [`SMALLEST_LIMIT`].
        max: usize,
    },
}

/// Bytes that every queue takes in a message, and every result can be cut to. (A queue that takes
/// less says so in its health, and results wait until it takes more.)
pub const SMALLEST_LIMIT: usize = 4096;

/// Whether a queue can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// `None` while all is well; else what is wrong, for a person.
    pub trouble: Option<String>,
}

/// The producer's side of a queue.
#[async_trait]
pub trait Producer: Send + Sync {
    /// Begins to listen. Must come before [`Producer::submit`] where a result is wanted back.
    async fn listen(&self, to: Listen) -> Result<mpsc::Receiver<News>, QueueError>;

    /// Puts a request into its connection's queue and returns once that is confirmed. An id that
    /// is there already is the same work: its result comes (again), nothing is run twice.
    async fn submit(&self, connection: &str, id: &Id, body: Bytes) -> Result<(), QueueError>;

    /// Sends a cancel to all workers.
    async fn cancel(&self, cancel: &Cancel) -> Result<(), QueueError>;

    /// The dead letters, oldest first, at most `limit`; they stay where they are.
    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, QueueError>;

    /// Takes dead letters off, at most `limit`: back into the queue they came from, or away.
    /// Returns how many.
    async fn settle_dead(&self, how: SettleDead, limit: usize) -> Result<usize, QueueError>;

    /// Closes, with everything sent.
    async fn close(&self);
}

/// What to listen to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// The results of what this producer submits, and the events of these ids.
    Mine(Vec<Id>),
    /// All events.
    Everything,
}

/// What a listener hears.
#[derive(Debug, Clone)]
pub enum News {
    /// A result. May come twice.
    Result(Box<RunResult>),
    /// An event.
    Event(Box<Event>),
}

/// A message that could not be read.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// One word.
    pub reason: String,
    /// A sentence.
    pub error: String,
    /// The connection whose queue it came from, if that is known.
    pub connection: Option<String>,
    /// The property `message_id`, if it had one.
    pub message_id: Option<String>,
    /// The body, whole.
    pub body: Bytes,
}

/// What to do with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettleDead {
    /// Back into the queue they came from.
    Requeue,
    /// Away.
    Drop,
}

/// A queue can't be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// It does not answer; it may later.
    #[error("{place}: not reachable: {why}")]
    Unreachable {
        /// The URL without its password.
        place: String,
        /// What happened and what to do.
        why: String,
    },
    /// It answers, and refuses: credentials, permissions, names that are not there.
    #[error("{place}: refused: {why}")]
    Refused {
        /// The URL without its password.
        place: String,
        /// What happened and what to do.
        why: String,
    },
    /// The message is larger than it takes.
    #[error("{place}: refused: {why}")]
    TooLarge {
        /// The URL without its password.
        place: String,
        /// What is too large, by how much, and what to do.
        why: String,
    },
    /// The setting itself is wrong.
    #[error("{setting}: {why}")]
    Setting {
        /// The setting's name.
        setting: String,
        /// What is wrong with it.
        why: String,
    },
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.trouble.as_deref().unwrap_or("ok"))
    }
}
