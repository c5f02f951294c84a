//! A cluster of a workspace as a Spark Connect server: the sandbox plays the cluster, Sail its Spark.

use serde_json::{Value, json};
use sparkferry_shared::{ErrorClass, Outcome};

use super::servers::SparkServer;
use super::stage::{Stage, of, rows, statements};
use super::statements::succeeded;
use crate::stories::harness::{Ground, Place, Workspace, count};

/// How long a delivery is held: longer than any story lasts.
const HOLD_LIMIT: u32 = 600;
const REQUESTS: usize = 12;

/// Workers that reach the cluster's Spark at `server`.
fn stage(workspace: &Workspace, server: &SparkServer) -> Stage {
    let connection = format!(
        r#"
type = "spark_connect"
url = "sc://{}"
host = "{}"
auth = {{ type = "pat", token = "any" }}
cluster_id = "c1"
"#,
        server.address(),
        workspace.host
    );
    Stage {
        ground: Ground::new(Place::Sqlite, HOLD_LIMIT, &connection),
    }
}

fn requests() -> Vec<Value> {
    let request = |number| statements(&format!("r{number}"), &["SELECT 6 * 7 AS answer"]);
    (0..REQUESTS).map(request).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_down_is_started_once_and_then_runs_everything() {
    let server = SparkServer::sail().await;
    let workspace = Workspace::start().await;
    let cluster = json!({"cluster_id": "c1", "spark_version": "15.4.x-scala2.12",
        "custom_tags": {"sandbox.start_ms": "1500"}});
    workspace.post("api/2.1/clusters/create", &cluster).await;
    let libraries = json!({"cluster_id": "c1", "libraries": [{"pypi": {"package": "simplejson"}}]});
    workspace
        .post("api/2.0/libraries/install", &libraries)
        .await;
    workspace
        .post("api/2.1/clusters/delete", &json!({"cluster_id": "c1"}))
        .await;

    let stage = stage(&workspace, &server);
    let _workers = [stage.ground.worker(), stage.ground.worker()];
    let mut submitted = stage.submit(&requests()).await;
    let heard = submitted.all().await;
    for number in 0..REQUESTS {
        let result = succeeded(of(heard, &format!("r{number}")));
        assert_eq!(rows(result, 0), json!([[42]]));
        assert_eq!(result.attempts.len(), 1);
    }
    submitted.producer.close().await;
    let stats = workspace.stats().await;
    assert_eq!(
        count(&stats, "/calls/clusters~1start/by_status/200"),
        1,
        "{stats}"
    );
    assert!(count(&stats, "/calls/clusters~1get/total") > 2, "{stats}");
    assert!(
        count(&stats, "/calls/libraries~1cluster-status/total") > 0,
        "{stats}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_does_not_exist_is_said_so() {
    let server = SparkServer::sail().await;
    let workspace = Workspace::start().await;
    let stage = stage(&workspace, &server);
    let _worker = stage.ground.worker();
    let mut submitted = stage.submit(&requests()[..1]).await;
    let result = submitted.result().await;
    assert_eq!(result.outcome, Outcome::Rejected, "{result:?}");
    let error = result.error.expect("an error");
    assert_eq!(error.class, ErrorClass::Request);
    assert!(
        error.message.contains("Cluster c1 does not exist"),
        "{}",
        error.message
    );
    submitted.producer.close().await;
}
