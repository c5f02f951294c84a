//! The books: what came out, held against what went in and what the sandbox knows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use rusqlite::OpenFlags;
use serde_json::Value;
use sparkferry_shared::{Id, Names, Outcome, RunResult, Topology};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{interval, timeout};

use super::plan::Fate;
use super::poison;
use crate::stories::harness::{CONNECTION, Heard, PATIENCE, count, one_run_for_each_attempt};

/// From one look at the results to the next.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A broker that is frozen answers nothing: then the look is given up.
const LOOK_LIMIT: Duration = Duration::from_secs(20);

/// Where results lie.
#[derive(Clone)]
pub(super) enum Shelf {
    /// RabbitMQ at this URL.
    Amqp(String),
    /// This database.
    Sqlite(PathBuf),
}

/// The requests that have a result.
pub(super) type Answered = BTreeSet<Id>;

/// How many messages lie where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// Requests that wait or are held by somebody.
    pub(super) requests: u32,
    pub(super) dead: u32,
}

/// Every result that lay in the results queue, by its request's id.
pub(super) struct Books {
    shelf: Shelf,
    topology: Topology,
    results: BTreeMap<Id, RunResult>,
    /// Those of requests with odd properties.
    pub(super) poison: BTreeMap<Id, RunResult>,
    /// Results that came once more, with the same `message_id`.
    pub(super) twice: usize,
}

impl Books {
    pub(super) fn new(shelf: Shelf, topology: &Topology) -> Self {
        Self {
            shelf,
            topology: topology.clone(),
            results: BTreeMap::new(),
            poison: BTreeMap::new(),
            twice: 0,
        }
    }

    /// Takes results until so many requests have one; tells which do.
    pub(super) async fn read(&mut self, wanted: usize, progress: &watch::Sender<Answered>) {
        let mut looks = interval(LOOK_EVERY);
        while self.results.len() < wanted {
            let before = self.results.len();
            let waiting = async {
                while self.results.len() == before {
                    looks.tick().await;
                    self.look().await;
                }
            };
            let came = timeout(PATIENCE, waiting).await;
            came.unwrap_or_else(|_| panic!("{before} results of {wanted}, and no more"));
            progress.send_replace(self.results.keys().cloned().collect());
        }
    }

    /// Takes what is there. A broker that is away is asked again with the next look.
    pub(super) async fn look(&mut self) {
        match self.shelf.clone() {
            Shelf::Amqp(url) => {
                let _ = timeout(LOOK_LIMIT, self.take_from_broker(&url)).await;
            }
            Shelf::Sqlite(path) => self.take_from_database(path).await,
        }
    }

    async fn take_from_broker(&mut self, url: &str) -> lapin::Result<()> {
        let (_connection, channel) = channel(url).await?;
        let queue = self.topology.results_queue();
        while let Some(got) = channel
            .basic_get(queue.as_str().into(), BasicGetOptions::default())
            .await?
        {
            let message_id = got.properties.message_id().as_ref();
            let message_id = message_id.expect("a result has one").to_string();
            // What was taken and not acknowledged comes again; that is our own doing.
            self.enter(&message_id, &got.data, !got.redelivered);
            got.ack(BasicAckOptions::default()).await?;
        }
        Ok(())
    }

    async fn take_from_database(&mut self, path: PathBuf) {
        let known = u32::try_from(self.results.len()).expect("they fit");
        let reading = spawn_blocking(move || -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
            let database = rusqlite::Connection::open_with_flags(path, flags)?;
            let mut rows = database
                .prepare("SELECT message_id, body FROM results ORDER BY seq LIMIT -1 OFFSET ?1")?;
            let rows = rows.query_map([known], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        });
        // A database that is locked is read with the next look.
        if let Ok(rows) = reading.await.expect("no panic") {
            for (message_id, body) in rows {
                self.enter(&message_id, &body, true);
            }
        }
    }

    fn enter(&mut self, message_id: &str, body: &[u8], counts: bool) {
        let result: RunResult = serde_json::from_slice(body).expect("a result");
        let names = Names::new(self.topology.namespace(), CONNECTION, result.id.as_str());
        assert_eq!(message_id, names.result().to_string(), "{}", result.id);
        let results = if poison::is_one(&result.id) {
            &mut self.poison
        } else {
            &mut self.results
        };
        if let Some(before) = results.get(&result.id) {
            assert_eq!(before.outcome, result.outcome, "{}", result.id);
            self.twice += usize::from(counts);
        } else {
            results.insert(result.id.clone(), result);
        }
    }

    /// What is left in the queues. Meant for when no worker is there: what one holds does not show.
    pub(super) async fn left(&self) -> Left {
        match self.shelf.clone() {
            Shelf::Amqp(url) => {
                let opened = channel(&url).await;
                let (_connection, channel) = opened.expect("the broker is there");
                let queues = [
                    self.topology.requests_queue(CONNECTION),
                    self.topology.dead_queue(),
                ];
                let mut counts = Vec::new();
                for queue in queues {
                    let passive = QueueDeclareOptions::durable().passive();
                    let queue = channel.queue_declare(queue.into(), passive, FieldTable::default());
                    counts.push(queue.await.expect("it is there").message_count());
                }
                Left {
                    requests: counts[0],
                    dead: counts[1],
                }
            }
            Shelf::Sqlite(path) => {
                let counting = spawn_blocking(move || -> rusqlite::Result<Left> {
                    let database = rusqlite::Connection::open(path)?;
                    let count = |sql: &str| database.query_row(sql, [], |row| row.get(0));
                    Ok(Left {
                        requests: count("SELECT count(*) FROM requests WHERE state <> 2")?,
                        dead: count("SELECT count(*) FROM dead")?,
                    })
                });
                let left = counting.await.expect("no panic");
                left.expect("the database is there")
            }
        }
    }

    /// Every request has the result that it was to have, and each attempt has one run. Returns how
    /// many runs there were. `runs` and `stats` are the sandbox's own books.
    pub(super) fn balance(&self, fates: &[Fate], stats: &Value, runs: &Value) -> u64 {
        let outcomes: BTreeMap<i64, &str> = runs
            .as_array()
            .expect("a list")
            .iter()
            .map(|run| {
                let outcome = run["outcome"].as_str().unwrap_or("ACTIVE");
                (run["run_id"].as_i64().expect("a number"), outcome)
            })
            .collect();
        assert_eq!(self.results.len(), fates.len());
        for fate in fates {
            let result = &self.results[&fate.work.id];
            assert_eq!(result.outcome, fate.outcome, "{result:?}");
            assert_eq!(result.attempts.len(), fate.attempts, "{result:?}");
            let run = result.attempts.last().and_then(|attempt| attempt.run_id);
            // Of a run that is gone only who started it knows the number.
            let outcome = match (run, result.outcome) {
                (None, Outcome::Lost) => "DELETED",
                (run, _) => outcomes[&run.expect("every attempt had its run")],
            };
            let green = result.outcome == Outcome::Success;
            assert_eq!(green, outcome == "SUCCESS", "{outcome}: {result:?}");
            let names = Names::new(self.topology.namespace(), CONNECTION, result.id.as_str());
            for (attempt, nth) in result.attempts.iter().zip(1..) {
                assert_eq!((attempt.number, attempt.key), (nth, names.key(nth)));
            }
        }
        let all = self.results.iter().chain(&self.poison);
        let heard = Heard {
            results: all
                .map(|(id, result)| (id.clone(), result.clone()))
                .collect(),
            events: Vec::new(),
        };
        one_run_for_each_attempt(&heard, stats);
        count(stats, "/runs_started")
    }

    /// The longest time from a run's end to its result.
    pub(super) fn latest(&self) -> Duration {
        let lateness = self.results.values().filter_map(|result| {
            let ended = result.attempts.last()?.ended_at?;
            result.finished_at.duration_since(ended).try_into().ok()
        });
        lateness.max().unwrap_or_default()
    }
}

/// A channel, and the connection that it is on.
pub(super) async fn channel(url: &str) -> lapin::Result<(Connection, Channel)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}
