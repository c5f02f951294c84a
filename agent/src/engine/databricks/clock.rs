//! The workspace's clock, as far as the `Date` headers of its replies tell.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

/// Differences up to this many milliseconds are not believed: `Date` is told in whole seconds, and
/// a reply travels.
const UNCERTAIN_MS: i64 = 2_000;
/// A reply that took longer tells too little: nobody knows at which end of that time it was dated.
const TRAVEL_MS: i64 = 2_000;

/// How far the workspace's clock is ahead of ours.
#[derive(Debug, Default)]
pub(super) struct Clock {
    ahead_ms: AtomicI64,
}

impl Clock {
    /// A reply of the workspace's own to a call sent at `sent_at` bore this date.
    pub(super) fn note(&self, date: Timestamp, sent_at: Timestamp) {
        let travel = Timestamp::now().as_millisecond() - sent_at.as_millisecond();
        if !(0..=TRAVEL_MS).contains(&travel) {
            return;
        }
        let middle = sent_at.as_millisecond() + travel / 2;
        // A date is cut to the second: half of one more is the better guess.
        self.ahead_ms
            .store(date.as_millisecond() + 500 - middle, Ordering::Relaxed);
    }

    /// The present by the workspace's clock, epoch milliseconds.
    pub(super) fn now_ms(&self) -> i64 {
        Timestamp::now().as_millisecond() + self.ahead_ms()
    }

    /// How far it is ahead of ours, where that is certain; 0 where it is not.
    pub(super) fn ahead_ms(&self) -> i64 {
        let ahead = self.ahead_ms.load(Ordering::Relaxed);
        if ahead.abs() > UNCERTAIN_MS { ahead } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn only_a_real_difference_counts() {
        let clock = Clock::default();
        let near = |ms: i64| (clock.now_ms() - Timestamp::now().as_millisecond() - ms).abs() < 1000;
        assert!(near(0));
        let now = Timestamp::now();
        clock.note(now - SignedDuration::from_secs(1), now);
        assert!(near(0));
        clock.note(now + SignedDuration::from_secs(90), now);
        assert!(near(90_500));
        clock.note(now - SignedDuration::from_secs(3600), now);
        assert!(near(-3_599_500));
        // One that took half a minute changes nothing.
        clock.note(now, now - SignedDuration::from_secs(30));
        assert!(near(-3_599_500));
    }
}
