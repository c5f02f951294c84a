//! An operation goes on when the worker that began it is gone, and another one finishes it.

use spark_connect_proto::get_status_response::operation_status::OperationState;
use sparkferry_shared::{EventType, Outcome, RunResult};
use sparkferry_testkit::story::proxy::Proxy;

use super::attended::killed_after_a_result_that_waits_for_nothing;
use super::servers::SparkServer;
use super::stage::{Stage, Submitted, rows, slow_insert, statements};
use crate::stories::harness::Place;

/// How often one request changes hands in [`ten_times_in_a_row`].
const KILLS: usize = 10;
/// How often the network fails in [`the_network_fails_and_nobody_dies`].
const CUTS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apache_spark_runs_each_statement_once_whoever_dies() {
    let server = SparkServer::apache().await;
    killed_while_a_statement_runs(&server).await;
    killed_after_the_run_and_before_the_acknowledgement(&server).await;
    killed_between_two_steps(&server).await;
    ten_times_in_a_row(&server).await;
    the_network_fails_and_nobody_dies(&server).await;
    a_large_result_is_cut_off_on_its_way(&server).await;
    killed_after_a_result_that_waits_for_nothing(&server).await;
}

fn create(table: &str) -> String {
    format!("CREATE TABLE {table} (n int, slept string)")
}

fn select(table: &str) -> String {
    format!("SELECT n FROM {table} ORDER BY n")
}

/// The request succeeded in one attempt, and this is what is in its table: nothing twice.
async fn once(
    server: &SparkServer,
    submitted: &mut Submitted,
    table: &str,
    wanted: i64,
) -> RunResult {
    let result = submitted.result().await;
    assert_eq!(result.outcome, Outcome::Success, "{result:?}");
    assert_eq!(result.attempts.len(), 1, "{result:?}");
    let found = server.client().rows(&select(table)).await;
    assert_eq!(found.expect("a table"), wanted, "{result:?}");
    result
}

async fn killed_while_a_statement_runs(server: &SparkServer) {
    let stage = Stage::new(Place::shared_broker(), server.address());
    let mut worker = stage.ground.worker();
    let insert = slow_insert("running", 1, 6000);
    let request = statements(
        "running",
        &[&create("running"), &insert, &select("running")],
    );
    let mut submitted = stage.submit(&[request]).await;
    let mut judge = server.client();
    stage
        .until(&mut judge, "running", 2, OperationState::Running)
        .await;
    // SIGKILL, and its end awaited.
    worker.kill().await.expect("our own child");
    let _second = stage.ground.worker();

    let result = once(server, &mut submitted, "running", 1).await;
    assert!(result.attempts[0].adopted, "{result:?}");
    assert!(result.redelivered, "{result:?}");
    assert_eq!(rows(&result, 2), serde_json::json!([[1]]));
    let adopted = (result.id, EventType::Adopted);
    assert!(
        submitted.heard.events.contains(&adopted),
        "{:?}",
        submitted.heard.events
    );
    submitted.producer.close().await;
}

/// The worker's way to the broker carries nothing from the moment it runs the statement: it reads
/// the ending, and what it publishes never arrives.
async fn killed_after_the_run_and_before_the_acknowledgement(server: &SparkServer) {
    let Place::Amqp(broker) = Place::shared_broker() else {
        unreachable!("it is RabbitMQ");
    };
    let mut url: url::Url = broker.parse().expect("a URL");
    let host = url.host_str().expect("a host");
    let target = tokio::net::lookup_host((host, url.port().unwrap_or(5672))).await;
    let target = target.expect("it resolves").next().expect("an address");
    let proxy = Proxy::to(target).await;
    url.set_host(Some("127.0.0.1")).expect("a host");
    url.set_port(Some(proxy.address().port())).expect("a port");
    let place = Place::Proxied {
        worker: url.to_string(),
        producer: broker,
    };
    let stage = Stage::new(place, server.address());
    let mut worker = stage.ground.worker();
    let request = statements(
        "unsaid",
        &[&create("unsaid"), &slow_insert("unsaid", 1, 2000)],
    );
    let mut submitted = stage.submit(&[request]).await;
    let mut judge = server.client();
    stage
        .until(&mut judge, "unsaid", 2, OperationState::Running)
        .await;
    proxy.hold();
    // It has ended, and nobody has released it.
    stage
        .until(&mut judge, "unsaid", 2, OperationState::Terminating)
        .await;
    worker.kill().await.expect("our own child");
    proxy.cut();
    proxy.pass();
    let _second = stage.ground.worker();

    let result = once(server, &mut submitted, "unsaid", 1).await;
    assert!(result.attempts[0].adopted, "{result:?}");
    submitted.producer.close().await;
}

/// The worker's way to the server carries nothing once the first step runs: its end is not heard,
/// and the second step is not begun.
async fn killed_between_two_steps(server: &SparkServer) {
    let proxy = Proxy::to(server.address()).await;
    let stage = Stage::new(Place::shared_broker(), proxy.address());
    let mut worker = stage.ground.worker();
    let steps = [
        create("between"),
        slow_insert("between", 1, 2000),
        slow_insert("between", 2, 0),
        select("between"),
    ];
    let request = statements("between", &steps.each_ref().map(String::as_str));
    let mut submitted = stage.submit(&[request]).await;
    let mut judge = server.client();
    stage
        .until(&mut judge, "between", 2, OperationState::Running)
        .await;
    proxy.hold();
    stage
        .until(&mut judge, "between", 2, OperationState::Terminating)
        .await;
    worker.kill().await.expect("our own child");
    proxy.cut();
    proxy.pass();
    let found = server.client().rows(&select("between")).await;
    assert_eq!(
        found.expect("a table"),
        1,
        "the third step has begun already"
    );
    let _second = stage.ground.worker();

    let result = once(server, &mut submitted, "between", 2).await;
    assert_eq!(rows(&result, 3), serde_json::json!([[1], [2]]));
    submitted.producer.close().await;
}

async fn ten_times_in_a_row(server: &SparkServer) {
    let stage = Stage::new(Place::shared_broker(), server.address());
    let mut steps = vec![create("often")];
    steps.extend((1..=KILLS).map(|number| slow_insert("often", number, 1000)));
    steps.push(select("often"));
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let mut worker = stage.ground.worker();
    let mut submitted = stage.submit(&[statements("often", &steps)]).await;
    let mut judge = server.client();
    for step in 2.. {
        if step > u32::try_from(KILLS).expect("a few") + 1 {
            break;
        }
        stage
            .until(&mut judge, "often", step, OperationState::Running)
            .await;
        worker.kill().await.expect("our own child");
        worker = stage.ground.worker();
    }

    let wanted = i64::try_from(KILLS).expect("a few");
    let result = once(server, &mut submitted, "often", wanted).await;
    assert!(result.attempts[0].adopted, "{result:?}");
    let numbers: Vec<[usize; 1]> = (1..=KILLS).map(|number| [number]).collect();
    assert_eq!(rows(&result, KILLS + 1), serde_json::json!(numbers));
    submitted.producer.close().await;
}

async fn the_network_fails_and_nobody_dies(server: &SparkServer) {
    let proxy = Proxy::to(server.address()).await;
    let stage = Stage::new(Place::shared_broker(), proxy.address());
    let _worker = stage.ground.worker();
    let mut steps = vec![create("cut")];
    let cuts = u32::try_from(CUTS).expect("a few");
    steps.extend((1..=CUTS).map(|number| slow_insert("cut", number, 1000)));
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let mut submitted = stage.submit(&[statements("cut", &steps)]).await;
    let mut judge = server.client();
    for step in 2..=cuts + 1 {
        stage
            .until(&mut judge, "cut", step, OperationState::Running)
            .await;
        proxy.cut();
    }
    let result = once(server, &mut submitted, "cut", i64::from(cuts)).await;
    assert!(
        !result.attempts[0].adopted && !result.redelivered,
        "{result:?}"
    );
    assert!(proxy.accepted() > CUTS, "{} connections", proxy.accepted());
    submitted.producer.close().await;
}

/// 11 MB of answers: what came before the cut is not counted twice, and what came after is not lost.
async fn a_large_result_is_cut_off_on_its_way(server: &SparkServer) {
    let proxy = Proxy::to(server.address()).await;
    let stage = Stage::new(Place::shared_broker(), proxy.address());
    let _worker = stage.ground.worker();
    proxy.cut_after(3_000_000);
    let sql = "SELECT id, repeat('x', 100) AS x FROM range(0, 100000, 1, 4)";
    let mut submitted = stage.submit(&[statements("large", &[sql])]).await;
    let result = submitted.result().await;
    assert_eq!(result.outcome, Outcome::Success, "{result:?}");
    assert!(!proxy.cut_is_due(), "so much was never sent");
    assert_eq!(result.attempts.len(), 1, "{result:?}");
    let step = &result.output.as_ref().expect("rows")["steps"][0];
    assert_eq!(step["row_count"], 100_000, "{result:?}");
    submitted.producer.close().await;
}
