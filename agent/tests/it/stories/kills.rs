//! Workers killed again and again, against a workspace where one call in five goes wrong.

use std::time::Duration;

use serde_json::json;
use sparkferry_shared::{ErrorClass, Names, Outcome};
use tokio::time::interval;

use super::harness::{CONNECTION, Heard, Place, Story, Work, count, one_run_for_each_attempt};

const REQUESTS: usize = 200;
const WORKERS: usize = 3;
/// From one kill to the next.
const PACE: Duration = Duration::from_millis(700);

/// What the sandbox is told to do to the nth request, and what must come back: the outcome, and
/// after how many attempts.
fn fate(number: usize) -> (&'static str, Outcome, usize) {
    match number % 5 {
        0 => ("FAILED", Outcome::Failed, 1),
        1 => ("CLUSTER_ERROR,SUCCESS", Outcome::Success, 2),
        _ => ("SUCCESS", Outcome::Success, 1),
    }
}

async fn killed_again_and_again(place: Place) {
    let story = Story::new(place, 600).await;
    story
        .workspace
        .rules(json!([
            {"call": "*", "status": 503, "probability": 0.07, "seed": 1},
            {"call": "*", "reset": true, "probability": 0.07, "seed": 2},
            {"call": "*", "lose_reply": true, "probability": 0.07, "seed": 3},
        ]))
        .await;
    let work: Vec<Work> = (0..REQUESTS)
        .map(|number| Work::new(number, 200 + 30 * number, fate(number).0))
        .collect();
    let mut workers: Vec<_> = (0..WORKERS).map(|_| story.worker()).collect();
    let (producer, mut news) = story.submit(&work).await;

    let mut heard = Heard::default();
    let mut kills = 0;
    let killing = async {
        let mut beat = interval(PACE);
        beat.tick().await;
        loop {
            beat.tick().await;
            let victim = &mut workers[kills % WORKERS];
            // SIGKILL, and its end awaited.
            victim.kill().await.expect("our own child");
            *victim = story.worker();
            kills += 1;
        }
    };
    tokio::select! {
        () = heard.listen(&mut news, REQUESTS) => {}
        () = killing => unreachable!("it goes on until all results are there"),
    }
    assert!(kills >= 2 * WORKERS, "only {kills} were killed");

    let stats = story.workspace.stats().await;
    one_run_for_each_attempt(&heard, &stats);
    assert_eq!(count(&stats, "/runs_by_outcome/SUCCESS"), 160, "{stats}");
    let cut = stats.pointer("/calls/jobs~1runs~1submit/cut");
    assert!(cut.and_then(serde_json::Value::as_u64) > Some(0), "{stats}");
    for (number, work) in work.iter().enumerate() {
        let (_, outcome, attempts) = fate(number);
        let result = &heard.results[&work.id];
        assert_eq!(result.outcome, outcome, "{result:?}");
        assert_eq!(result.attempts.len(), attempts, "{result:?}");
        let names = Names::new(story.topology.namespace(), CONNECTION, work.id.as_str());
        for (attempt, nth) in result.attempts.iter().zip(1..) {
            assert_eq!((attempt.number, attempt.key), (nth, names.key(nth)));
        }
        let class = result.error.as_ref().map(|error| error.class);
        assert_eq!(
            class,
            (outcome == Outcome::Failed).then_some(ErrorClass::User)
        );
    }
    producer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_rabbitmq_every_request_is_run_once_however_often_workers_are_killed() {
    killed_again_and_again(Place::shared_broker()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_every_request_is_run_once_however_often_workers_are_killed() {
    killed_again_and_again(Place::Sqlite).await;
}
