//! One round of the worker's thread: a transaction, and what it means once it is committed.

use std::time::Instant;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::Connection;
use sparkferry_ports::queue::{Delivery, Lease, TraceContext};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Desk, FORGET, Held, MAX_TAKEN, Session, What, Write};
use crate::observe::metrics;
use crate::queue::sqlite::database::Database;
use crate::queue::sqlite::lease::{self, Pulse};
use crate::queue::sqlite::presence::{Lock, Presence};
use crate::queue::sqlite::settle::{self, Taken};
use crate::queue::sqlite::trouble::Trouble;

/// What one transaction did, to be remembered once it is committed.
#[derive(Default)]
struct Round {
    /// The numbers that each pending write settled.
    settled: Vec<Vec<u64>>,
    pulse: Option<Pulse>,
    /// Requests of dead workers that are ready again.
    taken_over: usize,
    /// By the consumer's key.
    taken: Vec<(u64, Vec<Taken>)>,
}

impl Desk {
    /// Once round: writes what is to be written, delivers what is ready.
    pub(super) fn round(&mut self) -> Result<(), Trouble> {
        if Instant::now() >= self.next_beat && self.setup.database.is_replaced() {
            self.reopen()?;
        }
        let changed = self.setup.database.changed()?;
        self.stale |= changed;
        self.consumers
            .retain(|active| !active.consumer.deliveries.is_closed());
        let (beats, deaths) = (Instant::now() >= self.next_beat, self.sees_a_death()?);
        let asked = !self.pending.is_empty() || !self.told.is_empty();
        if beats || deaths || asked || self.is_any_wanted()? {
            let round = self.write(beats, deaths)?;
            let alone = self.pending.is_empty() && self.told.is_empty();
            self.remember(round);
            // Others may wait for what was written, and this thread for its own next round. Nobody
            // waits for a beat alone.
            if self.stale || !alone {
                self.setup.bell.ring();
            }
        }
        self.tell_cancels(changed)
    }

    /// The last time round: writes what is still to be written and gives everything back.
    pub(super) fn last_round(&mut self) -> Result<(), Trouble> {
        let (mut round, tx) = (Round::default(), self.setup.database.write()?);
        self.write_asked(&tx, &mut round)?;
        if let Some(session) = &self.session {
            lease::release(&tx, session.number)?;
        }
        tx.commit()?;
        self.remember(round);
        self.end_session();
        Ok(())
    }

    /// Looks now and then whether another worker's process has ended.
    fn sees_a_death(&mut self) -> rusqlite::Result<bool> {
        let now = Instant::now();
        if now < self.next_look_for_deaths {
            return Ok(false);
        }
        let session = self.session.as_ref().map(|session| session.number);
        let (db, presence) = (&self.setup.database.connection, &self.setup.presence);
        let gone = lease::is_any_gone(db, session, presence)?;
        self.next_look_for_deaths = now + lease::LOOK_FOR_DEATHS;
        Ok(gone)
    }

    fn is_any_wanted(&mut self) -> rusqlite::Result<bool> {
        if !self.stale {
            return Ok(false);
        }
        let db = &self.setup.database.connection;
        for active in self.consumers.iter().filter(|active| active.room() > 0) {
            if settle::is_any_ready(db, &self.setup.namespace, &active.consumer.connection)? {
                return Ok(true);
            }
        }
        self.stale = false;
        Ok(false)
    }

    /// One transaction with everything that is to be written. Changes nothing but the database.
    fn write(&self, beats: bool, deaths: bool) -> rusqlite::Result<Round> {
        let (setup, mut round) = (&self.setup, Round::default());
        let tx = setup.database.write()?;
        self.write_asked(&tx, &mut round)?;
        let session = self.session.as_ref().map(|session| session.number);
        if deaths {
            round.taken_over = lease::take_over(&tx, session, &setup.presence)?;
        }
        if beats {
            let (seen, presence) = (&self.seen, &setup.presence);
            let pulse = lease::beat(&tx, session, &setup.worker, seen, presence)?;
            round.taken_over += pulse.freed;
            round.pulse = Some(pulse);
            if Instant::now() >= self.next_forget {
                settle::forget(&tx)?;
            }
        }
        let session = round.pulse.as_ref().map(|pulse| pulse.session).or(session);
        for active in &self.consumers {
            let (room, connection) = (active.room(), &active.consumer.connection);
            if let Some(session) = session
                && room > 0
            {
                let taken = settle::take(&tx, session, &setup.namespace, connection, room)?;
                round.taken.push((active.key, taken));
            }
        }
        tx.commit()?;
        Ok(round)
    }

    /// What was asked: settlements and events.
    fn write_asked(&self, tx: &Connection, round: &mut Round) -> rusqlite::Result<()> {
        for write in &self.pending {
            round.settled.push(self.settle(tx, write)?);
        }
        for event in &self.told {
            settle::tell(tx, &self.setup.namespace, event)?;
        }
        Ok(())
    }

    /// Returns the numbers of the leases that were settled.
    fn settle(&self, tx: &Connection, write: &Write) -> rusqlite::Result<Vec<u64>> {
        let mut settled = Vec::with_capacity(write.leases.len());
        let Some(session) = self.session.as_ref().map(|session| session.number) else {
            return Ok(settled);
        };
        for &(slot, number) in &write.leases {
            let Some(held) = self.held.get(&number) else {
                continue;
            };
            let ours = slot == session.cast_unsigned()
                && match &write.what {
                    What::Finish(result) => settle::finish(tx, session, held.seq, result)?,
                    What::Announce(result) => settle::announce(tx, session, held.seq, result)?,
                    What::HandBack => settle::hand_back(tx, session, held.seq)?,
                    What::Bury { reason, error } => {
                        settle::bury(tx, session, held.seq, reason, error)?
                    }
                };
            if ours {
                settled.push(number);
            }
        }
        Ok(settled)
    }

    /// What a committed transaction means.
    fn remember(&mut self, round: Round) {
        self.told.clear();
        let writes = std::mem::take(&mut self.pending);
        for (write, settled) in writes.into_iter().zip(round.settled) {
            let kept = matches!(write.what, What::Announce(_));
            for number in settled.iter().filter(|_| !kept) {
                if let Some(held) = self.held.remove(number)
                    && let Some(active) = self.consumers.iter_mut().find(|a| a.key == held.consumer)
                {
                    active.unsettled -= 1;
                }
            }
            self.stale = true;
            // Nobody may wait for it any more.
            let _ = write.answer.send(!settled.is_empty());
        }
        if round.taken_over > 0 {
            self.stale = true;
            info!(
                requests = round.taken_over,
                "took over what dead workers had"
            );
        }
        if let Some(pulse) = round.pulse {
            self.seen = pulse.seen;
            if let Some(lock) = pulse.begun {
                self.begin_session(pulse.session, lock);
            }
            let now = Instant::now();
            self.next_beat = now + self.setup.beat;
            if now >= self.next_forget {
                self.next_forget = now + FORGET;
            }
        }
        for (key, taken) in round.taken {
            self.deliver(key, taken);
        }
    }

    fn begin_session(&mut self, number: i64, lock: Lock) {
        if self.session.is_some() {
            warn!(
                requests = self.held.len(),
                "this worker was held for dead (frozen?): others have its requests now"
            );
            self.end_session();
        }
        let lost = CancellationToken::new();
        self.session = Some(Session { number, lost, lock });
    }

    pub(super) fn end_session(&mut self) {
        if let Some(session) = self.session.take() {
            session.lost.cancel();
            session.lock.remove();
        }
        self.held.clear();
        for active in &mut self.consumers {
            active.unsettled = 0;
        }
        self.stale = true;
    }

    fn deliver(&mut self, key: u64, taken: Vec<Taken>) {
        let (Some(session), Some(active)) = (
            &self.session,
            self.consumers.iter_mut().find(|active| active.key == key),
        ) else {
            return;
        };
        self.stale |= taken.len() == MAX_TAKEN;
        for Taken {
            seq,
            id,
            body,
            deliveries,
        } in taken
        {
            self.last_number += 1;
            let lease = Lease {
                slot: session.number.cast_unsigned(),
                number: self.last_number,
                lost: session.lost.clone(),
            };
            let delivery = Delivery {
                body: Bytes::from(body),
                message_id: Some(id),
                correlation_id: None,
                reply_to: None,
                trace: TraceContext::default(),
                seen_before: deliveries > 1,
                sent_at: None,
                unreadable: None,
                received_at: Timestamp::now(),
                lease,
            };
            let consumer = active.key;
            self.held.insert(self.last_number, Held { seq, consumer });
            active.unsettled += 1;
            if active.consumer.deliveries.try_send(delivery).is_err() {
                // Nobody takes it: there was room, so the receiver is gone.
                self.pending.push(Write {
                    leases: vec![(session.number.cast_unsigned(), self.last_number)],
                    what: What::HandBack,
                    answer: oneshot::channel().0,
                });
            }
        }
    }

    /// The file was replaced: what was in it is gone, and so are the leases.
    fn reopen(&mut self) -> Result<(), Trouble> {
        let database = Database::open(&self.setup.database.path)?;
        warn!(
            path = %database.path.display(),
            "the database was replaced: going on with the new one"
        );
        metrics::queue_reconnected();
        self.setup.presence = Presence::beside(&database.path);
        self.setup.database = database;
        self.end_session();
        self.seen.clear();
        for cancels in &mut self.cancels {
            cancels.start_over();
        }
        Ok(())
    }
}
