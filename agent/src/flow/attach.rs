//! From an attempt's name to its run, through whatever faults there are on the way.

use std::time::Duration;

use jiff::Timestamp;
use sparkferry_ports::engine::{Attached, Fault, Start};
use sparkferry_shared::event::EventDetails;
use sparkferry_shared::request::OnTimeout;
use sparkferry_shared::{Attempt, ErrorClass, EventType, Outcome, RunError};
use tokio::time::Instant;

use super::follow::Stop;
use super::{Flow, persist};

/// What may have been started is looked for this long after the deadline (and for this long at
/// least), to learn the truth; then the result says that it is not known.
const TRUTH_GRACE: Duration = Duration::from_secs(30);

/// A clock that is stepped is noticed after so long.
const CLOCK_LOOK: Duration = Duration::from_mins(1);

/// What a refusal can't know of a request that was asked for before.
const UNATTENDED: &str = "; it may have been asked for before: should a run have been started then, it goes on unattended";

/// What can't be known of one whose surroundings are gone.
const UNKNOWN: &str = "; it may have been asked for before: should a run have been started then, what it did is not known";

/// What came of looking for the run of an attempt.
pub(super) enum Found {
    /// It is there.
    Run(Attached),
    /// The engine refuses to start it.
    Refused(RunError),
    /// The attempt is over without a run that could be followed: FAILED where none was begun, LOST
    /// where the engine knew one and knows it no longer, or may have.
    Over(Outcome, RunError),
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
    pub(super) async fn attach(&self, number: u32, seen: bool, past: &[Attempt]) -> Found {
        let mut start = Start {
            names: &self.names,
            attempt: number,
            work: &self.request.work,
            on_failure: self.request.on_failure,
            seen_before: seen,
            unknown: self.unknown(seen),
            past,
            since: Instant::now(),
        };
        let mut perhaps_begun = seen;
        let since = self.host.now();
        let mut backoff = persist::backoff();
        let mut fault = None;
        let mut pause = Duration::ZERO;
        let mut waited_for = None;
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
            // The timer may fire while the turn comes, unseen: the clock has the last word.
            if let Some((end, stop)) = self.last_moment(perhaps_begun, since)
                && self.host.now() >= end
            {
                return Found::Stopped { stop, fault };
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
                // What may have begun ended with what it ran on, and nobody can be asked.
                Err(Fault::Unready(mut error)) if perhaps_begun && !self.request.rerun_if_lost => {
                    error.class = ErrorClass::Lost;
                    error.message += UNKNOWN;
                    return Found::Over(Outcome::Lost, *error);
                }
                Err(Fault::Unready(error)) => return Found::Over(Outcome::Failed, *error),
                Err(Fault::Lost(error)) => return Found::Over(Outcome::Lost, *error),
                Err(passing) => {
                    match &passing {
                        Fault::Passing { perhaps_done, .. } => {
                            perhaps_begun |= perhaps_done;
                            // No fault of ours counts as a wait for the engine.
                            start.since = Instant::now();
                        }
                        Fault::Waiting { message, .. } => {
                            self.tell_waiting(number, message, &mut waited_for);
                        }
                        _ => {}
                    }
                    tracing::debug!(id = %self.request.id, attempt = number, fault = %passing, "not started yet");
                    pause = persist::pause(&mut backoff, &passing);
                    fault = Some(passing);
                }
            }
        }
    }

    /// Tells what is waited for before the run can begin, and that it still is.
    fn tell_waiting(&self, number: u32, message: &str, told: &mut Option<String>) {
        let event = if told.as_deref() == Some(message) {
            EventType::Progress
        } else {
            EventType::StateChanged
        };
        *told = Some(message.to_owned());
        let details = EventDetails {
            state: Some(format!("WAITING: {message}")),
            ..EventDetails::default()
        };
        self.host.tell(event, Some(number), details);
    }

    /// Waits until it is too late to start the attempt; for ever where there is no deadline.
    async fn too_late(&self, perhaps_begun: bool, since: Timestamp) -> Stop {
        let Some((end, stop)) = self.last_moment(perhaps_begun, since) else {
            return std::future::pending().await;
        };
        self.sleep_until(end).await;
        stop
    }

    /// The moment from which it is too late to start the attempt, and what that means.
    fn last_moment(&self, perhaps_begun: bool, since: Timestamp) -> Option<(Timestamp, Stop)> {
        let deadline = self.request.deadline?;
        // An earlier worker may have said that it is late, and left it to be attended.
        let abandoned = self.seen_before && self.request.on_timeout == OnTimeout::Abandon;
        if abandoned && self.engine.needs_attendance() {
            return None;
        }
        Some(if perhaps_begun {
            let end = deadline.max(since).checked_add(TRUTH_GRACE);
            (end.unwrap_or(Timestamp::MAX), Stop::Unclear(deadline))
        } else {
            (deadline, Stop::Deadline(deadline))
        })
    }

    async fn sleep_until(&self, moment: Timestamp) {
        while self.host.now() < moment {
            tokio::time::sleep_until(self.instant(moment)).await;
        }
    }

    /// When to look whether this moment by the host's clock has come: then, as far as is known now,
    /// but not much later than in a moment from now, since that clock may be stepped.
    pub(super) fn instant(&self, moment: Timestamp) -> Instant {
        let left = moment.duration_since(self.host.now());
        let left = Duration::try_from(left).unwrap_or(Duration::ZERO);
        Instant::now() + left.min(CLOCK_LOOK)
    }
}
