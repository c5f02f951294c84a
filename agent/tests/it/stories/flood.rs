//! A producer that sends more than anybody could work off at once, and hears nothing of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::json;
use sparkferry_ports::queue::Listen;
use sparkferry_shared::{Outcome, RunResult};
use sparkferry_testkit::story::broker::BrokerNode;
use tokio::task::spawn_blocking;
use tokio::time::{interval, timeout};

use super::harness::{CONNECTION, Heard, OTHER, Place, Story, Work, count, peak_memory};

/// So many may be under way: what a worker holds of the flood.
const ACTIVE: usize = 20;
const SMALL: usize = 20_000;
/// One in so many of the small ones is a run; the others came too late.
const RUNS: usize = 200;
/// Requests of nearly 1 MiB, a third of which are runs of a second.
const LARGE: usize = 180;
const EVERY: usize = (SMALL + LARGE) / LARGE;
const LARGE_BYTES: usize = (1 << 20) - 4096;
/// What a worker may need, in MiB: well below what the large requests have together.
const MEMORY: usize = 120;
/// A request elsewhere is answered in this time, which it would take on a busy machine anyway.
const ANSWERED: Duration = Duration::from_secs(15);
const WORKED_OFF: Duration = Duration::from_mins(4);

/// A channel with confirms, which lives as long as its connection.
async fn channel(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await;
    let connection = connection.expect("the broker is there");
    let channel = connection.create_channel().await.expect("a channel");
    let selected = channel.confirm_select(ConfirmSelectOptions::default());
    selected.await.expect("confirms");
    (connection, channel)
}

/// A request that is a run, or one that came too late.
fn request(id: &str, run_ms: Option<usize>, ballast: usize) -> Vec<u8> {
    let deadline = run_ms.is_none().then_some("2026-01-01T00:00:00Z");
    let body = json!({
        "id": id,
        "deadline": deadline,
        "submit_run": {"run_name": id, "tasks": [{
            "task_key": "main",
            "existing_cluster_id": "c",
            "notebook_task": {"notebook_path": "/n", "base_parameters": {
                "sandbox.duration_ms": run_ms.unwrap_or(0).to_string(),
                "ballast": "x".repeat(ballast),
            }},
        }]},
    });
    serde_json::to_vec(&body).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_worked_off_in_bounded_memory_and_holds_up_nobody_else() {
    // What the flood does to a broker is not to be felt by other tests.
    let node = spawn_blocking(|| BrokerNode::start("")).await;
    let node = node.expect("it starts");
    let (_connection, channel) = channel(&node.url()).await;
    let story = Story::with_another(Place::Amqp(node.url()), ACTIVE).await;
    let mut worker = story.worker();
    let producer = story.producer().await;
    let good: Vec<Work> = (0..100)
        .map(|number| Work::new(number, 200, "SUCCESS"))
        .collect();
    let ids = good.iter().map(|work| work.id.clone()).collect();
    let listening = producer.listen(Listen::Mine(ids));
    let mut news = listening.await.expect("the queue is there");

    // The queues are there as soon as one has been answered.
    let first = &good[0];
    let sent = producer.submit(CONNECTION, &first.id, first.body().into());
    sent.await.expect("the queue takes it");
    let mut heard = Heard::default();
    heard.listen(&mut news, 1).await;

    let (mut runs, mut confirms) = (0, Vec::new());
    let exchange = story.topology.requests_exchange();
    for number in 0..SMALL + LARGE {
        // Spread among the others.
        let large = number % EVERY == 0 && number / EVERY < LARGE;
        let body = if large {
            let run = (number % 3 == 0).then_some(1_000);
            runs += usize::from(run.is_some());
            request(&format!("large-{number}"), run, LARGE_BYTES)
        } else {
            let run = (number % RUNS == 0).then_some(100);
            runs += usize::from(run.is_some());
            request(&format!("small-{number}"), run, 0)
        };
        let published = channel.basic_publish(
            exchange.as_str().into(),
            CONNECTION.into(),
            BasicPublishOptions::default(),
            &body,
            BasicProperties::default(),
        );
        confirms.push(published.await.expect("it is sent"));
    }
    for confirm in confirms {
        confirm.await.expect("the broker has it");
    }

    // Elsewhere all goes on, as long as the flood stands.
    let (mut answered, mut longest) = (1, Duration::ZERO);
    let mut looks = interval(Duration::from_millis(500));
    let all = SMALL + LARGE;
    let working = async {
        loop {
            looks.tick().await;
            let results = story.results_waiting().await as usize;
            if results >= all + answered {
                break;
            }
            if let Some(work) = good.get(answered) {
                let began = Instant::now();
                let sent = producer.submit(OTHER, &work.id, work.body().into());
                sent.await.expect("the queue takes it");
                answered += 1;
                heard.listen(&mut news, answered).await;
                longest = longest.max(began.elapsed());
                assert_eq!(heard.results[&work.id].outcome, Outcome::Success);
            }
        }
    };
    let worked_off = timeout(WORKED_OFF, working).await;
    let peak = peak_memory(&worker);
    let waiting = story.results_waiting().await;
    eprintln!("{waiting} results, {answered} answered elsewhere, within {longest:?}; {peak} MiB");
    worked_off.expect("the flood is worked off in time");
    assert!(answered >= 3, "only {answered} were answered elsewhere");
    assert!(longest < ANSWERED, "{longest:?}");
    assert!(peak < MEMORY, "{peak} MiB");
    let results = story.take_results(all + answered).await;
    let ids: BTreeSet<_> = results.iter().map(|result| &result.id).collect();
    assert_eq!(ids.len(), all + answered);
    let ran = |result: &&RunResult| !result.attempts.is_empty();
    let unlike = |result: &&RunResult| ran(result) != (result.outcome == Outcome::Success);
    let unlike: Vec<_> = results.iter().filter(unlike).collect();
    assert!(unlike.is_empty(), "{unlike:#?}");
    assert_eq!(results.iter().filter(ran).count(), runs + answered);
    let stats = story.workspace.stats().await;
    assert_eq!(count(&stats, "/runs_started"), (runs + answered) as u64);
    assert_eq!(worker.try_wait().expect("our own child"), None);
    producer.close().await;
    drop(story);
    drop(node);
}
