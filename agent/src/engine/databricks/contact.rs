//! Whether the workspace is within reach: what the last call tells, and a line in the log when it is
//! lost and when it is back.

use tracing::{info, warn};

/// So many calls in a row go wrong before it is worth a line: on a bad day one in ten does.
const LOST_AFTER: u32 = 5;

/// What the calls of a connection have told so far.
#[derive(Debug, Default)]
pub(super) struct Contact {
    trouble: Option<String>,
    /// Calls in a row that went wrong.
    failed: u32,
}

impl Contact {
    /// What was wrong with the last call.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Takes what is wrong with a call that has ended just now, and tells of a change.
    pub(super) fn note(&mut self, connection: &str, trouble: Option<String>) {
        if let Some(why) = &trouble {
            self.failed = self.failed.saturating_add(1);
            if self.failed == LOST_AFTER {
                warn!(
                    connection,
                    "the workspace is out of reach, runs go on and calls are repeated: {why}"
                );
            }
        } else {
            if self.failed >= LOST_AFTER {
                info!(connection, "the workspace is within reach again");
            }
            self.failed = 0;
        }
        self.trouble = trouble;
    }
}
