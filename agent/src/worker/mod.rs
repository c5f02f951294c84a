//! The worker: deliveries in, one driver for each id, results out.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | start, cancels, drain |
//! | `lane` | one connection: its queue, its engine, its drivers |
//! | `driver` | one request: its walk and its settlement |
//! | `slot` | the loans by which a driver holds its request |
//! | `cancels` | the cancels in force |
//!
//! Guarantees: a request is acknowledged only after its result is confirmed. Stopping hands
//! everything back and cancels nothing. A panic in one request ends that request alone.

mod cancels;
mod driver;
mod lane;
mod slot;

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sparkferry_shared::Topology;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::Engine;
use crate::observe::runs::{Readiness, RunView};
use crate::queue::Queue;
use cancels::Cancels;
use lane::Lane;

/// How long a drain waits for results that are being published.
const DRAIN_GRACE: Duration = Duration::from_secs(4);

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
    /// For each connection: runs that may be under way, and its engine.
    pub engines: BTreeMap<String, (u32, Arc<dyn Engine>)>,
}

/// A worker. See the [module](self).
pub struct Worker {
    shared: Arc<Shared>,
    lanes: Vec<Arc<Lane>>,
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
    /// Runs a task that belongs to the worker: a drain waits for it, its panic is seen.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // Combinators: an async block would hold the task twice, as what it took and as what it awaits.
        let watched = AssertUnwindSafe(task).catch_unwind().map(|ended| {
            if let Err(panic) = ended {
                let what = driver::panic_text(panic.as_ref());
                tracing::error!(
                    what,
                    "a driver panicked outside its request; its delivery goes back at the drain"
                );
            }
        });
        self.drivers.spawn(watched);
    }
}

impl Worker {
    /// A worker that has not begun.
    pub fn new(parts: Parts) -> Self {
        let lanes = parts
            .engines
            .into_iter()
            .map(|(name, (max, engine))| Arc::new(Lane::new(name, max, engine)))
            .collect();
        Self {
            shared: Arc::new(Shared {
                topology: parts.topology,
                worker: parts.worker,
                max_message_bytes: parts.max_message_bytes,
                max_output_bytes: parts.max_output_bytes,
                queue: parts.queue,
                cancels: Cancels::default(),
                drain: CancellationToken::new(),
                drivers: TaskTracker::new(),
            }),
            lanes,
        }
    }

    /// Works until `stop` is cancelled, then hands everything back: within 10 s, cancelling nothing.
    ///
    /// # Errors
    /// A part of the worker itself panicked; everything is handed back all the same.
    pub async fn run(&self, stop: &CancellationToken) -> Result<(), JoinError> {
        let mut rooms = JoinSet::new();
        // Cancels first: a request that was cancelled while it waited should not be started.
        let cancels = self.shared.queue.cancels().await;
        rooms.spawn(heed(self.shared.clone(), self.lanes.clone(), cancels));
        for lane in &self.lanes {
            rooms.spawn(lane.clone().run(self.shared.clone()));
        }
        let ended = loop {
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                Some(room) = rooms.join_next() => if let Err(panic) = room {
                    break Err(panic);
                },
            }
        };
        self.drain().await;
        ended
    }

    async fn drain(&self) {
        let held: usize = self.lanes.iter().map(|lane| lane.len()).sum();
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

    /// The requests under way, at most `limit` of each connection.
    pub fn runs(&self, limit: usize) -> Vec<RunView> {
        self.lanes
            .iter()
            .flat_map(|lane| lane.views(limit))
            .collect()
    }

    /// Whether the worker can do its work, and if not, why.
    pub fn readiness(&self) -> Readiness {
        Readiness::new(
            self.shared.queue.health().borrow().trouble.clone(),
            self.lanes
                .iter()
                .map(|lane| (lane.name.clone(), lane.engine.trouble()))
                .collect(),
            self.shared.drain.is_cancelled(),
        )
    }
}

/// Passes cancels on to the requests that are here, and keeps them for those to come.
async fn heed(
    shared: Arc<Shared>,
    lanes: Vec<Arc<Lane>>,
    mut cancels: tokio::sync::mpsc::Receiver<sparkferry_shared::Cancel>,
) {
    while let Some(cancel) = cancels.recv().await {
        let reason = cancel.reason.clone().unwrap_or_default();
        // In this order: see `Lane::receive`.
        shared.cancels.insert(cancel.clone());
        for lane in &lanes {
            if cancel.concerns(&lane.name, &cancel.cancel) {
                lane.cancel(&cancel.cancel, &reason);
            }
        }
    }
}
