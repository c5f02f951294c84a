//! What a request may hold, on Apache Spark: statements, types, settings, plans, files, errors.

use std::fs;

use serde_json::{Value, json};
use sparkferry_shared::{ErrorClass, EventType, Outcome, RunResult};
use tokio::process::Child;

use super::producers;
use super::servers::SparkServer;
use super::stage::{Stage, of, rows, statements, with};
use crate::stories::harness::Place;

/// A query with one column of each type, its types and its row.
const TYPES: [(&str, &str, &str); 20] = [
    ("true", "boolean", "true"),
    ("1Y", "tinyint", "1"),
    ("-2S", "smallint", "-2"),
    ("3", "int", "3"),
    ("9223372036854775807", "bigint", "9223372036854775807"),
    ("CAST(0.5 AS float)", "float", "0.5"),
    ("double('NaN')", "double", r#""NaN""#),
    ("1.50BD", "decimal(3,2)", r#""1.50""#),
    ("'naïve'", "string", r#""naïve""#),
    ("X'00ff'", "binary", r#""AP8=""#),
    ("DATE'2026-11-21'", "date", r#""2026-11-21""#),
    (
        "TIMESTAMP'2026-11-21 07:30:00.5Z'",
        "timestamp",
        r#""2026-11-21T07:30:00.5Z""#,
    ),
    (
        "TIMESTAMP_NTZ'2026-11-21 07:30:00.5'",
        "timestamp_ntz",
        r#""2026-11-21T07:30:00.5""#,
    ),
    (
        "INTERVAL '1-2' YEAR TO MONTH",
        "interval year to month",
        r#""P1Y2M""#,
    ),
    ("INTERVAL '90' SECOND", "interval second", r#""PT1M30S""#),
    ("array(1, null)", "array<int>", "[1, null]"),
    (
        "named_struct('a', 1, 'b', array('x'))",
        "struct<a:int,b:array<string>>",
        r#"{"a": 1, "b": ["x"]}"#,
    ),
    (
        "map('k', 1.5BD)",
        "map<string,decimal(2,1)>",
        r#"{"k": "1.5"}"#,
    ),
    ("NULL", "void", "null"),
    (
        r#"parse_json('{"a": [1, "x"]}')"#,
        "variant",
        r#"{"a": [1, "x"]}"#,
    ),
];

/// Statements that fail, the error's code and a part of its message.
const FAILURES: [(&str, &str, &str); 9] = [
    ("SELEC 1", "PARSE_SYNTAX_ERROR", "SQLSTATE: 42601"),
    (
        "SELECT * FROM nowhere",
        "TABLE_OR_VIEW_NOT_FOUND",
        "SQLSTATE: 42P01",
    ),
    ("SELECT nothing", "UNRESOLVED_COLUMN", "SQLSTATE: 42703"),
    (
        "SELECT * FROM parquet.`/nowhere`",
        "PATH_NOT_FOUND",
        "SQLSTATE: 42K03",
    ),
    ("SELECT 1 / 0", "DIVIDE_BY_ZERO", "SQLSTATE: 22012"),
    (
        "SELECT CAST('x' AS int)",
        "CAST_INVALID_INPUT",
        "SQLSTATE: 22018",
    ),
    (
        "SELECT raise_error('no such day')",
        "USER_RAISED_EXCEPTION",
        "no such day",
    ),
    // At work, not while it is planned.
    (
        "SELECT sum(1 / (id - 7)) FROM range(10)",
        "DIVIDE_BY_ZERO",
        "SQLSTATE: 22012",
    ),
    (
        "SELECT 1; SELECT 2",
        "PARSE_SYNTAX_ERROR",
        "SQLSTATE: 42601",
    ),
];

/// Two tasks at a time, four in all, each for longer than a server waits between two reports.
const OBSERVED: &str =
    "SELECT java_method('java.lang.Thread', 'sleep', 3000L) FROM range(0, 4, 1, 4)";

/// What a worker's memory may grow by while it reads 110 MB. KiB.
const GROWTH: u64 = 64 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apache_spark_runs_all_that_a_request_may_hold() {
    let server = SparkServer::apache().await;
    let stage = Stage::new(Place::shared_broker(), server.address());
    let worker = stage.ground.worker();
    everything(&stage, &server).await;
    large_results_take_little_memory(&stage, &worker).await;
    producers::programs_become_requests(&stage, &server).await;
    producers::examples_do_what_they_say(&stage).await;
}

async fn everything(stage: &Stage, server: &SparkServer) {
    let mut requests = vec![
        types(),
        steps(),
        arguments(),
        settings(),
        statements("progress", &[OBSERVED]),
    ];
    for (number, (statement, _, _)) in FAILURES.iter().enumerate() {
        requests.push(statements(&format!("failure-{number}"), &[statement]));
    }
    requests.push(statements(
        "failure-later",
        &["SELECT 1", "SELECT 1 / 0", "SELECT 2"],
    ));
    requests.extend(producers::plans(server).await);
    let mut submitted = stage.submit(&requests).await;
    let heard = submitted.all().await;

    check_types(of(heard, "types"));
    let result = succeeded(of(heard, "steps"));
    assert_eq!(rows(result, 2), json!([[1, "a"], [2, "b"]]));
    assert_eq!(result.attempts[0].operation_ids.len(), 3);
    let key = stage.key("steps");
    assert_eq!(result.attempts[0].operation_ids[2], key.step(3));
    assert_eq!(
        rows(succeeded(of(heard, "arguments")), 0),
        json!([[42, "2026-11-21", true]])
    );
    assert_eq!(
        rows(succeeded(of(heard, "settings")), 0),
        json!([["Asia/Tokyo", "Asia/Tokyo"]])
    );

    succeeded(of(heard, "progress"));
    let told = |kind| (of(heard, "progress").id.clone(), kind);
    assert!(
        heard.events.contains(&told(EventType::Progress)),
        "{:?}",
        heard.events
    );
    assert!(
        heard.events.contains(&told(EventType::Submitted)),
        "{:?}",
        heard.events
    );

    for (number, (statement, code, message)) in FAILURES.iter().enumerate() {
        let result = of(heard, &format!("failure-{number}"));
        check_failure(result, statement, code, message);
    }
    let later = of(heard, "failure-later");
    check_failure(later, "step 2 of 3", "DIVIDE_BY_ZERO", "22012");
    let done = later
        .output
        .as_ref()
        .map(|output| output["steps"].as_array().map(Vec::len));
    assert_eq!(done, Some(Some(1)), "{later:?}");
    producers::check_plans(heard);
    submitted.producer.close().await;
}

fn types() -> Value {
    let columns: Vec<&str> = TYPES.iter().map(|(expression, _, _)| *expression).collect();
    statements("types", &[&format!("SELECT {}", columns.join(", "))])
}

fn check_types(result: &RunResult) {
    let result = succeeded(result);
    let columns = &result.output.as_ref().expect("rows")["steps"][0]["columns"];
    for (index, (expression, type_name, value)) in TYPES.iter().enumerate() {
        assert_eq!(columns[index]["type"], *type_name, "{expression}");
        let value: Value = serde_json::from_str(value).expect("JSON");
        assert_eq!(rows(result, 0)[0][index], value, "{expression}");
    }
}

fn steps() -> Value {
    statements(
        "steps",
        &[
            "CREATE TABLE steps (n int, x string)",
            "INSERT INTO steps VALUES (2, 'b'), (1, 'a')",
            "SELECT * FROM steps ORDER BY n",
        ],
    )
}

fn arguments() -> Value {
    let arguments = json!({"n": 42, "day": "2026-11-21", "yes": true});
    let sql = "SELECT :n AS n, CAST(:day AS date) AS day, :yes AS yes";
    let mut request = statements("arguments", &[sql]);
    request["spark_connect"]["steps"][0]["args"] = arguments;
    request
}

fn settings() -> Value {
    let conf =
        json!({"conf": {"spark.sql.session.timeZone": "Asia/Tokyo", "my.zone": "Asia/Tokyo"}});
    let sql = "SELECT current_timezone(), '${my.zone}'";
    with(
        statements("settings", &[sql]),
        &json!({"spark_connect": conf}),
    )
}

pub(super) fn succeeded(result: &RunResult) -> &RunResult {
    assert_eq!(result.outcome, Outcome::Success, "{result:?}");
    assert_eq!(result.attempts.len(), 1, "{result:?}");
    result
}

pub(super) fn check_failure(result: &RunResult, what: &str, code: &str, message: &str) {
    assert_eq!(result.outcome, Outcome::Failed, "{what}: {result:?}");
    assert_eq!(result.attempts.len(), 1, "{what}: {result:?}");
    let error = result.error.as_ref().expect("an error");
    assert_eq!(error.class, ErrorClass::User, "{what}: {error:?}");
    let given = error.code.as_deref().unwrap_or_default();
    assert!(given.starts_with(code), "{what}: {error:?}");
    assert!(error.message.contains(message), "{what}: {error:?}");
    let trace = error.trace.as_deref().unwrap_or_default();
    assert!(trace.contains("org.apache.spark"), "{what}: {error:?}");
}

async fn large_results_take_little_memory(stage: &Stage, worker: &Child) {
    let sql = "SELECT id, repeat('x', 100) AS x FROM range(0, 1000000, 1, 4)";
    let before = peak_memory(worker);
    let mut submitted = stage.submit(&[statements("million", &[sql])]).await;
    let result = submitted.result().await;
    let step = &succeeded(&result).output.as_ref().expect("rows")["steps"][0];
    assert_eq!(step["row_count"], 1_000_000);
    assert_eq!(step["truncated"], true);
    assert_eq!(step["rows"].as_array().map(Vec::len), Some(1000));
    let growth = peak_memory(worker) - before;
    assert!(growth < GROWTH, "{growth} KiB more than before");
    submitted.producer.close().await;
}

/// The most memory that a process has ever had, in KiB.
fn peak_memory(process: &Child) -> u64 {
    let pid = process.id().expect("it runs");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|line| line.trim().strip_suffix(" kB"));
    peak.expect("a number").parse().expect("a number")
}
