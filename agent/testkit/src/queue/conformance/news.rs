//! Stories of what is told: cancels, events, and results in great number.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt, TryStreamExt, stream};
use sparkferry_ports::queue::{Listen, News, SentCancel};
use sparkferry_shared::{Cancel, EventType, Id};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    AT_ONCE, Delivery, Harness, PATIENCE, Producer, Queue, answer, body, event, finish, id, next,
    next_result, nothing_is_left, submit, success, within,
};

/// Requests in the flood.
const FLOOD: usize = 2_000;

/// A cancel reaches workers that are there, and those that start later.
pub async fn a_cancel_reaches_workers_of_now_and_later<H: Harness>(harness: &H) {
    let [connection, _] = harness.connections();
    let producer = harness.producer().await;
    let early = harness.worker().await;
    let mut early = (early.cancels().await, early);
    let first = Cancel {
        cancel: id("cancel-1"),
        connection: Some(connection.to_owned()),
        reason: Some("no longer wanted".to_owned()),
    };
    producer.cancel(&first).await.expect("a cancel is sent");
    hears(&mut early.0, &first).await;

    let late = harness.worker().await;
    let mut late = (late.cancels().await, late);
    hears(&mut late.0, &first).await;
    let second = Cancel {
        cancel: id("cancel-2"),
        connection: None,
        reason: None,
    };
    producer.cancel(&second).await.expect("a cancel is sent");
    hears(&mut early.0, &second).await;
    hears(&mut late.0, &second).await;
}

async fn hears(cancels: &mut Receiver<SentCancel>, wanted: &Cancel) {
    let what = format!("the cancel of {}", wanted.cancel);
    within(PATIENCE, &what, async {
        while cancels.recv().await.expect("cancels go on").cancel != *wanted {}
    })
    .await;
}

/// Who listens to everything hears every event; who listens for some ids hears those alone.
pub async fn events_reach_those_who_listen<H: Harness>(harness: &H) {
    let [connection, _] = harness.connections();
    let (worker, producer) = (harness.worker().await, harness.producer().await);
    let watcher = harness.producer().await;
    let listens = "a producer may listen";
    let mine = Listen::Mine(vec![id("mine")]);
    let mut mine = producer.listen(mine).await.expect(listens);
    let mut all = watcher.listen(Listen::Everything).await.expect(listens);

    // An event is dropped where it can't be sent at once: first see that the worker can publish.
    let mut deliveries = worker.consume(connection, 10).await;
    submit(&*producer, connection, &id("mine")).await;
    let delivery = next(&mut deliveries, &id("mine")).await;
    finish(&*worker, connection, &id("mine"), &delivery).await;
    assert_eq!(next_result(&mut mine, PATIENCE).await.id, id("mine"));

    let told = [
        event(connection, &id("other"), EventType::Accepted),
        event(connection, &id("mine"), EventType::Submitted),
        event(connection, &id("other"), EventType::Finished),
        event(connection, &id("mine"), EventType::Finished),
    ];
    for event in told.clone() {
        worker.tell(event);
    }
    for event in &told {
        assert_eq!(next_event(&mut all).await, *event);
    }
    assert_eq!(next_event(&mut mine).await, told[1]);
    assert_eq!(next_event(&mut mine).await, told[3]);
}

async fn next_event(news: &mut Receiver<News>) -> sparkferry_shared::Event {
    loop {
        match within(PATIENCE, "an event", news.recv()).await {
            Some(News::Event(event)) => return *event,
            Some(News::Result(_)) => {}
            None => panic!("the listener ended"),
        }
    }
}

/// Two thousand requests, three workers, one delivery in four handed back: every request is
/// finished exactly once, and the producer hears of each.
pub async fn every_result_of_a_flood_comes_once<H: Harness>(harness: &H) {
    let [connection, _] = harness.connections();
    let producer = harness.producer().await;
    let ids: Vec<Id> = (0..FLOOD).map(|n| id(&format!("flood-{n}"))).collect();
    let mut news = producer
        .listen(Listen::Mine(ids.clone()))
        .await
        .expect("a producer may listen");

    let finished = Arc::new(Finished::default());
    let mut workers = Vec::new();
    let mut tasks = JoinSet::new();
    for seed in 1..=3 {
        let worker = harness.worker().await;
        let deliveries = worker.consume(connection, 50).await;
        let (finished, connection) = (Arc::clone(&finished), connection.to_owned());
        workers.push(Arc::clone(&worker));
        tasks.spawn(work(worker, deliveries, connection, seed, finished));
    }
    let hear = async {
        let mut heard = HashSet::new();
        while heard.len() < FLOOD {
            heard.insert(next_result(&mut news, PATIENCE).await.id);
        }
    };
    let send = async {
        stream::iter(&ids)
            .map(|id| producer.submit(connection, id, body(id)))
            .buffer_unordered(200)
            .try_collect::<()>()
            .await
            .expect("the queue takes a request");
    };
    tokio::join!(send, hear);
    within(PATIENCE, "the last one", finished.all.cancelled()).await;
    for worker in workers {
        worker.stop_consuming().await;
        worker.close().await;
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("a worker's task ends well");
    }
    let counts = finished.counts.lock().expect("no panic").clone();
    assert_eq!(counts.len(), FLOOD);
    assert!(counts.values().all(|&count| count == 1));
    nothing_is_left(harness, connection).await;
}

/// How often each request was finished.
#[derive(Default)]
struct Finished {
    counts: Mutex<HashMap<String, usize>>,
    all: CancellationToken,
}

async fn work(
    worker: Arc<impl Queue + 'static>,
    mut deliveries: Receiver<Delivery>,
    connection: String,
    seed: u64,
    finished: Arc<Finished>,
) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut under_way = JoinSet::new();
    while let Some(delivery) = deliveries.recv().await {
        let hand_back = random.u8(0..4) == 0;
        let (worker, finished) = (Arc::clone(&worker), Arc::clone(&finished));
        let connection = connection.clone();
        under_way.spawn(async move {
            if hand_back {
                return within(AT_ONCE, "a hand-back", worker.hand_back(&delivery.lease)).await;
            }
            let name = delivery.message_id.clone().expect("a message_id");
            let (answers, result) = ([answer(&delivery)], success(&connection, &id(&name)));
            let held = within(PATIENCE, "finishing", worker.finish(&answers, &result)).await;
            held.expect("the lease is held");
            let mut counts = finished.counts.lock().expect("no panic");
            *counts.entry(name).or_default() += 1;
            if counts.len() == FLOOD {
                finished.all.cancel();
            }
        });
    }
    while let Some(task) = under_way.join_next().await {
        task.expect("a delivery's task ends well");
    }
}
