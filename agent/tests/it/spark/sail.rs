//! Sail, another server of the same protocol: what it can.
//!
//! What it can't, so that no story of Apache Spark is told again here:
//!
//! | what | why |
//! |---|---|
//! | take-over of a statement whose answers were read | it keeps no answers that were sent: the operation can't be attached to again |
//! | operations executed twice | it runs them twice, where Apache Spark attaches |
//! | error codes, SQLSTATE, traces | its errors are texts |
//! | progress | it reports none |
//! | files of Python functions | it has no AddArtifacts |
//! | `SET key = value` as a statement | it knows settings by its Config call alone |
//! | LOST told from unknown | it has no GetStatus |

use serde_json::json;
use sparkferry_ports::engine::Engine;
use sparkferry_shared::{ErrorClass, Outcome};
use tokio::time::timeout;

use super::conformance::engine_at;
use super::servers::SparkServer;
use super::stage::{Stage, of, rows, statements};
use super::statements::succeeded;
use crate::stories::harness::{PATIENCE, Place};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sail_runs_statements_and_says_what_fails() {
    let server = SparkServer::sail().await;
    let stage = Stage::new(Place::Sqlite, server.address());
    let _worker = stage.ground.worker();
    let path = server.path("numbers").display().to_string();
    let requests = [
        statements(
            "tables",
            &[
                "CREATE TABLE numbers (n int, x string) USING parquet",
                "INSERT INTO numbers VALUES (2, 'b'), (1, 'a')",
                "SELECT * FROM numbers ORDER BY n",
            ],
        ),
        statements(
            "types",
            &["SELECT true, 3, 1.50BD, 'text', X'00ff', DATE'2026-11-21', array(1, NULL), NULL"],
        ),
        statements("many", &["SELECT * FROM range(100000)"]),
        statements("missing", &["SELECT * FROM nowhere"]),
        statements("wrong", &["SELEC 1"]),
        statements(
            "files",
            &[
                &format!(
                    "CREATE TABLE files USING parquet LOCATION '{path}' AS SELECT * FROM range(3)"
                ),
                &format!("SELECT count(*) FROM parquet.`{path}`"),
            ],
        ),
    ];
    let mut submitted = stage.submit(&requests).await;
    let heard = submitted.all().await;
    assert_eq!(
        rows(succeeded(of(heard, "tables")), 2),
        json!([[1, "a"], [2, "b"]])
    );
    assert_eq!(
        rows(succeeded(of(heard, "types")), 0),
        json!([[
            true,
            3,
            "1.50",
            "text",
            "AP8=",
            "2026-11-21",
            [1, null],
            null
        ]])
    );
    let many = succeeded(of(heard, "many"));
    let step = &many.output.as_ref().expect("rows")["steps"][0];
    assert_eq!(
        (&step["row_count"], &step["truncated"]),
        (&json!(100_000), &json!(true))
    );
    assert_eq!(rows(succeeded(of(heard, "files")), 1), json!([[3]]));
    for id in ["missing", "wrong"] {
        let result = of(heard, id);
        assert_eq!(result.outcome, Outcome::Failed, "{result:?}");
        let error = result.error.as_ref().expect("an error");
        assert_eq!(error.class, ErrorClass::User, "{result:?}");
    }
    submitted.producer.close().await;
}

/// It would take Spark's version from PySpark, which its Python has not.
#[tokio::test]
async fn a_server_that_tells_no_version_is_reached_all_the_same() {
    let server = SparkServer::sail().await;
    let engine = engine_at(server.address());
    let said = engine.check().await.expect("it is reached");
    assert!(said.contains("it answers, and tells no version"), "{said}");
    assert_eq!(engine.trouble(), None);
}

/// Twice, for the server remembers the names of the first demo.
#[tokio::test]
async fn the_demo_runs_statements_on_the_server_that_spark_remote_names() {
    let server = SparkServer::sail().await;
    let stage = Stage::new(Place::Sqlite, server.address());
    for _ in 0..2 {
        let mut demo = stage.ground.command("demo");
        let remote = format!("sc://{}", server.address());
        let running = demo.env("SPARK_REMOTE", remote).output();
        let ran = timeout(PATIENCE, running).await;
        let ran = ran.expect("waited in vain for the demo");
        let ran = ran.expect("our own program");
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{said} {ran:?}");
        assert!(said.contains("spark-steps"), "{said}");
    }
}
