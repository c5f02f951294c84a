//! The port to an engine: where runs happen.
//!
//! An engine lets us choose a run's name, and answers two questions: *is there a run of this name,
//! and if not, start it* ([`Engine::attach_or_start`]), and *how is it doing* ([`Run`]).
//!
//! Two kinds of bad news, never mixed:
//! - a [`Fault`] is ours: a call went wrong. It says nothing about the run.
//! - a [`Failure`] is theirs: the run went wrong, with a class.
//!
//! Every implementation passes the conformance suite of the testkit, its fake included.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sparkferry_shared::request::OnFailure;
use sparkferry_shared::{Attempt, ErrorClass, Names, RunError, Work};
use tokio::time::Instant;
use uuid::Uuid;

/// The code of a loss that may be the release of a run that is done, by another worker: it never
/// earns another attempt.
pub const CLOSED: &str = "SESSION_CLOSED";

/// Somewhere that runs happen.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Finds the run of an attempt, or starts it.
    ///
    /// Guarantees: however often, from however many processes and at whatever moment this is called
    /// for one attempt, at most one run exists for it. May be dropped at any await: the next call
    /// finds whatever this one did.
    ///
    /// # Errors
    /// A passing fault says nothing about the run: call again. A refusal is the engine's answer.
    async fn attach_or_start(&self, start: &Start<'_>) -> Result<Attached, Fault>;

    /// Waits until one more start may be asked for. Separate from [`Engine::attach_or_start`], so
    /// that a request can still be cancelled, untouched, while it waits. Cancel safe.
    async fn permit(&self);

    /// Reaches the engine and says in one line what was found (host, user, version).
    async fn check(&self) -> Result<String, Fault>;

    /// Whether its runs end when no worker attends them. The request of such a run is kept until the
    /// run has ended, also where its result is due before (`wait` false, `on_timeout` "abandon").
    fn needs_attendance(&self) -> bool {
        false
    }

    /// What is wrong with the engine at the moment, for a person, as its calls of late tell.
    fn trouble(&self) -> Option<String>;

    /// How far the engine's clock is ahead of this machine's, as far as is known. What is counted
    /// from the times in [`Facts`] is counted by the engine's clock.
    fn clock_ahead(&self) -> SignedDuration {
        SignedDuration::ZERO
    }
}

/// Which run to find or start.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// The computed names of the request.
    pub names: &'a Names,
    /// The attempt, from 1.
    pub attempt: u32,
    /// What to run.
    pub work: &'a Work,
    /// What an attempt after the first is: a new run, or a repair of the first attempt's run.
    pub on_failure: OnFailure,
    /// The request was delivered before: an earlier worker may have come this far, or further.
    pub seen_before: bool,
    /// What to do about a name that the engine doesn't know.
    pub unknown: Unknown,
    /// The attempts before this one: all of them ended, and earned it.
    pub past: &'a [Attempt],
    /// Since when this worker has been asking for this attempt without a fault.
    pub since: Instant,
}

/// What to do about a name that the engine doesn't know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Start the run.
    Start,
    /// An earlier worker may have started it and the engine forgotten it, and the work must not run
    /// twice: the run is lost. An engine whose names outlive their runs (Databricks) never needs this.
    Lost,
}

/// A run that was found or started.
pub struct Attached {
    /// The run.
    pub run: Box<dyn Run>,
    /// It was there already, as far as can be told at this moment.
    /// [`Facts::adopted`] at the end is the better judgement.
    pub adopted: bool,
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached")
            .field("adopted", &self.adopted)
            .finish_non_exhaustive()
    }
}

/// One run on an engine, watched by this worker. Dropping it leaves the run as it is.
#[async_trait]
pub trait Run: Send {
    /// What is known of the run now.
    fn facts(&self) -> Facts;

    /// Waits for the run's next change; after [`Change::Ended`] it is not called again.
    ///
    /// No fault ends it: calls that fail are repeated for as long as it takes. Cancel safe.
    async fn next(&mut self) -> Change;

    /// What the ended run produced, at most `limit` bytes of JSON; what is cut says so.
    /// `None` where it produced nothing.
    async fn output(&mut self, limit: usize) -> Result<Option<Value>, Fault>;

    /// Asks the engine to cancel the run. The ending arrives through [`Run::next`].
    /// Of a run that has ended, this is no error.
    async fn cancel(&mut self) -> Result<(), Fault>;

    /// The result is published and the request acknowledged: the engine may forget the run.
    /// Best effort, bounded in time.
    async fn release(&mut self);
}

/// What is known of a run, in the shape of the result's `attempts`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Databricks' run id.
    pub run_id: Option<i64>,
    /// Spark Connect's operation ids.
    pub operation_ids: Vec<Uuid>,
    /// Where a person can look at the run.
    pub run_page_url: Option<String>,
    /// The older description of the state, as the engine gave it.
    pub state: Option<Value>,
    /// The newer description of the state, as the engine gave it.
    pub status: Option<Value>,
    /// By the engine's clock; where it tells none (Spark Connect), by that of the worker that
    /// began the run.
    pub started_at: Option<Timestamp>,
    /// By the engine's clock; where it tells none, by that of the worker that saw it first.
    pub ended_at: Option<Timestamp>,
    /// Milliseconds.
    pub setup_duration_ms: Option<u64>,
    /// Milliseconds.
    pub execution_duration_ms: Option<u64>,
    /// Milliseconds.
    pub queue_duration_ms: Option<u64>,
    /// The run was there before this worker asked for it.
    pub adopted: bool,
}

/// Something new about a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It is in this state, with so many of its tasks done.
    State(State),
    /// It ended.
    Ended(Ended),
}

/// A state on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// In the engine's words, such as `RUNNING`.
    pub word: String,
    /// Tasks that have ended; 0 where the engine tells none.
    pub done: u64,
    /// Tasks altogether; 0 where the engine tells none.
    pub total: u64,
    /// Where the engine parts its work into stages (Spark). Boxed: most runs have none.
    pub stages: Option<Box<Stages>>,
}

/// The stages of a run, so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stages {
    /// Those that have ended.
    pub done: u64,
    /// Those that the engine knows of; more may be found on the way.
    pub total: u64,
    /// Bytes that they have read.
    pub input_bytes: u64,
}

/// How a run ended, by the engine's own word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The engine said success.
    Success,
    /// The engine said success, with failed tasks that the job tolerates.
    SuccessWithFailures(Failure),
    /// The engine skipped the run.
    Skipped(Failure),
    /// The run was cancelled.
    Canceled(Failure),
    /// The run exceeded a limit of the engine's.
    TimedOut(Failure),
    /// The run failed.
    Failed(Failure),
    /// The engine no longer knows the run; what it did is unknown.
    Lost(Failure),
}

/// The run went wrong: theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong; its class decides about another attempt.
    pub error: RunError,
}

impl Failure {
    /// A failure with a class and a message.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            error: RunError::new(class, message),
        }
    }
}

/// A call went wrong: ours. Says nothing about the run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It may well work later: connection faults, throttling, a server in trouble, credentials that
    /// are not accepted at the moment.
    #[error("{message}")]
    Passing {
        /// What went wrong, with the host and the call.
        message: String,
        /// The class that it would have, should a deadline pass meanwhile.
        class: ErrorClass,
        /// The engine asked to be left alone for so long.
        retry_after: Option<Duration>,
        /// The call may have taken effect (it was sent, and no refusal came back).
        perhaps_done: bool,
    },
    /// No call went wrong, and it is too early: what the run is to run on is being made ready. Ask
    /// again.
    #[error("{message}")]
    Waiting {
        /// What is waited for, for a person.
        message: String,
        /// When to ask again.
        retry_after: Duration,
    },
    /// What the run is to run on does not become ready: the attempt failed, and no run was begun.
    /// Its class decides about another attempt.
    #[error("{}", .0.message)]
    Unready(Box<RunError>),
    /// The engine understood and refuses. Repeating changes nothing.
    #[error("{}", .0.message)]
    Refused(Box<RunError>),
    /// The name is taken by a run that the engine has deleted or forgotten, or
    /// [`Unknown::Lost`] applies.
    #[error("{}", .0.message)]
    Lost(Box<RunError>),
}

impl Fault {
    /// The fault as it stands in a result.
    pub fn to_error(&self) -> RunError {
        match self {
            Self::Passing { message, class, .. } => RunError::new(*class, message.clone()),
            Self::Waiting { message, .. } => {
                RunError::new(ErrorClass::Infrastructure, message.clone())
            }
            Self::Unready(error) | Self::Refused(error) | Self::Lost(error) => (**error).clone(),
        }
    }
}
