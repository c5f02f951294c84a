//! Requests that would take all memory, were they let: each ends by itself, and good ones beside them
//! never notice.

use serde_json::{Value, json};
use sparkferry_ports::queue::Listen;
use sparkferry_shared::{Id, Outcome};

use super::harness::{
    CONNECTION, Heard, OTHER, Place, Story, Work, count, one_run_for_each_attempt, peak_memory,
};

/// What a worker may need, in MiB. All that is asked of it here would be a multiple.
const MEMORY: usize = 200;
const OF_EACH_KIND: usize = 8;
const GOOD: usize = 40;

/// One task, whose parameters the sandbox obeys; its id is its number.
fn task(number: usize, parameters: &Value) -> Value {
    json!({
        "task_key": format!("task-{number}"),
        "existing_cluster_id": "c",
        "notebook_task": {"notebook_path": "/n", "base_parameters": parameters},
    })
}

/// Its tasks all do the same.
fn request(id: &str, max_retries: u32, tasks: usize, parameters: &Value) -> Vec<u8> {
    let tasks: Vec<Value> = (0..tasks).map(|number| task(number, parameters)).collect();
    let body = json!({
        "id": id,
        "max_retries": max_retries,
        "min_retry_interval_millis": 1,
        "max_retry_interval_millis": 2,
        "submit_run": {"run_name": id, "tasks": tasks},
    });
    serde_json::to_vec(&body).expect("JSON")
}

/// The nth request of each kind, and how it is to end.
fn hungry(nth: usize) -> Vec<(String, Vec<u8>, Outcome)> {
    let id = |kind: &str| format!("{kind}-{nth}");
    // Nearly as large as a message may be, each with a text that JSON writes as six characters.
    let controls = "\u{1}".repeat(80_000);
    let long = "x".repeat(700_000);
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let with_body = |id: String, more: &str| {
        let body = format!(
            r#"{{"id":"{id}","submit_run":{{"tasks":[{{"task_key":"a","existing_cluster_id":"c",
               "notebook_task":{{"notebook_path":"/n"}}}}],"x":{more}}}}}"#
        );
        (id, body.into_bytes())
    };
    let many_texts = format!("[{}1]", "\"\",".repeat(300_000));
    let (deep_id, deep_body) = with_body(id("deep"), &deep(100));
    let (deeper_id, deeper_body) = with_body(id("deeper"), &deep(500_000));
    let (wide_id, wide_body) = with_body(id("wide"), &many_texts);
    let fails = json!({"sandbox.duration_ms": "50", "sandbox.outcomes": "CLUSTER_ERROR",
        "sandbox.error": controls, "sandbox.trace": controls});
    let fails_often = json!({"sandbox.duration_ms": "1", "sandbox.outcomes": "CLUSTER_ERROR",
        "sandbox.error": "e".repeat(3_000), "sandbox.trace": "t".repeat(9_000)});
    let prints = json!({"sandbox.duration_ms": "50", "sandbox.output": long});
    let many = |parameters: &Value, tasks| request("", 0, tasks, parameters).len();
    assert!(many(&prints, 1) < 1 << 20);
    vec![
        (
            id("fails"),
            request(&id("fails"), 0, 1, &fails),
            Outcome::Failed,
        ),
        (
            id("often"),
            request(&id("often"), 150, 1, &fails_often),
            Outcome::Failed,
        ),
        (
            id("tasks"),
            request(&id("tasks"), 2, 70, &fails_often),
            Outcome::Failed,
        ),
        (
            id("prints"),
            request(&id("prints"), 0, 1, &prints),
            Outcome::Success,
        ),
        (deep_id, deep_body, Outcome::Success),
        // More than the workspace reads.
        (deeper_id, deeper_body, Outcome::Rejected),
        (wide_id, wide_body, Outcome::Success),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_take_all_memory_ends_by_itself_and_good_requests_never_notice() {
    let story = Story::with_another(Place::shared_broker(), 100).await;
    let mut worker = story.worker();
    let producer = story.producer().await;
    let good: Vec<Work> = (0..GOOD)
        .map(|number| Work::new(number, 500, "SUCCESS"))
        .collect();
    let hungry: Vec<_> = (0..OF_EACH_KIND).flat_map(hungry).collect();
    let requests: Vec<(Id, Vec<u8>, Outcome)> = hungry
        .into_iter()
        .map(|(id, body, outcome)| (id.parse().expect("an id"), body, outcome))
        .chain(
            good.iter()
                .map(|work| (work.id.clone(), work.body(), Outcome::Success)),
        )
        .collect();
    let ids = requests.iter().map(|(id, ..)| id.clone()).collect();
    let mut news = producer.listen(Listen::Mine(ids)).await.expect("a queue");
    for (number, (id, body, _)) in requests.iter().enumerate() {
        // On both connections, so that the good ones stand behind and beside the others.
        let connection = if number % 4 == 3 { OTHER } else { CONNECTION };
        let sent = producer.submit(connection, id, body.clone().into()).await;
        sent.expect("the queue takes it");
    }
    let mut heard = Heard::default();
    heard.listen(&mut news, requests.len()).await;
    let peak = peak_memory(&worker);
    let largest = |result| serde_json::to_vec(result).expect("JSON").len();
    let largest = heard.results.values().map(largest).max();
    eprintln!(
        "{} requests, {peak} MiB, the largest result {largest:?}",
        requests.len()
    );
    for (id, _, outcome) in &requests {
        let result = &heard.results[id];
        assert_eq!(result.outcome, *outcome, "{:?}", result.error);
    }
    assert!(largest.unwrap_or(0) < 3 << 20, "{largest:?}");
    assert!(peak < MEMORY, "{peak} MiB");
    assert_eq!(worker.try_wait().expect("our own child"), None);
    producer.close().await;
}

/// The same id names another run on another connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_id_on_two_connections_is_two_runs_and_two_results() {
    let story = Story::with_another(Place::shared_broker(), 10).await;
    let work = [Work::new(1, 300, "SUCCESS"), Work::new(1, 100, "FAILED")];
    let _worker = story.worker();
    let producer = story.producer().await;
    for (connection, work) in [CONNECTION, OTHER].into_iter().zip(&work) {
        let sent = producer.submit(connection, &work.id, work.body().into());
        sent.await.expect("the queue takes it");
    }
    producer.close().await;
    let mut results = story.take_results(2).await;
    results.sort_by(|a, b| a.connection.cmp(&b.connection));
    let told: Vec<_> = results
        .iter()
        .map(|result| (result.connection.as_str(), result.outcome))
        .collect();
    assert_eq!(
        told,
        [(OTHER, Outcome::Failed), (CONNECTION, Outcome::Success)]
    );
    let stats = story.workspace.stats().await;
    assert_eq!(count(&stats, "/runs_started"), 2, "{stats}");
    let heard = Heard {
        results: results
            .into_iter()
            .map(|result| {
                let id = format!("{}/{}", result.connection, result.id);
                (id.parse().expect("an id"), result)
            })
            .collect(),
        events: Vec::new(),
    };
    one_run_for_each_attempt(&heard, &stats);
}
