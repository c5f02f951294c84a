//! A result that is out before its statements have ended: whoever has the request attends them.

use std::time::Duration;

use serde_json::json;
use spark_connect_proto::get_status_response::operation_status::OperationState;
use sparkferry_shared::Outcome;
use tokio::time::{interval, timeout};

use super::servers::SparkServer;
use super::stage::{Stage, slow_insert, statements, with};
use crate::stories::harness::{PATIENCE, Place};

/// `wait` is false: SUBMITTED comes at once, the worker is killed, and another one sees the first
/// statement through and sends the second.
pub(super) async fn killed_after_a_result_that_waits_for_nothing(server: &SparkServer) {
    let stage = Stage::new(Place::shared_broker(), server.address());
    let mut worker = stage.ground.worker();
    let request = statements(
        "early",
        &[
            "CREATE TABLE early (n int, slept string)",
            &slow_insert("early", 1, 4000),
            "INSERT INTO early VALUES (2, 'not at all')",
        ],
    );
    let request = with(request, &json!({"wait": false}));
    let mut submitted = stage.submit(&[request]).await;
    let result = submitted.result().await;
    assert_eq!(result.outcome, Outcome::Submitted, "{result:?}");
    let mut judge = server.client();
    stage
        .until(&mut judge, "early", 2, OperationState::Running)
        .await;
    worker.kill().await.expect("our own child");
    let _second = stage.ground.worker();

    let looking = async {
        let mut looks = interval(Duration::from_millis(250));
        loop {
            looks.tick().await;
            let rows = server.client().rows("SELECT n FROM early").await;
            if rows.expect("a table") >= 2 {
                return server.client().rows("SELECT DISTINCT n FROM early").await;
            }
        }
    };
    let rows = timeout(PATIENCE, looking)
        .await
        .expect("both statements ran");
    assert_eq!(rows.expect("a table"), 2, "each of them once");
    submitted.producer.close().await;
}
