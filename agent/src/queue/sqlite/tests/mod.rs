//! The stories of every queue on SQLite, and those that SQLite alone can tell.

mod deaths;
mod trouble;
mod work;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use sparkferry_ports::queue::{Answer, Delivery, Outgoing};
use sparkferry_shared::{Id, Topology};
use sparkferry_testkit::queue::conformance::{Harness, PATIENCE};
use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::database::Database;
use super::{SqliteProducer, SqliteQueue, lease};

/// Short, so that the silence of a worker is noticed in about a second.
const BEAT: Duration = Duration::from_millis(200);

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
        self.beating(name, database, BEAT)
    }

    fn beating(&self, name: &str, database: Database, beat: Duration) -> Arc<SqliteQueue> {
        SqliteQueue::start(database, &self.topology, name, beat).expect("a worker starts")
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

sparkferry_testkit::queue_conformance!(async { SqliteHarness::new() });

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
        announced: false,
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
