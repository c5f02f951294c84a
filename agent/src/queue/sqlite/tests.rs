//! The stories of every queue on SQLite, and those that SQLite alone can tell.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, params};
use sparkferry_shared::{Id, Topology};
use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::database::{Database, now, state};
use super::{SqliteProducer, SqliteQueue, check, lease};
use crate::queue::conformance::{Harness, PATIENCE};
use crate::queue::{Answer, Delivery, Listen, News, Outgoing, Producer, Queue, QueueError};

/// Short, so that a dead worker is noticed in half a second.
const BEAT: Duration = Duration::from_millis(80);

struct SqliteHarness {
    folder: TempDir,
    topology: Topology,
    /// The number of a worker is its name in the database.
    workers: Mutex<Vec<Weak<SqliteQueue>>>,
}

impl SqliteHarness {
    fn new() -> Self {
        Self {
            folder: TempDir::new().expect("a temporary directory"),
            topology: Topology::new("stories"),
            workers: Mutex::default(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("queue.db")
    }

    fn database(&self) -> Database {
        Database::open(&self.path()).expect("the database opens")
    }

    /// A worker of which the database says this name.
    fn named(&self, name: &str, database: Database) -> Arc<SqliteQueue> {
        SqliteQueue::start(database, &self.topology, name, BEAT).expect("a worker starts")
    }

    /// What another worker does once this one's beat stood still for too long.
    fn hold_for_dead(&self, worker: &str) {
        let database = self.database();
        let tx = database.write().expect("its turn comes");
        let session = tx
            .query_row(
                "SELECT session FROM workers WHERE name = ?1",
                [worker],
                |row| row.get(0),
            )
            .expect("the worker is at work");
        lease::release(&tx, session).expect("it is released");
        tx.commit().expect("it is committed");
    }
}

#[async_trait]
impl Harness for SqliteHarness {
    type Worker = SqliteQueue;
    type Producer = SqliteProducer;

    fn connections(&self) -> [&str; 2] {
        ["prod", "lake"]
    }

    fn remembers_results(&self) -> bool {
        true
    }

    async fn worker(&self) -> Arc<SqliteQueue> {
        let mut workers = self.workers.lock().expect("no panic");
        let worker = self.named(&workers.len().to_string(), self.database());
        workers.push(Arc::downgrade(&worker));
        worker
    }

    async fn producer(&self) -> Arc<SqliteProducer> {
        Arc::new(SqliteProducer::open(&self.path(), &self.topology).expect("a producer opens"))
    }

    async fn kill(&self, worker: Arc<SqliteQueue>) {
        let thread_ended = worker.closed.clone();
        assert_eq!(Arc::strong_count(&worker), 1, "the story lets go of it");
        drop(worker);
        thread_ended.cancelled().await;
    }

    async fn sever(&self, worker: &SqliteQueue) {
        let number = {
            let workers = self.workers.lock().expect("no panic");
            let mut of = workers.iter().map(Weak::as_ptr);
            of.position(|of| std::ptr::eq(of, worker))
        };
        let number = number.expect("a worker of this harness");
        self.hold_for_dead(&number.to_string());
    }
}

crate::queue_conformance!(async { SqliteHarness::new() });

fn id(text: &str) -> Id {
    text.parse().expect("an id")
}

async fn next(deliveries: &mut Receiver<Delivery>) -> Delivery {
    timeout(PATIENCE, deliveries.recv())
        .await
        .expect("a delivery in time")
        .expect("the receiver goes on")
}

fn answer(delivery: &Delivery) -> [Answer; 1] {
    [Answer {
        lease: delivery.lease.clone(),
        reply_to: None,
        correlation_id: None,
        trace: delivery.trace.clone(),
    }]
}

fn result(id: &Id, body: Vec<u8>) -> Outgoing {
    Outgoing {
        message_id: sparkferry_shared::Names::new("stories", "prod", id.as_str()).result(),
        id: id.clone(),
        connection: "prod".to_owned(),
        outcome: sparkferry_shared::Outcome::Success,
        body: body.into(),
    }
}

/// The number of rows that a condition holds for.
fn count(db: &Connection, what: &str) -> i64 {
    db.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| {
        row.get(0)
    })
    .expect("the tables can be read")
}

#[tokio::test]
async fn a_living_worker_keeps_its_leases_while_dead_ones_lose_theirs() {
    let harness = SqliteHarness::new();
    let (holder, other) = (harness.worker().await, harness.worker().await);
    let producer = harness.producer().await;
    let mut deliveries = holder.consume("prod", 1).await;
    let kept = id("kept");
    producer
        .submit("prod", &kept, "{}".into())
        .await
        .expect("taken");
    let delivery = next(&mut deliveries).await;
    let mut others = other.consume("prod", 1).await;

    // Each death that is noticed is a whole lease's time.
    for name in ["dies-1", "dies-2", "dies-3"] {
        let name = id(name);
        producer
            .submit("lake", &name, "{}".into())
            .await
            .expect("taken");
        let doomed = harness.worker().await;
        next(&mut doomed.consume("lake", 1).await).await;
        harness.kill(doomed).await;
        let mut inherited = other.consume("lake", 1).await;
        let again = next(&mut inherited).await;
        let done = result(&name, b"{}".to_vec());
        assert!(other.finish(&answer(&again), &done).await.is_ok());
    }
    assert!(others.try_recv().is_err());
    assert!(!delivery.lease.lost.is_cancelled());
    let done = result(&kept, b"{}".to_vec());
    assert!(holder.finish(&answer(&delivery), &done).await.is_ok());
}

#[tokio::test]
async fn exactly_one_result_is_kept_however_many_workers_finish() {
    let harness = SqliteHarness::new();
    let frozen = harness.named("frozen", harness.database());
    let producer = harness.producer().await;
    let mut deliveries = frozen.consume("prod", 1).await;
    let name = id("one");
    producer
        .submit("prod", &name, "{}".into())
        .await
        .expect("taken");
    let before = next(&mut deliveries).await;
    harness.hold_for_dead("frozen");
    // The worker may not have noticed; its result must not count all the same.
    let late = frozen
        .finish(&answer(&before), &result(&name, b"{}".to_vec()))
        .await;
    assert!(late.is_err());

    let again = next(&mut deliveries).await;
    assert!(again.seen_before);
    let finished = frozen
        .finish(&answer(&again), &result(&name, b"{}".to_vec()))
        .await;
    assert!(finished.is_ok());
    let twice = frozen
        .finish(&answer(&again), &result(&name, b"{}".to_vec()))
        .await;
    assert!(twice.is_err(), "it is settled");
    let db = harness.database().connection;
    assert_eq!(count(&db, "results"), 1);
    assert_eq!(count(&db, "requests WHERE state = 2 AND body IS NULL"), 1);
}

#[tokio::test]
async fn a_locked_database_is_trouble_that_passes_and_loses_nothing() {
    let harness = SqliteHarness::new();
    let worker = harness.worker().await;
    let producer = harness.producer().await;
    let mut deliveries = worker.consume("prod", 1).await;
    let name = id("patient");
    producer
        .submit("prod", &name, "{}".into())
        .await
        .expect("taken");
    let delivery = next(&mut deliveries).await;

    let locker = harness.database();
    let lock = locker.write().expect("its turn comes");
    let mut health = worker.health();
    let (finishing, done) = (Arc::clone(&worker), result(&name, b"{}".to_vec()));
    let answers = answer(&delivery);
    let finishing = tokio::spawn(async move { finishing.finish(&answers, &done).await });
    let troubled = timeout(PATIENCE, health.wait_for(|health| health.trouble.is_some())).await;
    let text = troubled
        .expect("in time")
        .expect("the worker lives")
        .to_string();
    assert!(text.contains("keeps the database locked"), "{text}");
    assert!(!finishing.is_finished());

    drop(lock);
    let finished = timeout(PATIENCE, finishing).await.expect("in time");
    assert!(finished.expect("no panic").is_ok());
    let well = timeout(PATIENCE, health.wait_for(|health| health.trouble.is_none())).await;
    assert!(well.is_ok());
}

#[tokio::test]
async fn a_full_disk_is_trouble_that_passes_and_loses_nothing() {
    let harness = SqliteHarness::new();
    let database = harness.database();
    // What another program could free again: room for a large result.
    let filler = harness.database().connection;
    filler
        .execute_batch("CREATE TABLE filler (x); INSERT INTO filler VALUES (zeroblob(2000000))")
        .expect("room");
    let pages: i64 = filler
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .expect("read");
    database
        .connection
        .query_row(
            &format!("PRAGMA max_page_count = {}", pages + 8),
            [],
            |_| Ok(()),
        )
        .expect("set");
    let worker = harness.named("cramped", database);
    let producer = harness.producer().await;
    let mut deliveries = worker.consume("prod", 1).await;
    let name = id("full");
    producer
        .submit("prod", &name, "{}".into())
        .await
        .expect("taken");
    let delivery = next(&mut deliveries).await;

    let mut health = worker.health();
    let (finishing, large) = (Arc::clone(&worker), result(&name, vec![b'x'; 1_000_000]));
    let answers = answer(&delivery);
    let finishing = tokio::spawn(async move { finishing.finish(&answers, &large).await });
    let troubled = timeout(PATIENCE, health.wait_for(|health| health.trouble.is_some())).await;
    let text = troubled
        .expect("in time")
        .expect("the worker lives")
        .to_string();
    assert!(text.contains("the disk is full"), "{text}");
    assert_eq!(count(&filler, "results"), 0);
    assert_eq!(count(&filler, "requests WHERE state = 1"), 1);

    filler.execute("DELETE FROM filler", []).expect("freed");
    let finished = timeout(PATIENCE, finishing).await.expect("in time");
    assert!(finished.expect("no panic").is_ok());
    assert_eq!(count(&filler, "results"), 1);
}

#[tokio::test]
async fn a_database_that_is_replaced_is_opened_anew() {
    let harness = SqliteHarness::new();
    let worker = harness.worker().await;
    let producer = harness.producer().await;
    let mut deliveries = worker.consume("prod", 5).await;
    producer
        .submit("prod", &id("old"), "{}".into())
        .await
        .expect("taken");
    let old = next(&mut deliveries).await;
    producer.close().await;
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("{}{suffix}", harness.path().display());
        std::fs::remove_file(file).expect("it is there");
    }
    let producer = harness.producer().await;
    producer
        .submit("prod", &id("new"), "{}".into())
        .await
        .expect("taken");
    let new = next(&mut deliveries).await;
    assert_eq!(new.message_id.as_deref(), Some("new"));
    assert!(old.lease.lost.is_cancelled());
}

#[tokio::test]
async fn old_cancels_and_events_are_forgotten() {
    let harness = SqliteHarness::new();
    let db = harness.database().connection;
    let day = super::settle::MEMORY_MS;
    for (age, name) in [(day + 60_000, "old"), (1000, "young")] {
        let cancel = format!(r#"{{"cancel":"{name}"}}"#).into_bytes();
        db.execute(
            "INSERT INTO cancels (namespace, sent_at, body) VALUES ('stories', ?1, ?2)",
            params![now() - age, cancel],
        )
        .expect("written");
        db.execute(
            "INSERT INTO events (namespace, id, told_at, body) VALUES ('stories', ?1, ?2, x'')",
            params![name, now() - age],
        )
        .expect("written");
    }
    let worker = harness.worker().await;
    let mut cancels = worker.cancels().await;
    assert_eq!(
        cancels.recv().await.expect("one in force").cancel,
        id("young")
    );
    // It forgets with its first beat, which comes before its first answer.
    worker.close().await;
    assert_eq!(count(&db, "events"), 1);
    assert_eq!(count(&db, "cancels"), 1);
}

#[tokio::test]
async fn a_submit_of_what_waits_or_runs_is_the_same_work() {
    let harness = SqliteHarness::new();
    let (first, second) = (harness.producer().await, harness.producer().await);
    let name = id("same");
    let mut news = second
        .listen(Listen::Mine(vec![name.clone()]))
        .await
        .expect("listens");
    first
        .submit("prod", &name, "{}".into())
        .await
        .expect("taken");
    second
        .submit("prod", &name, "{}".into())
        .await
        .expect("taken");
    let worker = harness.worker().await;
    let mut deliveries = worker.consume("prod", 5).await;
    let delivery = next(&mut deliveries).await;
    second
        .submit("prod", &name, "{}".into())
        .await
        .expect("taken");
    assert_eq!(count(&harness.database().connection, "requests"), 1);
    let json = r#"{"id":"same","outcome":"SUCCESS","connection":"prod","worker":"w",
        "received_at":"2026-11-21T00:00:00Z","finished_at":"2026-11-21T00:00:01Z",
        "redelivered":false}"#;
    let finished = worker
        .finish(&answer(&delivery), &result(&name, json.into()))
        .await;
    assert!(finished.is_ok());
    let heard = timeout(PATIENCE, news.recv()).await.expect("in time");
    assert!(matches!(heard, Some(News::Result(result)) if result.id == name));
    assert!(deliveries.try_recv().is_err());
}

#[tokio::test]
async fn a_file_that_is_no_queue_is_refused_and_left_alone() {
    let harness = SqliteHarness::new();
    let refusal = |path: PathBuf| match SqliteQueue::open(&path, &harness.topology, "w") {
        Err(QueueError::Refused { place, why }) => {
            assert_eq!(place, format!("sqlite:{}", path.display()));
            why
        }
        other => panic!("expected a refusal, got {other:?}"),
    };
    let folder = harness.folder.path();

    let why = refusal(folder.join("nowhere/queue.db"));
    assert!(why.contains("does not exist: make it"), "{why}");
    let why = refusal(folder.to_owned());
    assert!(why.contains("this is a directory"), "{why}");

    let text = folder.join("notes.txt");
    std::fs::write(
        &text,
        "not a database at all, only a few notes\n".repeat(50),
    )
    .expect("written");
    let why = refusal(text.clone());
    assert!(why.contains("no SQLite database"), "{why}");
    assert!(
        std::fs::read(&text)
            .expect("read")
            .starts_with(b"not a database")
    );

    let foreign = folder.join("foreign.db");
    let other = Connection::open(&foreign).expect("opens");
    other
        .execute_batch("CREATE TABLE books (title TEXT)")
        .expect("made");
    let why = refusal(foreign);
    assert!(why.contains("another program"), "{why}");
    assert_eq!(count(&other, "sqlite_schema"), 1, "nothing was added to it");

    let newer = harness.database().connection;
    newer.pragma_update(None, "user_version", 99).expect("set");
    let why = refusal(harness.path());
    assert!(
        why.contains("newer Sparkferry (tables of version 99"),
        "{why}"
    );
}

#[tokio::test]
async fn check_counts_what_waits_runs_and_is_done() {
    let harness = SqliteHarness::new();
    let path = harness.path();
    let line = check(&path, &harness.topology)
        .await
        .expect("nothing wrong");
    assert!(line.contains("not there yet"), "{line}");
    assert!(!path.exists(), "checking makes nothing");

    let producer = harness.producer().await;
    for name in ["a", "b", "c"] {
        producer
            .submit("prod", &id(name), "{}".into())
            .await
            .expect("taken");
    }
    let worker = harness.worker().await;
    let mut deliveries = worker.consume("prod", 2).await;
    let delivery = next(&mut deliveries).await;
    next(&mut deliveries).await;
    let finished = worker
        .finish(&answer(&delivery), &result(&id("a"), b"{}".to_vec()))
        .await;
    assert!(finished.is_ok());
    next(&mut deliveries).await;
    let line = check(&path, &harness.topology)
        .await
        .expect("nothing wrong");
    let counts = "0 requests waiting, 2 running, 1 done, 0 dead letters";
    assert!(line.ends_with(counts), "{line}");
    let other = check(&path, &Topology::new("other"))
        .await
        .expect("nothing wrong");
    assert!(other.contains("0 requests waiting, 0 running"), "{other}");
    assert_eq!(
        state::DONE,
        2,
        "the partial indexes and these tests name states by number"
    );
}
