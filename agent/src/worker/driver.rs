//! One request in this worker: its loans, its cancel, its walk, its settlement.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures_util::FutureExt;
use jiff::Timestamp;
use sparkferry_ports::queue::{Lease, NotPublished};
use sparkferry_shared::decode::FieldFault;
use sparkferry_shared::event::EventDetails;
use sparkferry_shared::{ErrorClass, EventType, Id, Names, Outcome, Request, RunError, WorkKind};
use tokio::sync::Notify;

use super::Shared;
use super::host::LaneHost;
use super::lane::Lane;
use super::slot::{Loan, Slot};
use crate::flow::{Ending, Flow, Host};
use crate::observe::metrics;
use crate::observe::runs::RunView;
use crate::policy;

/// What others in this worker see of a request under way.
pub(super) struct Driver {
    pub(super) id: Id,
    /// The request's labels. (A map makes room for eleven where there are one or two.)
    labels: Vec<(String, String)>,
    pub(super) slot: Slot,
    pub(super) received_at: Timestamp,
    /// The queue delivered it more than once.
    redelivered: AtomicBool,
    cancel: OnceLock<String>,
    cancelled: Notify,
    seen: Mutex<Seen>,
}

/// The last thing told about the request.
#[derive(Debug, Default)]
struct Seen {
    attempt: Option<u32>,
    run_id: Option<i64>,
    run_page_url: Option<String>,
    state: Option<String>,
    progress: Option<(u64, u64)>,
}

impl Driver {
    pub(super) fn new(id: Id, labels: BTreeMap<String, String>, received_at: Timestamp) -> Self {
        Self {
            id,
            labels: labels.into_iter().collect(),
            slot: Slot::default(),
            received_at,
            redelivered: AtomicBool::new(false),
            cancel: OnceLock::new(),
            cancelled: Notify::new(),
            seen: Mutex::default(),
        }
    }

    /// The queue says that it had delivered it before.
    pub(super) fn note_redelivered(&self) {
        self.redelivered.store(true, Ordering::Relaxed);
    }

    pub(super) fn redelivered(&self) -> bool {
        self.redelivered.load(Ordering::Relaxed)
    }

    /// Cancels the request. Only the first reason counts.
    pub(super) fn cancel(&self, reason: String) {
        if self.cancel.set(reason).is_ok() {
            self.cancelled.notify_waiters();
        }
    }

    /// Waits until the request is cancelled; returns why. Cancel safe.
    pub(super) async fn cancelled(&self) -> String {
        loop {
            let cancelled = self.cancelled.notified();
            if let Some(reason) = self.cancel.get() {
                return reason.clone();
            }
            cancelled.await;
        }
    }

    /// Notes what is told of the request, for the status page; adds to it the attempt and the run that
    /// it is about, where they were told before.
    pub(super) fn note(&self, attempt: Option<u32>, details: &mut EventDetails) -> Option<u32> {
        let mut seen = self.seen();
        if attempt > seen.attempt {
            *seen = Seen::default();
        }
        seen.attempt = attempt.or(seen.attempt);
        seen.run_id = details.run_id.or(seen.run_id);
        details.run_id = seen.run_id;
        if details.run_page_url.is_some() {
            seen.run_page_url.clone_from(&details.run_page_url);
        }
        if details.state.is_some() {
            seen.state.clone_from(&details.state);
        }
        seen.progress = details.done.zip(details.total).or(seen.progress);
        seen.attempt
    }

    /// For the status page.
    pub(super) fn view(&self, connection: &str) -> RunView {
        let seen = self.seen();
        RunView {
            id: self.id.clone(),
            connection: connection.to_owned(),
            labels: self.labels(),
            received_at: self.received_at,
            attempt: seen.attempt,
            run_id: seen.run_id,
            run_page_url: seen.run_page_url.clone(),
            state: seen.state.clone(),
            done: seen.progress.map(|(done, _)| done),
            total: seen.progress.map(|(_, total)| total),
            cancel_requested: self.cancel.get().is_some(),
        }
    }

    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        self.labels.iter().cloned().collect()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request as its driver carries it out.
pub(super) struct Drive {
    pub(super) shared: Arc<Shared>,
    pub(super) lane: Arc<Lane>,
    pub(super) driver: Arc<Driver>,
    /// As far as that can be read.
    pub(super) kind: Option<WorkKind>,
    /// An earlier worker may have started runs for it.
    pub(super) perhaps_begun: bool,
}

impl Drive {
    /// Carries the request out, settles it and leaves the lane. Everything that can happen to it
    /// ends here: its ending, its loss to another worker, the worker's drain, a panic.
    ///
    /// Of a request that can't be carried out, `request` is what is wrong with it.
    pub(super) async fn run(self, request: Result<Box<Request>, FieldFault>) {
        let seat = Seat(&self);
        let carried = AssertUnwindSafe(self.carry_out(request)).catch_unwind();
        let Err(panic) = carried.await else {
            return;
        };
        let what = panic_text(panic.as_ref());
        tracing::error!(id = %self.driver.id, connection = self.lane.name, what, "a driver panicked outside its request, which is a bug of Sparkferry's; its delivery goes back");
        let left = self.driver.slot.close();
        // A copy of the request that comes from now on finds a driver of its own.
        drop(seat);
        if self.shared.rest_after_panic().await {
            for lease in left {
                self.hand_back(&lease).await;
            }
        }
    }

    async fn carry_out(&self, request: Result<Box<Request>, FieldFault>) {
        let host = LaneHost {
            drive: self,
            names: Names::new(
                self.shared.topology.namespace(),
                &self.lane.name,
                self.driver.id.as_str(),
            ),
        };
        host.tell(EventType::Accepted, None, EventDetails::default());

        // The walk is boxed: it is the larger part of a driver, and dropped as soon as it has ended.
        let walk = Box::pin(self.walk(&host, request));
        let ended = tokio::select! {
            biased;
            () = self.lane.drain.cancelled() => None,
            ending = walk => Some(ending),
            () = self.loans(&host) => None,
        };
        if let Some(ending) = ended {
            // Boxed, as the walk: drivers are many, and few of them are at their end.
            Box::pin(self.settle(&host, ending)).await;
        } else {
            Box::pin(self.give_back(&host)).await;
        }
    }

    async fn walk(&self, host: &LaneHost<'_>, request: Result<Box<Request>, FieldFault>) -> Ending {
        let request = match request {
            Ok(request) => request,
            Err(fault) => return rejected(RunError::new(ErrorClass::Request, fault.to_string())),
        };
        // Before anything of it reaches the engine; on every delivery, or a death at the right moment
        // would let a request in.
        let redelivered = self.driver.redelivered();
        if let Some(policy) = &self.lane.policy
            && let Err(breach) = policy::judge(policy, &request, redelivered)
        {
            return rejected(breach.to_error(redelivered));
        }
        let flow = Flow {
            engine: &*self.lane.engine,
            host,
            request,
            names: host.names,
            received_at: self.driver.received_at,
            seen_before: self.perhaps_begun,
            max_output_bytes: self.shared.max_output_bytes,
        };
        match AssertUnwindSafe(flow.carry_out()).catch_unwind().await {
            Ok(ending) => ending,
            Err(panic) => {
                let what = panic_text(panic.as_ref());
                tracing::error!(id = %self.driver.id, connection = self.lane.name, what, "the driver of a request panicked; the request is rejected");
                rejected(RunError::new(
                    ErrorClass::Request,
                    format!(
                        "the request crashed its driver, which is a bug of Sparkferry's: {what}"
                    ),
                ))
            }
        }
    }

    /// Gives loans back before the broker takes them. Returns once somebody else has the request.
    async fn loans(&self, host: &LaneHost<'_>) {
        loop {
            match self.driver.slot.next().await {
                Loan::DueBack(lease) => {
                    host.tell(EventType::HandedBack, None, EventDetails::default());
                    self.hand_back(&lease).await;
                }
                Loan::Gone => return,
            }
        }
    }

    /// Leaves the request to whoever receives it next.
    async fn give_back(&self, host: &LaneHost<'_>) {
        let left = self.driver.slot.close();
        if !left.is_empty() {
            host.tell(EventType::HandedBack, None, EventDetails::default());
        }
        for lease in left {
            self.hand_back(&lease).await;
        }
    }

    async fn hand_back(&self, lease: &Lease) {
        metrics::handed_back(&self.lane.name);
        // At a drain the queue's close gives all back in one go.
        if !self.shared.drain.is_cancelled() {
            self.shared.queue.hand_back(lease).await;
        }
    }

    /// Publishes the result, has it confirmed, acknowledges, releases.
    async fn settle(&self, host: &LaneHost<'_>, ending: Ending) {
        let (announced, run) = (ending.announced, ending.run);
        let result = host.result(ending.outcome, ending.attempts, ending.output, ending.error);
        let mut outgoing = host.outgoing(&result, None);
        loop {
            if !self.driver.slot.held_within_grace().await {
                // A loan that comes in this very moment goes back: nobody would be here to use it.
                return self.give_back(host).await;
            }
            let answers = self.driver.slot.answers();
            let finished = self.shared.queue.finish(&answers, &outgoing).await;
            if let Err(NotPublished::TooLarge { max }) = finished {
                outgoing = host.outgoing(&result, Some(max));
                continue;
            }
            // A copy of the request that came meanwhile is answered too.
            if self.driver.slot.settled(&answers, finished.is_ok()) {
                break;
            }
        }
        if !announced {
            host.tell_finished(result);
        }
        if let Some(mut run) = run {
            run.release().await;
        }
    }
}

/// A driver's place in its lane. However the driver ends, it takes no more loans and leaves.
struct Seat<'a>(&'a Drive);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let Drive { lane, driver, .. } = self.0;
        // Those that are left were dropped with the worker's runtime: the queue takes them back.
        driver.slot.close();
        lane.leave(driver);
    }
}

fn rejected(error: RunError) -> Ending {
    Ending {
        outcome: Outcome::Rejected,
        attempts: Vec::new(),
        output: None,
        error: Some(error),
        run: None,
        announced: false,
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
}
