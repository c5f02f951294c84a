//! What a producer's listener hears: read from the tables, as fast as it listens.

use std::collections::{HashSet, VecDeque};

use rusqlite::{Connection, OptionalExtension, params};
use serde::de::DeserializeOwned;
use sparkferry_ports::queue::{Listen, News};
use sparkferry_shared::{Event, Id, RunResult};
use tokio::sync::mpsc::Sender;
use tracing::warn;

use super::trouble::explain;

/// News that wait to be heard; beyond, they stay in the tables.
pub(super) const MAX_NEWS: usize = 1024;

/// A connection and an id: what names a request.
type Name = (String, String);

/// Somebody who listens, and how far it has heard.
pub(super) struct Listener {
    /// Hears only of these ids; `None` is of all, and then of events alone.
    mine: Option<HashSet<Id>>,
    to: Sender<News>,
    events_read: i64,
    results_read: i64,
    /// What this producer submitted: whose results are wanted.
    submitted: HashSet<Name>,
    /// Of these, what was there already: their results may be older than this listener.
    known: VecDeque<Name>,
    /// There may be more than was read.
    behind: bool,
    stumbles: bool,
}

impl Listener {
    /// Listens from now on.
    pub(super) fn new(db: &Connection, to: Listen, sender: Sender<News>) -> rusqlite::Result<Self> {
        let last = |table: &str| {
            let sql = format!("SELECT coalesce(max(seq), 0) FROM {table}");
            db.query_row(&sql, [], |row| row.get::<_, i64>(0))
        };
        Ok(Self {
            mine: match to {
                Listen::Mine(ids) => Some(ids.into_iter().collect()),
                Listen::Everything => None,
            },
            to: sender,
            events_read: last("events")?,
            results_read: last("results")?,
            submitted: HashSet::new(),
            known: VecDeque::new(),
            behind: true,
            stumbles: false,
        })
    }

    /// Whether anybody still listens.
    pub(super) fn is_heard(&self) -> bool {
        !self.to.is_closed()
    }

    /// This producer submitted it; `known` if it was there already.
    pub(super) fn submitted(&mut self, connection: &str, id: &Id, known: bool) {
        if self.mine.is_some() {
            let name = (connection.to_owned(), id.as_str().to_owned());
            if known {
                self.known.push_back(name.clone());
            }
            self.submitted.insert(name);
            self.behind = true;
        }
    }

    /// Reading failed; the next time it is tried again.
    pub(super) fn stumbled(&mut self, error: &rusqlite::Error) {
        self.behind = true;
        if !std::mem::replace(&mut self.stumbles, true) {
            warn!(
                why = explain(error),
                "the queue can't be read; trying again"
            );
        }
    }

    /// Sends what is new, as far as there is room.
    pub(super) fn tell(
        &mut self,
        db: &Connection,
        namespace: &str,
        changed: bool,
    ) -> rusqlite::Result<()> {
        if !changed && !self.behind {
            return Ok(());
        }
        // Until everything was read without an error.
        self.behind = true;
        self.behind = !(self.tell_known(db, namespace)?
            && self.tell_events(db, namespace)?
            && self.tell_results(db, namespace)?);
        self.stumbles = false;
        Ok(())
    }

    /// Returns whether there was room for everything; as the two below.
    fn tell_known(&mut self, db: &Connection, namespace: &str) -> rusqlite::Result<bool> {
        let mut statement = db.prepare_cached(
            "SELECT results.body FROM results JOIN requests ON requests.seq = results.request
             WHERE namespace = ?1 AND connection = ?2 AND id = ?3",
        )?;
        while let Some((connection, id)) = self.known.front() {
            let Ok(permit) = self.to.try_reserve() else {
                return Ok(false);
            };
            let body: Option<Vec<u8>> = statement
                .query_row([namespace, connection, id], |row| row.get(0))
                .optional()?;
            // Where there is none yet, it comes with the others.
            if let Some(result) = body.and_then(|body| read::<RunResult>(&body)) {
                permit.send(News::Result(result));
            }
            self.known.pop_front();
        }
        Ok(true)
    }

    fn tell_events(&mut self, db: &Connection, namespace: &str) -> rusqlite::Result<bool> {
        let mut statement = db.prepare_cached(
            "SELECT seq, id, body FROM events WHERE namespace = ?1 AND seq > ?2 ORDER BY seq",
        )?;
        let mut rows = statement.query(params![namespace, self.events_read])?;
        while let Some(row) = rows.next()? {
            let id = row.get_ref(1)?.as_str()?;
            if self.mine.as_ref().is_none_or(|mine| mine.contains(id)) {
                let Ok(permit) = self.to.try_reserve() else {
                    return Ok(false);
                };
                if let Some(event) = read::<Event>(row.get_ref(2)?.as_bytes()?) {
                    permit.send(News::Event(event));
                }
            }
            self.events_read = row.get(0)?;
        }
        Ok(true)
    }

    fn tell_results(&mut self, db: &Connection, namespace: &str) -> rusqlite::Result<bool> {
        if self.submitted.is_empty() {
            return Ok(true);
        }
        let mut statement = db.prepare_cached(
            "SELECT results.seq, connection, id, results.body
             FROM results JOIN requests ON requests.seq = results.request
             WHERE results.seq > ?2 AND namespace = ?1 ORDER BY results.seq",
        )?;
        let mut rows = statement.query(params![namespace, self.results_read])?;
        while let Some(row) = rows.next()? {
            let name = (row.get(1)?, row.get(2)?);
            if self.submitted.contains(&name) {
                let Ok(permit) = self.to.try_reserve() else {
                    return Ok(false);
                };
                if let Some(result) = read::<RunResult>(row.get_ref(3)?.as_bytes()?) {
                    permit.send(News::Result(result));
                }
            }
            self.results_read = row.get(0)?;
        }
        Ok(true)
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Option<Box<T>> {
    serde_json::from_slice(body)
        .inspect_err(|error| warn!(%error, "news that this version can't read"))
        .ok()
}
