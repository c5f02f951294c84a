//! The entries of the book, and the order in which they are due.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::book::Seen;
use super::known::Known;

#[derive(Debug)]
pub(super) struct Entries {
    pub(super) runs: HashMap<i64, Entry>,
    /// Looks that a page of runs/list can spare.
    pub(super) shared: BTreeSet<(Instant, i64)>,
    /// Looks by runs/get only: the run was not among the active ones, or is a repaired one.
    pub(super) alone: BTreeSet<(Instant, i64)>,
    pub(super) followings: u64,
    /// How often a look was planned.
    pub(super) plans: u64,
    pub(super) sweep: Sweep,
}

/// The latest walk through all pages.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Plans made before it began.
    pub(super) began: u64,
    /// Looks due by then are worth taking on the way.
    pub(super) until: Instant,
    /// How many of those are left.
    pub(super) left: usize,
}

/// A run that is followed. A few hundred bytes, whatever the run is.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) teller: watch::Sender<Seen>,
    pub(super) followers: u32,
    /// Tells this entry from a later one for the same run.
    pub(super) number: u64,
    /// The latest round that somebody follows.
    pub(super) round: Option<u32>,
    /// When the present round began, epoch milliseconds by the workspace's clock.
    pub(super) began_ms: i64,
    /// When the next look is due; none while one is under way.
    pub(super) due: Option<Instant>,
    /// The number of the plan that decided so.
    pub(super) plan: u64,
    /// The run must be asked for alone.
    pub(super) alone: bool,
    /// Looks in a row that found no such run.
    pub(super) gone: u8,
    /// Looks in a row that failed.
    pub(super) faults: u8,
}

impl Entries {
    pub(super) fn new() -> Self {
        Self {
            runs: HashMap::new(),
            shared: BTreeSet::new(),
            alone: BTreeSet::new(),
            followings: 0,
            plans: 0,
            sweep: Sweep {
                began: 0,
                until: Instant::now(),
                left: 0,
            },
        }
    }

    pub(super) fn first(&self) -> Option<Instant> {
        let first = |set: &BTreeSet<(Instant, i64)>| set.first().map(|(due, _)| *due);
        [first(&self.shared), first(&self.alone)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Looks that a page could spare and that are due by this moment.
    pub(super) fn due_by(&self, by: Instant) -> impl Iterator<Item = (Instant, i64)> {
        self.shared.range(..=(by, i64::MAX)).copied()
    }

    pub(super) fn put(&mut self, run_id: i64, due: Instant) -> bool {
        self.take(run_id);
        let Some(entry) = self.runs.get_mut(&run_id) else {
            return false;
        };
        self.plans += 1;
        entry.due = Some(due);
        entry.plan = self.plans;
        let alone = entry.alone;
        if alone {
            self.alone.insert((due, run_id))
        } else {
            self.shared.insert((due, run_id))
        }
    }

    pub(super) fn take(&mut self, run_id: i64) {
        if let Some(entry) = self.runs.get_mut(&run_id)
            && let Some(due) = entry.due.take()
        {
            self.alone.remove(&(due, run_id));
            let shared = self.shared.remove(&(due, run_id));
            if shared && due <= self.sweep.until && entry.plan <= self.sweep.began {
                self.sweep.left = self.sweep.left.saturating_sub(1);
            }
        }
    }

    pub(super) fn remove(&mut self, run_id: i64) {
        self.take(run_id);
        self.runs.remove(&run_id);
    }
}

impl Entry {
    /// Tells the followers, if they would notice a difference.
    pub(super) fn tell(&mut self, known: Arc<Known>) -> bool {
        if known.round_began() > 0 {
            self.began_ms = known.round_began();
        }
        self.teller.send_if_modified(|seen| {
            let differs = match &*seen {
                Seen::Run(before) => known.differs_from(before),
                _ => true,
            };
            if differs {
                *seen = Seen::Run(known);
            }
            differs
        })
    }
}
