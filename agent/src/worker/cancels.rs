//! The cancels in force: those of the last 24 hours, for requests that are here or yet to come.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sparkferry_shared::cancel::CANCEL_LIFETIME_SECONDS;
use sparkferry_shared::{Cancel, Id};
use tokio::time::Instant;

/// So many cancels are kept at most; beyond, the oldest go first. At 200 bytes each, 20 MB.
const MOST: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Cancels {
    by_id: Mutex<HashMap<Id, Vec<(Cancel, Instant)>>>,
}

impl Cancels {
    /// Keeps a cancel. One that is kept already changes nothing.
    pub(super) fn insert(&self, cancel: Cancel) {
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
        let kept = by_id.entry(cancel.cancel.clone()).or_default();
        kept.retain(|(_, since)| now - *since < lifetime);
        let same = |other: &Cancel| other.connection == cancel.connection;
        if !kept.iter().any(|(other, _)| same(other)) {
            kept.push((cancel, now));
        }
    }

    /// The reason of the cancel that is in force for a request, if there is one.
    pub(super) fn reason(&self, connection: &str, id: &Id) -> Option<String> {
        let lifetime = Duration::from_secs(CANCEL_LIFETIME_SECONDS);
        let by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        let (cancel, _) = by_id.get(id)?.iter().find(|(cancel, since)| {
            cancel.concerns(connection, id) && since.elapsed() < lifetime
        })?;
        Some(cancel.reason.clone().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cancel(id: &str, connection: Option<&str>) -> Cancel {
        Cancel {
            cancel: id.parse().unwrap(),
            connection: connection.map(str::to_owned),
            reason: Some(format!("no more {id}")),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancel_is_in_force_for_a_day_and_for_its_connection() {
        let cancels = Cancels::default();
        cancels.insert(cancel("a", None));
        cancels.insert(cancel("b", Some("prod")));
        let reason = |connection: &str, id: &str| cancels.reason(connection, &id.parse().unwrap());
        assert_eq!(reason("lake", "a").as_deref(), Some("no more a"));
        assert!(reason("prod", "b").is_some());
        assert!(reason("lake", "b").is_none());
        assert!(reason("prod", "c").is_none());

        tokio::time::advance(Duration::from_secs(CANCEL_LIFETIME_SECONDS)).await;
        assert!(reason("lake", "a").is_none());
    }
}
