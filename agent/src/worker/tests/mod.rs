//! Stories of a worker on a paused clock, with a queue in memory and the fake engine.

mod abuse;
mod cancels;
mod large;
mod long;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use sparkferry_ports::queue::Outgoing;
use sparkferry_shared::{Cancel, Outcome, RunResult, Topology, WorkKind};
use sparkferry_testkit::engine::fake::{FakeEngine, World};
use sparkferry_testkit::queue::memory::{MemoryQueue, Message};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{Parts, Served, Worker};
use crate::config::PolicySettings;

const CONNECTION: &str = "prod";
/// Another one of the same worker, in the same world.
const OTHER: &str = "lake";
/// One more, with a policy that allows next to nothing.
const STRICT: &str = "strict";

struct Story {
    queue: Arc<MemoryQueue>,
    world: World,
    results: mpsc::UnboundedReceiver<Outgoing>,
    worker: Arc<Worker>,
    stop: CancellationToken,
    working: JoinHandle<()>,
}

impl Story {
    fn begin() -> Self {
        Self::begin_with(None)
    }

    fn begin_with(hold_limit: Option<Duration>) -> Self {
        let (queue, results) = MemoryQueue::new(hold_limit);
        let world = World::default();
        let (worker, stop, working) = start(&queue, &world);
        Self {
            queue,
            world,
            results,
            worker,
            stop,
            working,
        }
    }

    /// The worker ends.
    async fn stop(&mut self) {
        self.stop.cancel();
        (&mut self.working).await.expect("it ends well");
    }

    /// Another worker begins, after the end of the first.
    fn go_on(&mut self) {
        (self.worker, self.stop, self.working) = start(&self.queue, &self.world);
    }

    async fn result(&mut self) -> Outgoing {
        let told = timeout(Duration::from_mins(5), self.results.recv()).await;
        told.expect("a result in time").expect("the queue is there")
    }

    async fn end(self) {
        self.stop.cancel();
        self.working.await.expect("it ends well");
        assert_eq!(
            self.worker.overview(10).runs.len(),
            0,
            "a driver is left in its lane"
        );
    }
}

fn start(
    queue: &Arc<MemoryQueue>,
    world: &World,
) -> (Arc<Worker>, CancellationToken, JoinHandle<()>) {
    let served = || Served::new(100, Arc::new(FakeEngine::new(world.clone())));
    let strict = Served {
        policy: Some(PolicySettings {
            jobs: Some(crate::config::Jobs::default()),
            spot_only: true,
            max_timeout_seconds: Some(60),
            ..PolicySettings::default()
        }),
        ..served()
    };
    let worker = Arc::new(Worker::new(Parts {
        topology: Topology::new("stories"),
        worker: "tester".to_owned(),
        max_message_bytes: 1 << 20,
        max_output_bytes: 1024,
        queue: queue.clone(),
        engines: BTreeMap::from([
            (CONNECTION.to_owned(), served()),
            (OTHER.to_owned(), served()),
            (STRICT.to_owned(), strict),
        ]),
    }));
    let stop = CancellationToken::new();
    let working = tokio::spawn({
        let (worker, stop) = (worker.clone(), stop.clone());
        async move { worker.run(&stop).await.expect("no room panics") }
    });
    (worker, stop, working)
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_panics_while_it_settles_leaves_the_lane_and_gives_back() {
    let mut story = Story::begin();
    story.queue.panics_before.store(2, Ordering::Relaxed);
    let began = Instant::now();
    story.queue.submit("unlucky");
    let result = story.result().await;
    assert_eq!(result.outcome, Outcome::Success);
    assert_eq!(story.world.runs_started(), 1);
    // A bug that repeats itself must not spin.
    let handed_back = story.queue.handed_back.lock().unwrap().clone();
    assert_eq!(handed_back.len(), 2);
    assert!(began.elapsed() > Duration::from_secs(20), "{handed_back:?}");
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_comes_after_a_panic_finds_a_driver_of_its_own() {
    let mut story = Story::begin();
    story.queue.panics_after.store(1, Ordering::Relaxed);
    story.queue.submit("unlucky");
    let first = story.result().await;
    let began = Instant::now();
    story.queue.submit("unlucky");
    let second = story.result().await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(first.message_id, second.message_id);
    // What the first one held comes back and is answered too.
    story.result().await;
    assert_eq!(story.world.runs_started(), 1);
    assert_eq!(story.queue.unsettled(), 0);
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_burial_panics_goes_back_and_is_buried_when_it_comes_again() {
    let story = Story::begin();
    story.queue.panics_before.store(1, Ordering::Relaxed);
    let began = Instant::now();
    story.queue.put(Message {
        connection: CONNECTION.to_owned(),
        body: "no JSON".into(),
        ..Message::default()
    });
    let buried = timeout(Duration::from_mins(1), story.queue.until_all_settled());
    buried.await.expect("it is not kept until the drain");
    assert_eq!(story.queue.buried.load(Ordering::Relaxed), 1);
    assert!(began.elapsed() > Duration::from_secs(10), "it spins");
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_what_a_panic_left() {
    let mut story = Story::begin();
    story.queue.panics_after.store(1, Ordering::Relaxed);
    story.queue.submit("unlucky");
    story.result().await;
    let began = Instant::now();
    story.end().await;
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_held_until_its_run_has_ended_where_runs_need_attendance() {
    let mut story = Story::begin();
    story.world.wants_attendance();
    let plan = json!({ "duration_ms": 60_000 });
    let message = Message::run_now(CONNECTION, "early", &plan);
    let mut body: Value = serde_json::from_slice(&message.body).expect("JSON");
    body["wait"] = false.into();
    story.queue.put(Message {
        body: body.to_string().into(),
        ..message
    });
    let first = story.result().await;
    assert_eq!(first.outcome, Outcome::Submitted);
    assert_eq!(story.queue.unsettled(), 1);

    // Whoever has it next says the same, and attends the same run.
    story.stop().await;
    story.go_on();
    let second = story.result().await;
    assert_eq!(
        (second.outcome, second.message_id),
        (first.outcome, first.message_id)
    );
    story.queue.until_all_settled().await;
    assert_eq!(story.world.runs_started(), 1);
    assert!(story.results.try_recv().is_err(), "a third result");
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_went_back_and_came_again_was_redelivered() {
    let mut story = Story::begin_with(Some(Duration::from_secs(20)));
    let message = Message::run_now(CONNECTION, "long", &json!({ "duration_ms": 60_000 }));
    story.queue.put(message);
    let result = story.result().await;
    let result: RunResult = serde_json::from_slice(&result.body).expect("a result");
    assert!(result.redelivered, "{result:?}");
    assert_eq!(story.world.runs_started(), 1);
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_rejected_request_keeps_its_labels_and_its_kind() {
    let mut story = Story::begin();
    let body = json!({
        "id": "odd", "labels": { "team": "a" }, "run_now": { "job_id": 1 }, "tries": 3,
    });
    story.queue.put(Message {
        connection: CONNECTION.to_owned(),
        body: body.to_string().into(),
        ..Message::default()
    });
    let result = story.result().await;
    let result: RunResult = serde_json::from_slice(&result.body).expect("a result");
    assert_eq!(result.outcome, Outcome::Rejected);
    assert_eq!(result.labels["team"], "a");
    assert_eq!(result.kind, Some(WorkKind::RunNow));
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_again_after_its_cancel_has_the_ending_it_had() {
    let mut story = Story::begin();
    let second = |second| Some(Timestamp::from_second(second).unwrap());
    story.queue.submit_at("done", second(100));
    assert_eq!(story.result().await.outcome, Outcome::Success);
    for id in ["done", "waiting"] {
        let cancel = Cancel {
            cancel: id.parse().unwrap(),
            connection: None,
            reason: None,
        };
        story.queue.cancel(cancel, second(200)).await;
    }

    story.queue.submit_at("done", second(300));
    assert_eq!(story.result().await.outcome, Outcome::Success);
    // One that was in the queue when it was cancelled is never started.
    story.queue.submit_at("waiting", second(150));
    assert_eq!(story.result().await.outcome, Outcome::Canceled);
    assert_eq!(story.world.runs_started(), 1);
    story.end().await;
}
