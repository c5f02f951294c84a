//! What comes back: outcomes, attempts and errors.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::id::Id;
use crate::key::Key;

/// The `type` property of a result's message.
pub const RESULT_TYPE: &str = "sparkferry.result";

/// The result of a request: published once its work has ended, or can't begin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Sparkferry result", rename = "Result")]
pub struct RunResult {
    /// The request's id.
    pub id: Id,
    /// How it ended.
    pub outcome: Outcome,
    /// The connection it ran on.
    pub connection: String,
    /// Which kind of work it was; absent where the request could not be read so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<WorkKind>,
    /// The request's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The attempts, the first one first. Empty where nothing was started. Of more than 100, some after
    /// the first ones are left out, which the numbers show; of all but the latest three the errors are
    /// without traces and tasks.
    #[serde(default)]
    pub attempts: Vec<Attempt>,
    /// What the work produced, bounded: `{"tasks": [...]}` for Databricks, `{"steps": [...]}` for
    /// Spark Connect. What is cut says so in a `truncated` field.
    #[serde(default)]
    pub output: Option<Value>,
    /// What went wrong, if anything did.
    #[serde(default)]
    pub error: Option<RunError>,
    /// When this worker received the request.
    pub received_at: Timestamp,
    /// When the ending was known.
    pub finished_at: Timestamp,
    /// The worker that publishes it.
    pub worker: String,
    /// Whether the broker had delivered the request before.
    pub redelivered: bool,
    /// It was larger than its queue takes, so some of it is cut or left out: what the engine said of
    /// older attempts first, what is needed most last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// How a request ended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Outcome {
    /// The engine said success.
    Success,
    /// The engine said success, with failed tasks that the job tolerates.
    SuccessWithFailures,
    /// The engine skipped the run.
    Skipped,
    /// The run was cancelled, on the engine or by a cancel message.
    Canceled,
    /// The run took too long: by the engine's limit, `timeout_seconds` or `deadline`.
    #[serde(rename = "TIMEDOUT")]
    TimedOut,
    /// Every attempt failed, or the failure earns no other.
    Failed,
    /// Never started: the request, or the engine's refusal of it, is at fault.
    Rejected,
    /// Never started: the deadline had passed.
    Expired,
    /// The run was accepted, and the request asked for no more (`wait` false).
    Submitted,
    /// The engine no longer knows the run; what it did is unknown.
    Lost,
}

impl Outcome {
    /// All of them, in the contract's order.
    pub const ALL: [Self; 10] = [
        Self::Success,
        Self::SuccessWithFailures,
        Self::Skipped,
        Self::Canceled,
        Self::TimedOut,
        Self::Failed,
        Self::Rejected,
        Self::Expired,
        Self::Submitted,
        Self::Lost,
    ];

    /// As it stands in a result and in a routing key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::SuccessWithFailures => "SUCCESS_WITH_FAILURES",
            Self::Skipped => "SKIPPED",
            Self::Canceled => "CANCELED",
            Self::TimedOut => "TIMEDOUT",
            Self::Failed => "FAILED",
            Self::Rejected => "REJECTED",
            Self::Expired => "EXPIRED",
            Self::Submitted => "SUBMITTED",
            Self::Lost => "LOST",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The kind of work, named as the request's field that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// Databricks: a run of an existing job.
    RunNow,
    /// Databricks: a one-time run.
    SubmitRun,
    /// Operations in a Spark Connect session.
    SparkConnect,
}

/// One attempt: one run on the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// From 1.
    #[schemars(range(min = 1))]
    pub number: u32,
    /// The computed name.
    pub key: Key,
    /// Databricks' run id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<i64>,
    /// Spark Connect's operation ids, one for each step begun.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operation_ids: Vec<Uuid>,
    /// Where a person can look at the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_page_url: Option<String>,
    /// The engine's older description of the state, as it gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Value>,
    /// The engine's newer description of the state, as it gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
    /// When the run began, by the engine's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the run ended, by the engine's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Time that the cluster took to be ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_duration_ms: Option<u64>,
    /// Time that the work itself took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_duration_ms: Option<u64>,
    /// Time that the run spent in the engine's queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_duration_ms: Option<u64>,
    /// This worker found the run already there (running or done).
    pub adopted: bool,
    /// What went wrong in this attempt, if anything did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunError {
    /// The kind of error: what `retry_on` speaks of.
    pub class: ErrorClass,
    /// The engine's own code, such as `RUN_EXECUTION_ERROR` or `TABLE_OR_VIEW_NOT_FOUND`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// For a person: what went wrong and where.
    pub message: String,
    /// The engine's trace, bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// What went wrong in each failed task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskError>,
}

impl RunError {
    /// An error with a class and a message, and nothing else known.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            class,
            code: None,
            message: message.into(),
            trace: None,
            tasks: Vec::new(),
        }
    }

    /// The same with the engine's own code.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }
}

/// What went wrong in one task of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskError {
    /// The task's name in its run.
    pub task_key: String,
    /// The task's own run id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<i64>,
    /// The error, in the engine's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The engine's trace, bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// The kind of an error: what earns another attempt is decided by it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The work failed.
    User,
    /// The request is malformed, or the engine refuses it.
    Request,
    /// The engine does not let us in, or not do this.
    Auth,
    /// A cluster, a cloud or the engine itself failed.
    Infrastructure,
    /// The engine has too much to do.
    Throttled,
    /// It took too long.
    Timeout,
    /// Somebody cancelled it.
    Canceled,
    /// The engine no longer knows the run.
    Lost,
}

impl ErrorClass {
    /// As it stands in a result and in `retry_on`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Request => "request",
            Self::Auth => "auth",
            Self::Infrastructure => "infrastructure",
            Self::Throttled => "throttled",
            Self::Timeout => "timeout",
            Self::Canceled => "canceled",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
