//! SQLite behind the queue port: one file that all processes of one machine share.
//!
//! | module | holds |
//! |---|---|
//! | `database` | opening the file, its tables and version |
//! | `desk` | the worker's thread: one transaction a round, deliveries, answers |
//! | `settle` | what a worker writes about its requests |
//! | `lease` | how a worker keeps what it has, and how a dead one's comes free |
//! | `presence` | the locks by which a death is seen at once |
//! | `producer`, `news` | the producer's thread, and what its listeners hear |
//! | `bell`, `trouble` | waking each other in one process; errors for people |
//!
//! What it promises beyond the port: the result and the end of a request are one transaction, so
//! there is exactly one result for each request; an id submitted again is never run again, its
//! result is read back. Results are kept for as long as the file is.
//!
//! A dead worker's requests come free at once, those of one that stands still within 21 s. A process
//! can be killed at any moment: every change is one transaction, and on disk (`synchronous = FULL`)
//! before anybody is told of it.
//!
//! Bounds: the namespace parts the rows, so several may share a file. `reply_to`, `correlation_id`
//! and trace headers do not exist here; a result is heard by whoever submitted the request.

mod bell;
mod database;
mod desk;
mod lease;
mod news;
mod presence;
mod producer;
mod settle;
#[cfg(test)]
mod tests;
mod trouble;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::params;
use sparkferry_ports::queue::{
    Answer, Delivery, Health, Lease, LeaseLost, NotPublished, Outgoing, Queue, QueueError,
    SentCancel,
};
use sparkferry_shared::decode::Unreadable;
use sparkferry_shared::{Event, Topology};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::bell::Bell;
use self::database::Database;
use self::desk::{Command, Consumer, Desk, Setup, What, Write};
use self::presence::Presence;
use crate::observe::metrics;

pub use producer::SqliteProducer;

/// Commands and settlements that wait for the thread; beyond, callers wait.
const MAX_COMMANDS: usize = 1024;

/// Events that wait to be written; beyond, they are dropped.
const MAX_EVENTS: usize = 4096;

/// Cancels that wait to be read; beyond, they stay in the table.
const MAX_CANCELS: usize = 1024;

/// How long `cancels` waits for the past ones where the database is in trouble.
const CANCELS_PATIENCE: Duration = Duration::from_secs(5);

/// The worker's side of the queue in a SQLite database.
///
/// Dropped without [`Queue::close`] it is as if the process had died: others take over what it had.
#[derive(Debug)]
pub struct SqliteQueue {
    commands: mpsc::Sender<Command>,
    events: mpsc::Sender<Event>,
    health: watch::Receiver<Health>,
    closing: CancellationToken,
    closed: CancellationToken,
}

impl SqliteQueue {
    /// Opens the database, or makes it. `worker` is a name for people.
    ///
    /// Blocks for moments; for up to 5 s where another program keeps the file locked.
    ///
    /// # Errors
    /// The directory is not there, the file is not writable, no database, somebody else's, or of a
    /// newer version; or the thread can't be started.
    pub fn open(
        path: &Path,
        topology: &Topology,
        worker: &str,
    ) -> Result<Arc<SqliteQueue>, QueueError> {
        Self::start(Database::open(path)?, topology, worker, lease::BEAT)
    }

    fn start(
        database: Database,
        topology: &Topology,
        worker: &str,
        beat: Duration,
    ) -> Result<Arc<Self>, QueueError> {
        let (commands, command_receiver) = mpsc::channel(MAX_COMMANDS);
        let (events, event_receiver) = mpsc::channel(MAX_EVENTS);
        let (health_sender, health) = watch::channel(Health::default());
        let (closing, closed) = (CancellationToken::new(), CancellationToken::new());
        let path = database.path.clone();
        let setup = Setup {
            bell: Bell::of(&path),
            presence: Presence::beside(&path),
            database,
            namespace: topology.namespace().to_owned(),
            worker: worker.to_owned(),
            beat,
            commands: command_receiver,
            events: event_receiver,
            health: health_sender,
            closing: closing.clone(),
        };
        spawn(&path, "queue", &closed, move || Desk::run(setup))?;
        Ok(Arc::new(Self {
            commands,
            events,
            health,
            closing,
            closed,
        }))
    }

    async fn publish(&self, leases: &[Answer], what: What) -> Result<(), NotPublished> {
        let started = Instant::now();
        let leases = leases.iter().map(|answer| names(&answer.lease)).collect();
        if !self.settle(leases, what).await {
            return Err(NotPublished::LeaseLost);
        }
        metrics::publish_confirmed(started.elapsed());
        Ok(())
    }

    /// Returns false where none of the leases was ours any more.
    async fn settle(&self, leases: Vec<(u64, u64)>, what: What) -> bool {
        let (answer, answered) = oneshot::channel();
        let write = Write {
            leases,
            what,
            answer,
        };
        // After closing there is nobody to answer, and nothing is held.
        self.commands.send(Command::Write(write)).await.is_ok() && answered.await.unwrap_or(false)
    }
}

/// Starts a thread, which ends with the handle whose channels it serves. `closed` is cancelled once
/// it has ended, however it does.
fn spawn(
    path: &Path,
    name: &str,
    closed: &CancellationToken,
    work: impl FnOnce() + Send + 'static,
) -> Result<(), QueueError> {
    let closed = closed.clone().drop_guard();
    let work = move || {
        let _closed = closed;
        work();
    };
    std::thread::Builder::new()
        .name(format!("sqlite-{name}"))
        .spawn(work)
        .map(drop)
        .map_err(|error| trouble::refused(path, format!("no thread for it: {error}")))
}

fn names(lease: &Lease) -> (u64, u64) {
    (lease.slot, lease.number)
}

#[async_trait]
impl Queue for SqliteQueue {
    async fn consume(&self, connection: &str, max_active_runs: u32) -> mpsc::Receiver<Delivery> {
        let max_active_runs = usize::try_from(max_active_runs).unwrap_or(usize::MAX);
        let (deliveries, receiver) = mpsc::channel(max_active_runs.max(1));
        let consumer = Consumer {
            connection: connection.to_owned(),
            max_active_runs,
            deliveries,
        };
        // After closing, the receiver ends at once.
        let _ = self.commands.send(Command::Consume(consumer)).await;
        receiver
    }

    async fn cancels(&self) -> mpsc::Receiver<SentCancel> {
        let (to, receiver) = mpsc::channel(MAX_CANCELS);
        let (caught_up, past) = oneshot::channel();
        if self
            .commands
            .send(Command::Cancels(to, caught_up))
            .await
            .is_ok()
        {
            // Past the patience they come all the same, only later.
            let _ = timeout(CANCELS_PATIENCE, past).await;
        }
        receiver
    }

    async fn finish(&self, leases: &[Answer], result: &Outgoing) -> Result<(), NotPublished> {
        self.publish(leases, What::Finish(result.clone())).await
    }

    async fn announce(&self, leases: &[Answer], result: &Outgoing) -> Result<(), NotPublished> {
        self.publish(leases, What::Announce(result.clone())).await
    }

    async fn hand_back(&self, lease: &Lease) {
        // What is not ours any more needs no handing back.
        self.settle(vec![names(lease)], What::HandBack).await;
    }

    async fn bury(&self, delivery: &Delivery, why: &Unreadable) -> Result<(), LeaseLost> {
        let what = What::Bury {
            reason: why.reason(),
            error: why.to_string(),
        };
        let ours = self.settle(vec![names(&delivery.lease)], what).await;
        ours.then_some(()).ok_or(LeaseLost)
    }

    /// Nobody: producers on SQLite name no queue for replies.
    async fn reply(&self, _reply_to: &str, _correlation_id: Option<&str>, _body: Bytes) {}

    fn tell(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            metrics::event_dropped();
        }
    }

    fn hold_limit(&self) -> Option<Duration> {
        None
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    async fn stop_consuming(&self) {
        let (answer, answered) = oneshot::channel();
        if self
            .commands
            .send(Command::StopConsuming(answer))
            .await
            .is_ok()
        {
            // Where the thread has ended, so have the receivers.
            let _ = answered.await;
        }
    }

    async fn close(&self) {
        self.closing.cancel();
        self.closed.cancelled().await;
    }
}

/// One line for `sparkferry check`: where the queue is, and how many requests wait, run, are done.
///
/// # Errors
/// As [`SqliteQueue::open`].
pub async fn check(path: &Path, topology: &Topology) -> Result<String, QueueError> {
    let (owned, namespace) = (path.to_owned(), topology.namespace().to_owned());
    tokio::task::spawn_blocking(move || look(&owned, &namespace))
        .await
        .unwrap_or_else(|error| Err(trouble::refused(path, error.to_string())))
}

fn look(path: &Path, namespace: &str) -> Result<String, QueueError> {
    database::check_place(path)?;
    let place = trouble::place(path);
    if !path.exists() {
        database::check_writable(path)?;
        return Ok(format!(
            "{place}: not there yet; the first `run` or `submit` makes it"
        ));
    }
    let database = Database::open(path)?;
    let count = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    let counted: rusqlite::Result<(i64, i64, i64, i64)> = database.write().and_then(|tx| {
        // In a transaction that may write: so it is seen whether others let us.
        tx.query_row(
            "SELECT count(*) FILTER (WHERE state = ?2), count(*) FILTER (WHERE state = ?3),
                    count(*) FILTER (WHERE state = ?4),
                    (SELECT count(*) FROM dead WHERE namespace = ?1)
             FROM requests WHERE namespace = ?1",
            params![
                namespace,
                database::state::READY,
                database::state::LEASED,
                database::state::DONE
            ],
            count,
        )
    });
    let (waiting, running, done, dead) =
        counted.map_err(|error| trouble::queue_error(path, &error))?;
    Ok(format!(
        "{place}: {waiting} requests waiting, {running} running, {done} done, {dead} dead letters"
    ))
}
