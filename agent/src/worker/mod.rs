//! The worker: deliveries in, one driver for each id, results out.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | start, cancels, drain |
//! | `lanes` | the connections it has, and how others take their place |
//! | `lane` | one connection: its queue, its engine, its drivers |
//! | `driver` | one request: its walk and its settlement |
//! | `fit` | a result, cut to what can be published |
//! | `slot` | the loans by which a driver holds its request |
//! | `cancels` | the cancels in force |
//!
//! Guarantees: a request is acknowledged only after its result is confirmed. Stopping hands
//! everything back and cancels nothing. A panic in one request ends that request alone.

mod cancels;
mod driver;
mod fit;
mod host;
mod lane;
mod lanes;
mod slot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use sparkferry_ports::engine::Engine;
use sparkferry_ports::queue::{Queue, SentCancel};
use sparkferry_shared::Topology;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::PolicySettings;
use crate::observe::runs::{Overview, Readiness};
use cancels::Cancels;
use lanes::{Lanes, Request};

pub use lanes::Change;

/// How long a drain waits for results that are being published.
const DRAIN_GRACE: Duration = Duration::from_secs(4);

/// How long what panicked outside a request keeps what it holds: a bug that comes again with the
/// redelivery is then one line in the log now and then, and not a worker that does nothing else.
const AFTER_PANIC: Duration = Duration::from_secs(15);

/// How often each of the worker's loops turns, though nothing happens.
const BEAT: Duration = Duration::from_secs(1);

/// A loop that has not turned for so long is stuck.
const STUCK: Duration = Duration::from_secs(10);

/// The connections that a worker serves, by name.
pub type Engines = BTreeMap<String, Served>;

/// A connection that a worker serves.
pub struct Served {
    /// Runs that may be under way here at once.
    pub max_active_runs: u32,
    /// Where they happen.
    pub engine: Arc<dyn Engine>,
    /// What its requests may ask for; without one, anything.
    pub policy: Option<PolicySettings>,
}

impl Served {
    /// One without a policy.
    pub fn new(max_active_runs: u32, engine: Arc<dyn Engine>) -> Self {
        Self {
            max_active_runs,
            engine,
            policy: None,
        }
    }
}

/// What a worker is made of.
pub struct Parts {
    /// The names on the broker.
    pub topology: Topology,
    /// What the worker calls itself.
    pub worker: String,
    /// The largest request, in bytes.
    pub max_message_bytes: usize,
    /// The largest output inside a result, in bytes.
    pub max_output_bytes: usize,
    /// Where requests come from.
    pub queue: Arc<dyn Queue>,
    /// Its connections.
    pub engines: Engines,
}

/// A worker. See the [module](self).
pub struct Worker {
    shared: Arc<Shared>,
    lanes: Arc<Lanes>,
    changes: mpsc::Sender<Request>,
    asked: Mutex<mpsc::Receiver<Request>>,
    turned: watch::Sender<()>,
    /// One of the lanes' loops does not turn.
    stuck: AtomicBool,
}

/// What all drivers share.
pub(crate) struct Shared {
    topology: Topology,
    worker: String,
    max_message_bytes: usize,
    max_output_bytes: usize,
    queue: Arc<dyn Queue>,
    cancels: Cancels,
    drain: CancellationToken,
    drivers: TaskTracker,
}

impl Shared {
    /// Runs a task that belongs to the worker: a drain waits for it, its panic is seen. (A driver
    /// sees to its own panics.)
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // Combinators: an async block would hold the task twice, as what it took and as what it awaits.
        let watched = AssertUnwindSafe(task).catch_unwind().map(|ended| {
            if let Err(panic) = ended {
                let what = driver::panic_text(panic.as_ref());
                tracing::error!(
                    what,
                    "a task of the worker panicked; what it held goes back at the drain"
                );
            }
        });
        self.drivers.spawn(watched);
    }

    /// Waits after a panic whose loans are still held; false where the queue's close gives all back.
    async fn rest_after_panic(&self) -> bool {
        tokio::select! {
            () = self.drain.cancelled() => false,
            () = tokio::time::sleep(AFTER_PANIC) => true,
        }
    }
}

impl Worker {
    /// A worker that has not begun.
    pub fn new(parts: Parts) -> Self {
        let drain = CancellationToken::new();
        let lanes = Lanes::new(&drain);
        lanes.open(parts.engines);
        let (changes, asked) = mpsc::channel(1);
        Self {
            shared: Arc::new(Shared {
                topology: parts.topology,
                worker: parts.worker,
                max_message_bytes: parts.max_message_bytes,
                max_output_bytes: parts.max_output_bytes,
                queue: parts.queue,
                cancels: Cancels::default(),
                drain,
                drivers: TaskTracker::new(),
            }),
            lanes: Arc::new(lanes),
            changes,
            asked: Mutex::new(asked),
            turned: watch::Sender::new(()),
            stuck: AtomicBool::new(false),
        }
    }

    /// Works until `stop` is cancelled, then hands everything back: within 10 s, cancelling nothing.
    ///
    /// # Errors
    /// A part of the worker itself panicked; everything is handed back all the same.
    pub async fn run(&self, stop: &CancellationToken) -> Result<(), JoinError> {
        let mut rooms = JoinSet::new();
        // Cancels first: a request that was cancelled while it waited should not be started. A queue
        // that is out of reach has none to tell, and keeps nobody from stopping.
        let cancels = tokio::select! {
            () = stop.cancelled() => {
                self.drain().await;
                return Ok(());
            }
            cancels = self.shared.queue.cancels() => cancels,
        };
        rooms.spawn(heed(self.shared.clone(), self.lanes.clone(), cancels));
        for lane in self.lanes.all() {
            rooms.spawn(lane.run(self.shared.clone()));
        }
        let mut changes = self.asked.lock().await;
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ended = loop {
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                Some(room) = rooms.join_next() => if let Err(panic) = room {
                    break Err(panic);
                },
                Some(Request { change, done }) = changes.recv() => {
                    for lane in self.lanes.carry_out(change) {
                        rooms.spawn(lane.run(self.shared.clone()));
                    }
                    // Nobody may wait for it any more.
                    let _ = done.send(());
                }
                _ = beat.tick() => self.turn(),
            }
        };
        // Who asks for a change from now on is told that there is none.
        changes.close();
        drop(changes);
        self.drain().await;
        ended
    }

    /// Puts connections in the place of others, while everything goes on. False where the worker has
    /// ended, or ends before it came to it.
    ///
    /// What a closed connection held is handed back; its runs go on. One that is opened under the
    /// same name is given the requests again and finds their runs.
    pub async fn change(&self, change: Change) -> bool {
        let (request, done) = Request::new(change);
        self.changes.send(request).await.is_ok() && done.await.is_ok()
    }

    /// Changes whenever the worker's own loop has turned, once a second, and found that those of
    /// all its connections turn too: what a watchdog is to be fed by.
    pub fn turns(&self) -> watch::Receiver<()> {
        self.turned.subscribe()
    }

    fn turn(&self) {
        let stuck = self.lanes.stuck(STUCK);
        let was_stuck = self.stuck.swap(stuck.is_some(), Ordering::Relaxed);
        match stuck {
            Some(lane) if !was_stuck => tracing::error!(
                connection = lane.name,
                "the loop that takes deliveries is stuck, which is a bug of Sparkferry's"
            ),
            Some(_) => {}
            None => self.turned.send_replace(()),
        }
    }

    async fn drain(&self) {
        let held = self.in_flight();
        tracing::info!(held, "handing everything back; runs go on");
        self.shared.queue.stop_consuming().await;
        self.shared.drain.cancel();
        self.shared.drivers.close();
        let settled = tokio::time::timeout(DRAIN_GRACE, self.shared.drivers.wait()).await;
        if settled.is_err() {
            tracing::warn!(
                left = self.shared.drivers.len(),
                "results are still being published; their requests go back, and will be answered again"
            );
        }
        self.shared.queue.close().await;
    }

    /// How many requests are under way.
    pub fn in_flight(&self) -> usize {
        self.lanes.all().iter().map(|lane| lane.len()).sum()
    }

    /// What it is doing, with at most `limit` requests of each connection.
    pub fn overview(&self, limit: usize) -> Overview {
        let lanes = self.lanes.all();
        Overview {
            worker: self.shared.worker.clone(),
            now: Timestamp::now(),
            readiness: self.readiness(),
            in_flight: lanes
                .iter()
                .map(|lane| (lane.name.clone(), lane.len()))
                .collect(),
            runs: lanes.iter().flat_map(|lane| lane.views(limit)).collect(),
        }
    }

    /// Whether the worker can do its work, and if not, why.
    pub fn readiness(&self) -> Readiness {
        Readiness::new(
            self.shared.queue.health().borrow().trouble.clone(),
            self.lanes
                .all()
                .iter()
                .map(|lane| (lane.name.clone(), lane.engine.trouble()))
                .collect(),
            self.shared.drain.is_cancelled(),
        )
    }
}

/// Passes cancels on to the requests that are here, and keeps them for those to come.
async fn heed(shared: Arc<Shared>, lanes: Arc<Lanes>, mut cancels: mpsc::Receiver<SentCancel>) {
    while let Some(sent) = cancels.recv().await {
        let cancel = sent.cancel.clone();
        let reason = cancel.reason.clone().unwrap_or_default();
        // In this order: see `Lane::receive`.
        shared.cancels.insert(sent);
        for lane in lanes.all() {
            if cancel.concerns(&lane.name, &cancel.cancel) {
                lane.cancel(&cancel.cancel, &reason);
            }
        }
    }
}
