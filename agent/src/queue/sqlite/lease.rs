//! Leases: how a worker keeps what it has, and how what a dead one had comes free.
//!
//! A worker has one row in `workers`, its session, and counts `beat` up there every few seconds.
//! Everything it holds hangs on that one row, so holding ten thousand requests costs no more than
//! holding one. A session whose process has ended (see `presence`) is taken away by whoever sees it
//! first, with everything that hung on it made ready again.
//!
//! At each beat a worker also looks at the others' rows, and one that did not change for
//! [`SILENT_LOOKS`] looks is taken away as well: its process is stopped, or its locks don't work.
//!
//! No clock is compared with another one, and none that can jump is asked: a changed system time, a
//! suspended machine or a database that was locked for a while take nothing from anyone, since
//! whoever can't beat can't look either (both happen in one transaction).
//!
//! A worker that was frozen and comes back finds its row gone, and knows that it holds nothing: every
//! settlement names the session in the same transaction, and numbers of sessions are never reused.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rusqlite::{Connection, params};

use super::database::{now, state};
use super::presence::{Lock, Name, Presence};

/// From one beat of a worker to its next.
pub(super) const BEAT: Duration = Duration::from_secs(3);

/// How often a worker looks whether other processes have ended.
pub(super) const LOOK_FOR_DEATHS: Duration = Duration::from_millis(200);

/// Looks in a row at which a worker's row was unchanged before it counts as dead: with [`BEAT`],
/// 15 to 18 s after it stopped, and at most 21 s where only a worker that starts then finds it.
const SILENT_LOOKS: u32 = 5;

/// What a worker saw of the others: of each session the beat, and how many looks found just that.
pub(super) type Seen = HashMap<i64, (i64, u32)>;

/// One beat and one look at the others, once it is committed.
pub(super) struct Pulse {
    /// The session from now on.
    pub(super) session: i64,
    /// It has just begun, with this lock; perhaps in the place of one that was taken away.
    pub(super) begun: Option<Lock>,
    /// What was seen of the others.
    pub(super) seen: Seen,
    /// Requests that dead workers had, ready again now.
    pub(super) freed: usize,
}

/// Beats, and frees what dead workers had. In a transaction.
pub(super) fn beat(
    tx: &Connection,
    session: Option<i64>,
    name: &str,
    seen: &Seen,
    presence: &Presence,
) -> rusqlite::Result<Pulse> {
    let kept = match session {
        Some(session) => tx
            .prepare_cached("UPDATE workers SET beat = beat + 1 WHERE session = ?1")?
            .execute([session])?,
        None => 0,
    };
    let (session, begun) = match session {
        Some(session) if kept == 1 => (session, None),
        _ => {
            let (session, lock) = begin(tx, name, presence)?;
            (session, Some(lock))
        }
    };
    let mut pulse = Pulse {
        session,
        begun,
        seen: Seen::new(),
        freed: 0,
    };
    let mut others = tx.prepare_cached("SELECT session, beat FROM workers WHERE session <> ?1")?;
    let others: Vec<(i64, i64)> = others
        .query_map([session], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (other, beat) in others {
        let looks = match seen.get(&other) {
            Some(&(before, looks)) if before == beat => looks + 1,
            _ => 0,
        };
        if looks >= SILENT_LOOKS {
            pulse.freed += release(tx, other)?;
        } else {
            pulse.seen.insert(other, (beat, looks));
        }
    }
    Ok(pulse)
}

/// Begins a session.
fn begin(tx: &Connection, name: &str, presence: &Presence) -> rusqlite::Result<(i64, Lock)> {
    let opened_at = now();
    tx.prepare_cached("INSERT INTO workers (name, beat, opened_at) VALUES (?1, 0, ?2)")?
        .execute(params![name, opened_at])?;
    let session = tx.last_insert_rowid();
    let lock = presence.lock((session, opened_at));
    presence.sweep(&sessions(tx, None)?);
    Ok((session, lock))
}

/// All sessions but this one.
fn sessions(db: &Connection, but: Option<i64>) -> rusqlite::Result<HashSet<Name>> {
    db.prepare_cached("SELECT session, opened_at FROM workers WHERE session IS NOT ?1")?
        .query_map([but], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Whether the process of another session has ended.
pub(super) fn is_any_gone(
    db: &Connection,
    session: Option<i64>,
    presence: &Presence,
) -> rusqlite::Result<bool> {
    let others = sessions(db, session)?;
    Ok(others.into_iter().any(|other| presence.is_gone(other)))
}

/// Takes away the sessions whose processes have ended. Returns how many requests that makes ready.
/// In a transaction.
pub(super) fn take_over(
    tx: &Connection,
    session: Option<i64>,
    presence: &Presence,
) -> rusqlite::Result<usize> {
    let mut freed = 0;
    for other in sessions(tx, session)? {
        if presence.is_gone(other) {
            freed += release(tx, other.0)?;
            presence.forget(other);
        }
    }
    Ok(freed)
}

/// Ends a session: makes ready what it has and takes its row away. Returns how many requests that
/// were. In a transaction.
pub(super) fn release(tx: &Connection, session: i64) -> rusqlite::Result<usize> {
    let freed = tx
        .prepare_cached(
            "UPDATE requests SET state = ?2, session = NULL WHERE session = ?1 AND state = 1",
        )?
        .execute(params![session, state::READY])?;
    tx.prepare_cached("DELETE FROM workers WHERE session = ?1")?
        .execute([session])?;
    Ok(freed)
}
