//! Messages that have been on the wire stay readable for ever. `golden/` holds them: those that
//! are taken, those that are refused with field and reason, and the names of all fields.
//!
//! `BLESS=1 cargo test -p sparkferry-shared --test golden` writes the schemas again and adds new
//! names to `fields.txt`. It never takes a name away: that would break somebody's messages.

mod names;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use jsonschema::{Draft, Validator};
use schemars::Schema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sparkferry_shared::request::{
    DEFAULT_MAX_RETRY_INTERVAL_MILLIS, DEFAULT_MIN_RETRY_INTERVAL_MILLIS, SparkConnect,
};
use sparkferry_shared::{
    Cancel, Event, EventType, Names, Outcome, Request, RunResult, Undecodable, Work, WorkKind,
    decode, schema,
};

/// The contract's largest message, in bytes.
const LIMIT: usize = 1024 * 1024;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The golden messages of a kind, as text, by name.
fn golden(kind: &str) -> BTreeMap<String, String> {
    let files: BTreeMap<_, _> = fs::read_dir(folder().join(kind))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    assert!(!files.is_empty(), "no golden messages of kind {kind}");
    files
}

fn validator(schema: &Schema) -> Validator {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .build(schema.as_value())
        .unwrap()
}

fn assert_valid(validator: &Validator, name: &str, message: &Value) {
    let errors: Vec<_> = validator
        .iter_errors(message)
        .map(|error| format!("{} at {:?}", error, error.instance_path().as_str()))
        .collect();
    assert!(errors.is_empty(), "{name}: {errors:#?}");
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Everything that was there is still there, under the same name and with the same meaning.
/// A null says no more than a field left out; times are compared as times.
fn assert_kept(path: &str, before: &Value, after: &Value) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, value) in before.iter().filter(|(_, value)| !value.is_null()) {
                let path = format!("{path}.{name}");
                let kept = after.get(name).unwrap_or_else(|| panic!("{path} is lost"));
                assert_kept(&path, value, kept);
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            assert_eq!(before.len(), after.len(), "{path}");
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                assert_kept(&format!("{path}[{index}]"), before, after);
            }
        }
        (Value::String(before), Value::String(after)) if before != after => {
            let times = before.parse::<Timestamp>().ok().zip(after.parse().ok());
            assert!(
                times.is_some_and(|(before, after)| before == after),
                "{path}: {before:?} became {after:?}"
            );
        }
        _ => assert_eq!(before, after, "{path}"),
    }
}

/// Reads a request as from the queue of the connection that it names.
fn read(name: &str, text: &str) -> Request {
    let connection = json(text)["connection"].as_str().map(str::to_owned);
    decode(
        text.as_bytes(),
        Some("from-message-id"),
        connection.as_deref(),
        LIMIT,
    )
    .unwrap_or_else(|e| panic!("{name}: {e:?}"))
}

#[test]
fn requests_are_taken_by_the_schema_and_by_decode_and_lose_nothing() {
    let validator = validator(&schema::request());
    for (name, text) in golden("request") {
        let before = json(&text);
        assert_valid(&validator, &name, &before);
        let request = read(&name, &text);
        let written = serde_json::to_string(&request).unwrap();
        let after = json(&written);
        assert_valid(&validator, &name, &after);
        assert_kept(&name, &before, &after);
        assert_eq!(read(&name, &written), request, "{name}");
    }
}

#[test]
fn bodies_of_databricks_pass_through_byte_for_byte() {
    #[derive(Deserialize)]
    struct Bodies<'a> {
        #[serde(borrow)]
        run_now: Option<BTreeMap<String, &'a RawValue>>,
        #[serde(borrow)]
        submit_run: Option<BTreeMap<String, &'a RawValue>>,
    }

    let mut seen = 0;
    for (name, text) in golden("request") {
        let bodies: Bodies<'_> = serde_json::from_str(&text).unwrap();
        let (Some(before), Work::RunNow(body) | Work::SubmitRun(body)) = (
            bodies.run_now.or(bodies.submit_run),
            read(&name, &text).work,
        ) else {
            continue;
        };
        let written = serde_json::to_string(&body).unwrap();
        let after: BTreeMap<String, &RawValue> = serde_json::from_str(&written).unwrap();
        let texts = |body: BTreeMap<String, &RawValue>| -> Vec<(String, String)> {
            let text = |(name, value): (String, &RawValue)| (name, value.get().to_owned());
            body.into_iter().map(text).collect()
        };
        assert_eq!(texts(before), texts(after), "{name}");
        seen += 1;
    }
    assert!(seen > 8, "{seen} bodies");
}

fn round_trip<T>(kind: &str, schema: &Schema) -> Vec<T>
where
    T: DeserializeOwned + serde::Serialize,
{
    let validator = validator(schema);
    let mut all = Vec::new();
    for (name, text) in golden(kind) {
        let before = json(&text);
        assert_valid(&validator, &name, &before);
        let message: T = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let after = serde_json::to_value(&message).unwrap();
        assert_valid(&validator, &name, &after);
        assert_kept(&name, &before, &after);
        assert_kept(&name, &after, &before);
        all.push(message);
    }
    all
}

#[test]
fn results_lose_nothing_and_every_outcome_is_among_them() {
    let results: Vec<RunResult> = round_trip("result", &schema::result());
    for outcome in Outcome::ALL {
        let found = results.iter().any(|result| result.outcome == outcome);
        assert!(found, "no golden result with the outcome {outcome}");
    }
    for result in &results {
        let names = Names::new("sparkferry", &result.connection, result.id.as_str());
        for (attempt, number) in result.attempts.iter().zip(1..) {
            assert_eq!((attempt.number, attempt.key), (number, names.key(number)));
            for (id, step) in attempt.operation_ids.iter().zip(1..) {
                assert_eq!(*id, attempt.key.step(step), "{}", result.id);
            }
        }
    }
}

#[test]
fn events_lose_nothing_and_every_type_is_among_them() {
    let events: Vec<Event> = round_trip("event", &schema::event());
    for event_type in EventType::ALL {
        let found = events.iter().any(|event| event.event_type == event_type);
        assert!(found, "no golden event of the type {event_type}");
    }
}

#[test]
fn cancels_lose_nothing() {
    let cancels: Vec<Cancel> = round_trip("cancel", &schema::cancel());
    assert_eq!(cancels.len(), 3);
    // A field that a newer sender adds must not let the run go on.
    let newer = json!({ "cancel": "a", "because": "x" });
    assert!(validator(&schema::cancel()).is_valid(&newer));
    let read: Cancel = serde_json::from_value(newer).expect("it is read");
    assert_eq!(read.cancel.as_str(), "a");
}

#[test]
fn a_consumer_reads_what_a_later_worker_adds() {
    for (kind, schema) in [("result", schema::result()), ("event", schema::event())] {
        for (name, text) in golden(kind) {
            let mut message = json(&text);
            message["a_field_of_tomorrow"] = json!({ "a": 1 });
            assert_valid(&validator(&schema), &name, &message);
            match kind {
                "result" => drop(serde_json::from_value::<RunResult>(message).unwrap()),
                _ => drop(serde_json::from_value::<Event>(message).unwrap()),
            }
        }
    }
}

/// What stands beside a refused message in `refused.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    /// The field that must be named.
    field: String,
    /// Words of the reason.
    reason: String,
    /// Whether a schema can say it.
    schema: bool,
}

#[test]
fn refused_requests_are_refused_with_field_and_reason() {
    let table = fs::read_to_string(folder().join("refused.json")).unwrap();
    let mut expected: BTreeMap<String, Refusal> = serde_json::from_str(&table).unwrap();
    let validator = validator(&schema::request());
    for (name, text) in golden("refused") {
        let refusal = expected
            .remove(&name)
            .unwrap_or_else(|| panic!("{name} is not in the table"));
        match decode(text.as_bytes(), None, Some("prod"), LIMIT) {
            Err(Undecodable::Reject { fault, .. }) => {
                assert_eq!(fault.field, refusal.field, "{name}: {fault}");
                assert!(fault.reason.contains(&refusal.reason), "{name}: {fault}");
            }
            other => panic!("{name}: expected a refusal, got {other:?}"),
        }
        assert_eq!(
            validator.is_valid(&json(&text)),
            !refusal.schema,
            "{name}: the schema"
        );
    }
    assert!(expected.is_empty(), "no messages for {:?}", expected.keys());
}

#[test]
fn defaults_in_the_schema_are_the_types_defaults() {
    let request = read("minimal", r#"{"id":"a","run_now":{"job_id":1}}"#);
    let built = Request::new(request.id.clone(), request.work.clone());
    assert_eq!(request, built);

    let written = serde_json::to_value(&built).unwrap();
    let schema = schema::request();
    let properties = schema.as_value()["properties"].as_object().unwrap();
    let mut told = 0;
    for (name, property) in properties {
        if let Some(default) = property.get("default") {
            assert_eq!(&written[name], default, "{name}");
            told += 1;
        }
    }
    assert_eq!(told, 7, "fields with a default: {properties:#?}");
    // Each moves out of the other's way, so the schema tells them in words.
    for (name, default) in [
        (
            "min_retry_interval_millis",
            DEFAULT_MIN_RETRY_INTERVAL_MILLIS,
        ),
        (
            "max_retry_interval_millis",
            DEFAULT_MAX_RETRY_INTERVAL_MILLIS,
        ),
    ] {
        assert_eq!(written[name], default);
        let words = properties[name]["description"].as_str().unwrap();
        assert!(
            words.replace(' ', "").contains(&default.to_string()),
            "{name}: {words}"
        );
    }
    let session: SparkConnect =
        serde_json::from_value(json!({ "steps": [{ "sql": "x" }] })).unwrap();
    let default = &schema.as_value()["$defs"]["SparkConnect"]["properties"]["row_limit"]["default"];
    assert_eq!(*default, session.row_limit);
}

#[test]
fn the_kinds_of_work_are_the_fields_that_hold_it() {
    for kind in [
        WorkKind::RunNow,
        WorkKind::SubmitRun,
        WorkKind::SparkConnect,
    ] {
        let field = serde_json::to_value(kind).unwrap();
        let schema = schema::request();
        assert!(
            schema.as_value()["properties"]
                .get(field.as_str().unwrap())
                .is_some(),
            "{field}"
        );
    }
}
