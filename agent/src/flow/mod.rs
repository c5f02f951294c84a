//! One request, from its first attempt to its ending.
//!
//! Knows no broker and no engine by name: it walks the attempts from 1 by their computed names,
//! finds what earlier workers left, and so arrives at the present. It keeps nothing anywhere and may
//! be dropped at any await; whoever walks again comes to the same place.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the walk over the attempts |
//! | `attach` | from a name to a run, through faults |
//! | `follow` | from a run to its ending: cancels, timeouts, the deadline |
//! | `past` | the attempts so far, and what they make of an ending |
//!
//! A result may be out before its run has ended, where the engine's runs need to be attended.
//!
//! Guarantees: SUCCESS only if the engine said so; CANCELED only if nothing was started or the
//! engine said so; past the deadline nothing new is started.

mod attach;
mod follow;
mod past;
mod persist;
#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use sparkferry_ports::engine::{CLOSED, Ended, Engine, Facts, Fault, Run, Unknown};
use sparkferry_shared::event::EventDetails;
use sparkferry_shared::request::OnTimeout;
use sparkferry_shared::{Attempt, ErrorClass, EventType, Names, Outcome, Request, RunError};
use tokio::time::Instant;

use crate::retry::RetryPolicy;
use attach::Found;
use follow::{Followed, Stop};
use past::Past;

/// An attempt that an earlier worker may have started began, by its clock, before the request came
/// here. Clocks of workers may differ by this much.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

/// How long what a successful run produced is asked for where the engine fails to tell it: longer than
/// engines are usually down. The result says then that it could not be fetched.
const OUTPUT_PATIENCE: Duration = Duration::from_mins(30);
/// How often at least what a run produced is asked for, whatever its ending.
const FEW: u32 = 3;

/// What a request needs of the worker that carries it out.
#[async_trait]
pub trait Host: Send + Sync {
    /// The time. Tests have their own.
    fn now(&self) -> Timestamp;

    /// Waits while the request is not on loan to this worker: what others would see (a new run, a
    /// result) happens only while it is. Cancel safe.
    async fn held(&self);

    /// Waits until somebody cancels the request; returns why. Never returns if nobody does.
    /// Returns again at once when asked again. Cancel safe.
    async fn cancelled(&self) -> String;

    /// Publishes a result before the request is done, which stays on loan: nothing that comes
    /// later changes it. Returns once it is confirmed. Cancel safe.
    fn announce<'a>(&'a self, ending: &Ending) -> BoxFuture<'a, ()>;

    /// Tells an event.
    fn tell(&self, event: EventType, attempt: Option<u32>, details: EventDetails);

    /// An attempt has ended, with a class of error or none.
    fn attempt_ended(&self, class: Option<ErrorClass>);
}

/// How a request ended.
pub struct Ending {
    /// How.
    pub outcome: Outcome,
    /// The attempts, the first one first; of very many some in between are missing.
    pub attempts: Vec<Attempt>,
    /// What the last attempt produced.
    pub output: Option<Value>,
    /// What went wrong, if anything did.
    pub error: Option<RunError>,
    /// The last run, to be released once the request is acknowledged.
    pub run: Option<Box<dyn Run>>,
    /// It was published while the run went on ([`Host::announce`]).
    pub announced: bool,
}

/// Everything that one walk works with.
pub struct Flow<'a> {
    /// Where the runs are.
    pub engine: &'a dyn Engine,
    /// The worker around it.
    pub host: &'a dyn Host,
    /// What is asked for. Its work is forgotten as soon as no attempt can need it any more.
    pub request: Box<Request>,
    /// The computed names.
    pub names: Names,
    /// When this worker received the request.
    pub received_at: Timestamp,
    /// It was delivered before: earlier workers may have started runs.
    pub seen_before: bool,
    /// The largest output, in bytes.
    pub max_output_bytes: usize,
}

impl Flow<'_> {
    /// Carries the request out.
    pub async fn carry_out(mut self) -> Ending {
        let policy = RetryPolicy::of(&self.request);
        let mut past = Past::default();
        let mut number = 1;
        let mut seen = self.seen_before;
        loop {
            // What takes its turn for a moment is boxed: the walk itself is as large as following.
            let found = Box::pin(self.attach(number, seen, past.attempts())).await;
            let (mut run, adopted) = match found {
                Found::Run(attached) => (attached.run, attached.adopted),
                Found::Over(outcome, error) => {
                    self.host.attempt_ended(Some(error.class));
                    // Of a lost run nothing is known but that it was there before us.
                    let facts = Facts {
                        adopted: outcome == Outcome::Lost,
                        ..Facts::default()
                    };
                    past.attempt(number, &self.names, facts, Some(error.clone()));
                    match Box::pin(self.another(&policy, number, &error, None)).await {
                        Next::Attempt { perhaps_begun } => {
                            seen = perhaps_begun;
                            number += 1;
                            continue;
                        }
                        Next::Stop(stop) => return past.stopped(&stop, error),
                        Next::No => return past.ending(outcome, Some(error)),
                    }
                }
                Found::Refused(error) => return past.refused(error),
                Found::Stopped { stop, fault } => return past.unstarted(&stop, fault.as_ref()),
            };
            if !policy.may_follow(number) {
                self.request.work.forget();
            }
            self.tell_begun(number, adopted, &*run);
            // What was cancelled meanwhile is followed to the ending that this brings.
            if !self.request.wait && self.host.cancelled().now_or_never().is_none() {
                past.attempt(number, &self.names, run.facts(), None);
                let submitted = past.with_run(Outcome::Submitted, None, None, run);
                return Box::pin(self.outlived(number, submitted)).await;
            }

            let Followed { ended, stop } = self.follow(number, &mut *run).await;
            let stop = stop.or_else(|| self.stopped_before(ended.as_ref(), &*run));
            // What may go on gets no other run beside it.
            let over = match &stop {
                None => true,
                Some(Stop::Timeout(_)) => ended.is_some(),
                Some(_) => false,
            };
            let abandoned = ended.is_none() && self.request.on_timeout == OnTimeout::Abandon;
            let (outcome, error) = match ended {
                Some(ended) => judge(ended, stop.as_ref()),
                None => (Outcome::TimedOut, stop.as_ref().map(Stop::to_error)),
            };
            past.attempt(number, &self.names, run.facts(), error.clone());
            self.host.attempt_ended(error.as_ref().map(|e| e.class));

            if let (true, Some(failure)) = (over, &error)
                && outcome != Outcome::SuccessWithFailures
            {
                let ended_at = run.facts().ended_at;
                match Box::pin(self.another(&policy, number, failure, ended_at)).await {
                    Next::Attempt { perhaps_begun } => {
                        seen = perhaps_begun;
                        number += 1;
                        continue;
                    }
                    Next::Stop(stop) => return past.stopped(&stop, failure.clone()),
                    Next::No => {}
                }
            }
            let output = Box::pin(self.output(outcome, &mut *run)).await;
            let ending = past.with_run(outcome, output, error, run);
            return if abandoned {
                Box::pin(self.outlived(number, ending)).await
            } else {
                ending
            };
        }
    }

    /// An ending that its run outlives. Where the engine's runs need somebody who attends them, the
    /// result is published now, and the run followed to its end meanwhile and afterwards. It may still
    /// be cancelled, also for being late.
    async fn outlived(&mut self, number: u32, mut ending: Ending) -> Ending {
        if !self.engine.needs_attendance() {
            return ending;
        }
        let Some(mut run) = ending.run.take() else {
            return ending;
        };
        let announced = self.host.announce(&ending);
        if self.request.on_timeout == OnTimeout::Abandon {
            self.request.timeout_seconds = 0;
            self.request.deadline = None;
        }
        tokio::join!(announced, self.follow(number, &mut *run));
        Ending {
            announced: true,
            run: Some(run),
            ..ending
        }
    }

    /// A moment of the engine's, by our clock.
    fn by_our_clock(&self, at: Timestamp) -> Timestamp {
        at.checked_sub(self.engine.clock_ahead()).unwrap_or(at)
    }

    /// Whether the attempt after this failure, due at this moment, may have been started by an
    /// earlier worker. The end of a lost run is not known, so neither is when the next one was due.
    fn may_have_begun(&self, failure: ErrorClass, due: Timestamp) -> bool {
        let in_the_past = due <= self.received_at + CLOCK_TOLERANCE;
        self.seen_before && (in_the_past || failure == ErrorClass::Lost)
    }

    /// What to do about a name that the engine doesn't know.
    fn unknown(&self, seen: bool) -> Unknown {
        if seen && !self.request.rerun_if_lost {
            Unknown::Lost
        } else {
            Unknown::Start
        }
    }

    /// Waits for the moment of the next attempt, if the failure earns one.
    async fn another(
        &self,
        policy: &RetryPolicy,
        number: u32,
        error: &RunError,
        ended_at: Option<Timestamp>,
    ) -> Next {
        if error.class == ErrorClass::Lost && error.code.as_deref() == Some(CLOSED) {
            return Next::No;
        }
        let next = self.names.key(number + 1);
        let Some(wait) = policy.wait_after(number, error.class, &next) else {
            return Next::No;
        };
        let now = self.host.now();
        let ended_at = ended_at.map_or(now, |at| self.by_our_clock(at));
        let due = ended_at.checked_add(wait).unwrap_or(Timestamp::MAX);
        if let Some(deadline) = self.request.deadline
            && due >= deadline
        {
            // When a lost run ended nobody knows: an earlier worker may have begun the next in time.
            if self.seen_before && error.class == ErrorClass::Lost {
                return Next::Attempt {
                    perhaps_begun: true,
                };
            }
            return Next::Stop(Stop::NoTime(deadline));
        }
        let delay = Duration::try_from(due.duration_since(now)).unwrap_or(Duration::ZERO);
        // The run has ended: by a clock that we can trust there is no longer to wait.
        let delay = delay.min(wait);
        let details = EventDetails {
            delay_ms: Some(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
            error: Some(error.clone()),
            ..EventDetails::default()
        };
        self.host.tell(EventType::Retrying, Some(number), details);
        let perhaps_begun = self.may_have_begun(error.class, due);
        tokio::select! {
            biased;
            reason = self.host.cancelled() => {
                // What may be running is found first, at once, and stopped then.
                if perhaps_begun {
                    return Next::Attempt { perhaps_begun };
                }
                self.tell_cancel(Some(number));
                Next::Stop(Stop::Canceled(reason))
            }
            () = tokio::time::sleep(delay) => Next::Attempt { perhaps_begun },
        }
    }

    /// What the run produced. Of a success it is fetched for as long as that is of use (until the
    /// deadline, or a cancel); of anything else it is welcome, not needed.
    async fn output(&self, outcome: Outcome, run: &mut dyn Run) -> Option<Value> {
        let tries = match outcome {
            Outcome::Success | Outcome::SuccessWithFailures => u32::MAX,
            Outcome::Failed | Outcome::Canceled => FEW,
            _ => return None,
        };
        let unavailable = |fault: &Fault| Some(json!({ "unavailable": fault.to_string() }));
        let mut backoff = persist::backoff();
        let mut failures = 0;
        let since = Instant::now();
        loop {
            match run.output(self.max_output_bytes).await {
                Ok(output) => return output,
                Err(fault @ Fault::Passing { .. }) => {
                    failures += 1;
                    let late = self.request.deadline.is_some_and(|d| self.host.now() >= d)
                        || since.elapsed() >= OUTPUT_PATIENCE;
                    let cancelled = self.host.cancelled().now_or_never().is_some();
                    if failures >= tries || late || (cancelled && failures >= FEW) {
                        return unavailable(&fault);
                    }
                    let left = OUTPUT_PATIENCE.saturating_sub(since.elapsed());
                    let pause = persist::pause(&mut backoff, &fault).min(left);
                    tokio::time::sleep(pause).await;
                }
                Err(fault) => return unavailable(&fault),
            }
        }
    }

    fn tell_begun(&self, number: u32, adopted: bool, run: &dyn Run) {
        let facts = run.facts();
        let details = EventDetails {
            run_id: facts.run_id,
            run_page_url: facts.run_page_url,
            ..EventDetails::default()
        };
        let event = if adopted {
            EventType::Adopted
        } else {
            EventType::Submitted
        };
        self.host.tell(event, Some(number), details);
    }

    fn tell_cancel(&self, attempt: Option<u32>) {
        self.host
            .tell(EventType::CancelRequested, attempt, EventDetails::default());
    }
}

enum Next {
    /// An earlier worker may have begun it.
    Attempt {
        perhaps_begun: bool,
    },
    Stop(Stop),
    No,
}

/// The engine's word is the outcome. Only a run that *we* stopped for being late is renamed, and
/// only if the engine says that it was stopped.
fn judge(ended: Ended, stop: Option<&Stop>) -> (Outcome, Option<RunError>) {
    match ended {
        Ended::Success => (Outcome::Success, None),
        Ended::SuccessWithFailures(f) => (Outcome::SuccessWithFailures, Some(f.error)),
        Ended::Skipped(f) => (Outcome::Skipped, Some(f.error)),
        Ended::Canceled(f) => match stop {
            None => (Outcome::Canceled, Some(f.error)),
            Some(stop) => (stop.outcome(), Some(stop.to_error())),
        },
        Ended::TimedOut(f) => (Outcome::TimedOut, Some(f.error)),
        Ended::Failed(f) => (Outcome::Failed, Some(f.error)),
        Ended::Lost(f) => (Outcome::Lost, Some(f.error)),
    }
}
