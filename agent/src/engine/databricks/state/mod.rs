//! What Databricks' words about a run mean. Pure.
//!
//! A run describes itself twice: `status` (newer: a state, and at the end a termination code and
//! type) and `state` (older: a life cycle and a result). The newer one is believed first, because
//! the older one has a trap: **a plain exception in the work ends the run as `INTERNAL_ERROR` /
//! `FAILED`**, the very words of a broken engine.
//!
//! Success is what one of the two calls SUCCESS while the other does not say otherwise, and nothing
//! else. Words that this version does not know never end a run by themselves.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use sparkferry_ports::engine::{Ended, Failure};
use sparkferry_shared::{ErrorClass, RunError};

use super::text;

/// The older description.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct State {
    #[serde(rename = "life_cycle_state", default, deserialize_with = "word")]
    pub(super) life_cycle: Option<String>,
    #[serde(rename = "result_state", default, deserialize_with = "word")]
    pub(super) result: Option<String>,
    #[serde(rename = "state_message", default, deserialize_with = "message")]
    pub(super) message: Option<String>,
}

/// The newer description.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Status {
    #[serde(default, deserialize_with = "word")]
    pub(super) state: Option<String>,
    pub(super) termination_details: Option<TerminationDetails>,
}

/// How a run ended, in the newer description.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct TerminationDetails {
    #[serde(default, deserialize_with = "word")]
    pub(super) code: Option<String>,
    #[serde(rename = "type", default, deserialize_with = "word")]
    pub(super) kind: Option<String>,
    #[serde(default, deserialize_with = "message")]
    pub(super) message: Option<String>,
}

impl State {
    /// As Databricks writes it, of a description that is too large to be kept.
    pub(super) fn in_short(&self) -> Value {
        json!({
            "life_cycle_state": self.life_cycle,
            "result_state": self.result,
            "state_message": self.message,
            "truncated": true,
        })
    }
}

impl Status {
    /// As Databricks writes it, of a description that is too large to be kept.
    pub(super) fn in_short(&self) -> Value {
        let details = self.termination_details.as_ref().map(|details| {
            json!({"code": details.code, "type": details.kind, "message": details.message})
        });
        json!({"state": self.state, "termination_details": details, "truncated": true})
    }
}

/// The longest word that is kept, in bytes: several times the longest that is known.
const WORD_BYTES: usize = 128;
/// The longest message that is kept, in bytes.
const MESSAGE_BYTES: usize = 2048;

fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let word = Option::<String>::deserialize(deserializer)?;
    Ok(word.map(|word| kept(word, WORD_BYTES)))
}

fn message<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let message = Option::<String>::deserialize(deserializer)?;
    Ok(message.map(|message| kept(message, MESSAGE_BYTES)))
}

fn kept(text: String, bytes: usize) -> String {
    if text.len() <= bytes {
        text
    } else {
        text::head(&text, bytes).to_owned()
    }
}

/// What the two descriptions mean together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) phase: Phase,
    /// One of the words is none that this version knows.
    pub(super) unknown: bool,
}

/// Still on its way, or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// On its way, in this state.
    Going(String),
    /// Ended like this.
    Ended(Ended),
}

/// How something ended, without the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Success,
    SuccessWithFailures,
    Skipped,
    Canceled,
    TimedOut,
    Failed(ErrorClass),
}

use Verdict::{Canceled, Failed, Skipped, Success, SuccessWithFailures, TimedOut};

const INFRASTRUCTURE: Verdict = Failed(ErrorClass::Infrastructure);
const THROTTLED: Verdict = Failed(ErrorClass::Throttled);
const REQUEST: Verdict = Failed(ErrorClass::Request);
/// The class of the work's own failures; also of an ending that nobody can explain, because it
/// earns no attempt that the request didn't ask for.
const USER: Verdict = Failed(ErrorClass::User);

/// What one of the two descriptions says of how far the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Going,
    Ended,
    Unknown,
    Silent,
}

/// What a run's (or a task's) two descriptions mean.
pub(super) fn meaning(state: &State, status: &Status) -> Meaning {
    let newer = life(status.state.as_deref(), |word| match word {
        "BLOCKED" | "PENDING" | "QUEUED" | "RUNNING" | "TERMINATING" | "WAITING" => Life::Going,
        "TERMINATED" => Life::Ended,
        _ => Life::Unknown,
    });
    let older = life(state.life_cycle.as_deref(), |word| match word {
        "BLOCKED" | "PENDING" | "QUEUED" | "RUNNING" | "TERMINATING" | "WAITING_FOR_RETRY" => {
            Life::Going
        }
        "TERMINATED" | "SKIPPED" | "INTERNAL_ERROR" => Life::Ended,
        _ => Life::Unknown,
    });
    let strange = newer == Life::Unknown || older == Life::Unknown;
    let ended = (newer == Life::Ended || older == Life::Ended)
        && newer != Life::Going
        && older != Life::Going;
    if !ended {
        let word = known(status.state.as_ref()).or(known(state.life_cycle.as_ref()));
        return Meaning {
            phase: Phase::Going(word.unwrap_or_default().to_owned()),
            unknown: strange,
        };
    }
    let (verdict, unknown) = verdict(state, status.termination_details.as_ref());
    Meaning {
        phase: Phase::Ended(ending(verdict, state, status)),
        unknown: unknown || strange,
    }
}

fn life(word: Option<&str>, read: impl Fn(&str) -> Life) -> Life {
    word.filter(|word| !word.is_empty())
        .map_or(Life::Silent, read)
}

/// A word that is there and says something.
fn known(word: Option<&String>) -> Option<&str> {
    word.map(String::as_str).filter(|word| !word.is_empty())
}

/// How an ended run ended, and whether a word about it is unknown.
fn verdict(state: &State, details: Option<&TerminationDetails>) -> (Verdict, bool) {
    let (newer, strange_code) = details.map_or((None, false), by_details);
    let (older, strange_result) = by_state(state);
    let verdict = match newer {
        // Without either it ended and nobody says how.
        None => older.unwrap_or(USER),
        Some(newer) => older.map_or(newer, |older| both(newer, older)),
    };
    (verdict, strange_code || strange_result)
}

/// The newer description, unless the older one knows better.
fn both(newer: Verdict, older: Verdict) -> Verdict {
    match (newer, older) {
        // A green word against another one is a contradiction; the other one is believed.
        (Success, other) => other,
        (SuccessWithFailures, other) if other != Success => other,
        // There is no code for the engine's time limit: the run is cancelled by it.
        (Canceled, TimedOut) => TimedOut,
        // Nor for what kept a run from starting.
        (Skipped, reason @ (Canceled | Failed(_))) => reason,
        (newer, _) => newer,
    }
}

/// By the newer description. The codes worth another attempt, at once or later, and those that are
/// not, are Databricks' own (facts on its termination codes).
fn by_details(details: &TerminationDetails) -> (Option<Verdict>, bool) {
    let blame = match details.kind.as_deref() {
        Some("CLIENT_ERROR") => Some(USER),
        Some("CLOUD_FAILURE" | "INTERNAL_ERROR") => Some(INFRASTRUCTURE),
        _ => None,
    };
    let Some(code) = known(details.code.as_ref()) else {
        return (blame, false);
    };
    let verdict = match code {
        // Of the wrong type, it contradicts itself.
        "SUCCESS" => blame.unwrap_or(Success),
        "SUCCESS_WITH_FAILURES" => SuccessWithFailures,
        "RUN_EXECUTION_ERROR" => USER,
        "CANCELED" | "USER_CANCELED" => Canceled,
        "SKIPPED" | "DISABLED" => Skipped,
        "BREAKING_CHANGE"
        | "CLOUD_FAILURE"
        | "CLUSTER_ERROR"
        | "DRIVER_ERROR"
        | "INTERNAL_ERROR"
        | "REPOSITORY_CHECKOUT_FAILED" => INFRASTRUCTURE,
        "CLUSTER_REQUEST_LIMIT_EXCEEDED"
        | "MAX_CONCURRENT_RUNS_EXCEEDED"
        | "MAX_JOB_QUEUE_SIZE_EXCEEDED"
        | "MAX_SPARK_CONTEXTS_EXCEEDED"
        | "WORKSPACE_RUN_LIMIT_EXCEEDED" => THROTTLED,
        "LIBRARY_INSTALLATION_ERROR" | "STORAGE_ACCESS_ERROR" => blame.unwrap_or(USER),
        "BUDGET_POLICY_LIMIT_EXCEEDED"
        | "FEATURE_DISABLED"
        | "INVALID_CLUSTER_REQUEST"
        | "INVALID_RUN_CONFIGURATION"
        | "RESOURCE_NOT_FOUND" => REQUEST,
        "UNAUTHORIZED_ERROR" => Failed(ErrorClass::Auth),
        // Documented, though no SDK lists it.
        "CLUSTER_TERMINATED_BY_USER" => Failed(ErrorClass::Canceled),
        // A new code of type SUCCESS is no success by itself; `state` may still say so.
        _ if details.kind.as_deref() == Some("SUCCESS") => return (None, true),
        _ => return (Some(blame.unwrap_or(USER)), true),
    };
    (Some(verdict), false)
}

/// By the older description. `INTERNAL_ERROR` / `FAILED` is the trap: the work's own failure.
fn by_state(state: &State) -> (Option<Verdict>, bool) {
    let broken = state.life_cycle.as_deref() == Some("INTERNAL_ERROR");
    let skipped = state.life_cycle.as_deref() == Some("SKIPPED");
    let verdict = match known(state.result.as_ref()) {
        Some("SUCCESS") | None if broken => INFRASTRUCTURE,
        Some("SUCCESS") | None if skipped => Skipped,
        None => return (None, false),
        Some("SUCCESS") => Success,
        Some("SUCCESS_WITH_FAILURES") => SuccessWithFailures,
        Some("FAILED" | "UPSTREAM_FAILED") => USER,
        Some("CANCELED" | "UPSTREAM_CANCELED") => Canceled,
        Some("TIMEDOUT") => TimedOut,
        Some("MAXIMUM_CONCURRENT_RUNS_REACHED") => THROTTLED,
        Some("DISABLED" | "EXCLUDED") => Skipped,
        Some(_) => return (Some(USER), true),
    };
    (Some(verdict), false)
}

fn ending(verdict: Verdict, state: &State, status: &Status) -> Ended {
    let details = status.termination_details.as_ref();
    let code = details
        .and_then(|details| known(details.code.as_ref()))
        .or(known(state.result.as_ref()))
        .or(known(state.life_cycle.as_ref()));
    let message = details
        .and_then(|details| known(details.message.as_ref()))
        .or(known(state.message.as_ref()))
        .map(str::to_owned);
    let failure = |class| {
        let message = message.unwrap_or_else(|| match code {
            Some(code) => format!("the run ended as {code}"),
            None => "the run ended and Databricks does not say how".to_owned(),
        });
        Failure {
            error: RunError {
                code: code.map(str::to_owned),
                ..RunError::new(class, message)
            },
        }
    };
    match verdict {
        Success => Ended::Success,
        SuccessWithFailures => Ended::SuccessWithFailures(failure(ErrorClass::User)),
        Skipped => Ended::Skipped(failure(ErrorClass::Canceled)),
        Canceled => Ended::Canceled(failure(ErrorClass::Canceled)),
        TimedOut => Ended::TimedOut(failure(ErrorClass::Timeout)),
        Failed(class) => Ended::Failed(failure(class)),
    }
}

#[cfg(test)]
mod tests;
