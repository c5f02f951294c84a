//! A long statement is cancelled.

use spark_connect_proto::get_status_response::operation_status::OperationState;
use sparkferry_shared::{Cancel, ErrorClass, Outcome};

use super::servers::SparkServer;
use super::stage::{Stage, statements};
use crate::stories::harness::{CONNECTION, Place};

/// Ten minutes on both of the server's cores.
const LONG: &str =
    "SELECT java_method('java.lang.Thread', 'sleep', 600000L) FROM range(0, 2, 1, 2)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_statement_ends_and_leaves_the_server_idle() {
    let server = SparkServer::apache().await;
    let stage = Stage::new(Place::shared_broker(), server.address());
    let _worker = stage.ground.worker();
    let request = statements("long", &["SELECT 1", LONG, "SELECT 2"]);
    let mut submitted = stage.submit(&[request]).await;
    let mut judge = server.client();
    stage
        .until(&mut judge, "long", 2, OperationState::Running)
        .await;
    let cancel = Cancel {
        cancel: "long".parse().expect("an id"),
        connection: Some(CONNECTION.to_owned()),
        reason: Some("not today".to_owned()),
    };
    let asked = submitted.producer.cancel(&cancel).await;
    asked.expect("the queue takes it");

    let result = submitted.result().await;
    assert_eq!(result.outcome, Outcome::Canceled, "{result:?}");
    let error = result.error.as_ref().expect("an error");
    assert_eq!(error.class, ErrorClass::Canceled, "{result:?}");
    assert_eq!(result.attempts.len(), 1, "{result:?}");
    // Both cores are needed for this one.
    let rows = judge.rows("SELECT sum(id) FROM range(0, 1000, 1, 2)").await;
    assert_eq!(rows.expect("the server is idle"), 1);
    submitted.producer.close().await;
}
