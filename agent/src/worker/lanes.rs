//! The connections of a worker, which may change while it works.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Engines;
use super::lane::Lane;

/// Connections that take the place of others. One that stands in both is opened anew.
#[derive(Default)]
pub struct Change {
    /// Names of those that are closed. What is not there is no error.
    pub close: BTreeSet<String>,
    /// Those that are opened.
    pub open: Engines,
}

/// A change on its way to the worker's loop.
pub(super) struct Request {
    pub(super) change: Change,
    /// Told when the change is made.
    pub(super) done: oneshot::Sender<()>,
}

impl Request {
    pub(super) fn new(change: Change) -> (Self, oneshot::Receiver<()>) {
        let (done, told) = oneshot::channel();
        (Self { change, done }, told)
    }
}

/// The lanes in use. A closed one is no longer among them while its last results are published.
pub(super) struct Lanes {
    lanes: Mutex<Vec<Arc<Lane>>>,
    drain: CancellationToken,
}

impl Lanes {
    /// None yet. The lanes to come are drained with `drain`.
    pub(super) fn new(drain: &CancellationToken) -> Self {
        Self {
            lanes: Mutex::default(),
            drain: drain.clone(),
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Lane>> {
        self.lock().clone()
    }

    /// Returns the new ones, which do not run yet.
    pub(super) fn open(&self, engines: Engines) -> Vec<Arc<Lane>> {
        let lane = |(name, served)| {
            let drain = self.drain.child_token();
            Arc::new(Lane::new(name, served, drain))
        };
        let opened: Vec<_> = engines.into_iter().map(lane).collect();
        self.lock().extend(opened.iter().cloned());
        opened
    }

    /// Closes and opens. Returns the new ones, which do not run yet.
    pub(super) fn carry_out(&self, change: Change) -> Vec<Arc<Lane>> {
        self.lock().retain(|lane| {
            let stays = !change.close.contains(&lane.name);
            if !stays {
                lane.drain.cancel();
            }
            stays
        });
        self.open(change.open)
    }

    /// One whose loop has not turned for so long.
    pub(super) fn stuck(&self, limit: Duration) -> Option<Arc<Lane>> {
        let lanes = self.all();
        lanes.into_iter().find(|lane| lane.turned_ago() > limit)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Lane>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use sparkferry_testkit::engine::fake::FakeEngine;

    use super::super::{STUCK, Served};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_does_not_turn_is_stuck() {
        let lanes = Lanes::new(&CancellationToken::new());
        let served = Served::new(1, Arc::new(FakeEngine::default()));
        lanes.open(Engines::from([("prod".to_owned(), served)]));
        tokio::time::advance(STUCK).await;
        assert!(lanes.stuck(STUCK).is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(lanes.stuck(STUCK).unwrap().name, "prod");
    }
}
