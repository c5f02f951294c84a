//! A queue in memory that lends, takes back and delivers again as a broker does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use sparkferry_ports::queue::{
    Answer, Delivery, Health, Lease, LeaseLost, NotPublished, Outgoing, Queue, SentCancel,
    TraceContext,
};
use sparkferry_shared::decode::Unreadable;
use sparkferry_shared::{Cancel, Event};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The connection of requests that name none.
pub const CONNECTION: &str = "prod";

/// A message as the queue keeps it.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// The connection whose queue it is in.
    pub connection: String,
    /// The request.
    pub body: Bytes,
    /// The property `message_id`.
    pub name: Option<String>,
    /// Where its producer wants the result too.
    pub reply_to: Option<String>,
    /// When its producer sent it.
    pub sent_at: Option<Timestamp>,
    /// It was delivered before.
    pub seen_before: bool,
}

impl Message {
    /// A request whose run follows this plan.
    pub fn run_now(connection: &str, id: &str, plan: &Value) -> Self {
        let body = json!({ "id": id, "run_now": { "job_id": 1, "fake": plan } });
        Self {
            connection: connection.to_owned(),
            body: body.to_string().into(),
            ..Self::default()
        }
    }
}

/// Everything that stands in the queue, and who takes from it.
#[derive(Debug, Default)]
struct Books {
    ready: VecDeque<Message>,
    lent: BTreeMap<u64, (Message, CancellationToken)>,
    consumers: BTreeMap<String, mpsc::Sender<Delivery>>,
    cancels: Vec<SentCancel>,
    away: bool,
}

impl Books {
    /// What was lent by number stands in the queue again.
    fn take_back(&mut self, number: u64) {
        if let Some((message, lost)) = self.lent.remove(&number) {
            lost.cancel();
            let seen_before = true;
            self.ready.push_back(Message {
                seen_before,
                ..message
            });
        }
    }

    fn take_all_back(&mut self) {
        let lent: Vec<u64> = self.lent.keys().copied().collect();
        for number in lent {
            self.take_back(number);
        }
    }
}

/// One worker at a time takes from it.
pub struct MemoryQueue {
    books: Mutex<Books>,
    numbers: AtomicU64,
    results: mpsc::UnboundedSender<Outgoing>,
    settled: Notify,
    /// So many calls of `finish`, or of `bury`, panic before they have published.
    pub panics_before: AtomicUsize,
    /// So many calls of `finish` panic after they have published.
    pub panics_after: AtomicUsize,
    /// Messages that were buried.
    pub buried: AtomicUsize,
    /// Replies to messages without a usable id.
    pub replied: AtomicUsize,
    /// The largest result that it takes, in bytes.
    pub largest: AtomicUsize,
    /// When each delivery was handed back.
    pub handed_back: Mutex<Vec<Instant>>,
    /// How long a delivery may be held.
    pub hold_limit: Option<Duration>,
    listener: Mutex<Option<mpsc::Sender<SentCancel>>>,
    health: watch::Sender<Health>,
}

impl MemoryQueue {
    /// An empty one, and the results that are published to it.
    pub fn new(hold_limit: Option<Duration>) -> (Arc<Self>, mpsc::UnboundedReceiver<Outgoing>) {
        let (results, told) = mpsc::unbounded_channel();
        let queue = Self {
            books: Mutex::default(),
            numbers: AtomicU64::new(1),
            results,
            settled: Notify::new(),
            panics_before: AtomicUsize::new(0),
            panics_after: AtomicUsize::new(0),
            buried: AtomicUsize::new(0),
            replied: AtomicUsize::new(0),
            largest: AtomicUsize::new(usize::MAX),
            handed_back: Mutex::default(),
            hold_limit,
            listener: Mutex::default(),
            health: watch::Sender::default(),
        };
        (Arc::new(queue), told)
    }

    fn measure(&self, result: &Outgoing) -> Result<(), NotPublished> {
        let max = self.largest.load(Ordering::Relaxed);
        if result.body.len() > max {
            return Err(NotPublished::TooLarge { max });
        }
        Ok(())
    }

    /// Puts a message at the end.
    pub fn put(&self, message: Message) {
        self.books.lock().unwrap().ready.push_back(message);
        self.lend();
    }

    /// A request that succeeds at once.
    pub fn submit(&self, id: &str) {
        self.submit_at(id, None);
    }

    /// The same, sent at this moment.
    pub fn submit_at(&self, id: &str, sent_at: Option<Timestamp>) {
        self.put(Message {
            sent_at,
            ..Message::run_now(CONNECTION, id, &json!({}))
        });
    }

    /// Returns when the worker that is there, if one is, has heard of it.
    pub async fn cancel(&self, cancel: Cancel, sent_at: Option<Timestamp>) {
        let sent = SentCancel { cancel, sent_at };
        self.books.lock().unwrap().cancels.push(sent.clone());
        let listener = self.listener.lock().unwrap().clone();
        // The one of a worker that has ended hears no more.
        if let Some(listener) = listener
            && listener.send(sent).await.is_ok()
        {
            let taken = listener.reserve_many(listener.max_capacity()).await;
            drop(taken.expect("the worker listens"));
        }
    }

    /// The broker goes away: all that was lent is lost.
    pub fn go_away(&self) {
        let mut books = self.books.lock().unwrap();
        books.away = true;
        books.take_all_back();
    }

    /// The broker comes back with all that it had.
    pub fn come_back(&self) {
        self.books.lock().unwrap().away = false;
        self.lend();
    }

    /// What stands in the queue, lent or not.
    pub fn unsettled(&self) -> usize {
        let books = self.books.lock().unwrap();
        books.lent.len() + books.ready.len()
    }

    /// Waits until nothing stands in the queue.
    pub async fn until_all_settled(&self) {
        loop {
            let settled = self.settled.notified();
            if self.unsettled() == 0 {
                return;
            }
            settled.await;
        }
    }

    /// Lends what can be lent: as much as each consumer may hold at once.
    fn lend(&self) {
        let mut books = self.books.lock().unwrap();
        if books.away {
            return;
        }
        for _ in 0..books.ready.len() {
            let message = books.ready.pop_front().expect("counted");
            let consumer = books.consumers.get(&message.connection);
            let room = consumer.and_then(|consumer| consumer.clone().try_reserve_owned().ok());
            let Some(room) = room else {
                books.ready.push_back(message);
                continue;
            };
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let lost = CancellationToken::new();
            room.send(Delivery {
                body: message.body.clone(),
                message_id: message.name.clone(),
                correlation_id: None,
                reply_to: message.reply_to.clone(),
                trace: TraceContext::default(),
                seen_before: message.seen_before,
                sent_at: message.sent_at,
                unreadable: None,
                received_at: Timestamp::now(),
                lease: Lease {
                    slot: 1,
                    number,
                    lost: lost.clone(),
                },
            });
            books.lent.insert(number, (message, lost));
        }
    }

    /// Takes a message out of the queue; false if it is not lent any more.
    fn acknowledge(&self, number: u64) -> bool {
        let was_lent = self.books.lock().unwrap().lent.remove(&number).is_some();
        self.lend();
        self.settled.notify_waiters();
        was_lent
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
    async fn consume(&self, connection: &str, max_active_runs: u32) -> mpsc::Receiver<Delivery> {
        let (consumer, deliveries) = mpsc::channel(max_active_runs.try_into().unwrap());
        let mut books = self.books.lock().unwrap();
        books.consumers.insert(connection.to_owned(), consumer);
        drop(books);
        self.lend();
        deliveries
    }

    async fn cancels(&self) -> mpsc::Receiver<SentCancel> {
        let past = self.books.lock().unwrap().cancels.clone();
        let (listener, cancels) = mpsc::channel(past.len().max(1));
        for cancel in past {
            listener.try_send(cancel).unwrap();
        }
        *self.listener.lock().unwrap() = Some(listener);
        cancels
    }

    async fn finish(&self, answers: &[Answer], result: &Outgoing) -> Result<(), NotPublished> {
        assert!(!take_one(&self.panics_before), "a bug before publishing");
        let held = |answer: &&Answer| !answer.lease.lost.is_cancelled();
        if !answers.iter().any(|answer| held(&answer)) {
            return Err(NotPublished::LeaseLost);
        }
        self.measure(result)?;
        if !answers.iter().all(|answer| answer.announced) {
            self.results.send(result.clone()).unwrap();
        }
        assert!(!take_one(&self.panics_after), "a bug after publishing");
        for answer in answers.iter().filter(held) {
            assert!(self.acknowledge(answer.lease.number), "settled twice");
        }
        Ok(())
    }

    async fn announce(&self, answers: &[Answer], result: &Outgoing) -> Result<(), NotPublished> {
        if answers
            .iter()
            .all(|answer| answer.lease.lost.is_cancelled())
        {
            return Err(NotPublished::LeaseLost);
        }
        self.measure(result)?;
        self.results.send(result.clone()).unwrap();
        Ok(())
    }

    async fn hand_back(&self, lease: &Lease) {
        self.handed_back.lock().unwrap().push(Instant::now());
        self.books.lock().unwrap().take_back(lease.number);
        self.lend();
    }

    async fn bury(&self, delivery: &Delivery, _: &Unreadable) -> Result<(), LeaseLost> {
        assert!(!take_one(&self.panics_before), "a bug before burying");
        if !self.acknowledge(delivery.lease.number) {
            return Err(LeaseLost);
        }
        self.buried.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn reply(&self, _: &str, _: Option<&str>, _: Bytes) {
        self.replied.fetch_add(1, Ordering::Relaxed);
    }

    fn tell(&self, _: Event) {}

    fn hold_limit(&self) -> Option<Duration> {
        self.hold_limit
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    async fn stop_consuming(&self) {
        self.books.lock().unwrap().consumers.clear();
    }

    async fn close(&self) {
        self.books.lock().unwrap().take_all_back();
    }
}
