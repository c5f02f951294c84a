//! Stories of a worker on a paused clock, with a queue in memory and the fake engine.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use sparkferry_shared::decode::Unreadable;
use sparkferry_shared::{Cancel, Event, Outcome, Topology};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{Parts, Served, Worker};
use crate::engine::fake::{FakeEngine, World};
use crate::queue::{
    Answer, Delivery, Health, Lease, LeaseLost, Outgoing, Queue, SentCancel, TraceContext,
};

const CONNECTION: &str = "prod";

/// A queue in memory. What is handed back is delivered again at once, as a broker would.
struct MemoryQueue {
    to_worker: mpsc::Sender<Delivery>,
    from_here: Mutex<Option<mpsc::Receiver<Delivery>>>,
    lent: Mutex<BTreeMap<u64, Bytes>>,
    numbers: AtomicU64,
    results: mpsc::UnboundedSender<Outgoing>,
    /// So many calls of `finish` panic, before or after they have published.
    panics_before: AtomicUsize,
    panics_after: AtomicUsize,
    handed_back: Mutex<Vec<Instant>>,
    cancel: mpsc::Sender<SentCancel>,
    cancels: Mutex<Option<mpsc::Receiver<SentCancel>>>,
    health: watch::Sender<Health>,
}

impl MemoryQueue {
    fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Outgoing>) {
        let (to_worker, from_here) = mpsc::channel(100);
        let (results, told) = mpsc::unbounded_channel();
        let (cancel, cancels) = mpsc::channel(1);
        let queue = Self {
            to_worker,
            from_here: Mutex::new(Some(from_here)),
            lent: Mutex::default(),
            numbers: AtomicU64::new(1),
            results,
            panics_before: AtomicUsize::new(0),
            panics_after: AtomicUsize::new(0),
            handed_back: Mutex::default(),
            cancel,
            cancels: Mutex::new(Some(cancels)),
            health: watch::Sender::default(),
        };
        (Arc::new(queue), told)
    }

    fn deliver(&self, body: Bytes, seen_before: bool, sent_at: Option<Timestamp>) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.lent.lock().unwrap().insert(number, body.clone());
        let delivery = Delivery {
            body,
            message_id: None,
            correlation_id: None,
            reply_to: None,
            trace: TraceContext::default(),
            seen_before,
            sent_at,
            received_at: Timestamp::now(),
            lease: Lease {
                slot: 1,
                number,
                lost: CancellationToken::new(),
            },
        };
        // Nobody takes it any more after the worker's end.
        let _ = self.to_worker.try_send(delivery);
    }

    fn submit(&self, id: &str) {
        self.submit_at(id, None);
    }

    fn submit_at(&self, id: &str, sent_at: Option<Timestamp>) {
        let body = json!({ "id": id, "run_now": { "job_id": 1, "fake": {} } });
        self.deliver(body.to_string().into(), false, sent_at);
    }

    fn unsettled(&self) -> usize {
        self.lent.lock().unwrap().len()
    }
}

/// True, and one less, while there are some.
fn take_one(left: &AtomicUsize) -> bool {
    let less = |left: usize| left.checked_sub(1);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
        .is_ok()
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn consume(&self, _: &str, _: u32) -> mpsc::Receiver<Delivery> {
        self.from_here.lock().unwrap().take().expect("once")
    }

    async fn cancels(&self) -> mpsc::Receiver<SentCancel> {
        self.cancels.lock().unwrap().take().expect("once")
    }

    async fn finish(&self, answers: &[Answer], result: &Outgoing) -> Result<(), LeaseLost> {
        assert!(!take_one(&self.panics_before), "a bug before publishing");
        self.results.send(result.clone()).unwrap();
        assert!(!take_one(&self.panics_after), "a bug after publishing");
        for answer in answers {
            self.lent.lock().unwrap().remove(&answer.lease.number);
        }
        Ok(())
    }

    async fn hand_back(&self, lease: &Lease) {
        let body = self.lent.lock().unwrap().remove(&lease.number);
        self.handed_back.lock().unwrap().push(Instant::now());
        self.deliver(body.expect("it was lent"), true, None);
    }

    async fn bury(&self, _: &Delivery, _: &Unreadable) -> Result<(), LeaseLost> {
        unreachable!("every request here can be read")
    }

    async fn reply(&self, _: &str, _: Option<&str>, _: Bytes) {}

    fn tell(&self, _: Event) {}

    fn hold_limit(&self) -> Option<Duration> {
        None
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    async fn stop_consuming(&self) {}

    async fn close(&self) {}
}

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
        let (queue, results) = MemoryQueue::new();
        let world = World::default();
        let engine = Arc::new(FakeEngine::new(world.clone()));
        let worker = Arc::new(Worker::new(Parts {
            topology: Topology::new("stories"),
            worker: "tester".to_owned(),
            max_message_bytes: 1 << 20,
            max_output_bytes: 1024,
            queue: queue.clone(),
            engines: BTreeMap::from([(CONNECTION.to_owned(), Served::new(100, engine))]),
        }));
        let stop = CancellationToken::new();
        let working = tokio::spawn({
            let (worker, stop) = (worker.clone(), stop.clone());
            async move { worker.run(&stop).await.expect("no room panics") }
        });
        Self {
            queue,
            world,
            results,
            worker,
            stop,
            working,
        }
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
        let sent_at = second(200);
        let heard = story
            .queue
            .cancel
            .send(SentCancel { cancel, sent_at })
            .await;
        heard.expect("the worker listens");
    }
    // Room for another one: the worker has taken the last of them.
    let room = story.queue.cancel.reserve().await;
    drop(room.expect("the worker listens"));

    story.queue.submit_at("done", second(300));
    assert_eq!(story.result().await.outcome, Outcome::Success);
    // One that was in the queue when it was cancelled is never started.
    story.queue.submit_at("waiting", second(150));
    assert_eq!(story.result().await.outcome, Outcome::Canceled);
    assert_eq!(story.world.runs_started(), 1);
    story.end().await;
}
