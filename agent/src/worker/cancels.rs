//! The cancels in force: those of the last 24 hours, for requests that are here or yet to come.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use sparkferry_shared::Id;
use sparkferry_shared::cancel::CANCEL_LIFETIME_SECONDS;
use tokio::time::Instant;

use sparkferry_ports::queue::SentCancel;

/// So many cancels are kept at most; beyond, the oldest go first. At 200 bytes each, 20 MB.
const MOST: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Cancels {
    by_id: Mutex<HashMap<Id, Vec<(SentCancel, Instant)>>>,
}

/// A cancel that is in force for a request.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) reason: String,
    sent_at: Option<Timestamp>,
}

impl InForce {
    /// Whether a request was sent after this cancel, as far as their senders say: then it may be
    /// the copy of one that is done.
    pub(super) fn is_older_than(&self, request_sent_at: Option<Timestamp>) -> bool {
        self.sent_at
            .zip(request_sent_at)
            .is_some_and(|(cancelled, sent)| cancelled < sent)
    }
}

impl Cancels {
    /// Keeps a cancel, in the place of an older one that speaks of the same.
    pub(super) fn insert(&self, sent: SentCancel) {
        let now = Instant::now();
        let lifetime = Duration::from_secs(CANCEL_LIFETIME_SECONDS);
        let mut by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        if by_id.len() >= MOST {
            by_id.retain(|_, kept| kept.iter().any(|(_, since)| now - *since < lifetime));
        }
        if by_id.len() >= MOST {
            let oldest = by_id
                .iter()
                .min_by_key(|(_, kept)| kept.iter().map(|(_, since)| *since).max())
                .map(|(id, _)| id.clone());
            oldest.map(|id| by_id.remove(&id));
        }
        let kept = by_id.entry(sent.cancel.cancel.clone()).or_default();
        kept.retain(|(_, since)| now - *since < lifetime);
        let same = |other: &SentCancel| other.cancel.connection == sent.cancel.connection;
        match kept.iter_mut().find(|(other, _)| same(other)) {
            // The same one again, read anew after a reconnect, changes nothing.
            Some((other, _)) if other.sent_at >= sent.sent_at => {}
            Some(other) => *other = (sent, now),
            None => kept.push((sent, now)),
        }
    }

    /// The cancel that is in force for a request, if there is one; the latest of several.
    pub(super) fn in_force(&self, connection: &str, id: &Id) -> Option<InForce> {
        let lifetime = Duration::from_secs(CANCEL_LIFETIME_SECONDS);
        let by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        let concerned = by_id.get(id)?.iter().filter(|(sent, since)| {
            sent.cancel.concerns(connection, id) && since.elapsed() < lifetime
        });
        let (latest, _) = concerned.max_by_key(|(sent, _)| sent.sent_at)?;
        Some(InForce {
            reason: latest.cancel.reason.clone().unwrap_or_default(),
            sent_at: latest.sent_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use sparkferry_shared::Cancel;

    use super::*;

    fn cancel(id: &str, connection: Option<&str>, second: Option<i64>) -> SentCancel {
        SentCancel {
            cancel: Cancel {
                cancel: id.parse().unwrap(),
                connection: connection.map(str::to_owned),
                reason: Some(format!("no more {id}")),
            },
            sent_at: second.map(|second| Timestamp::from_second(second).unwrap()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancel_is_in_force_for_a_day_and_for_its_connection() {
        let cancels = Cancels::default();
        cancels.insert(cancel("a", None, None));
        cancels.insert(cancel("b", Some("prod"), None));
        let reason = |connection: &str, id: &str| {
            let found = cancels.in_force(connection, &id.parse().unwrap());
            found.map(|found| found.reason)
        };
        assert_eq!(reason("lake", "a").as_deref(), Some("no more a"));
        assert!(reason("prod", "b").is_some());
        assert!(reason("lake", "b").is_none());
        assert!(reason("prod", "c").is_none());

        tokio::time::advance(Duration::from_secs(CANCEL_LIFETIME_SECONDS)).await;
        assert!(reason("lake", "a").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_cancel_says_what_was_sent_before_it() {
        let cancels = Cancels::default();
        let older_than = |second: Option<i64>| {
            let found = cancels.in_force("prod", &"a".parse().unwrap()).unwrap();
            found.is_older_than(second.map(|second| Timestamp::from_second(second).unwrap()))
        };
        cancels.insert(cancel("a", None, None));
        assert!(!older_than(Some(100)), "nobody knows when it was sent");
        cancels.insert(cancel("a", None, Some(50)));
        assert!(older_than(Some(51)));
        assert!(!older_than(Some(50)), "the same second says nothing");
        assert!(!older_than(None));
        cancels.insert(cancel("a", Some("prod"), Some(60)));
        cancels.insert(cancel("a", None, Some(40)));
        assert!(!older_than(Some(55)));
    }
}
