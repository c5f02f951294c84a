//! From an attempt's name to its run, through whatever faults there are on the way.

use std::time::Duration;

use jiff::Timestamp;
use sparkferry_shared::RunError;
use tokio::time::Instant;

use super::follow::Stop;
use super::{Flow, persist};
use crate::engine::{Attached, Fault, Start};

/// What may have been started is looked for this long after the deadline (and for this long at
/// least), to learn the truth; then the result says that it is not known.
const TRUTH_GRACE: Duration = Duration::from_secs(30);

/// What a refusal can't know of a request that was asked for before.
const UNATTENDED: &str = "; it may have been asked for before: should a run have been started then, it goes on unattended";

/// What came of looking for the run of an attempt.
pub(super) enum Found {
    /// It is there.
    Run(Attached),
    /// The engine refuses to start it.
    Refused(RunError),
    /// The engine knew it and knows it no longer, or may have.
    Lost(RunError),
    /// It was not started, since this came first.
    Stopped {
        stop: Stop,
        /// The last thing that had gone wrong.
        fault: Option<Fault>,
    },
}

impl Flow<'_> {
    /// Finds or starts the run of an attempt.
    ///
    /// While nothing can have been started yet (nobody saw the request before, no call may have
    /// done its work), a cancel or the deadline ends the search at once. Otherwise the run is
    /// found first and stopped then: what may be running is never left unattended.
    pub(super) async fn attach(&self, number: u32, seen: bool) -> Found {
        let start = Start {
            names: &self.names,
            attempt: number,
            work: &self.request.work,
            on_failure: self.request.on_failure,
            seen_before: seen,
            unknown: self.unknown(seen),
        };
        let mut perhaps_begun = seen;
        let since = self.host.now();
        let mut backoff = persist::backoff();
        let mut fault = None;
        let mut pause = Duration::ZERO;
        loop {
            let ready = async {
                tokio::time::sleep(pause).await;
                self.host.held().await;
                self.engine.permit().await;
            };
            tokio::select! {
                biased;
                reason = self.host.cancelled(), if !perhaps_begun => {
                    self.tell_cancel(None);
                    return Found::Stopped { stop: Stop::Canceled(reason), fault };
                }
                stop = self.too_late(perhaps_begun, since) => return Found::Stopped { stop, fault },
                () = ready => {}
            }
            // From here the call runs to its end: half a call is one that may have been done.
            match self.engine.attach_or_start(&start).await {
                Ok(attached) => return Found::Run(attached),
                Err(Fault::Refused(mut error)) => {
                    // What is refused now may have been taken before: a job that was deleted since,
                    // a permission that was withdrawn.
                    if perhaps_begun {
                        error.message += UNATTENDED;
                    }
                    return Found::Refused(*error);
                }
                Err(Fault::Lost(error)) => return Found::Lost(*error),
                Err(passing) => {
                    if let Fault::Passing { perhaps_done, .. } = &passing {
                        perhaps_begun |= perhaps_done;
                    }
                    tracing::debug!(id = %self.request.id, attempt = number, fault = %passing, "not started yet");
                    pause = persist::pause(&mut backoff, &passing);
                    fault = Some(passing);
                }
            }
        }
    }

    /// Waits until it is too late to start the attempt; for ever where there is no deadline.
    async fn too_late(&self, perhaps_begun: bool, since: Timestamp) -> Stop {
        let Some(deadline) = self.request.deadline else {
            return std::future::pending().await;
        };
        if perhaps_begun {
            let end = deadline.max(since).checked_add(TRUTH_GRACE);
            self.sleep_until(end.unwrap_or(Timestamp::MAX)).await;
            Stop::Unclear(deadline)
        } else {
            self.sleep_until(deadline).await;
            Stop::Deadline(deadline)
        }
    }

    async fn sleep_until(&self, moment: Timestamp) {
        tokio::time::sleep_until(self.instant(moment)).await;
    }

    /// A moment by the host's clock, as timers have it; one that has passed is now.
    pub(super) fn instant(&self, moment: Timestamp) -> Instant {
        let left = moment.duration_since(self.host.now());
        // Timestamps end with the year 9999, which the timers' clock still has.
        Instant::now() + Duration::try_from(left).unwrap_or(Duration::ZERO)
    }
}
