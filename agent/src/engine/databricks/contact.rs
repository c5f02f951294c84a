//! Whether the workspace is within reach, by what its calls tell, and a line in the log when it is
//! lost and when it is back.
//!
//! On a bad day one call in ten fails and is repeated, and nothing is out of reach: that takes
//! several in a row, or a while in which none succeeds.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

/// So many calls fail in a row...
const LOST_AFTER: u32 = 5;
/// ...and for so long: those of one moment may all have been on one connection that broke.
const LOST_FOR: Duration = Duration::from_secs(1);
/// For so long calls are under way and none succeeds.
const SILENT_FOR: Duration = Duration::from_secs(10);

/// What the calls of a connection have told so far.
#[derive(Debug, Default)]
pub(super) struct Contact {
    /// When a call last succeeded.
    reached: Option<Instant>,
    failing: Option<Failing>,
    /// Why it is out of reach.
    lost: Option<String>,
}

/// No call has succeeded since these began to fail.
#[derive(Debug)]
struct Failing {
    /// When the first of them was sent, and when it failed.
    sent: Instant,
    failed: Instant,
    calls: u32,
}

impl Contact {
    /// Why the workspace is out of reach, by the latest call.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// Takes what is wrong with a call that was `sent` then and has ended now; tells of a change.
    pub(super) fn note(&mut self, connection: &str, sent: Instant, trouble: Option<String>) {
        let now = Instant::now();
        let Some(why) = trouble else {
            self.reached = Some(now);
            self.failing = None;
            if self.lost.take().is_some() {
                info!(connection, "the workspace is within reach again");
            }
            return;
        };
        let failing = self.failing.get_or_insert(Failing {
            sent,
            failed: now,
            calls: 0,
        });
        failing.calls = failing.calls.saturating_add(1);
        let lost = match self.reached {
            // The first call of all: nothing speaks for the workspace.
            None => true,
            Some(reached) => {
                let in_a_row = failing.calls >= LOST_AFTER && now - failing.failed >= LOST_FOR;
                in_a_row || now - reached.max(failing.sent) >= SILENT_FOR
            }
        };
        if lost && self.lost.is_none() {
            warn!(
                connection,
                "the workspace is out of reach, runs go on and calls are repeated: {why}"
            );
        }
        if lost || self.lost.is_some() {
            self.lost = Some(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection, and calls that take no time.
    #[derive(Default)]
    struct Calls(Contact);

    impl Calls {
        fn succeeds(&mut self) {
            self.0.note("prod", Instant::now(), None);
        }

        fn fails(&mut self) {
            self.0.note("prod", Instant::now(), Some("502".to_owned()));
        }

        fn lost(&self) -> bool {
            self.0.trouble().is_some()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_in_ten_that_fails_loses_nobody() {
        let mut calls = Calls::default();
        for round in 0..100 {
            calls.succeeds();
            tokio::time::advance(Duration::from_secs(30)).await;
            for _ in 0..=round % 4 {
                calls.fails();
                assert!(!calls.lost());
                tokio::time::advance(Duration::from_millis(500)).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_at_the_first_call_is_out_of_reach_until_one_succeeds() {
        let mut calls = Calls::default();
        assert!(!calls.lost(), "nobody asked");
        calls.fails();
        assert!(calls.lost());
        calls.succeeds();
        assert!(!calls.lost());
        calls.fails();
        assert!(!calls.lost());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_break_together_are_no_loss_and_calls_in_a_row_are() {
        let mut calls = Calls::default();
        calls.succeeds();
        for _ in 0..1000 {
            calls.fails();
        }
        assert!(!calls.lost());
        tokio::time::advance(LOST_FOR).await;
        assert!(!calls.lost(), "nobody has asked since");
        calls.fails();
        assert!(calls.lost());
        tokio::time::advance(Duration::from_hours(1)).await;
        calls.fails();
        assert!(calls.lost());
        calls.succeeds();
        assert!(!calls.lost());
    }

    #[tokio::test(start_paused = true)]
    async fn a_workspace_that_says_nothing_is_out_of_reach_with_the_first_call_that_gave_up() {
        let mut calls = Calls::default();
        calls.succeeds();
        let sent = Instant::now();
        tokio::time::advance(SILENT_FOR).await;
        // Another one did succeed in the meantime.
        calls.succeeds();
        calls.0.note("prod", sent, Some("no answer".to_owned()));
        assert!(!calls.lost());
        calls.succeeds();
        let sent = Instant::now();
        tokio::time::advance(SILENT_FOR).await;
        calls.0.note("prod", sent, Some("no answer".to_owned()));
        assert!(calls.lost());
    }
}
