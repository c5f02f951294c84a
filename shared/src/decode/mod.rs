//! From bytes on a queue to a request, or the reason why not.
//!
//! Three endings, none of which loses anything: a [`Request`]; something with a usable id and a
//! fault, which becomes a REJECTED result that names the field; something without a usable id,
//! which is buried among the dead letters.

pub(crate) mod unquoted;
mod unreadable;

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::body::Body;
use crate::id::Id;
use crate::request::{
    DEFAULT_MAX_RETRY_INTERVAL_MILLIS, DEFAULT_MIN_RETRY_INTERVAL_MILLIS, MAX_LABELS_BYTES,
    MAX_STEPS, OnFailure, Request, SparkConnect, Wire, Work,
};
use crate::result::WorkKind;
use unquoted::{bounded, without_values};

pub use unreadable::Unreadable;

/// Why a message is no request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undecodable {
    /// Nobody can be told about it by id: it goes to the dead letters.
    Bury(Unreadable),
    /// Its id is known: the producer is told what is wrong with which field.
    Reject {
        /// The request's id.
        id: Id,
        /// What it asks for, as far as that can be told.
        kind: Option<WorkKind>,
        /// Its labels; none where they can't be read.
        labels: BTreeMap<String, String>,
        /// What is wrong with it.
        fault: FieldFault,
    },
}

/// What is wrong with which field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFault {
    /// The field's path, such as `spark_connect.steps[0].plan`; empty for the request as a whole.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl FieldFault {
    fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for FieldFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.field, self.reason)
        }
    }
}

/// Reads a request.
///
/// `message_id` is the message's property, which names the request where the body does not;
/// `connection` the one whose queue it came from, if it came from a queue; `limit` the largest
/// message in bytes.
///
/// # Errors
/// See [`Undecodable`]. Values never stand in an error, only names of fields.
pub fn decode(
    bytes: &[u8],
    message_id: Option<&str>,
    connection: Option<&str>,
    limit: usize,
) -> Result<Request, Undecodable> {
    // Nearly all are right, and read once; what is wrong with the others is looked for with care.
    let (id, read) = match read_at_once(bytes, message_id, limit) {
        Some((id, wire)) => (id, Ok(wire)),
        None => (
            identify(bytes, message_id, limit).map_err(Undecodable::Bury)?,
            read(bytes),
        ),
    };
    read.and_then(|wire| check(wire, id.clone(), connection))
        .map_err(|fault| {
            let (kind, labels) = recognize(bytes);
            Undecodable::Reject {
                id,
                kind,
                labels,
                fault,
            }
        })
}

/// Kind and labels of a request that has a fault elsewhere.
fn recognize(bytes: &[u8]) -> (Option<WorkKind>, BTreeMap<String, String>) {
    #[derive(Default, Deserialize)]
    struct Probe<'a> {
        #[serde(borrow)]
        labels: Option<&'a RawValue>,
        run_now: Option<IgnoredAny>,
        submit_run: Option<IgnoredAny>,
        spark_connect: Option<IgnoredAny>,
    }

    // An array would be read by position.
    let object = bytes.trim_ascii_start().starts_with(b"{");
    let probe: Option<Probe<'_>> = object.then(|| serde_json::from_slice(bytes).ok()).flatten();
    let probe = probe.unwrap_or_default();
    let kind = match (probe.run_now, probe.submit_run, probe.spark_connect) {
        (Some(_), None, None) => Some(WorkKind::RunNow),
        (None, Some(_), None) => Some(WorkKind::SubmitRun),
        (None, None, Some(_)) => Some(WorkKind::SparkConnect),
        _ => None,
    };
    let labels = probe
        .labels
        .and_then(|labels| serde_json::from_str(labels.get()).ok())
        .filter(|labels| labels_bytes(labels) <= MAX_LABELS_BYTES);
    (kind, labels.unwrap_or_default())
}

/// An object without a fault in its fields' types, and its id as [`identify`] tells it.
fn read_at_once(bytes: &[u8], message_id: Option<&str>, limit: usize) -> Option<(Id, Wire)> {
    if bytes.len() > limit {
        return None;
    }
    let text = std::str::from_utf8(bytes).ok()?;
    if !text.trim_ascii_start().starts_with('{') {
        return None;
    }
    let mut wire: Wire = serde_json::from_str(text).ok()?;
    let id = match wire.id.take() {
        Some(id) => id,
        None => message_id?.parse().ok()?,
    };
    Some((id, wire))
}

/// The id of a message, whatever else may be wrong with it.
///
/// # Errors
/// Where it is too large, no JSON, or names no usable id.
pub fn identify(bytes: &[u8], message_id: Option<&str>, limit: usize) -> Result<Id, Unreadable> {
    #[derive(Deserialize)]
    struct Probe<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
    }

    if bytes.len() > limit {
        return Err(Unreadable::TooLarge {
            size: bytes.len(),
            limit,
        });
    }
    // Without this, text that is skipped would not be checked for UTF-8.
    let text = std::str::from_utf8(bytes).map_err(|e| Unreadable::NotJson(e.to_string()))?;
    let json: &RawValue =
        serde_json::from_str(text).map_err(|e| Unreadable::NotJson(e.to_string()))?;
    let in_body = if json.get().starts_with('{') {
        let probe: Probe<'_> =
            serde_json::from_str(json.get()).map_err(|e| Unreadable::NoId(e.to_string()))?;
        probe.id.filter(|id| id.get() != "null")
    } else {
        None
    };
    match (in_body, message_id) {
        (Some(id), _) => {
            let read = serde_json::from_str(id.get());
            read.map_err(|e: serde_json::Error| {
                Unreadable::NoId(format!("id: {}", without_values(&e.to_string())))
            })
        }
        (None, Some(id)) => id
            .parse()
            .map_err(|e| Unreadable::NoId(format!("message_id: {e}"))),
        (None, None) => Err(Unreadable::NoId(
            "neither the field `id` nor the property message_id is set".into(),
        )),
    }
}

fn read(bytes: &[u8]) -> Result<Wire, FieldFault> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { "" } else { &path };
        FieldFault::new(
            bounded(field),
            without_values(&error.into_inner().to_string()),
        )
    })
}

fn check(wire: Wire, id: Id, connection: Option<&str>) -> Result<Request, FieldFault> {
    if let (Some(named), Some(queue)) = (wire.connection.as_deref(), connection)
        && named != queue
    {
        return Err(FieldFault::new(
            "connection",
            format!("the request names another one, and stands in the queue of {queue:?}"),
        ));
    }
    let work = match (wire.run_now, wire.submit_run, wire.spark_connect) {
        (Some(body), None, None) => Work::RunNow(check_run_now(body)?),
        (None, Some(body), None) => {
            refuse_token("submit_run", &body)?;
            Work::SubmitRun(body)
        }
        (None, None, Some(work)) => Work::SparkConnect(check_spark_connect(work)?),
        (None, None, None) => {
            return Err(FieldFault::new(
                "",
                "one of run_now, submit_run, spark_connect is needed, and none is there",
            ));
        }
        _ => {
            return Err(FieldFault::new(
                "",
                "only one of run_now, submit_run, spark_connect may be there",
            ));
        }
    };
    if wire.on_failure == OnFailure::Repair && matches!(work, Work::SparkConnect(_)) {
        return Err(FieldFault::new(
            "on_failure",
            "`repair` is for run_now and submit_run; spark_connect knows `rerun` only",
        ));
    }
    let labels = labels_bytes(&wire.labels);
    if labels > MAX_LABELS_BYTES {
        return Err(FieldFault::new(
            "labels",
            format!("take {labels} bytes together, at most {MAX_LABELS_BYTES} are allowed"),
        ));
    }
    let (min, max) = intervals(
        wire.min_retry_interval_millis,
        wire.max_retry_interval_millis,
    )?;
    Ok(Request {
        id,
        connection: wire.connection,
        work,
        max_retries: wire.max_retries,
        retry_on: wire.retry_on,
        min_retry_interval_millis: min,
        max_retry_interval_millis: max,
        on_failure: wire.on_failure,
        timeout_seconds: wire.timeout_seconds,
        deadline: wire.deadline,
        on_timeout: wire.on_timeout,
        wait: wire.wait,
        rerun_if_lost: wire.rerun_if_lost,
        labels: wire.labels,
    })
}

/// What labels take, with their names.
fn labels_bytes(labels: &BTreeMap<String, String>) -> usize {
    let each = labels.iter().map(|(name, value)| name.len() + value.len());
    each.sum()
}

/// One bound alone moves the default of the other out of its way.
fn intervals(min: Option<u64>, max: Option<u64>) -> Result<(u64, u64), FieldFault> {
    match (min, max) {
        (Some(min), Some(max)) if min > max => Err(FieldFault::new(
            "min_retry_interval_millis",
            format!("{min} is more than max_retry_interval_millis, {max}"),
        )),
        (Some(min), Some(max)) => Ok((min, max)),
        (Some(min), None) => Ok((min, DEFAULT_MAX_RETRY_INTERVAL_MILLIS.max(min))),
        (None, Some(max)) => Ok((DEFAULT_MIN_RETRY_INTERVAL_MILLIS.min(max), max)),
        (None, None) => Ok((
            DEFAULT_MIN_RETRY_INTERVAL_MILLIS,
            DEFAULT_MAX_RETRY_INTERVAL_MILLIS,
        )),
    }
}

fn refuse_token(field: &str, body: &Body) -> Result<(), FieldFault> {
    if body.get("idempotency_token").is_some() {
        return Err(FieldFault::new(
            format!("{field}.idempotency_token"),
            "not allowed here: the request's `id` is the token",
        ));
    }
    Ok(())
}

fn check_run_now(body: Body) -> Result<Body, FieldFault> {
    refuse_token("run_now", &body)?;
    let job_name: Option<Option<String>> = body
        .read("job_name")
        .map_err(|e| FieldFault::new("run_now.job_name", without_values(&e.to_string())))?;
    let job_id = body.get("job_id").filter(|id| id.get() != "null");
    match (job_id, job_name.flatten()) {
        (Some(_), Some(_)) => Err(FieldFault::new(
            "run_now.job_name",
            "only one of job_id and job_name may be there",
        )),
        (None, None) => Err(FieldFault::new(
            "run_now.job_id",
            "one of job_id and job_name is needed",
        )),
        (None, Some(name)) if name.is_empty() => {
            Err(FieldFault::new("run_now.job_name", "must not be empty"))
        }
        _ => Ok(body),
    }
}

fn check_spark_connect(work: SparkConnect) -> Result<SparkConnect, FieldFault> {
    if work.steps.is_empty() {
        return Err(FieldFault::new(
            "spark_connect.steps",
            "at least one step is needed",
        ));
    }
    if work.steps.len() > MAX_STEPS {
        return Err(FieldFault::new(
            "spark_connect.steps",
            format!(
                "{} steps are more than a request may have, {MAX_STEPS}; send several requests",
                work.steps.len()
            ),
        ));
    }
    for (index, step) in work.steps.iter().enumerate() {
        let at = |field: &str| format!("spark_connect.steps[{index}]{field}");
        match (&step.sql, &step.plan) {
            (Some(_), None) => {}
            (None, Some(_)) if step.args.is_empty() => {}
            (None, Some(_)) => return Err(FieldFault::new(at(".args"), "belongs to `sql` only")),
            (Some(_), Some(_)) => {
                return Err(FieldFault::new(
                    at(""),
                    "only one of sql and plan may be there",
                ));
            }
            (None, None) => {
                return Err(FieldFault::new(at(""), "one of sql and plan is needed"));
            }
        }
    }
    Ok(work)
}

#[cfg(test)]
mod tests;
