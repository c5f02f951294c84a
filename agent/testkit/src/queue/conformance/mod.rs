//! What every queue promises, as stories that each implementation runs.
//!
//! An implementation writes a [`Harness`] and one line, [`queue_conformance!`](crate::queue_conformance),
//! which makes a test of every story. Each story gets a harness with a queue of its own, and waits
//! only for things that must happen, never for nothing to happen: that something does *not* come is
//! shown by a later request that comes in its place.

mod deliveries;
mod news;
mod settling;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use sparkferry_shared::event::EventDetails;
use sparkferry_shared::{Event, EventType, Id, Names, Outcome, RunResult};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use sparkferry_ports::queue::{Answer, Delivery, News, Outgoing, Producer, Queue};

pub use deliveries::{
    a_dead_workers_requests_go_to_another, a_large_request_arrives_whole,
    a_request_is_delivered_once_while_it_is_held,
    a_worker_that_lost_its_leases_notices_and_goes_on, at_most_max_active_runs_are_unsettled,
    closing_hands_everything_back_at_once, connections_do_not_hold_each_other_up,
    one_subscription_takes_the_place_of_another, what_is_handed_back_goes_to_another,
    when_consuming_stops_what_is_held_stays_held,
};
pub use news::{
    a_cancel_reaches_workers_of_now_and_later, events_reach_those_who_listen,
    every_result_of_a_flood_comes_once,
};
pub use settling::{
    a_finished_request_is_gone_and_its_result_heard, a_finished_request_submitted_again,
    one_result_answers_every_delivery_of_its_request, what_cannot_be_read_is_buried,
    what_is_announced_is_heard_and_stays_on_loan,
};

/// How long a story waits for what must happen: a dead worker's leases have 30 s.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// How long it may take where no lease has to run out first.
pub const AT_ONCE: Duration = Duration::from_secs(10);

/// A queue to tell the stories on, of which nobody else knows. It is made anew for each story.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The worker's side.
    type Worker: Queue + 'static;
    /// The producer's side.
    type Producer: Producer + 'static;

    /// The names of two connections that the queue serves.
    fn connections(&self) -> [&str; 2];

    /// Whether a request that is done and submitted again is answered from memory. Where it is not,
    /// it is delivered again (and the engine then knows the run by its name).
    fn remembers_results(&self) -> bool;

    /// A fresh worker on the queue.
    async fn worker(&self) -> Arc<Self::Worker>;

    /// A fresh producer on the queue.
    async fn producer(&self) -> Arc<Self::Producer>;

    /// The worker dies, without closing: nothing of it runs any more. What it held must come back
    /// within 30 s.
    async fn kill(&self, worker: Arc<Self::Worker>);

    /// The worker lives, and the queue gives up on it: its connection is cut, or it was frozen for
    /// longer than its leases last. Returns when that is on its way.
    async fn sever(&self, worker: &Self::Worker);
}

/// Makes a test of every story of [`conformance`](crate::queue::conformance). The expression is a
/// future of a fresh [`Harness`]; it is awaited once for each story.
#[macro_export]
macro_rules! queue_conformance {
    ($harness:expr) => {
        $crate::queue_conformance! { @each $harness,
            a_request_is_delivered_once_while_it_is_held
            a_large_request_arrives_whole
            what_is_handed_back_goes_to_another
            a_dead_workers_requests_go_to_another
            a_worker_that_lost_its_leases_notices_and_goes_on
            at_most_max_active_runs_are_unsettled
            connections_do_not_hold_each_other_up
            closing_hands_everything_back_at_once
            when_consuming_stops_what_is_held_stays_held
            one_subscription_takes_the_place_of_another
            a_finished_request_is_gone_and_its_result_heard
            one_result_answers_every_delivery_of_its_request
            what_is_announced_is_heard_and_stays_on_loan
            a_finished_request_submitted_again
            what_cannot_be_read_is_buried
            a_cancel_reaches_workers_of_now_and_later
            events_reach_those_who_listen
            every_result_of_a_flood_comes_once
        }
    };
    (@each $harness:expr, $($story:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                let harness = $harness.await;
                $crate::queue::conformance::$story(&harness).await;
            }
        )*
    };
}

/// Waits for what must happen.
async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = timeout(limit, future).await else {
        panic!("waited {limit:?} in vain for {what}");
    };
    value
}

/// The next delivery, which must be this request.
async fn next(deliveries: &mut Receiver<Delivery>, wanted: &Id) -> Delivery {
    let what = format!("the delivery of {wanted}");
    let delivery = within(PATIENCE, &what, deliveries.recv())
        .await
        .expect("the receiver goes on");
    assert_eq!(delivery.message_id.as_deref(), Some(wanted.as_str()));
    delivery
}

/// The next result, past any events.
async fn next_result(news: &mut Receiver<News>, limit: Duration) -> RunResult {
    loop {
        match within(limit, "a result", news.recv()).await {
            Some(News::Result(result)) => return *result,
            Some(News::Event(_)) => {}
            None => panic!("the listener ended"),
        }
    }
}

fn id(text: &str) -> Id {
    text.parse().expect("the stories' ids are ids")
}

/// A request's body that differs from every other one.
fn body(id: &Id) -> Bytes {
    format!(r#"{{"id":"{id}","run_now":{{"job_id":1}}}}"#).into()
}

async fn submit(producer: &impl Producer, connection: &str, id: &Id) {
    within(
        AT_ONCE,
        "a submit",
        producer.submit(connection, id, body(id)),
    )
    .await
    .expect("the queue takes a request");
}

/// A SUCCESS, ready to be published.
fn success(connection: &str, id: &Id) -> Outgoing {
    let now = Timestamp::now();
    let result = RunResult {
        id: id.clone(),
        outcome: Outcome::Success,
        connection: connection.to_owned(),
        kind: None,
        labels: std::collections::BTreeMap::new(),
        attempts: Vec::new(),
        output: None,
        error: None,
        received_at: now,
        finished_at: now,
        worker: "conformance".to_owned(),
        redelivered: false,
        truncated: false,
    };
    Outgoing {
        message_id: Names::new("conformance", connection, id.as_str()).result(),
        id: id.clone(),
        connection: connection.to_owned(),
        outcome: result.outcome,
        body: serde_json::to_vec(&result)
            .expect("a result is JSON")
            .into(),
    }
}

fn answer(delivery: &Delivery) -> Answer {
    Answer {
        lease: delivery.lease.clone(),
        reply_to: delivery.reply_to.clone(),
        correlation_id: delivery.correlation_id.clone(),
        trace: delivery.trace.clone(),
        announced: false,
    }
}

/// Finishes a delivery with SUCCESS; it must still be held.
async fn finish(worker: &impl Queue, connection: &str, id: &Id, delivery: &Delivery) {
    let (answers, result) = ([answer(delivery)], success(connection, id));
    within(AT_ONCE, "finishing", worker.finish(&answers, &result))
        .await
        .expect("the lease is held");
}

/// Shows that nothing is left in a connection's queue: what comes next is what is submitted now.
async fn nothing_is_left<H: Harness>(harness: &H, connection: &str) {
    let (worker, producer) = (harness.worker().await, harness.producer().await);
    let mut deliveries = worker.consume(connection, 10).await;
    for marker in [id("nothing-left-1"), id("nothing-left-2")] {
        submit(&*producer, connection, &marker).await;
        let delivery = next(&mut deliveries, &marker).await;
        finish(&*worker, connection, &marker, &delivery).await;
    }
    producer.close().await;
    worker.close().await;
}

fn event(connection: &str, id: &Id, event_type: EventType) -> Event {
    Event {
        event_type,
        id: id.clone(),
        connection: connection.to_owned(),
        at: Timestamp::now(),
        worker: "conformance".to_owned(),
        labels: std::collections::BTreeMap::new(),
        attempt: None,
        details: EventDetails::default(),
    }
}
