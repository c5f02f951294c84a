//! A server that asks for a token: Apache Spark, told by `spark.connect.authenticate.token`.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use sparkferry_shared::Outcome;
use tokio::time::timeout;

use super::gate::{Gate, Hold};
use super::servers::{SparkServer, TOKEN};
use super::stage::{Stage, rows, statements, with};
use super::statements::succeeded;
use crate::stories::harness::{PATIENCE, Place};

const RIGHT: &str = "r1ght-7f3a9c";
const WRONG: &str = "wr0ng-52d81b";
/// How long a request waits for a worker to be let in.
const WAITS: Duration = Duration::from_secs(8);
/// Calls of one request in that time, at most: they are made more and more rarely.
const CALLS: u32 = 12;

fn until_soon(id: &str) -> Value {
    let deadline = (Timestamp::now() + WAITS).to_string();
    with(
        statements(id, &["SELECT 1"]),
        &json!({"deadline": deadline}),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_lets_in_and_is_told_to_nobody() {
    let server = SparkServer::apache_with(&[(TOKEN, RIGHT)]).await;
    let gate = Gate::before(server.address()).await;
    without_the_right_one(&gate).await;
    the_right_one_comes_late(&gate).await;
}

async fn without_the_right_one(gate: &Gate) {
    for (token, said) in [(None, "No authentication token"), (Some(WRONG), "Invalid")] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("token");
        let setting = token.map(|token| {
            fs::write(&file, token).expect("our own folder");
            format!("token_file = \"{}\"", file.display())
        });
        let connection = format!(
            "type = \"spark_connect\"\nurl = \"sc://{}\"\n{}\n",
            gate.address(),
            setting.unwrap_or_default()
        );
        let stage = Stage::with(Place::Sqlite, &connection);
        gate.anew();
        let worker = stage.ground.worker();
        let mut submitted = stage.submit(&[until_soon("refused")]).await;
        let result = submitted.result().await;
        assert_eq!(result.outcome, Outcome::Expired, "{result:?}");
        let text = serde_json::to_string(&result).expect("JSON");
        assert!(
            text.contains(said) && text.contains("token right?"),
            "{text}"
        );
        let calls = gate.calls("Config");
        assert!((2..=CALLS).contains(&calls), "{calls} calls");
        drop(worker);

        let checking = stage.ground.command("check").output();
        let checked = timeout(PATIENCE, checking).await.expect("in time");
        let checked = checked.expect("our own program");
        let printed = [&checked.stdout[..], &checked.stderr[..]].concat();
        let printed = String::from_utf8_lossy(&printed);
        assert!(
            !checked.status.success() && printed.contains(said),
            "{printed}"
        );
        for place in [&text, &printed.into_owned(), &stage.ground.log()] {
            assert!(!place.contains(WRONG) && !place.contains(RIGHT), "{place}");
        }
        submitted.producer.close().await;
    }
}

/// Nobody starts the worker again: the file is read with each call.
async fn the_right_one_comes_late(gate: &Gate) {
    gate.anew();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("token");
    fs::write(&file, WRONG).expect("our own folder");
    let connection = format!(
        "type = \"spark_connect\"\nurl = \"sc://{}\"\ntoken_file = \"{}\"\n",
        gate.address(),
        file.display()
    );
    let stage = Stage::with(Place::Sqlite, &connection);
    let _worker = stage.ground.worker();
    let mut submitted = stage.submit(&[statements("late", &["SELECT 1"])]).await;
    // The first call was answered, and the second one is due.
    gate.hold("Config", 2, Hold::Before);
    gate.held(1).await;
    fs::write(&file, format!("{RIGHT}\n")).expect("our own folder");
    gate.open();
    let result = submitted.result().await;
    assert_eq!(rows(succeeded(&result), 0), json!([[1]]));
    let log = stage.ground.log();
    assert!(!log.contains(WRONG) && !log.contains(RIGHT), "{log}");
    submitted.producer.close().await;
}
