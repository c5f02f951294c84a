//! What a session remembers of its run, for the worker that comes next.
//!
//! The session is the attempt's, so a setting of its own serves: when the run began, how many steps
//! are known to have ended well, and how it ended. It is a help and never needed: a server that
//! refuses the setting is asked about each operation instead.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sparkferry_shared::RunError;
use uuid::Uuid;

use crate::engine::text;

/// The setting's name.
pub(super) const KEY: &str = "sparkferry.run";

/// A server remembers an operation for at least this long after it was begun, attended or not: five
/// minutes by default, less a minute for clocks that differ. What it does not know before was never
/// begun.
const REMEMBERED: Duration = Duration::from_mins(4);

/// The longest texts of an error that are kept, in bytes: its message, and its trace, which a server
/// tells only once.
const TEXT: usize = 8 * 1024;

/// The memo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Memo {
    /// Who is to begin the run: the worker that wrote this last. A server that is told of one
    /// operation by two workers within the same few milliseconds can lose it.
    pub(super) claim: Uuid,
    /// When the run began, by the clock of the worker that began it.
    pub(super) began: Timestamp,
    /// When this was written; the next step was begun later.
    pub(super) at: Timestamp,
    /// Steps that have ended well.
    pub(super) done: u32,
    /// When the run ended, by the clock of the worker that saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<Timestamp>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<RunError>,
}

impl Memo {
    /// A run that is about to begin.
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            claim: Uuid::now_v7(),
            began: now,
            at: now,
            done: 0,
            ended: None,
            error: None,
        }
    }

    /// One more step has ended well.
    pub(super) fn step(&mut self, done: u32, now: Timestamp) {
        self.done = done;
        self.at = now;
    }

    /// The run has ended; of an ending that is written down already, the first moment stays.
    pub(super) fn end(&mut self, error: Option<&RunError>, now: Timestamp) {
        self.ended.get_or_insert(now);
        self.error = error.map(|error| RunError {
            message: text::head(&error.message, TEXT).to_owned(),
            trace: error
                .trace
                .as_deref()
                .map(|trace| text::head(trace, TEXT).to_owned()),
            ..error.clone()
        });
    }

    /// An operation begun since this was written is still known to the server.
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        now.duration_since(self.at).unsigned_abs() < REMEMBERED
    }

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// `None` where the text is no memo.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use sparkferry_shared::ErrorClass;

    use super::*;

    #[test]
    fn a_memo_is_read_as_it_was_written() {
        let now = Timestamp::now();
        let mut memo = Memo::new(now);
        assert_eq!(Memo::from_text(&memo.to_text()), Some(memo.clone()));
        memo.step(2, now + Duration::from_secs(9));
        let error = RunError {
            trace: Some("at line 1".to_owned()),
            ..RunError::new(ErrorClass::User, "ü".repeat(5000)).with_code("X")
        };
        memo.end(Some(&error), now);
        memo.end(Some(&error), now + Duration::from_secs(1));
        let read = Memo::from_text(&memo.to_text()).unwrap();
        assert_eq!((read.done, read.ended), (2, Some(now)));
        let kept = read.error.unwrap();
        assert_eq!(kept.code.as_deref(), Some("X"));
        assert_eq!(kept.trace.as_deref(), Some("at line 1"));
        assert!(kept.message.len() <= TEXT && kept.message.len() > TEXT - 2);
        assert_eq!(Memo::from_text("no memo"), None);
    }

    #[test]
    fn a_memo_is_fresh_for_less_than_a_server_remembers() {
        let now = Timestamp::now();
        let memo = Memo::new(now);
        assert!(memo.is_fresh(now) && memo.is_fresh(now + Duration::from_secs(200)));
        assert!(!memo.is_fresh(now + Duration::from_mins(5)));
    }
}
