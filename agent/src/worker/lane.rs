//! One connection: its queue, its engine, and one driver for each id under way.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use jiff::Timestamp;
use serde_json::json;
use sparkferry_ports::engine::Engine;
use sparkferry_ports::queue::{Answer, Delivery, LeaseLost};
use sparkferry_shared::decode::{FieldFault, Unreadable};
use sparkferry_shared::{ErrorClass, Id, Outcome, RunError, Undecodable, decode};
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use super::driver::{Drive, Driver, panic_text};
use super::{Served, Shared};
use crate::config::PolicySettings;
use crate::observe::metrics;
use crate::observe::runs::RunView;

/// One connection of this worker.
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) max_active_runs: u32,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) policy: Option<PolicySettings>,
    /// Cancelled when the connection is closed, or the worker drains: everything goes back.
    pub(super) drain: CancellationToken,
    drivers: Mutex<HashMap<Id, Arc<Driver>>>,
    turned: Mutex<Instant>,
}

impl Lane {
    pub(super) fn new(name: String, served: Served, drain: CancellationToken) -> Self {
        Self {
            name,
            max_active_runs: served.max_active_runs,
            engine: served.engine,
            policy: served.policy,
            drain,
            drivers: Mutex::default(),
            turned: Mutex::new(Instant::now()),
        }
    }

    /// Takes deliveries until the queue gives no more, or the connection is closed.
    pub(super) async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        let mut deliveries = shared.queue.consume(&self.name, self.max_active_runs).await;
        let mut beat = interval(super::BEAT);
        loop {
            *self.turned.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            tokio::select! {
                biased;
                () = self.drain.cancelled() => break,
                delivery = deliveries.recv() => match delivery {
                    Some(delivery) => {
                        metrics::request_received(&self.name, delivery.seen_before);
                        self.receive(&shared, delivery);
                    }
                    // The worker drains; else this would be all that its queue will ever give.
                    None => return,
                },
                _ = beat.tick() => {}
            }
        }
        deliveries.close();
        while let Some(delivery) = deliveries.recv().await {
            shared.queue.hand_back(&delivery.lease).await;
        }
    }

    /// How long ago its loop turned, which it does all the time.
    pub(super) fn turned_ago(&self) -> Duration {
        let turned = self.turned.lock().unwrap_or_else(PoisonError::into_inner);
        turned.elapsed()
    }

    fn receive(self: &Arc<Self>, shared: &Arc<Shared>, mut delivery: Delivery) {
        let topology = &shared.topology;
        let forged = delivery
            .reply_to
            .take_if(|queue| !topology.takes_replies(queue));
        if let Some(why) = delivery.unreadable.take() {
            return self.bury(shared, delivery, why);
        }
        let message_id = delivery.message_id.as_deref();
        let decoded = decode(
            &delivery.body,
            message_id,
            Some(&self.name),
            shared.max_message_bytes,
        );
        let (id, kind, labels, request) = match decoded {
            Ok(mut request) if forged.is_none() => {
                // The walk has no use for them.
                let labels = std::mem::take(&mut request.labels);
                let kind = Some(request.work.kind());
                (request.id.clone(), kind, labels, Ok(Box::new(request)))
            }
            Err(Undecodable::Reject {
                id,
                kind,
                labels,
                fault,
            }) => (id, kind, labels, Err(fault)),
            Err(Undecodable::Bury(why)) => return self.bury(shared, delivery, why),
            Ok(request) => {
                let kind = Some(request.work.kind());
                (request.id, kind, request.labels, Err(not_for_replies()))
            }
        };
        let answer = Answer {
            lease: delivery.lease,
            reply_to: delivery.reply_to,
            correlation_id: delivery.correlation_id,
            trace: delivery.trace,
            announced: false,
        };
        let due_back = shared.queue.hold_limit().map(due_back);
        let driver = {
            let mut drivers = self.drivers();
            if let Some(driver) = drivers.get(&id)
                && driver.slot.take_over(answer.clone(), due_back)
            {
                if delivery.seen_before {
                    driver.note_redelivered();
                }
                metrics::delivery_adopted(&self.name);
                return;
            }
            let driver = Arc::new(Driver::new(id.clone(), labels, delivery.received_at));
            if delivery.seen_before {
                driver.note_redelivered();
            }
            driver.slot.take_over(answer, due_back);
            drivers.insert(id.clone(), driver.clone());
            driver
        };
        metrics::in_flight(&self.name, 1);
        // In this order: a cancel that arrives now finds the driver, one that came before is kept.
        let mut sent_again = false;
        if let Some(cancel) = shared.cancels.in_force(&self.name, &id) {
            // Nobody cancels what was not sent yet: this may be the copy of a request that is done,
            // and then its own ending is the true one. So the run is looked for.
            sent_again = cancel.is_older_than(delivery.sent_at);
            driver.cancel(cancel.reason);
        }
        let drive = Drive {
            shared: shared.clone(),
            lane: self.clone(),
            driver,
            kind,
            perhaps_begun: delivery.seen_before || sent_again,
        };
        shared.spawn(drive.run(request));
    }

    /// Moves what can't be read to the dead letters; who asked for an answer gets one.
    fn bury(self: &Arc<Self>, shared: &Arc<Shared>, delivery: Delivery, why: Unreadable) {
        tracing::warn!(connection = self.name, reason = why.reason(), error = %why, "a message can't be read and goes to the dead letters");
        let (lane, shared_) = (self.clone(), shared.clone());
        shared.spawn(async move {
            let burying = AssertUnwindSafe(shared_.queue.bury(&delivery, &why)).catch_unwind();
            match burying.await {
                Ok(Ok(())) => {}
                Ok(Err(LeaseLost)) => return,
                Err(panic) => {
                    let what = panic_text(panic.as_ref());
                    tracing::error!(connection = lane.name, what, "burying a message panicked, which is a bug of Sparkferry's; its delivery goes back");
                    if shared_.rest_after_panic().await {
                        metrics::handed_back(&lane.name);
                        shared_.queue.hand_back(&delivery.lease).await;
                    }
                    return;
                }
            }
            metrics::buried(&lane.name, why.reason());
            if let Some(reply_to) = &delivery.reply_to {
                let body = nameless(&lane.name, &shared_.worker, &delivery, &why);
                let correlation_id = delivery.correlation_id.as_deref();
                shared_.queue.reply(reply_to, correlation_id, body).await;
            }
        });
    }

    /// The driver of a request has ended.
    pub(super) fn leave(&self, driver: &Arc<Driver>) {
        let mut drivers = self.drivers();
        if drivers
            .get(&driver.id)
            .is_some_and(|d| Arc::ptr_eq(d, driver))
        {
            drivers.remove(&driver.id);
        }
        drop(drivers);
        metrics::in_flight(&self.name, -1);
    }

    /// Cancels a request, if it is here.
    pub(super) fn cancel(&self, id: &Id, reason: &str) {
        if let Some(driver) = self.drivers().get(id) {
            driver.cancel(reason.to_owned());
        }
    }

    /// The requests under way, for the status page: at most `limit`, those that came first.
    pub(super) fn views(&self, limit: usize) -> Vec<RunView> {
        let mut drivers: Vec<Arc<Driver>> = self.drivers().values().cloned().collect();
        drivers.sort_unstable_by(|a, b| (a.received_at, &a.id).cmp(&(b.received_at, &b.id)));
        let first = drivers.iter().take(limit);
        first.map(|driver| driver.view(&self.name)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.drivers().len()
    }

    fn drivers(&self) -> MutexGuard<'_, HashMap<Id, Arc<Driver>>> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The longest text of what is wrong with a message that names no id.
const ERROR_BYTES: usize = 1024;

/// The REJECTED result of a message that names no id: a result's fields with `id` null. It goes to
/// who asked for it by `reply_to` alone, never to the results queue.
fn nameless(connection: &str, worker: &str, delivery: &Delivery, why: &Unreadable) -> Bytes {
    let mut error = why.to_string();
    error.truncate(error.floor_char_boundary(ERROR_BYTES));
    let result = json!({
        "id": null,
        "outcome": Outcome::Rejected,
        "connection": connection,
        "labels": {},
        "attempts": [],
        "output": null,
        "error": RunError::new(ErrorClass::Request, error),
        "received_at": delivery.received_at,
        "finished_at": Timestamp::now(),
        "worker": worker,
        "redelivered": delivery.seen_before,
    });
    result.to_string().into()
}

/// What is wrong with a request that wants its result where requests, results or dead letters are.
fn not_for_replies() -> FieldFault {
    FieldFault {
        field: "reply_to".to_owned(),
        reason:
            "the property names one of Sparkferry's own queues; name a queue of the producer's, \
                 or one that begins with the namespace and `.replies.`"
                .to_owned(),
    }
}

/// When a delivery that came now is to be given back: before the limit, and not all at once.
fn due_back(limit: Duration) -> Instant {
    Instant::now() + limit.mul_f64(0.75 + 0.2 * fastrand::f64())
}
