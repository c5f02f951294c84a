//! The runs that are followed, and when to look at each. No I/O.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::entries::{Entries, Entry, Sweep};
use super::known::Known;

/// Runs on a page of runs/list.
const RUNS_A_PAGE: usize = 25;

/// The runs that are followed.
#[derive(Debug)]
pub(super) struct Book {
    entries: Mutex<Entries>,
    /// The next look is due earlier than it was.
    sooner: Notify,
    /// The shortest and the longest interval between two looks at a run.
    interval: (Duration, Duration),
}

/// What the watch tells those who follow a run.
#[derive(Debug, Clone)]
pub(super) enum Seen {
    /// Nobody has looked yet.
    Nothing,
    /// The run, as it was last seen.
    Run(Arc<Known>),
    /// The workspace doesn't know the run, in these words.
    Gone(Arc<str>),
}

/// Somebody's interest in a run. Dropping it ends the interest.
#[derive(Debug)]
pub(super) struct Following {
    book: Arc<Book>,
    run_id: i64,
    number: u64,
    /// What is seen of the run. The sender goes once nothing more can come.
    pub(super) seen: watch::Receiver<Seen>,
}

/// What the watch does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Look at this run.
    Get {
        /// The run.
        run_id: i64,
        /// Its repairs matter.
        history: bool,
    },
    /// Look at the pages of all active runs.
    Sweep,
    /// Nothing before this moment.
    Wait(Option<Instant>),
}

/// Whether pages of all active runs may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sweeping {
    /// They may; the active runs of others fill so many pages.
    Possible {
        /// Pages beyond those that our own runs fill.
        foreign_pages: usize,
    },
    /// They are being read.
    UnderWay,
    /// They can't be read.
    Impossible,
}

/// What a failed look means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Miss<'a> {
    /// The workspace says that there is no such run.
    Gone(&'a str),
    /// The call failed; it says nothing about the run.
    Fault,
}

impl Book {
    pub(super) fn new(interval: (Duration, Duration)) -> Arc<Self> {
        Arc::new(Self {
            entries: Mutex::new(Entries::new()),
            sooner: Notify::new(),
            interval,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows a run (and a round of it). `known` is what was just read of it, if anything; else the
    /// first look comes after about the shortest interval.
    pub(super) fn follow(
        self: &Arc<Self>,
        run_id: i64,
        round: Option<u32>,
        known: Option<Known>,
        now_ms: i64,
    ) -> Following {
        let known = known.map(Arc::new);
        if let Some(known) = known.as_ref().filter(|known| known.over(round)) {
            // Nothing more can come: nobody needs to look.
            let (_, seen) = watch::channel(Seen::Run(Arc::clone(known)));
            return self.following(run_id, 0, seen);
        }
        let mut entries = self.lock();
        entries.followings += 1;
        let number = entries.followings;
        let entry = entries.runs.entry(run_id).or_insert_with(|| Entry {
            teller: watch::Sender::new(Seen::Nothing),
            followers: 0,
            number,
            round: None,
            began_ms: now_ms,
            due: None,
            plan: 0,
            alone: false,
            gone: 0,
            faults: 0,
        });
        entry.followers += 1;
        entry.round = entry.round.max(round);
        entry.alone |= round.is_some();
        if let Some(known) = known {
            entry.tell(known);
        }
        let (number, seen) = (entry.number, entry.teller.subscribe());
        let age = now_ms.saturating_sub(entry.began_ms);
        self.schedule(&mut entries, run_id, self.interval(age, 0));
        drop(entries);
        self.following(run_id, number, seen)
    }

    fn following(
        self: &Arc<Self>,
        run_id: i64,
        number: u64,
        seen: watch::Receiver<Seen>,
    ) -> Following {
        Following {
            book: Arc::clone(self),
            run_id,
            number,
            seen,
        }
    }

    /// A tenth of the age, within the bounds, or longer after faults; and up to a fifth more, so
    /// that runs that were started together are not asked for together for ever.
    fn interval(&self, age_ms: i64, faults: u8) -> Duration {
        let (min, max) = self.interval;
        let tenth = Duration::from_millis(u64::try_from(age_ms).unwrap_or(0) / 10);
        let waited = min * 2_u32.pow(u32::from(faults.min(16)));
        let interval = tenth.max(waited).clamp(min, max);
        interval.mul_f64(1.0 + fastrand::f64() / 5.0)
    }

    fn schedule(&self, entries: &mut Entries, run_id: i64, after: Duration) {
        let now = Instant::now();
        // The clock of the process ends some day; so far away a look is never due.
        let due = now.checked_add(after).unwrap_or(now);
        let first = entries.first();
        if entries.put(run_id, due) && first.is_none_or(|first| due < first) {
            self.sooner.notify_one();
        }
    }

    /// A look at this run is wanted soon.
    pub(super) fn hurry(&self, run_id: i64) {
        let mut entries = self.lock();
        let soon = Instant::now() + self.interval.0;
        let due = entries.runs.get(&run_id).and_then(|entry| entry.due);
        if due.is_some_and(|due| due > soon) {
            self.schedule(&mut entries, run_id, self.interval.0);
        }
    }

    /// Waits until a look is due earlier than the last plan said.
    pub(super) async fn sooner(&self) {
        self.sooner.notified().await;
    }

    /// The earliest moment at which a run that is followed began, epoch milliseconds.
    pub(super) fn oldest_ms(&self) -> Option<i64> {
        self.lock().runs.values().map(|e| e.began_ms).min()
    }

    /// The cheapest next step: the look that is due first, or a sweep where more looks are due now
    /// and soon than it takes pages.
    pub(super) fn plan(&self, sweeping: Sweeping) -> Plan {
        let now = Instant::now();
        let mut entries = self.lock();
        let first = |set: &BTreeSet<(Instant, i64)>| set.first().map(|(due, _)| *due);
        let (shared, alone) = match sweeping {
            Sweeping::UnderWay => (None, first(&entries.alone)),
            _ => (first(&entries.shared), first(&entries.alone)),
        };
        let Some(due) = shared.into_iter().chain(alone).min() else {
            return Plan::Wait(None);
        };
        if due > now {
            return Plan::Wait(Some(due));
        }
        let can_share = shared == Some(due);
        if let (true, Sweeping::Possible { foreign_pages }) = (can_share, sweeping) {
            let pages = foreign_pages + entries.shared.len().div_ceil(RUNS_A_PAGE);
            // Counted no further than the answer needs.
            let soon = entries.due_by(now + self.horizon());
            if soon.take(pages + 1).count() > pages {
                return Plan::Sweep;
            }
        }
        let next = if can_share {
            entries.shared.pop_first()
        } else {
            entries.alone.pop_first()
        };
        let Some((run_id, entry)) =
            next.and_then(|(_, run_id)| Some((run_id, entries.runs.get_mut(&run_id)?)))
        else {
            return Plan::Wait(None);
        };
        entry.due = None;
        Plan::Get {
            run_id,
            history: entry.round.is_some(),
        }
    }

    /// Looks so far ahead are worth taking early if a page takes many of them together: else runs
    /// whose looks are spread over time would always be asked for one by one.
    fn horizon(&self) -> Duration {
        let (min, max) = self.interval;
        min.max(max / 4)
    }

    /// A walk through all pages begins. Says how many looks it can spare.
    pub(super) fn sweep_begins(&self) -> usize {
        let mut entries = self.lock();
        let until = Instant::now() + self.horizon();
        let left = entries.due_by(until).count();
        entries.sweep = Sweep {
            began: entries.plans,
            until,
            left,
        };
        left
    }

    /// How many of these looks are left.
    pub(super) fn left(&self) -> usize {
        self.lock().sweep.left
    }

    /// Pages that our own runs fill in runs/list.
    pub(super) fn own_pages(&self) -> usize {
        self.lock().shared.len().div_ceil(RUNS_A_PAGE)
    }

    /// All pages were read: who was followed when that began and was not among them has ended, or
    /// is hidden, and is asked for alone, now.
    pub(super) fn swept(&self) {
        let mut entries = self.lock();
        let began = entries.sweep.began;
        let untouched = |entry: &Entry| entry.due.is_some() && entry.plan <= began;
        let absent: Vec<i64> = entries
            .runs
            .iter()
            .filter(|(_, entry)| !entry.alone && untouched(entry))
            .map(|(run_id, _)| *run_id)
            .collect();
        for run_id in absent {
            if let Some(entry) = entries.runs.get_mut(&run_id) {
                entry.alone = true;
            }
            self.schedule(&mut entries, run_id, Duration::ZERO);
        }
    }

    /// Whether somebody follows this run, and a page of runs/list tells enough about it.
    pub(super) fn shares(&self, run_id: i64) -> bool {
        let entries = self.lock();
        entries
            .runs
            .get(&run_id)
            .is_some_and(|e| e.round.is_none() && e.due.is_some())
    }

    /// A run was seen.
    pub(super) fn saw(&self, run_id: i64, known: Known, now_ms: i64) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.runs.get_mut(&run_id) else {
            return false;
        };
        let known = Arc::new(known);
        let over = known.over(entry.round);
        entry.gone = 0;
        entry.faults = 0;
        // A run that was hidden from the list and is active after all comes back to it.
        entry.alone = entry.round.is_some();
        let changed = entry.tell(known);
        let age = now_ms.saturating_sub(entry.began_ms);
        if over {
            entries.remove(run_id);
        } else {
            self.schedule(&mut entries, run_id, self.interval(age, 0));
        }
        changed
    }

    /// A look failed. A run is gone when two looks in a row say so: one that was started a moment
    /// ago may not be everywhere yet.
    pub(super) fn missed(&self, run_id: i64, miss: Miss<'_>) {
        let mut entries = self.lock();
        let Some(entry) = entries.runs.get_mut(&run_id) else {
            return;
        };
        match miss {
            Miss::Gone(text) if entry.gone > 0 => {
                entry.teller.send_replace(Seen::Gone(text.into()));
                entries.remove(run_id);
            }
            Miss::Gone(_) => {
                entry.gone += 1;
                self.schedule(&mut entries, run_id, self.interval.0);
            }
            Miss::Fault => {
                entry.faults = entry.faults.saturating_add(1);
                let faults = entry.faults;
                self.schedule(&mut entries, run_id, self.interval(0, faults));
            }
        }
    }

    /// Looks that were under way and will not be answered are due again.
    pub(super) fn recover(&self) {
        let mut entries = self.lock();
        let lost: Vec<i64> = entries
            .runs
            .iter()
            .filter(|(_, entry)| entry.due.is_none())
            .map(|(run_id, _)| *run_id)
            .collect();
        for run_id in lost {
            self.schedule(&mut entries, run_id, self.interval(0, 1));
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut entries = self.book.lock();
        if let Some(entry) = entries.runs.get_mut(&self.run_id)
            && entry.number == self.number
        {
            entry.followers -= 1;
            if entry.followers == 0 {
                entries.remove(self.run_id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
