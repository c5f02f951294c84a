//! The promise under fire: producers, worker processes, a queue and the sandbox, with everything
//! done to them that a seeded plan says, and the books looked at afterwards.
//!
//! `make test` has a short form of each; `make soak` the long one, whose sizes are variables:
//! `SOAK_QUEUES` (`quorum`, `classic`, `sqlite`, separated by commas), `SOAK_SEED` (the first),
//! `SOAK_SEEDS` (how many in a row), `SOAK_REQUESTS`, `SOAK_WORKERS`, `SOAK_BROKER_KILLS`,
//! `SOAK_ACTIVE` (runs at a time for each worker), `SOAK_LONGEST_MS` (of a run), `SOAK_POISON` (1: with
//! requests whose properties nobody should send, from a producer with the shipped rights). The plan is printed as it goes; what the faults meet depends on the moment, too, so that the same seed is
//! the same fire and not the same history.

mod books;
mod counts;
mod field;
mod operator;
mod plan;
mod points;
mod poison;
mod rolling;
mod says;
mod strikes;

use std::env;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use serde_json::Value;
use sparkferry_ports::queue::Producer;
use tokio::sync::watch;
use tokio::time::{interval, timeout};

use self::books::Answered;
use self::field::{Done, Field, Node, Queue};
use self::plan::{Broker, Fate, Plan, Stage, fates, faulty_calls};
use self::poison::Poisoner;
use crate::stories::harness::{CONNECTION, Ground, PATIENCE, Place};

/// Who submits, at once.
const PRODUCERS: usize = 3;
/// Requests that one producer sends again at a time.
const AT_A_TIME: usize = 50;

/// How large a soak is.
#[derive(Debug, Clone, Copy)]
struct Size {
    requests: usize,
    workers: usize,
    /// Runs that each worker may have under way.
    active: usize,
    longest_run_ms: usize,
    /// From one kill to the next.
    pace: Duration,
    /// How often RabbitMQ is killed; then it is a node of our own.
    broker_kills: usize,
    /// Nobody minds if a call takes half a minute.
    long: bool,
    /// Somebody sends requests with properties that nobody should send, where the queue has properties.
    poison: bool,
}

/// What the broker is told where it is ours: it waits for a shorter time than workers hold.
const NODE: &str = "consumer_timeout = 5000";

const SHORT: Size = Size {
    requests: 300,
    workers: 3,
    active: 60,
    longest_run_ms: 2_000,
    pace: Duration::from_millis(1_500),
    broker_kills: 0,
    long: false,
    poison: true,
};

/// Submits one request. What the queue refuses (one that has just been declared may have no leader
/// yet) is sent again.
async fn offer(producer: &dyn Producer, fate: &Fate) {
    let id = &fate.work.id;
    let taken = async {
        let mut tries = interval(Duration::from_millis(100));
        loop {
            tries.tick().await;
            let sent = producer.submit(CONNECTION, id, fate.work.body().into());
            match sent.await {
                Ok(()) => return,
                Err(error) => eprintln!("{id} is sent again: {error}"),
            }
        }
    };
    let taken = timeout(PATIENCE, taken).await;
    taken.unwrap_or_else(|_| panic!("{id} can't be submitted"));
}

/// Submits everything, each producer its share.
async fn submit(ground: &Ground, fates: &[Fate]) {
    let share = fates.len().div_ceil(PRODUCERS);
    let submitting = fates.chunks(share).map(|share| async move {
        let producer = ground.producer().await;
        for fate in share {
            offer(&*producer, fate).await;
        }
        producer.close().await;
    });
    join_all(submitting).await;
}

/// Submits what has no result so far, each time that the queue was deleted and all in it with it:
/// that no worker can make good, and a producer who asks again means the same runs.
async fn submit_again(
    ground: &Ground,
    fates: &[Fate],
    answered: watch::Receiver<Answered>,
    mut deleted: watch::Receiver<usize>,
) {
    let producer = ground.producer().await;
    while deleted.changed().await.is_ok() {
        let answered = answered.borrow().clone();
        let asked = fates
            .iter()
            .filter(|fate| !answered.contains(&fate.work.id));
        let asked: Vec<&Fate> = asked.collect();
        eprintln!("{} requests are submitted again", asked.len());
        stream::iter(asked)
            .for_each_concurrent(AT_A_TIME, |fate| offer(&*producer, fate))
            .await;
    }
}

/// Kills the broker so many times, spread over the results that come.
async fn kill_again_and_again(
    node: Option<Node>,
    kills: usize,
    requests: usize,
    mut progress: watch::Receiver<Answered>,
) {
    for kill in 1..=kills {
        let due = requests * kill / (kills + 1);
        let reached = progress.wait_for(|answered| answered.len() >= due).await;
        reached.expect("somebody reads the results");
        eprintln!("RabbitMQ is killed after {due} results");
        let node = node.as_ref().expect("a node of our own");
        node.with(|node| {
            node.kill();
            node.start_again();
        })
        .await;
    }
}

/// One soak from end to end, and its line of the table.
async fn soak(queue: Queue, node: Option<Node>, size: Size, seed: u64) -> String {
    eprintln!("SOAK_SEED={seed} {size:?} {queue:?}");
    let began = Instant::now();
    let name = queue.name();
    let broker = match (&queue, &node) {
        (Queue::Sqlite, _) => Broker::None,
        (_, Some(_)) => Broker::Own,
        (_, None) => Broker::Shared,
    };
    let stage = Stage {
        workers: size.workers,
        broker,
        long: size.long,
        poison: broker != Broker::None && size.poison,
    };
    let plan = Plan::new(seed, stage);
    let fates = fates(seed, size.requests, size.longest_run_ms);
    let mut field = Field::new(queue, node.clone(), size.workers, size.active).await;
    field.workspace.rules(faulty_calls(seed)).await;
    if stage.poison {
        field.poisoner = Some(Poisoner::new(&field).await);
    }
    let mut books = field.books();
    let progress = watch::Sender::default();
    let ground = Arc::clone(&field.ground);
    let submitting_again = submit_again(
        &ground,
        &fates,
        progress.subscribe(),
        field.deleted.subscribe(),
    );
    let work = async {
        let killing = progress.subscribe();
        tokio::join!(
            submit(&ground, &fates),
            books.read(size.requests, &progress),
            kill_again_and_again(node, size.broker_kills, size.requests, killing),
        )
    };
    tokio::select! {
        ((), (), ()) = work => {}
        () = field.suffer(plan, size.pace) => unreachable!("it goes on until all results are there"),
        () = submitting_again => unreachable!("the field stands"),
    }
    let fought = began.elapsed();

    let rules = field.workspace.page("rules").await;
    field.workspace.calm().await;
    let buried = match field.poisoner.take() {
        None => 0,
        Some(poisoner) => {
            field.recover(usize::MAX).await;
            poisoner.until_all_is_told(&ground, &mut books).await
        }
    };
    let left = field.settle(&mut books).await;
    // What a worker buried as it died is buried again by another.
    assert!(left.requests == 0 && (left.dead >= buried), "{left:?}");
    assert!(left.dead == 0 || buried > 0, "{left:?}");
    let stats = field.workspace.stats().await;
    let runs = books.balance(&fates, &stats, &field.workspace.page("runs").await);
    let log = ground.log();
    assert!(!log.contains("panicked"), "{log}");
    let waited = log.matches("timed out. Timeout value used").count();
    eprintln!("RabbitMQ took deliveries back {waited} times, for it had waited too long");
    let Done {
        kills,
        freezes,
        others,
    } = field.done;
    assert!(kills >= size.workers, "only {kills} were killed");
    let sum = |value: &Value, number: &str| -> u64 {
        let all: Vec<&Value> = match value {
            Value::Array(list) => list.iter().collect(),
            other => other
                .as_object()
                .into_iter()
                .flat_map(|map| map.values())
                .collect(),
        };
        all.into_iter().filter_map(|one| one[number].as_u64()).sum()
    };
    let (faulty, calls) = (sum(&rules, "used"), sum(&stats["calls"], "total"));
    let Size {
        requests,
        workers,
        broker_kills,
        ..
    } = size;
    let twice = books.twice;
    let seconds = fought.as_secs();
    let version = env!("CARGO_PKG_VERSION");
    // Lost, doubled or falsely green ones are none, or the books had not balanced.
    format!(
        "| {seed} | {version} | {name} | {requests} | {workers} | {kills} | {freezes} | {broker_kills} | {others} | \
         {faulty} of {calls} | {requests} | {twice} | {runs} | 0 | 0 | 0 | {seconds} |"
    )
}

const HEAD: &str = "\
| seed | version | queue | requests | workers | killed | frozen | broker killed | other blows | faulty calls \
| results | came twice | runs | lost | run twice | false green | seconds |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

fn shared_broker() -> String {
    match Place::shared_broker() {
        Place::Amqp(url) => url,
        _ => unreachable!("it is a broker"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_quorum_queues_the_books_balance() {
    eprintln!(
        "{}",
        soak(Queue::Quorum(shared_broker()), None, SHORT, 4).await
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_classic_queues_the_books_balance() {
    eprintln!(
        "{}",
        soak(Queue::Classic(shared_broker()), None, SHORT, 2).await
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_the_books_balance() {
    eprintln!("{}", soak(Queue::Sqlite, None, SHORT, 3).await);
}

/// A variable, or else what stands here.
fn variable<T: FromStr>(name: &str, default: T) -> T {
    match env::var(name) {
        Err(_) => default,
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}: {text:?} is no number")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: `make soak`"]
async fn as_long_as_it_is_told() {
    let first: u64 = variable("SOAK_SEED", 1);
    let seeds: u64 = variable("SOAK_SEEDS", 1);
    let queues = env::var("SOAK_QUEUES").unwrap_or_else(|_| "quorum,classic,sqlite".to_owned());
    let size = Size {
        requests: variable("SOAK_REQUESTS", 10_000),
        workers: variable("SOAK_WORKERS", 3),
        active: variable("SOAK_ACTIVE", 100),
        longest_run_ms: variable("SOAK_LONGEST_MS", 4_000),
        pace: Duration::from_secs(2),
        broker_kills: variable("SOAK_BROKER_KILLS", 5),
        long: true,
        poison: variable("SOAK_POISON", 0) != 0,
    };
    println!("{HEAD}");
    for seed in first..first + seeds {
        for queue in queues.split(',') {
            let line = if queue == "sqlite" {
                let size = Size {
                    broker_kills: 0,
                    ..size
                };
                soak(Queue::Sqlite, None, size, seed).await
            } else {
                let node = Node::start(NODE).await;
                let place = match queue {
                    "quorum" => Queue::Quorum(node.url()),
                    "classic" => Queue::Classic(node.url()),
                    other => panic!("SOAK_QUEUES: {other:?} is none of quorum, classic, sqlite"),
                };
                soak(place, Some(node), size, seed).await
            };
            println!("{line}");
        }
    }
}
