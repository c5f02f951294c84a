//! What a worker writes about the requests that it holds. All of it in a transaction, and all of it
//! only where the worker still has the request: the session is named in every statement.

use rusqlite::{Connection, OptionalExtension, params};
use sparkferry_ports::queue::Outgoing;
use sparkferry_shared::Event;

use super::database::{now, state};

/// Events and cancels older than this are forgotten, in milliseconds: 24 hours, as the contract has
/// it for cancels.
pub(super) const MEMORY_MS: i64 = 24 * 60 * 60 * 1000;

/// Events beyond so many are forgotten, the oldest first.
const MAX_EVENTS: i64 = 100_000;

/// A request taken for delivery.
pub(super) struct Taken {
    pub(super) seq: i64,
    pub(super) id: String,
    pub(super) body: Vec<u8>,
    /// This one included.
    pub(super) deliveries: i64,
}

/// Whether a request waits.
pub(super) fn is_any_ready(
    db: &Connection,
    namespace: &str,
    connection: &str,
) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT 1 FROM requests WHERE namespace = ?1 AND connection = ?2 AND state = 0 LIMIT 1",
    )?
    .exists([namespace, connection])
}

/// Takes the oldest requests that wait, at most `room`, oldest first.
pub(super) fn take(
    tx: &Connection,
    session: i64,
    namespace: &str,
    connection: &str,
    room: usize,
) -> rusqlite::Result<Vec<Taken>> {
    let mut statement = tx.prepare_cached(
        "UPDATE requests SET state = ?1, session = ?2, deliveries = deliveries + 1
         WHERE seq IN (SELECT seq FROM requests
                       WHERE namespace = ?3 AND connection = ?4 AND state = 0
                       ORDER BY seq LIMIT ?5)
         RETURNING seq, id, body, deliveries",
    )?;
    let room = i64::try_from(room).unwrap_or(i64::MAX);
    let row = params![state::LEASED, session, namespace, connection, room];
    let mut taken = statement
        .query_map(row, |row| {
            Ok(Taken {
                seq: row.get(0)?,
                id: row.get(1)?,
                body: row.get(2)?,
                deliveries: row.get(3)?,
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    // RETURNING promises no order.
    taken.sort_unstable_by_key(|taken| taken.seq);
    Ok(taken)
}

/// The result and the end of the request at once. Returns whether it was still ours.
pub(super) fn finish(
    tx: &Connection,
    session: i64,
    seq: i64,
    result: &Outgoing,
) -> rusqlite::Result<bool> {
    let ended = tx
        .prepare_cached(
            "UPDATE requests SET state = ?1, session = NULL, body = NULL
             WHERE seq = ?2 AND session = ?3 AND state = 1",
        )?
        .execute(params![state::DONE, seq, session])?;
    if ended > 0 {
        publish(tx, seq, result)?;
    }
    Ok(ended > 0)
}

/// The result alone. Returns whether the request is ours.
pub(super) fn announce(
    tx: &Connection,
    session: i64,
    seq: i64,
    result: &Outgoing,
) -> rusqlite::Result<bool> {
    let ours = tx
        .prepare_cached("SELECT 1 FROM requests WHERE seq = ?1 AND session = ?2 AND state = 1")?
        .exists([seq, session])?;
    if ours {
        publish(tx, seq, result)?;
    }
    Ok(ours)
}

/// One request has one result: the first, where it was announced before.
fn publish(tx: &Connection, seq: i64, result: &Outgoing) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO results (request, message_id, outcome, finished_at, body)
         VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (request) DO NOTHING",
    )?
    .execute(params![
        seq,
        result.message_id.to_string(),
        result.outcome.as_str(),
        now(),
        &result.body[..],
    ])?;
    Ok(())
}

/// Makes a request ready again. Returns whether it was still ours.
pub(super) fn hand_back(tx: &Connection, session: i64, seq: i64) -> rusqlite::Result<bool> {
    let rows = tx
        .prepare_cached(
            "UPDATE requests SET state = ?1, session = NULL
             WHERE seq = ?2 AND session = ?3 AND state = 1",
        )?
        .execute(params![state::READY, seq, session])?;
    Ok(rows > 0)
}

/// Moves a request to the dead letters. Returns whether it was still ours.
pub(super) fn bury(
    tx: &Connection,
    session: i64,
    seq: i64,
    reason: &str,
    error: &str,
) -> rusqlite::Result<bool> {
    let moved = tx
        .prepare_cached(
            "INSERT INTO dead (namespace, connection, id, reason, error, buried_at, body)
             SELECT namespace, connection, id, ?3, ?4, ?5, body FROM requests
             WHERE seq = ?1 AND session = ?2 AND state = 1",
        )?
        .execute(params![seq, session, reason, error, now()])?;
    if moved == 0 {
        return Ok(false);
    }
    tx.prepare_cached("DELETE FROM requests WHERE seq = ?1")?
        .execute([seq])?;
    Ok(true)
}

/// Writes an event down for those who listen.
pub(super) fn tell(tx: &Connection, namespace: &str, event: &Event) -> rusqlite::Result<()> {
    let body = serde_json::to_vec(event)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    tx.prepare_cached("INSERT INTO events (namespace, id, told_at, body) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![namespace, event.id.as_str(), now(), body])?;
    Ok(())
}

/// Forgets old events and cancels.
pub(super) fn forget(tx: &Connection) -> rusqlite::Result<()> {
    let since = now() - MEMORY_MS;
    // Numbers grow with time, so only what goes is looked at, and one row more.
    for table in ["events", "cancels"] {
        let time = if table == "events" {
            "told_at"
        } else {
            "sent_at"
        };
        let kept: Option<i64> = tx
            .prepare_cached(&format!(
                "SELECT seq FROM {table} WHERE {time} >= ?1 ORDER BY seq LIMIT 1"
            ))?
            .query_row([since], |row| row.get(0))
            .optional()?;
        tx.prepare_cached(&format!("DELETE FROM {table} WHERE seq < ?1"))?
            .execute([kept.unwrap_or(i64::MAX)])?;
    }
    tx.prepare_cached("DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?1")?
        .execute([MAX_EVENTS])?;
    Ok(())
}
