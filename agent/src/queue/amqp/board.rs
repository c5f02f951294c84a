//! What is wrong, from several sides, as one [`Health`].

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use sparkferry_ports::queue::Health;

/// Troubles by where they come from. A trouble stands until its source takes it back.
pub(super) struct Board {
    troubles: Mutex<BTreeMap<String, String>>,
    health: watch::Sender<Health>,
}

impl Board {
    /// Nothing wrong.
    pub(super) fn new() -> Self {
        Self {
            troubles: Mutex::default(),
            health: watch::Sender::new(Health::default()),
        }
    }

    /// Sets (`Some`) or takes back (`None`) the trouble of a source. Tells whether that changed
    /// anything, so that the log has one line for each change.
    pub(super) fn set(&self, source: &str, trouble: Option<String>) -> bool {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = match trouble {
            Some(trouble) => {
                let old = troubles.insert(source.to_owned(), trouble.clone());
                old.as_ref() != Some(&trouble)
            }
            None => troubles.remove(source).is_some(),
        };
        if changed {
            let mut texts: Vec<&str> = troubles.values().map(String::as_str).collect();
            texts.sort_unstable();
            texts.dedup();
            let trouble = (!texts.is_empty()).then(|| texts.join("; "));
            self.health.send_replace(Health { trouble });
        }
        changed
    }

    /// The sum, now and later.
    pub(super) fn watch(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_the_sum_of_what_stands() {
        let board = Board::new();
        let health = board.watch();
        assert!(board.set("a", Some("gone".into())));
        assert!(!board.set("a", Some("gone".into())));
        assert!(board.set("b", Some("gone".into())));
        assert_eq!(health.borrow().to_string(), "gone");
        assert!(board.set("b", Some("blocked".into())));
        assert_eq!(health.borrow().to_string(), "blocked; gone");
        assert!(board.set("a", None) && board.set("b", None));
        assert!(!board.set("b", None));
        assert_eq!(*health.borrow(), Health::default());
    }
}
