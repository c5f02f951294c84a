//! From a run to its ending: states on the way, cancels, the timeout, the deadline.

use std::time::Duration;

use backon::ExponentialBackoff;
use futures_util::FutureExt;
use jiff::Timestamp;
use sparkferry_ports::engine::{Change, Ended, Fault, Run, State};
use sparkferry_shared::event::EventDetails;
use sparkferry_shared::request::OnTimeout;
use sparkferry_shared::{ErrorClass, EventType, Outcome, RunError};
use tokio::time::Instant;

use super::{Flow, persist};

/// A run that is late is cancelled and its ending awaited for so long; then TIMEDOUT is published
/// all the same, saying that the ending was not seen.
const ENDING_GRACE: Duration = Duration::from_mins(5);

/// The same where the cancel itself can't be delivered.
const CANCEL_GRACE: Duration = Duration::from_secs(30);

/// A cancel that the engine accepted without effect is sent again after so long.
const CANCEL_AGAIN: Duration = Duration::from_mins(1);

/// A run that was cancelled for being late ended no earlier than so long before it was late: what is
/// known of the engine's clock, and the clocks of workers, may be wrong by so much.
const LATE_TOLERANCE: Duration = Duration::from_secs(5);

/// Why a run is to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    /// Somebody cancelled the request; the reason.
    Canceled(String),
    /// The attempt took longer than `timeout_seconds`.
    Timeout(u64),
    /// The deadline passed.
    Deadline(Timestamp),
    /// The next attempt would begin after the deadline.
    NoTime(Timestamp),
    /// The deadline passed while the engine could not be asked whether a run had begun.
    Unclear(Timestamp),
    /// It was late, was cancelled, and no ending was seen.
    Unended(Box<Stop>, String),
}

impl Stop {
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Canceled(_) => Outcome::Canceled,
            _ => Outcome::TimedOut,
        }
    }

    pub(super) fn to_error(&self) -> RunError {
        match self {
            Self::Canceled(reason) => RunError::new(
                ErrorClass::Canceled,
                if reason.is_empty() {
                    "cancelled by a cancel message".to_owned()
                } else {
                    format!("cancelled by a cancel message: {reason}")
                },
            ),
            Self::Timeout(seconds) => RunError::new(
                ErrorClass::Timeout,
                format!("the attempt took longer than timeout_seconds, {seconds}"),
            ),
            Self::Deadline(deadline) => RunError::new(
                ErrorClass::Timeout,
                format!("the deadline, {deadline}, passed"),
            ),
            Self::NoTime(deadline) => RunError::new(
                ErrorClass::Timeout,
                format!("the next attempt would begin after the deadline, {deadline}"),
            ),
            Self::Unclear(deadline) => RunError::new(
                ErrorClass::Timeout,
                format!(
                    "the deadline, {deadline}, passed while the engine did not answer: whether a run was started is not known"
                ),
            ),
            Self::Unended(stop, why) => {
                let mut error = stop.to_error();
                error.message = format!("{}; {why}", error.message);
                error
            }
        }
    }
}

/// How following a run ended.
pub(super) struct Followed {
    /// The engine's word; `None` where it was not waited for.
    pub(super) ended: Option<Ended>,
    /// Why we wanted it to stop, if we did.
    pub(super) stop: Option<Stop>,
}

/// A cancel under way.
struct Stopping {
    stop: Stop,
    since: Instant,
    again: Instant,
    last_fault: Option<Fault>,
    backoff: ExponentialBackoff,
}

impl Flow<'_> {
    /// Follows a run to its ending.
    pub(super) async fn follow(&self, number: u32, run: &mut dyn Run) -> Followed {
        let attached_at = self.host.now();
        let mut last = State::default();
        // Boxed: nearly all runs end by themselves.
        let mut stopping: Option<Box<Stopping>> = None;
        loop {
            let wanted = stopping.is_none();
            let (again, give_up) = match &stopping {
                Some(s) => (Some(s.again), s.give_up()),
                None => (None, None),
            };
            let late = self.late(run, attached_at).filter(|_| wanted);
            // One timer for all: this waits in every driver.
            let wake = [late.map(|(moment, _)| self.instant(moment)), again, give_up];
            tokio::select! {
                biased;
                change = run.next() => match change {
                    Change::Ended(ended) => {
                        return Followed { ended: Some(ended), stop: stopping.map(|s| s.stop) };
                    }
                    Change::State(state) => {
                        self.tell_state(number, &mut last, state, run);
                        continue;
                    }
                },
                reason = self.host.cancelled(), if wanted => {
                    self.tell_cancel(Some(number));
                    stopping = Some(Stopping::now(Stop::Canceled(reason)));
                }
                () = at(wake.into_iter().flatten().min()) => {}
            }
            // Looked at once more: what is known of the engine's clock may have changed meanwhile.
            if let Some((moment, stop)) = self.late(run, attached_at)
                && stopping.is_none()
                && self.host.now() >= moment
            {
                if self.request.on_timeout == OnTimeout::Abandon {
                    let why = "the run was left alone (on_timeout is `abandon`)";
                    let stop = Stop::Unended(stop.into(), why.into());
                    return Followed {
                        ended: None,
                        stop: Some(stop),
                    };
                }
                stopping = Some(Stopping::now(stop));
            } else if again.is_none_or(|again| Instant::now() < again)
                && give_up.is_some_and(|moment| Instant::now() >= moment)
            {
                return Followed {
                    ended: None,
                    stop: stopping.map(|stopping| stopping.unended()),
                };
            }
            if let Some(stopping) = &mut stopping
                && Instant::now() >= stopping.again
            {
                match run.cancel().await {
                    Ok(()) => {
                        stopping.last_fault = None;
                        stopping.again = Instant::now() + CANCEL_AGAIN;
                    }
                    Err(fault) => {
                        tracing::warn!(id = %self.request.id, attempt = number, %fault, "the run can't be cancelled now");
                        let pause = persist::pause(&mut stopping.backoff, &fault);
                        stopping.again = Instant::now() + pause;
                        stopping.last_fault = Some(fault);
                    }
                }
            }
        }
    }

    /// When the attempt is late, and why then; `None` where it can't be.
    fn late(&self, run: &dyn Run, attached_at: Timestamp) -> Option<(Timestamp, Stop)> {
        let began = run.facts().started_at;
        let began = began.map_or(attached_at, |at| self.by_our_clock(at));
        let seconds = self.request.timeout_seconds;
        let timeout = (seconds > 0)
            .then(|| began.checked_add(Duration::from_secs(seconds)).ok())
            .flatten();
        let deadline = self.request.deadline;
        match (timeout, deadline) {
            (Some(timeout), deadline) if deadline.is_none_or(|d| timeout <= d) => {
                Some((timeout, Stop::Timeout(seconds)))
            }
            (_, Some(deadline)) => Some((deadline, Stop::Deadline(deadline))),
            _ => None,
        }
    }

    /// Why another worker stopped this run, which was found cancelled: for being late, where it was and
    /// nobody cancelled the request. (An earlier one, or one that has a copy of the request.)
    pub(super) fn stopped_before(&self, ended: Option<&Ended>, run: &dyn Run) -> Option<Stop> {
        let cancelled = matches!(ended, Some(Ended::Canceled(_)));
        let ours = self.request.on_timeout == OnTimeout::Cancel;
        if !cancelled || !ours || self.host.cancelled().now_or_never().is_some() {
            return None;
        }
        let facts = run.facts();
        let ended_at = self.by_our_clock(facts.ended_at?);
        let (late, stop) = self.late(run, facts.started_at?)?;
        (ended_at + LATE_TOLERANCE >= late).then_some(stop)
    }

    fn tell_state(&self, number: u32, last: &mut State, state: State, run: &dyn Run) {
        let facts = run.facts();
        let details = EventDetails {
            run_id: facts.run_id,
            run_page_url: facts.run_page_url,
            state: Some(state.word.clone()),
            done: (state.total > 0).then_some(state.done),
            total: (state.total > 0).then_some(state.total),
            stages_done: state.stages.as_ref().map(|stages| stages.done),
            stages_total: state.stages.as_ref().map(|stages| stages.total),
            input_bytes: state.stages.as_ref().map(|stages| stages.input_bytes),
            ..EventDetails::default()
        };
        let event = if state.word == last.word {
            EventType::Progress
        } else {
            EventType::StateChanged
        };
        *last = state;
        self.host.tell(event, Some(number), details);
    }
}

impl Stopping {
    fn now(stop: Stop) -> Box<Self> {
        let now = Instant::now();
        Box::new(Self {
            stop,
            since: now,
            again: now,
            last_fault: None,
            backoff: persist::backoff(),
        })
    }

    /// When the ending is no longer waited for. What somebody cancelled is waited for without end:
    /// the truth is published. What is late must have its result.
    fn give_up(&self) -> Option<Instant> {
        let grace = match (&self.stop, &self.last_fault) {
            (Stop::Canceled(_), _) => return None,
            (_, Some(_)) => CANCEL_GRACE,
            (_, None) => ENDING_GRACE,
        };
        Some(self.since + grace)
    }

    fn unended(self) -> Stop {
        let why = match self.last_fault {
            Some(fault) => format!("the run could not be cancelled and may go on: {fault}"),
            None => "the run was cancelled, and its ending was not seen".to_owned(),
        };
        Stop::Unended(self.stop.into(), why)
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
