//! A cluster of a workspace as a Spark Connect server: the sandbox plays the cluster, Sail its Spark.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sparkferry_ports::queue::News;
use sparkferry_shared::{ErrorClass, EventType, Outcome};
use tokio::time::timeout;

use super::servers::SparkServer;
use super::stage::{Stage, Submitted, of, rows, statements, with};
use super::statements::succeeded;
use crate::stories::harness::{Ground, PATIENCE, Place, Workspace, count};

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

/// Listens until the only request has its result; the states it was told to be in, in order.
async fn states(submitted: &mut Submitted) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    loop {
        let news = timeout(PATIENCE, submitted.news.recv()).await;
        match news.expect("in time").expect("the producer listens") {
            News::Event(event) => {
                assert!(event.attempt.is_none_or(|attempt| attempt == 1));
                let state = event.details.state;
                // The same one again is progress.
                let again = told.last() == state.as_ref();
                let wanted = if again {
                    EventType::Progress
                } else {
                    EventType::StateChanged
                };
                if let Some(state) = state {
                    assert_eq!(event.event_type, wanted, "{state}");
                    told.push(state);
                }
            }
            News::Result(result) => {
                submitted.heard.results.insert(result.id.clone(), *result);
                return told;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_cluster_is_doing_is_told_while_it_is_awaited() {
    let server = SparkServer::sail().await;
    let workspace = Workspace::start().await;
    let cluster = json!({"cluster_id": "c1", "spark_version": "15.4.x-scala2.12",
        "custom_tags": {"sandbox.start_ms": "4000"}});
    workspace.post("api/2.1/clusters/create", &cluster).await;
    workspace
        .post("api/2.1/clusters/delete", &json!({"cluster_id": "c1"}))
        .await;
    let stage = stage(&workspace, &server);
    let _worker = stage.ground.worker();
    let mut submitted = stage.submit(&requests()[..1]).await;
    let told = states(&mut submitted).await;
    succeeded(of(&submitted.heard, "r0"));
    let first = told.first().expect("a state");
    assert!(
        first.starts_with("WAITING: cluster c1 at 127.0.0.1"),
        "{first}"
    );
    // Before that it may be seen on its way down.
    let started = told.iter().any(|state| state.ends_with("is being started"));
    assert!(started, "{told:?}");
    assert_eq!(told.last().expect("a state"), "RUNNING");
    let different: BTreeSet<&String> = told.iter().collect();
    let starting = |state: &&&String| state.contains("c1") && state.contains("Starting Spark");
    assert_eq!(different.iter().filter(starting).count(), 1, "{told:?}");
    submitted.producer.close().await;
}

/// Three starts, and each time it is down again: an attempt that failed, and may be forgiven.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_can_not_start_fails_the_attempt_and_not_the_request() {
    let server = SparkServer::sail().await;
    let workspace = Workspace::start().await;
    let down = json!({"cluster_id": "c1", "state": "TERMINATED", "state_message": "no machines"});
    let up = json!({"cluster_id": "c1", "state": "RUNNING"});
    let rules = json!([
        {"call": "clusters/get", "times": 4, "status": 200, "body": down},
        {"call": "clusters/get", "status": 200, "body": up},
        {"call": "clusters/start", "status": 200, "body": {}},
        {"call": "libraries/cluster-status", "status": 200, "body": {"cluster_id": "c1"}},
    ]);
    workspace.rules(rules).await;
    let stage = stage(&workspace, &server);
    let _worker = stage.ground.worker();
    let mut submitted = stage.submit(&requests()[..1]).await;
    let result = submitted.result().await;
    assert_eq!(result.outcome, Outcome::Success, "{result:?}");
    assert_eq!(result.attempts.len(), 2, "{result:?}");
    let error = result.attempts[0].error.as_ref().expect("an error");
    assert_eq!(error.class, ErrorClass::Infrastructure, "{result:?}");
    assert!(error.message.contains("after 3 starts"), "{result:?}");
    assert!(result.attempts[0].operation_ids.is_empty(), "{result:?}");
    submitted.producer.close().await;

    workspace.calm().await;
    let rules = json!([
        {"call": "clusters/get", "status": 200, "body": down},
        {"call": "clusters/start", "status": 200, "body": {}},
    ]);
    workspace.rules(rules).await;
    let request = with(
        statements("never", &["SELECT 1"]),
        &json!({"max_retries": 0}),
    );
    let stage = self::stage(&workspace, &server);
    let _worker = stage.ground.worker();
    let mut submitted = stage.submit(&[request]).await;
    let result = submitted.result().await;
    assert_eq!(result.outcome, Outcome::Failed, "{result:?}");
    let error = result.error.expect("an error");
    assert_eq!(error.class, ErrorClass::Infrastructure);
    submitted.producer.close().await;
}
