//! A request: what a producer publishes and a worker executes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::body::Body;
use crate::id::Id;
use crate::result::{ErrorClass, WorkKind};

/// Attempts after the first, where the request names no number.
pub const DEFAULT_MAX_RETRIES: u32 = 3;
/// The shortest wait between two attempts, in milliseconds, where the request names none.
pub const DEFAULT_MIN_RETRY_INTERVAL_MILLIS: u64 = 10_000;
/// The longest wait between two attempts, in milliseconds, where the request names none.
pub const DEFAULT_MAX_RETRY_INTERVAL_MILLIS: u64 = 300_000;
/// Rows of a Spark Connect step that come back inline, where the request names no number.
pub const DEFAULT_ROW_LIMIT: u64 = 1000;
/// The most steps of a Spark Connect request: the result names the operation of each, and whoever
/// takes the run over asks for each.
pub const MAX_STEPS: usize = 1000;
/// The most that a request's labels may take together with their names, in bytes: they go into every event.
pub const MAX_LABELS_BYTES: usize = 16 << 10;

/// A request that holds together: every field checked, exactly one kind of work.
/// Read one with [`crate::decode()`]; serialize one to publish it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(into = "Wire")]
pub struct Request {
    /// What the request is: the same id on the same connection is the same work.
    pub id: Id,
    /// The connection to run on. The queue decides; if present it must agree with the queue.
    pub connection: Option<String>,
    /// The work itself.
    pub work: Work,
    /// Attempts after the first.
    pub max_retries: u32,
    /// The classes of error that earn another attempt.
    pub retry_on: Vec<ErrorClass>,
    /// The shortest wait between two attempts, in milliseconds.
    pub min_retry_interval_millis: u64,
    /// The longest wait between two attempts, in milliseconds.
    pub max_retry_interval_millis: u64,
    /// What a further attempt is.
    pub on_failure: OnFailure,
    /// How long one attempt may take from its start on the engine, in seconds; 0 is no limit.
    pub timeout_seconds: u64,
    /// Past it nothing new is started.
    pub deadline: Option<Timestamp>,
    /// What becomes of a run that takes too long.
    pub on_timeout: OnTimeout,
    /// False: the result is published as soon as the run is accepted.
    pub wait: bool,
    /// The work may be run again if the engine forgot it.
    pub rerun_if_lost: bool,
    /// Copied into every event and the result.
    pub labels: BTreeMap<String, String>,
}

impl Request {
    /// A request with the contract's defaults.
    pub fn new(id: Id, work: Work) -> Self {
        Self {
            id,
            connection: None,
            work,
            max_retries: DEFAULT_MAX_RETRIES,
            retry_on: default_retry_on(),
            min_retry_interval_millis: DEFAULT_MIN_RETRY_INTERVAL_MILLIS,
            max_retry_interval_millis: DEFAULT_MAX_RETRY_INTERVAL_MILLIS,
            on_failure: OnFailure::default(),
            timeout_seconds: 0,
            deadline: None,
            on_timeout: OnTimeout::default(),
            wait: true,
            rerun_if_lost: false,
            labels: BTreeMap::new(),
        }
    }
}

/// The work of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Databricks' run-now body; `job_name` may stand for `job_id`.
    RunNow(Body),
    /// Databricks' runs/submit body: the `tasks` form or the older single-task form.
    SubmitRun(Body),
    /// Statements and plans for a Spark Connect server.
    SparkConnect(SparkConnect),
}

impl Work {
    /// Which of the three it is.
    pub fn kind(&self) -> WorkKind {
        match self {
            Self::RunNow(_) => WorkKind::RunNow,
            Self::SubmitRun(_) => WorkKind::SubmitRun,
            Self::SparkConnect(_) => WorkKind::SparkConnect,
        }
    }

    /// Forgets everything but the kind: for whoever holds many requests whose work is begun.
    pub fn forget(&mut self) {
        *self = match self {
            Self::RunNow(_) => Self::RunNow(Body::default()),
            Self::SubmitRun(_) => Self::SubmitRun(Body::default()),
            Self::SparkConnect(work) => Self::SparkConnect(SparkConnect {
                steps: Vec::new(),
                conf: BTreeMap::new(),
                artifacts: Vec::new(),
                row_limit: work.row_limit,
            }),
        };
    }
}

/// Steps that run in order in one Spark Connect session; the first failure ends the attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SparkConnect {
    /// One or more steps, 1000 at most.
    #[schemars(length(min = 1, max = MAX_STEPS))]
    pub steps: Vec<Step>,
    /// Settings of the session.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub conf: BTreeMap<String, String>,
    /// Python files that the session is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// Rows of each step that come back inline.
    #[serde(default = "default_row_limit")]
    pub row_limit: u64,
}

/// One step: `sql` (with `args`) or `plan`, never both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    {
        "required": ["sql"],
        "properties": { "sql": { "type": "string" }, "plan": { "type": "null" } },
    },
    {
        "required": ["plan"],
        "properties": {
            "plan": { "type": "string" },
            "sql": { "type": "null" },
            "args": { "maxProperties": 0 },
        },
    },
]))]
pub struct Step {
    /// One SQL statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// Values of the statement's named parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, Value>,
    /// A serialized `spark.connect.Plan`, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("contentEncoding" = "base64"))]
    pub plan: Option<String>,
}

/// A file that a Spark Connect session is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Where the session finds it, such as `pyfiles/x.py`.
    pub name: String,
    /// The content, in base64.
    #[schemars(extend("contentEncoding" = "base64"))]
    pub data: String,
}

/// What a further attempt is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// A new run.
    #[default]
    Rerun,
    /// A repair of the failed tasks of the first attempt's run (Databricks).
    Repair,
}

/// What becomes of a run that takes too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// It is cancelled, and its ending awaited.
    #[default]
    Cancel,
    /// It is left to run.
    Abandon,
}

/// The request as JSON. Private: what is public is checked.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    title = "Sparkferry request",
    description = "What a producer publishes: one piece of work for one connection.",
    rename = "Request",
    // A null is as good as a field left out, so presence alone decides nothing.
    extend("oneOf" = [
        { "required": ["run_now"], "properties": { "run_now": { "type": "object" } } },
        { "required": ["submit_run"], "properties": { "submit_run": { "type": "object" } } },
        {
            "required": ["spark_connect"],
            "properties": {
                "spark_connect": { "type": "object" },
                "on_failure": { "const": "rerun" },
            },
        },
    ])
)]
pub(crate) struct Wire {
    /// What the request is: the same id is the same work. May travel as the message's `message_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<Id>,
    /// The connection to run on. The queue decides; if present it must agree with the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) connection: Option<String>,
    /// Databricks' run-now body, passed through untouched; `job_name` may stand for `job_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "properties" = {
            "job_id": { "description": "The job, by Databricks' id." },
            "job_name": {
                "description": "The job, by its exact name; in place of job_id.",
                "type": ["string", "null"],
                "minLength": 1,
            },
        },
        "oneOf" = [
            { "type": "null" },
            {
                "type": "object",
                "required": ["job_id"],
                "properties": { "job_id": { "not": { "type": "null" } } },
            },
            {
                "type": "object",
                "required": ["job_name"],
                "properties": { "job_name": { "type": "string" } },
            },
        ],
    ))]
    pub(crate) run_now: Option<Body>,
    /// Databricks' runs/submit body, passed through untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) submit_run: Option<Body>,
    /// Steps for a Spark Connect session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spark_connect: Option<SparkConnect>,
    /// Attempts after the first.
    #[serde(default = "default_max_retries")]
    pub(crate) max_retries: u32,
    /// The classes of error that earn another attempt (`lost` only where `rerun_if_lost`).
    #[serde(default = "default_retry_on")]
    pub(crate) retry_on: Vec<ErrorClass>,
    /// The shortest wait between two attempts (10 000 where neither bound says otherwise).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) min_retry_interval_millis: Option<u64>,
    /// The longest wait between two attempts (300 000 where neither bound says otherwise).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_retry_interval_millis: Option<u64>,
    /// What a further attempt is: a new run, or a repair of the failed tasks.
    #[serde(default)]
    pub(crate) on_failure: OnFailure,
    /// How long one attempt may take from its start on the engine; 0 is no limit.
    #[serde(default)]
    pub(crate) timeout_seconds: u64,
    /// RFC 3339. Past it nothing new is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deadline: Option<Timestamp>,
    /// What becomes of a run that takes too long.
    #[serde(default)]
    pub(crate) on_timeout: OnTimeout,
    /// False: the result is published as soon as the run is accepted, outcome SUBMITTED.
    #[serde(default = "yes")]
    pub(crate) wait: bool,
    /// The work may be run again if the engine forgot it.
    #[serde(default)]
    pub(crate) rerun_if_lost: bool,
    /// Copied into every event and the result.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
}

impl From<Request> for Wire {
    fn from(request: Request) -> Self {
        let (mut run_now, mut submit_run, mut spark_connect) = (None, None, None);
        match request.work {
            Work::RunNow(body) => run_now = Some(body),
            Work::SubmitRun(body) => submit_run = Some(body),
            Work::SparkConnect(work) => spark_connect = Some(work),
        }
        Self {
            id: Some(request.id),
            connection: request.connection,
            run_now,
            submit_run,
            spark_connect,
            max_retries: request.max_retries,
            retry_on: request.retry_on,
            min_retry_interval_millis: Some(request.min_retry_interval_millis),
            max_retry_interval_millis: Some(request.max_retry_interval_millis),
            on_failure: request.on_failure,
            timeout_seconds: request.timeout_seconds,
            deadline: request.deadline,
            on_timeout: request.on_timeout,
            wait: request.wait,
            rerun_if_lost: request.rerun_if_lost,
            labels: request.labels,
        }
    }
}

fn default_max_retries() -> u32 {
    DEFAULT_MAX_RETRIES
}

fn default_retry_on() -> Vec<ErrorClass> {
    vec![
        ErrorClass::Infrastructure,
        ErrorClass::Throttled,
        ErrorClass::Lost,
    ]
}

fn default_row_limit() -> u64 {
    DEFAULT_ROW_LIMIT
}

fn yes() -> bool {
    true
}
