//! The loans by which a driver holds its request.
//!
//! Usually one. A second copy of the same request adds its own; a hand-back or a dead channel takes
//! one away, and the redelivery that follows brings one back, to the same driver if it is still
//! here. In between the driver goes on watching its run, but does nothing that others would see.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use sparkferry_ports::queue::{Answer, Lease};

/// How long a driver without a loan waits to be given one again: longer than a reconnect takes,
/// shorter than anyone would notice that nobody drives the run.
const GRACE: Duration = Duration::from_secs(15);

/// The loans of one driver.
#[derive(Debug, Default)]
pub(super) struct Slot {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    held: Vec<Held>,
    closed: bool,
}

#[derive(Debug)]
struct Held {
    answer: Answer,
    due_back: Option<Instant>,
}

/// What happened to a driver's loans.
#[derive(Debug)]
pub(super) enum Loan {
    /// It has been held long enough: give it back to the queue.
    DueBack(Lease),
    /// There has been none for a while: somebody else has the request.
    Gone,
}

impl Slot {
    /// Takes a delivery over. False if the driver has ended and takes nothing more.
    pub(super) fn take_over(&self, answer: Answer, due_back: Option<Instant>) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        // Nearly always the only one: a vector by itself would make room for four.
        state.held.reserve_exact(1);
        state.held.push(Held { answer, due_back });
        drop(state);
        self.changed.notify_waiters();
        true
    }

    /// Waits until there is a loan.
    pub(super) async fn held(&self) {
        loop {
            let changed = self.changed.notified();
            if self
                .lock()
                .held
                .iter()
                .any(|h| !h.answer.lease.lost.is_cancelled())
            {
                return;
            }
            changed.await;
        }
    }

    /// Waits until something has to be done about the loans. Cancel safe.
    pub(super) async fn next(&self) -> Loan {
        loop {
            let changed = self.changed.notified();
            let (first, lost) = {
                let mut state = self.lock();
                state.held.retain(|h| !h.answer.lease.lost.is_cancelled());
                let due = |h: &Held| h.due_back.is_some_and(|due| due <= Instant::now());
                if let Some(index) = state.held.iter().position(due) {
                    return Loan::DueBack(state.held.swap_remove(index).answer.lease);
                }
                let first = state.held.iter().filter_map(|h| h.due_back).min();
                (
                    first,
                    state.held.first().map(|h| h.answer.lease.lost.clone()),
                )
            };
            // One timer for both: this waits in every driver.
            let wake = match lost {
                Some(_) => first,
                None => Some(Instant::now() + GRACE),
            };
            tokio::select! {
                () = cancelled(lost.as_ref()) => {}
                () = at(wake) => if lost.is_none() {
                    return Loan::Gone;
                },
                () = changed => {}
            }
        }
    }

    /// Waits until there is a loan; false if none comes within the grace.
    pub(super) async fn held_within_grace(&self) -> bool {
        tokio::time::timeout(GRACE, self.held()).await.is_ok()
    }

    /// The loans that a result answers now. They stay here until [`Slot::settled`].
    pub(super) fn answers(&self) -> Vec<Answer> {
        self.lock().held.iter().map(|h| h.answer.clone()).collect()
    }

    /// Those who sent these have their result.
    pub(super) fn announced(&self, told: &[Answer]) {
        for held in &mut self.lock().held {
            let lease = &held.answer.lease;
            held.answer.announced |= told.iter().any(|answer| same(&answer.lease, lease));
        }
    }

    /// Takes these loans away: they are answered, or (not `finished`) no longer ours. True, and
    /// closed for good, if they were answered and no other one came meanwhile.
    pub(super) fn settled(&self, answered: &[Answer], finished: bool) -> bool {
        let mut state = self.lock();
        state
            .held
            .retain(|h| !answered.iter().any(|a| same(&a.lease, &h.answer.lease)));
        state.closed = finished && state.held.is_empty();
        state.closed
    }

    /// Takes nothing more; returns the loans that were left.
    pub(super) fn close(&self) -> Vec<Lease> {
        let mut state = self.lock();
        state.closed = true;
        state.held.drain(..).map(|h| h.answer.lease).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn same(a: &Lease, b: &Lease) -> bool {
    (a.slot, a.number) == (b.slot, b.number)
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn cancelled(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}
