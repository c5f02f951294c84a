//! The producer's side: a thread of its own, as the worker's, for submits, cancels, dead letters and
//! listening.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, params};
use sparkferry_ports::queue::{DeadLetter, Listen, News, Producer, QueueError, SettleDead};
use sparkferry_shared::{Cancel, Id, Topology};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::bell::Bell;
use super::database::{Database, now, state};
use super::desk::LOOK;
use super::news::{Listener, MAX_NEWS};
use super::trouble::{is_busy, queue_error, refused};
use super::{MAX_COMMANDS, spawn};

/// The most that one transaction holds.
const MAX_BATCH: usize = 512;

/// How long a submit waits for others who write.
const PATIENCE: Duration = Duration::from_secs(10);

/// The producer's side of the queue in a SQLite database.
#[derive(Debug)]
pub struct SqliteProducer {
    commands: mpsc::Sender<Command>,
    path: PathBuf,
    closing: CancellationToken,
    closed: CancellationToken,
}

type Reply<T> = oneshot::Sender<Result<T, QueueError>>;

enum Command {
    Listen(Listen, Reply<mpsc::Receiver<News>>),
    DeadLetters(usize, Reply<Vec<DeadLetter>>),
    Write(Write, Reply<usize>),
}

/// What changes the database. Answered with how many rows it changed, once they are on disk.
enum Write {
    Submit {
        connection: String,
        id: Id,
        body: Bytes,
    },
    Cancel(Vec<u8>),
    SettleDead(SettleDead, usize),
}

impl SqliteProducer {
    /// Opens the database, or makes it.
    ///
    /// Blocks for moments; for up to 5 s where another program keeps the file locked.
    ///
    /// # Errors
    /// As [`SqliteQueue::open`](super::SqliteQueue::open).
    pub fn open(path: &Path, topology: &Topology) -> Result<SqliteProducer, QueueError> {
        let database = Database::open(path)?;
        let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
        let (closing, closed) = (CancellationToken::new(), CancellationToken::new());
        let counter = Counter {
            bell: Bell::of(path),
            database,
            namespace: topology.namespace().to_owned(),
            commands: receiver,
            closing: closing.clone(),
            listeners: Vec::new(),
        };
        spawn(path, "producer", &closed, move || counter.run())?;
        Ok(Self {
            commands,
            path: path.to_owned(),
            closing,
            closed,
        })
    }

    async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Command) -> Result<T, QueueError> {
        let (reply, answer) = oneshot::channel();
        // Whether it is sent or not, the answer tells.
        let _ = self.commands.send(ask(reply)).await;
        answer
            .await
            .unwrap_or_else(|_| Err(refused(&self.path, "the producer is closed")))
    }

    async fn write(&self, write: Write) -> Result<usize, QueueError> {
        self.ask(|reply| Command::Write(write, reply)).await
    }
}

#[async_trait]
impl Producer for SqliteProducer {
    async fn listen(&self, to: Listen) -> Result<mpsc::Receiver<News>, QueueError> {
        self.ask(|reply| Command::Listen(to, reply)).await
    }

    async fn submit(&self, connection: &str, id: &Id, body: Bytes) -> Result<(), QueueError> {
        let submit = Write::Submit {
            connection: connection.to_owned(),
            id: id.clone(),
            body,
        };
        self.write(submit).await.map(drop)
    }

    async fn cancel(&self, cancel: &Cancel) -> Result<(), QueueError> {
        let body = serde_json::to_vec(cancel)
            .map_err(|error| refused(&self.path, format!("the cancel is no JSON: {error}")))?;
        self.write(Write::Cancel(body)).await.map(drop)
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        self.ask(|reply| Command::DeadLetters(limit, reply)).await
    }

    async fn settle_dead(&self, how: SettleDead, limit: usize) -> Result<usize, QueueError> {
        self.write(Write::SettleDead(how, limit)).await
    }

    async fn close(&self) {
        self.closing.cancel();
        self.closed.cancelled().await;
    }
}

/// The producer's thread.
struct Counter {
    database: Database,
    bell: Bell,
    namespace: String,
    commands: mpsc::Receiver<Command>,
    closing: CancellationToken,
    listeners: Vec<Listener>,
}

impl Counter {
    /// Runs until the producer closes or is dropped, with everything written that was asked.
    fn run(mut self) {
        // Without a timer there is nobody to answer: every call then says that it is closed.
        let Ok(timer) = Builder::new_current_thread().enable_time().build() else {
            return;
        };
        loop {
            let mut asked = Vec::new();
            let open = timer.block_on(async {
                tokio::select! {
                    biased;
                    count = self.commands.recv_many(&mut asked, MAX_BATCH) => count > 0,
                    () = self.closing.cancelled() => false,
                    () = self.bell.rung(), if !self.listeners.is_empty() => true,
                    () = tokio::time::sleep(LOOK), if !self.listeners.is_empty() => true,
                }
            });
            if !open {
                return;
            }
            self.serve(asked);
            self.tell_news();
        }
    }

    fn serve(&mut self, asked: Vec<Command>) {
        let mut writes = Vec::new();
        // Where nobody waits for an answer any more, it is dropped.
        for command in asked {
            match command {
                Command::Write(write, reply) => writes.push((write, reply)),
                Command::Listen(to, reply) => {
                    let _ = reply.send(self.listen(to));
                }
                Command::DeadLetters(limit, reply) => {
                    let letters = dead_letters(&self.database.connection, &self.namespace, limit);
                    let _ = reply.send(letters.map_err(|error| self.error(&error)));
                }
            }
        }
        if writes.is_empty() {
            return;
        }
        let started = Instant::now();
        let written = loop {
            match self.write(&writes) {
                Err(error) if is_busy(&error) && started.elapsed() < PATIENCE => {}
                written => break written.map_err(|error| self.error(&error)),
            }
        };
        match written {
            Ok(counts) => {
                for ((write, reply), count) in writes.into_iter().zip(counts) {
                    if let Write::Submit { connection, id, .. } = write {
                        for listener in &mut self.listeners {
                            listener.submitted(&connection, &id, count == 0);
                        }
                    }
                    let _ = reply.send(Ok(count));
                }
                self.bell.ring();
            }
            Err(error) => {
                for (_write, reply) in writes {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    fn error(&self, error: &rusqlite::Error) -> QueueError {
        queue_error(&self.database.path, error)
    }

    fn write(&self, writes: &[(Write, Reply<usize>)]) -> rusqlite::Result<Vec<usize>> {
        let (tx, namespace) = (self.database.write()?, &self.namespace);
        let mut counts = Vec::with_capacity(writes.len());
        for (write, _reply) in writes {
            counts.push(match write {
                Write::Submit {
                    connection,
                    id,
                    body,
                } => submit(&tx, namespace, connection, id.as_str(), body)?,
                Write::Cancel(body) => tx
                    .prepare_cached(
                        "INSERT INTO cancels (namespace, sent_at, body) VALUES (?1, ?2, ?3)",
                    )?
                    .execute(params![namespace, now(), body])?,
                Write::SettleDead(how, limit) => settle_dead(&tx, namespace, *how, *limit)?,
            });
        }
        tx.commit()?;
        Ok(counts)
    }

    fn listen(&mut self, to: Listen) -> Result<mpsc::Receiver<News>, QueueError> {
        let (sender, receiver) = mpsc::channel(MAX_NEWS);
        let listener = Listener::new(&self.database.connection, to, sender);
        self.listeners
            .push(listener.map_err(|error| self.error(&error))?);
        Ok(receiver)
    }

    fn tell_news(&mut self) {
        if self.listeners.is_empty() {
            return;
        }
        self.listeners.retain(Listener::is_heard);
        // Where this can't be told, reading shows why.
        let changed = self.database.changed().unwrap_or(true);
        let db = &self.database.connection;
        for listener in &mut self.listeners {
            if let Err(error) = listener.tell(db, &self.namespace, changed) {
                listener.stumbled(&error);
            }
        }
    }
}

/// Returns 0 where the id is there already, waiting, running or done.
fn submit(
    tx: &Connection,
    namespace: &str,
    connection: &str,
    id: &str,
    body: &[u8],
) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "INSERT INTO requests (namespace, connection, id, state, deliveries, submitted_at, body)
         VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6) ON CONFLICT DO NOTHING",
    )?
    .execute(params![
        namespace,
        connection,
        id,
        state::READY,
        now(),
        body
    ])
}

fn dead_letters(
    db: &Connection,
    namespace: &str,
    limit: usize,
) -> rusqlite::Result<Vec<DeadLetter>> {
    let mut statement = db.prepare_cached(
        "SELECT reason, error, connection, id, body FROM dead
         WHERE namespace = ?1 ORDER BY seq LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let letters = statement.query_map(params![namespace, limit], |row| {
        Ok(DeadLetter {
            reason: row.get(0)?,
            error: row.get(1)?,
            connection: row.get(2)?,
            message_id: row.get(3)?,
            body: Bytes::from(row.get::<_, Vec<u8>>(4)?),
        })
    })?;
    letters.collect()
}

/// A letter whose id was submitted again meanwhile stays where it is when it would be requeued: that
/// is the same work, and it is under way or done.
fn settle_dead(
    tx: &Connection,
    namespace: &str,
    how: SettleDead,
    limit: usize,
) -> rusqlite::Result<usize> {
    let mut oldest = tx.prepare_cached(
        "SELECT seq FROM dead WHERE namespace = ?1 AND (?3 OR NOT EXISTS (
             SELECT 1 FROM requests WHERE requests.namespace = dead.namespace
             AND requests.connection = dead.connection AND requests.id = dead.id))
         ORDER BY seq LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let oldest: Vec<i64> = oldest
        .query_map(params![namespace, limit, how == SettleDead::Drop], |row| {
            row.get(0)
        })?
        .collect::<Result<_, _>>()?;
    let mut requeue = tx.prepare_cached(
        "INSERT INTO requests (namespace, connection, id, state, deliveries, submitted_at, body)
         SELECT namespace, connection, id, ?2, 0, ?3, body FROM dead WHERE seq = ?1
         ON CONFLICT DO NOTHING",
    )?;
    let mut remove = tx.prepare_cached("DELETE FROM dead WHERE seq = ?1")?;
    let mut settled = 0;
    for seq in oldest {
        let goes = match how {
            SettleDead::Drop => true,
            SettleDead::Requeue => requeue.execute(params![seq, state::READY, now()])? == 1,
        };
        if goes {
            settled += remove.execute([seq])?;
        }
    }
    Ok(settled)
}
