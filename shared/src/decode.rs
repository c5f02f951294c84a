//! From bytes on a queue to a request, or the reason why not.
//!
//! Three endings, none of which loses anything: a [`Request`]; something with a usable id and a
//! fault, which becomes a REJECTED result that names the field; something without a usable id,
//! which is buried among the dead letters.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::body::Body;
use crate::id::Id;
use crate::request::{
    DEFAULT_MAX_RETRY_INTERVAL_MILLIS, DEFAULT_MIN_RETRY_INTERVAL_MILLIS, OnFailure, Request,
    SparkConnect, Wire, Work,
};

/// Why a message is no request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undecodable {
    /// Nobody can be told about it by id: it goes to the dead letters.
    Bury(Unreadable),
    /// Its id is known: the producer is told what is wrong with which field.
    Reject {
        /// The request's id.
        id: Id,
        /// What is wrong with it.
        fault: FieldFault,
    },
}

/// Why a message can't be read at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is larger than allowed.
    #[error("the message has {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The largest size allowed, in bytes.
        limit: usize,
    },
    /// It is not JSON in UTF-8.
    #[error("the message is not JSON: {0}")]
    NotJson(String),
    /// It is JSON, with no id that can be used.
    #[error("the request has no usable id: {0}")]
    NoId(String),
}

impl Unreadable {
    /// One word, for the header `x-sparkferry-reason` and for counting.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::NotJson(_) => "not_json",
            Self::NoId(_) => "no_id",
        }
    }
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
/// See [`Undecodable`]. The bytes themselves never stand in an error, only names of fields and, for
/// values of the wrong type, the value.
pub fn decode(
    bytes: &[u8],
    message_id: Option<&str>,
    connection: Option<&str>,
    limit: usize,
) -> Result<Request, Undecodable> {
    let id = identify(bytes, message_id, limit).map_err(Undecodable::Bury)?;
    read(bytes, id.clone(), connection).map_err(|fault| Undecodable::Reject { id, fault })
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
            serde_json::from_str(id.get()).map_err(|e| Unreadable::NoId(format!("id: {e}")))
        }
        (None, Some(id)) => id
            .parse()
            .map_err(|e| Unreadable::NoId(format!("message_id: {e}"))),
        (None, None) => Err(Unreadable::NoId(
            "neither the field `id` nor the property message_id is set".into(),
        )),
    }
}

fn read(bytes: &[u8], id: Id, connection: Option<&str>) -> Result<Request, FieldFault> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let wire: Wire = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { String::new() } else { path };
        FieldFault::new(field, error.into_inner().to_string())
    })?;
    check(wire, id, connection)
}

fn check(wire: Wire, id: Id, connection: Option<&str>) -> Result<Request, FieldFault> {
    if let (Some(named), Some(queue)) = (wire.connection.as_deref(), connection)
        && named != queue
    {
        return Err(FieldFault::new(
            "connection",
            format!("the request names {named:?} but stands in the queue of {queue:?}"),
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
    if !wire.wait && matches!(work, Work::SparkConnect(_)) {
        return Err(FieldFault::new(
            "wait",
            "`false` is for run_now and submit_run; a Spark Connect server stops what nobody attends",
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
        .map_err(|e| FieldFault::new("run_now.job_name", e.to_string()))?;
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1024 * 1024;

    fn read(text: &str) -> Result<Request, Undecodable> {
        decode(text.as_bytes(), None, Some("prod"), LIMIT)
    }

    fn rejection(text: &str) -> FieldFault {
        match read(text) {
            Err(Undecodable::Reject { fault, .. }) => fault,
            other => panic!("expected a rejection of {text}, got {other:?}"),
        }
    }

    fn burial(bytes: &[u8], message_id: Option<&str>) -> Unreadable {
        match decode(bytes, message_id, Some("prod"), LIMIT) {
            Err(Undecodable::Bury(why)) => why,
            other => panic!("expected a burial, got {other:?}"),
        }
    }

    #[test]
    fn the_field_at_fault_is_named() {
        for (text, field, reason) in [
            (
                r#"{"id":"a","run_now":{"job_id":1},"max_retry":1}"#,
                "max_retry",
                "unknown field",
            ),
            (
                r#"{"id":"a","run_now":{"job_id":1},"max_retries":"x"}"#,
                "max_retries",
                "invalid type",
            ),
            (
                r#"{"id":"a","run_now":{"job_id":1},"max_retries":-1}"#,
                "max_retries",
                "invalid value",
            ),
            (r#"{"id":"a","run_now":[]}"#, "run_now", "a JSON object"),
            (r#"{"id":"a","run_now":{}}"#, "run_now.job_id", "needed"),
            (
                r#"{"id":"a","run_now":{"job_id":1,"job_name":"x"}}"#,
                "run_now.job_name",
                "only one",
            ),
            (
                r#"{"id":"a","run_now":{"job_id":1,"idempotency_token":"t"}}"#,
                "run_now.idempotency_token",
                "not allowed",
            ),
            (
                r#"{"id":"a","submit_run":{"idempotency_token":"t"}}"#,
                "submit_run.idempotency_token",
                "not allowed",
            ),
            (r#"{"id":"a"}"#, "", "none is there"),
            (
                r#"{"id":"a","run_now":{"job_id":1},"submit_run":{}}"#,
                "",
                "only one",
            ),
            (
                r#"{"id":"a","run_now":{"job_id":1},"connection":"x"}"#,
                "connection",
                "in the queue of",
            ),
            (
                r#"{"id":"a","run_now":{"job_id":1},"deadline":"soon"}"#,
                "deadline",
                "",
            ),
            (
                r#"{"id":"a","run_now":{"job_id":1},"retry_on":["user","x"]}"#,
                "retry_on[1]",
                "unknown variant",
            ),
            (
                r#"{"id":"a","spark_connect":{"steps":[]}}"#,
                "spark_connect.steps",
                "at least one",
            ),
            (
                r#"{"id":"a","spark_connect":{"steps":[{"sql":"a","plan":"b"}]}}"#,
                "spark_connect.steps[0]",
                "only one",
            ),
            (
                r#"{"id":"a","spark_connect":{"steps":[{"sql":1}]}}"#,
                "spark_connect.steps[0].sql",
                "invalid type",
            ),
            (
                r#"{"id":"a","spark_connect":{"steps":[{"sql":"a"}]},"on_failure":"repair"}"#,
                "on_failure",
                "repair",
            ),
            (
                r#"{"id":"a","spark_connect":{"steps":[{"sql":"a"}]},"wait":false}"#,
                "wait",
                "attends",
            ),
            (
                r#"{"id":"a","run_now":{"job_id":1},"min_retry_interval_millis":2,"max_retry_interval_millis":1}"#,
                "min_retry_interval_millis",
                "more than",
            ),
        ] {
            let fault = rejection(text);
            assert_eq!(fault.field, field, "{text}: {fault}");
            assert!(fault.reason.contains(reason), "{text}: {fault}");
        }
    }

    #[test]
    fn what_names_nobody_is_buried() {
        assert_eq!(burial(b"no json", None).reason(), "not_json");
        assert_eq!(burial(b"no json", Some("x")).reason(), "not_json");
        assert_eq!(burial(b"{\"id\":\"\xff\"}", None).reason(), "not_json");
        assert_eq!(burial(b"", None).reason(), "not_json");
        assert_eq!(burial(b"[1]", None).reason(), "no_id");
        assert_eq!(burial(b"{}", None).reason(), "no_id");
        assert_eq!(burial(br#"{"id":"a b"}"#, None).reason(), "no_id");
        assert_eq!(burial(br#"{"id":7}"#, Some("x")).reason(), "no_id");
        assert_eq!(burial(br#"{"id":"a","id":"b"}"#, None).reason(), "no_id");
        assert_eq!(burial(&vec![b' '; LIMIT + 1], None).reason(), "too_large");
    }

    #[test]
    fn the_property_names_a_request_whose_body_does_not() {
        let request = decode(
            br#"{"run_now":{"job_id":1}}"#,
            Some("m"),
            Some("prod"),
            LIMIT,
        );
        assert_eq!(request.unwrap().id.as_str(), "m");
        let request = decode(
            br#"{"id":"b","run_now":{"job_id":1}}"#,
            Some("m"),
            None,
            LIMIT,
        );
        assert_eq!(request.unwrap().id.as_str(), "b");
        let array = decode(b"[]", Some("m"), None, LIMIT);
        assert!(
            matches!(array, Err(Undecodable::Reject { .. })),
            "{array:?}"
        );
    }

    #[test]
    fn one_interval_alone_moves_the_other_ones_default() {
        let read = |field: &str| {
            let request = read(&format!(r#"{{"id":"a","run_now":{{"job_id":1}},{field}}}"#));
            let request = request.unwrap();
            (
                request.min_retry_interval_millis,
                request.max_retry_interval_millis,
            )
        };
        assert_eq!(read(r#""wait":true"#), (10_000, 300_000));
        assert_eq!(read(r#""max_retry_interval_millis":50"#), (50, 50));
        assert_eq!(
            read(r#""min_retry_interval_millis":400000"#),
            (400_000, 400_000)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_ending(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, None, Some("prod"), 100);
        }

        #[test]
        fn any_field_with_any_value_has_an_ending(
            field in "(run_now|submit_run|spark_connect|max_retries|deadline|labels|retry_on|wait|x)",
            value in "(null|true|-1|1e999|\"\"|\\[\\]|\\{\\}|\\{\"a\":1\\}|99999999999999999999)",
        ) {
            let text = format!(r#"{{"id":"a","{field}":{value}}}"#);
            let _ = decode(text.as_bytes(), None, Some("prod"), LIMIT);
        }
    }
}
