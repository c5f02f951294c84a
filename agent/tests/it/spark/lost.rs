//! A server that forgets: it is killed, and started again on the same port with nothing in memory.

use serde_json::json;
use spark_connect_proto::get_status_response::operation_status::OperationState;
use sparkferry_shared::{ErrorClass, Outcome};

use super::servers::SparkServer;
use super::stage::{Stage, of, rows, statements, with};
use crate::stories::harness::Place;

/// Long enough that the server is killed before it ends.
const SLOW: &str = "java_method('java.lang.Thread', 'sleep', 20000L)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_forgot_is_run_again_only_where_the_request_allows_it() {
    let mut server = SparkServer::apache().await;
    let stage = Stage::new(Place::shared_broker(), server.address());
    let _worker = stage.ground.worker();
    let path = server.path("written");
    let read = format!("SELECT 1 AS n, {SLOW} AS slept FROM range(1)");
    let again = json!({"rerun_if_lost": true});
    let write = format!(
        "INSERT OVERWRITE DIRECTORY '{}' USING parquet {read}",
        path.display()
    );
    let requests = [
        with(statements("read", &[&read]), &again),
        statements("write", &[&write]),
    ];
    let mut submitted = stage.submit(&requests).await;
    let mut judge = server.client();
    for id in ["read", "write"] {
        stage
            .until(&mut judge, id, 1, OperationState::Running)
            .await;
    }
    server.kill().await;
    server.start_again().await;

    let heard = submitted.all().await;
    let result = of(heard, "read");
    assert_eq!(result.outcome, Outcome::Success, "{result:?}");
    assert_eq!(result.attempts.len(), 2, "{result:?}");
    let first = result.attempts[0].error.as_ref().expect("an error");
    assert_eq!(first.class, ErrorClass::Lost, "{result:?}");
    assert_eq!(rows(result, 0), json!([[1, "null"]]));

    let result = of(heard, "write");
    assert_eq!(result.outcome, Outcome::Lost, "{result:?}");
    assert_eq!(result.attempts.len(), 1, "{result:?}");
    let error = result.error.as_ref().expect("an error");
    assert_eq!(error.class, ErrorClass::Lost, "{result:?}");
    // Nobody wrote after the server's death: what is written ends with this file.
    assert!(!path.join("_SUCCESS").exists(), "{result:?}");
    submitted.producer.close().await;
}
