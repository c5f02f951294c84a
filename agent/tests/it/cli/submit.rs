//! `sparkferry submit`, with and without a worker that answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::sync::Arc;

use serde_json::Value;
use sparkferry_agent::queue::sqlite::SqliteQueue;
use sparkferry_ports::queue::{Answer, Outgoing, Queue, TraceContext};
use sparkferry_shared::event::EventDetails;
use sparkferry_shared::{Event, EventType, Names, Outcome, RunResult, Topology};

use super::{Place, REQUEST, Running, signal};

#[test]
fn a_submitted_request_is_told_by_its_id() {
    let place = Place::new();
    let ran = place.run_with_input(&["submit", "-"], REQUEST).must(0, &[]);
    assert_eq!(ran.out, "orders-1\n");

    let two = format!("{{\"run_now\": {{\"job_id\": 1}}}}\n{REQUEST}\n");
    let ran = place.run_with_input(&["submit", "-", "--json", "--connection", "test"], &two);
    let ran = ran.must(0, &[]);
    let told: Vec<Value> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0]["id"].as_str().unwrap().len(), 36);
    assert_eq!(told[1]["id"], "orders-1");
    assert_eq!(told[1]["connection"], "test");
}

#[test]
fn statements_make_one_request() {
    let place = Place::new();
    let two = [
        "submit",
        "--sql",
        "CREATE TABLE t (n int)",
        "--sql",
        "SELECT 1",
    ];
    let ran = place.run(&two).must(0, &[]);
    assert_eq!(ran.out.trim().len(), 36, "{ran:?}");
    let named = [
        "--id",
        "tables",
        "--set",
        "spark_connect.row_limit=5",
        "--json",
    ];
    let ran = place.run(&[&two[..], &named[..]].concat()).must(0, &[]);
    assert_eq!(ran.out, "{\"connection\":\"prod\",\"id\":\"tables\"}\n");
    let wrong = [&two[..], &["--set", "spark_connect.steps.1.sql=5"]].concat();
    place
        .run(&wrong)
        .must(65, &["--sql", "spark_connect.steps"]);
    for both in [
        &["submit", "-", "--sql", "SELECT 1"][..],
        &["submit", "-", "--id", "a"],
    ] {
        place.run(both).must(64, &["cannot be used with"]);
    }
}

#[test]
fn a_wrong_request_is_65_and_nothing_of_its_batch_is_sent() {
    let place = Place::new();
    let input = format!("{REQUEST}\n{{\"id\": \"b\", \"run_now\": {{}}}}\n");
    let ran = place.run_with_input(&["submit", "-"], &input).must(
        65,
        &[
            "stdin: line 2: request b: run_now.job_id",
            "nothing was submitted",
        ],
    );
    assert!(ran.out.is_empty());
    place
        .run_with_input(&["submit", "-"], "hello")
        .must(65, &["not JSON"]);
    assert!(!place.folder.path().join("queue.db").exists());
}

#[test]
fn waiting_ends_with_the_timeout_and_says_how_to_come_back() {
    let place = Place::new();
    let ran = place.run_with_input(&["submit", "-", "--wait", "--timeout", "0"], REQUEST);
    let ran = ran.must(1, &["orders-1", "the runs go on", "nothing is run twice"]);
    assert!(ran.out.is_empty());
}

/// A worker that gives each request the outcome that its label `outcome` names.
async fn answer_all(queue: Arc<SqliteQueue>, connection: &str) {
    let mut deliveries = queue.consume(connection, 10).await;
    while let Some(delivery) = deliveries.recv().await {
        let request = sparkferry_shared::decode(&delivery.body, None, None, 1024 * 1024).unwrap();
        let outcome: Outcome =
            serde_json::from_value(request.labels["outcome"].clone().into()).unwrap();
        queue.tell(Event {
            event_type: EventType::Submitted,
            id: request.id.clone(),
            connection: connection.to_owned(),
            at: delivery.received_at,
            worker: "w".to_owned(),
            labels: request.labels.clone(),
            attempt: Some(1),
            details: EventDetails {
                run_id: Some(7),
                ..EventDetails::default()
            },
        });
        let result = RunResult {
            id: request.id.clone(),
            outcome,
            connection: connection.to_owned(),
            kind: Some(request.work.kind()),
            labels: request.labels,
            attempts: Vec::new(),
            output: None,
            error: None,
            received_at: delivery.received_at,
            finished_at: delivery.received_at,
            worker: "w".to_owned(),
            redelivered: false,
            truncated: false,
        };
        let outgoing = Outgoing {
            message_id: Names::new("sparkferry", connection, request.id.as_str()).result(),
            id: request.id,
            connection: connection.to_owned(),
            outcome,
            body: serde_json::to_vec(&result).unwrap().into(),
        };
        let answer = Answer {
            lease: delivery.lease,
            reply_to: None,
            correlation_id: None,
            trace: TraceContext::default(),
            announced: false,
        };
        queue.finish(&[answer], &outgoing).await.unwrap();
    }
}

fn labelled(id: &str, outcome: &str) -> String {
    format!(r#"{{"id": "{id}", "run_now": {{"job_id": 1}}, "labels": {{"outcome": "{outcome}"}}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn results_come_back_to_who_waits_and_the_worst_decides() {
    let place = Place::new();
    let file = place.folder.path().join("queue.db");
    let queue = SqliteQueue::open(&file, &Topology::new("sparkferry"), "w").unwrap();
    let worker = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { answer_all(queue, "prod").await }
    });
    let told = tokio::task::spawn_blocking(move || {
        let good = labelled("good", "SUCCESS");
        let ran = place.run_with_input(&["submit", "-", "--wait"], &good);
        let ran = ran.must(0, &["good", "SUCCESS"]);
        assert!(
            ran.out.contains("outcome") && ran.out.contains("SUCCESS"),
            "{ran:?}"
        );

        // Submitted again, the one that is done returns its result.
        let batch = format!(
            "[{good}, {}, {}]",
            labelled("lost", "LOST"),
            labelled("bad", "FAILED")
        );
        let ran = place.run_with_input(&["submit", "-", "--wait", "--json"], &batch);
        let ran = ran.must(1, &[]);
        let mut outcomes: Vec<(String, String)> = ran
            .out
            .lines()
            .map(|line| {
                let result: RunResult = serde_json::from_str(line).unwrap();
                (result.id.to_string(), result.outcome.to_string())
            })
            .collect();
        outcomes.sort();
        let lost = place.run_with_input(&["submit", "-", "--wait"], &labelled("lost", "LOST"));
        lost.must(75, &["LOST"]);
        let set = [
            "submit",
            "-",
            "--wait",
            "--set",
            "id=new",
            "--set",
            "labels.outcome=REJECTED",
        ];
        place.run_with_input(&set, &good).must(65, &["REJECTED"]);
        outcomes
    })
    .await
    .unwrap();
    let expected = [("bad", "FAILED"), ("good", "SUCCESS"), ("lost", "LOST")];
    assert_eq!(
        told,
        expected.map(|(id, outcome)| (id.to_owned(), outcome.to_owned()))
    );
    queue.stop_consuming().await;
    worker.await.unwrap();
    queue.close().await;
}

#[test]
fn who_waits_is_told_how_to_come_back_when_interrupted() {
    let place = Place::new();
    let child = place
        .command(&["submit", "-", "--wait"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let mut stdin = running.0.stdin.take().unwrap();
    stdin.write_all(br#"{"run_now": {"job_id": 42}}"#).unwrap();
    drop(stdin);
    let mut err = BufReader::new(running.0.stderr.take().unwrap());
    let mut line = String::new();
    // The fresh id: from here on it is in the hands of the waiting.
    err.read_line(&mut line).unwrap();
    let id = line.trim().rsplit_once(' ').unwrap().1.to_owned();
    signal(&running.0, "INT");
    assert_eq!(running.0.wait().unwrap().code(), Some(130));
    let mut rest = String::new();
    err.read_to_string(&mut rest).unwrap();
    for part in [&id, "the runs go on", "with these ids"] {
        assert!(rest.contains(part), "{part:?} is not said: {rest}");
    }
}
