//! What a worker says while its engine or its broker is out of reach: readiness falls and comes
//! back, and the log has one line for each change.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use sparkferry_shared::Outcome;
use tokio::time::{interval, timeout};

use super::field::{Field, Queue};
use super::plan::{Fate, Line};
use super::{shared_broker, submit};
use crate::stories::harness::{PATIENCE, Work, count};

/// Where a worker can listen.
pub(super) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound")
}

/// Waits until the worker says that it is ready, or that it isn't.
pub(super) async fn until(http: &reqwest::Client, address: SocketAddr, wanted: StatusCode) {
    let looking = async {
        let mut looks = interval(Duration::from_millis(100));
        loop {
            looks.tick().await;
            // At first nobody listens.
            let reply = http.get(format!("http://{address}/readyz")).send().await;
            if reply.is_ok_and(|reply| reply.status() == wanted) {
                return;
            }
        }
    };
    let came = timeout(PATIENCE, looking).await;
    came.unwrap_or_else(|_| panic!("waited in vain for {wanted}"));
}

/// How often each thing was said that contains this.
fn said(log: &str, part: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains(part)) {
        let mut said: Value = serde_json::from_str(line).expect("a line is JSON");
        said.as_object_mut().expect("an object").remove("timestamp");
        *lines.entry(said.to_string()).or_default() += 1;
    }
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_falls_and_comes_back_and_each_change_is_said_once() {
    let field = Field::new(Queue::Quorum(shared_broker()), None, 0, 10).await;
    let address = free_address();
    let _worker = field.ground.worker_with(&[
        ("SPARKFERRY__HTTP__LISTEN", &address.to_string()),
        ("SPARKFERRY__LOG__LEVEL", "info"),
    ]);
    let http = reqwest::Client::builder().no_proxy().build().expect("TLS");
    until(&http, address, StatusCode::OK).await;
    // A run that is looked at all the time.
    let fate = Fate {
        work: Work::new(1, 600_000, "SUCCESS"),
        outcome: Outcome::Success,
        attempts: 1,
    };
    submit(&field.ground, &[fate]).await;
    let active = |stats: &Value| count(stats, "/runs_active") == 1;
    field.workspace.until("the run", active).await;

    // The engine.
    let outage = json!({"call": "*", "reset": true, "outage_seconds": 3600});
    field.workspace.rules(outage).await;
    until(&http, address, StatusCode::SERVICE_UNAVAILABLE).await;
    let failed = |stats: &Value| count(stats, "/calls/jobs~1runs~1get/cut") >= 7;
    field.workspace.until("calls that fail", failed).await;
    field.workspace.calm().await;
    until(&http, address, StatusCode::OK).await;
    let log = field.ground.log();
    for change in ["is out of reach", "is within reach again"] {
        let said = said(&log, change);
        assert_eq!(said.values().sum::<usize>(), 1, "{change}: {log}");
    }

    // The broker, which is behind a black hole; the worker has several connections to it.
    field.proxy(Line::Broker).hold();
    until(&http, address, StatusCode::SERVICE_UNAVAILABLE).await;
    field.proxy(Line::Broker).pass();
    until(&http, address, StatusCode::OK).await;
    let log = field.ground.log();
    for change in ["RabbitMQ can't be used", "connected to RabbitMQ again"] {
        let said = said(&log, change);
        assert!(!said.is_empty(), "{change}: {log}");
        assert!(
            said.values().all(|times| *times == 1),
            "{change}: {said:#?}"
        );
    }
}
