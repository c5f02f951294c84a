//! A connection that is made again for as long as anybody needs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::{Connection, Event};
use sparkferry_ports::queue::QueueError;
use tokio::sync::watch;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::board::Board;
use super::connect::{Broker, Pace};
use super::declare::Declarer;
use super::size::LargestMessage;
use super::version::Version;
use crate::observe::metrics;

/// How long to wait for another connection that others must not wait for, whatever ended the last one.
const APART_WAIT: Duration = Duration::from_millis(500);
/// How often a connection is looked at: one that the broker closes in good order ends without an
/// event.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long declaring everything may take: a cluster without a majority does not answer.
const DECLARE_LIMIT: Duration = Duration::from_secs(30);

/// What all connections of one queue or producer share.
pub(super) struct Context {
    /// Where to.
    pub(super) broker: Broker,
    /// What must be there.
    pub(super) declarer: Declarer,
    /// Who we are, in the names of our connections.
    client: String,
    /// What is wrong.
    pub(super) board: Board,
    /// Ends everything.
    pub(super) shutdown: CancellationToken,
    /// Every task.
    pub(super) tasks: TaskTracker,
    generations: AtomicU64,
}

impl Context {
    /// Nothing is started yet. `client` is a name for the broker's operator.
    pub(super) fn new(broker: Broker, declarer: Declarer, client: &str) -> Arc<Self> {
        Arc::new(Self {
            broker,
            declarer,
            client: client.to_owned(),
            board: Board::new(),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            generations: AtomicU64::new(1),
        })
    }

    /// A number that no connection or channel had before.
    pub(super) fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed)
    }
}

/// One connection, from its making to its end.
pub(super) struct Live {
    /// The connection.
    pub(super) connection: Connection,
    /// The broker's version, where it told one.
    pub(super) version: Option<Version>,
    /// Cancelled at its end.
    pub(super) dead: CancellationToken,
    /// The largest message that may be published on it.
    pub(super) largest: LargestMessage,
    _ends: DropGuard,
}

impl Live {
    /// Whether it has ended, perhaps a moment before [`Self::dead`] says so. The link tells people
    /// and paces the attempts; who uses it has only to wait for the next one.
    pub(super) fn is_over(&self) -> bool {
        self.dead.is_cancelled() || !self.connection.status().connected()
    }
}

/// A connection that is made again and again, in the background.
#[derive(Clone)]
pub(super) struct Link {
    live: watch::Receiver<Option<Arc<Live>>>,
    blocked: watch::Receiver<bool>,
    /// See [`Self::start_apart`].
    pub(super) apart: bool,
}

impl Link {
    /// Starts to connect. `role` says in the log and to the broker's operator what it is for;
    /// `first` is a connection that is made already.
    pub(super) fn start(
        context: &Arc<Context>,
        role: &'static str,
        first: Option<Connection>,
    ) -> Self {
        Self::start_as(context, role, first, false)
    }

    /// The same for a connection that others must not suffer from: it declares nothing, and what is
    /// wrong with it stands in the log alone, not in the health.
    pub(super) fn start_apart(context: &Arc<Context>, role: &'static str) -> Self {
        Self::start_as(context, role, None, true)
    }

    fn start_as(
        context: &Arc<Context>,
        role: &'static str,
        first: Option<Connection>,
        apart: bool,
    ) -> Self {
        let (live_tx, live) = watch::channel(None);
        let (blocked_tx, blocked) = watch::channel(false);
        let keeper = Keeper {
            context: Arc::clone(context),
            apart,
            role,
            live: live_tx,
            blocked: blocked_tx,
        };
        context.tasks.spawn(keeper.run(first));
        Self {
            live,
            blocked,
            apart,
        }
    }

    /// The connection, as soon as there is one. Never returns after the shutdown.
    pub(super) async fn live(&self) -> Arc<Live> {
        let mut live = self.live.clone();
        let found = live
            .wait_for(|live| live.as_ref().is_some_and(|live| !live.is_over()))
            .await
            .map(|live| live.clone());
        match found {
            Ok(Some(live)) => live,
            _ => std::future::pending().await,
        }
    }

    /// The connection, if there is one now.
    pub(super) fn now(&self) -> Option<Arc<Live>> {
        self.live.borrow().clone()
    }

    /// Returns once the broker takes what we publish.
    pub(super) async fn unblocked(&self) {
        let mut blocked = self.blocked.clone();
        if *blocked.borrow() && blocked.wait_for(|blocked| !blocked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The name of a connection, as the broker's operator sees it: what it is for, and whose it is.
pub(super) fn connection_name(role: &str, client: &str) -> String {
    format!("sparkferry {role}: {client}")
}

/// Who connects, where that has no name of its own.
pub(super) fn this_process() -> String {
    format!("process {}", std::process::id())
}

struct Keeper {
    context: Arc<Context>,
    apart: bool,
    role: &'static str,
    live: watch::Sender<Option<Arc<Live>>>,
    blocked: watch::Sender<bool>,
}

impl Keeper {
    async fn run(self, mut first: Option<Connection>) {
        let mut pace = Pace::new();
        let mut before = false;
        loop {
            let shutdown = &self.context.shutdown;
            let made = tokio::select! {
                () = shutdown.cancelled() => return,
                made = self.make(first.take()) => made,
            };
            pace.begin();
            let ended = match made {
                Ok(live) => {
                    self.came(&live, before);
                    before = true;
                    tokio::select! {
                        // An end that is our own doing is not told.
                        biased;
                        () = shutdown.cancelled() => return,
                        why = self.watch(live) => why,
                    }
                }
                Err(error) => error.to_string(),
            };
            let wait = if self.apart {
                APART_WAIT
            } else {
                pace.next_wait()
            };
            self.went(&ended, wait);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    async fn make(&self, first: Option<Connection>) -> Result<Arc<Live>, QueueError> {
        let context = &self.context;
        let connection = if let Some(connection) = first {
            connection
        } else {
            let name = connection_name(self.role, &context.client);
            context.broker.connect(&name).await?
        };
        if !self.apart {
            let ensuring = context.declarer.ensure(&context.broker, &connection);
            let Ok(ensured) = timeout(DECLARE_LIMIT, ensuring).await else {
                return Err(QueueError::Unreachable {
                    place: context.broker.place().to_owned(),
                    why: "it does not answer to declarations: has its cluster a majority?".into(),
                });
            };
            ensured?;
        }
        let version = context.broker.version();
        let dead = CancellationToken::new();
        Ok(Arc::new(Live {
            connection,
            version: version.and_then(|text| text.parse().ok()),
            largest: LargestMessage::unknown(),
            _ends: dead.clone().drop_guard(),
            dead,
        }))
    }

    fn came(&self, live: &Arc<Live>, before: bool) {
        self.tell(self.role, None);
        let place = self.context.broker.place();
        if before {
            metrics::queue_reconnected();
            tracing::info!(role = self.role, place, "connected to RabbitMQ again");
        } else {
            tracing::info!(role = self.role, place, "connected to RabbitMQ");
        }
        self.live.send_replace(Some(Arc::clone(live)));
    }

    fn went(&self, why: &str, wait: Duration) {
        if self.tell(self.role, Some(why.to_owned())) {
            tracing::warn!(
                role = self.role,
                "RabbitMQ can't be used, trying again: {why}"
            );
        } else {
            tracing::debug!(role = self.role, ?wait, "still not connected: {why}");
        }
    }

    /// Watches a connection until its end and tells why it ended.
    async fn watch(&self, live: Arc<Live>) -> String {
        let mut events = Box::pin(live.connection.events_listener());
        let mut look = interval(LOOK_EVERY);
        let why = loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => self.block(Some(&reason)),
                    Some(Event::ConnectionUnblocked) => self.block(None),
                    // A channel's errors come here too; who uses the channel sees them, unless it
                    // publishes without confirms: what is too large is learned here for it.
                    Some(Event::Error(error)) => {
                        live.largest.learn(&error);
                        if !live.connection.status().connected() {
                            break self.context.broker.error(&error).to_string();
                        }
                    }
                    Some(_) => {}
                    None => break self.closed(),
                },
                _ = look.tick() => if !live.connection.status().connected() {
                    break self.closed();
                },
            }
        };
        live.dead.cancel();
        self.live.send_replace(None);
        self.block(None);
        why
    }

    /// As [`Board::set`].
    fn tell(&self, source: &str, trouble: Option<String>) -> bool {
        !self.apart && self.context.board.set(source, trouble)
    }

    fn closed(&self) -> String {
        format!(
            "{}: the broker closed the connection",
            self.context.broker.place()
        )
    }

    fn block(&self, reason: Option<&str>) {
        let place = self.context.broker.place();
        let source = format!("{} blocked", self.role);
        let trouble = reason.map(|reason| {
            format!("{place}: blocked, the broker takes no messages ({reason}); new work waits")
        });
        let changed = self.tell(&source, trouble.clone());
        self.blocked.send_replace(reason.is_some());
        match trouble {
            Some(trouble) if changed => tracing::warn!("{trouble}"),
            None if changed => tracing::info!(place, "unblocked: the broker takes messages again"),
            _ => {}
        }
    }
}
