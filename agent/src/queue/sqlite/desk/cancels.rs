//! Cancels, read for those who want them.

use rusqlite::{Connection, params};
use sparkferry_ports::queue::SentCancel;
use sparkferry_shared::Cancel;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;
use tracing::warn;

use super::Desk;
use crate::queue::sqlite::database::now;
use crate::queue::sqlite::settle::MEMORY_MS;
use crate::queue::sqlite::trouble::Trouble;

/// Somebody who wants cancels, and how far it has them.
pub(super) struct CancelsTo {
    to: Sender<SentCancel>,
    read_up_to: i64,
    /// There may be more than was read.
    behind: bool,
    caught_up: Option<oneshot::Sender<()>>,
}

impl CancelsTo {
    /// From the oldest that is in force. `caught_up` is answered once the past ones are sent.
    pub(super) fn new(to: Sender<SentCancel>, caught_up: oneshot::Sender<()>) -> Self {
        Self {
            to,
            read_up_to: 0,
            behind: true,
            caught_up: Some(caught_up),
        }
    }

    /// From the oldest again: it is another database.
    pub(super) fn start_over(&mut self) {
        (self.read_up_to, self.behind) = (0, true);
    }

    /// Sends what is new, as far as there is room; the rest stays in the table until there is.
    fn tell(&mut self, db: &Connection, namespace: &str) -> rusqlite::Result<()> {
        let mut statement = db.prepare_cached(
            "SELECT seq, body FROM cancels
             WHERE namespace = ?1 AND seq > ?2 AND sent_at >= ?3 ORDER BY seq",
        )?;
        let mut rows = statement.query(params![namespace, self.read_up_to, now() - MEMORY_MS])?;
        self.behind = false;
        while let Some(row) = rows.next()? {
            let Ok(permit) = self.to.try_reserve() else {
                self.behind = true;
                break;
            };
            self.read_up_to = row.get(0)?;
            match Cancel::read(row.get_ref(1)?.as_bytes()?) {
                // When it was sent tells nothing here: what is done is never delivered again.
                Ok(cancel) => permit.send(SentCancel {
                    cancel,
                    sent_at: None,
                }),
                Err(error) => warn!(%error, "a cancel that this version can't read"),
            }
        }
        if let Some(caught_up) = self.caught_up.take() {
            // Nobody may wait for it any more.
            let _ = caught_up.send(());
        }
        Ok(())
    }
}

impl Desk {
    /// Sends new cancels to those who want them.
    pub(super) fn tell_cancels(&mut self, changed: bool) -> Result<(), Trouble> {
        let database = &self.setup.database.connection;
        self.cancels.retain(|cancels| !cancels.to.is_closed());
        for cancels in &mut self.cancels {
            if changed || cancels.behind {
                cancels.behind = true; // until it was read without an error
                cancels.tell(database, &self.setup.namespace)?;
            }
        }
        Ok(())
    }
}
