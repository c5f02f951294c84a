//! What producers are given: PySpark programs that become requests, without a server.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sparkferry_shared::{Outcome, RunResult};
use tokio::process::Command;
use tokio::time::timeout;

use super::servers::{PYTHON, SparkServer};
use super::stage::{Stage, of, rows};
use super::statements::{check_failure, succeeded};
use crate::stories::harness::{CONNECTION, Heard, PATIENCE};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/examples");
const PLANS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/plans.py");

/// What a pipeline finds in its lake.
const TRAFFIC: &str = r#"
{"plaza_id": "21", "date": "2026-11-20", "hour": "07", "direction": "I", "vehicles_e_zpass": "120", "vehicles_vtoll": "8"}
{"plaza_id": "22", "date": "2026-11-21", "hour": "08", "direction": "O", "vehicles_e_zpass": "35", "vehicles_vtoll": "4"}
"#;

/// Runs Python, and returns what it printed.
async fn python(arguments: &[&str]) -> String {
    let running = Command::new(Path::new(PYTHON).join("bin/python"))
        .args(["-W", "ignore"])
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true)
        .output();
    let ran = timeout(PATIENCE, running).await;
    let ran = ran.expect("waited in vain for Python");
    let ran = ran.expect("Python is there; agent/tests/prepare.sh test brings it");
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(ran.stdout).expect("text")
}

/// Requests made of programs, which keep their data with the server.
pub(super) async fn plans(server: &SparkServer) -> Vec<Value> {
    let folder = server.path("plans");
    fs::create_dir(&folder).expect("our own folder");
    let printed = python(&[PLANS, EXAMPLES, folder.to_str().expect("text")]).await;
    let requests = printed.lines().map(serde_json::from_str);
    requests.map(|request| request.expect("JSON")).collect()
}

/// What has to come of them.
pub(super) fn check_plans(heard: &Heard) {
    let written = succeeded(of(heard, "plan-parquet"));
    assert_eq!(rows(written, 2), json!([[0], [1], [2], [3], [4]]));
    assert_eq!(
        rows(succeeded(of(heard, "plan-udf")), 0),
        json!([[0], [2], [4]])
    );
    assert_eq!(rows(succeeded(of(heard, "plan-deep")), 0), json!([[70]]));
    let failed = of(heard, "plan-error");
    check_failure(
        failed,
        "a Python error",
        "PYTHON_EXCEPTION",
        "no such plaza: 0",
    );
}

/// The examples as they stand.
pub(super) async fn examples_do_what_they_say(stage: &Stage) {
    let program = Path::new(EXAMPLES).join("traffic_hourly.py");
    let printed = python(&[program.to_str().expect("text")]).await;
    let shipped = fs::read_to_string(Path::new(EXAMPLES).join("traffic_hourly.json"));
    assert_eq!(printed, shipped.expect("it is there"));

    let orders = "CREATE TABLE orders AS SELECT DATE'2026-11-21' AS day, col1 AS country, \
                  col2 AS amount FROM VALUES ('SE', 20.00), ('DK', 42.00), ('DK', 19.50)";
    succeeded(&submit(stage, &["--id", "orders", "--sql", orders], 0).await);
    let statements = Path::new(EXAMPLES).join("sql.json");
    let statements = statements.to_str().expect("text");
    let here = format!("connection={CONNECTION}");
    let result = submit(stage, &[statements, "--set", &here], 0).await;
    assert_eq!(rows(&result, 2), json!([["DK", "61.50"], ["SE", "20.00"]]));
}

/// The example is run as its page says, with parquet where the lake would have Iceberg: the
/// program's request goes through `sparkferry submit`. Then a statement asks for what was loaded.
pub(super) async fn programs_become_requests(stage: &Stage, server: &SparkServer) {
    let input = server.path("traffic_hourly.json");
    fs::write(&input, TRAFFIC).expect("our own folder");
    let program = Path::new(EXAMPLES).join("traffic_hourly.py");
    let request = python(&[
        program.to_str().expect("text"),
        "--connection",
        CONNECTION,
        "--input",
        input.to_str().expect("text"),
        "--table",
        "traffic_hourly",
        "--using",
        "parquet",
    ])
    .await;
    let file = server.path("request.json");
    fs::write(&file, request).expect("our own folder");
    let file = file.to_str().expect("text");
    succeeded(&submit(stage, &[file], 0).await);
    // The same id is the same work: its session is released, so its result is gone, and nothing is
    // loaded a second time.
    assert_eq!(submit(stage, &[file], 75).await.outcome, Outcome::Lost);
    let sql = "SELECT * FROM traffic_hourly ORDER BY plaza_id";
    let result = submit(stage, &["--id", "loaded", "--sql", sql], 0).await;
    assert_eq!(
        rows(&result, 0),
        json!([
            ["21", "2026-11-20", "07", "I", 120, 8],
            ["22", "2026-11-21", "08", "O", 35, 4],
        ]),
    );
}

/// `sparkferry submit --wait --json` of one request; `code` is how it has to exit.
async fn submit(stage: &Stage, what: &[&str], code: i32) -> RunResult {
    let running = stage
        .ground
        .command("submit")
        .args(["--wait", "--json"])
        .args(what)
        .output();
    let ran = timeout(PATIENCE, running).await;
    let ran = ran.expect("waited in vain for the result");
    let ran = ran.expect("our own program");
    assert_eq!(ran.status.code(), Some(code), "{what:?}: {ran:?}");
    serde_json::from_slice(&ran.stdout).expect("a result")
}
