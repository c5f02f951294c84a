//! Runs that outlast deliveries, workers and brokers.

use std::time::Duration;

use serde_json::json;
use sparkferry_shared::{Outcome, RunResult};
use sparkferry_testkit::queue::memory::Message;
use tokio::time::sleep;

use super::{CONNECTION, Story};

/// As RabbitMQ's consumer timeout wants it.
const HOLD_LIMIT: Duration = Duration::from_mins(20);
const HOURS: u64 = 72;

#[tokio::test(start_paused = true)]
async fn three_days_of_hand_backs_worker_changes_and_broker_restarts_are_one_run_and_one_result() {
    let mut story = Story::begin_with(Some(HOLD_LIMIT));
    let plan = json!({ "duration_ms": HOURS * 3_600_000 - 60_000 });
    story.queue.put(Message::run_now(CONNECTION, "a", &plan));
    for hour in 1..=HOURS {
        sleep(Duration::from_mins(59)).await;
        if hour % 24 == 0 {
            story.queue.go_away();
            // Longer than a driver waits for its loan, every second day.
            sleep(Duration::from_secs(if hour % 48 == 0 { 20 } else { 10 })).await;
            story.queue.come_back();
        }
        if hour < HOURS {
            assert_eq!(story.queue.unsettled(), 1, "after {hour} hours");
            story.stop().await;
            story.go_on();
        }
        sleep(Duration::from_mins(1)).await;
    }
    let result = story.result().await;
    assert_eq!(result.outcome, Outcome::Success);
    let body: RunResult = serde_json::from_slice(&result.body).unwrap();
    assert_eq!(body.attempts.len(), 1);
    assert!(body.redelivered && body.attempts[0].adopted);
    assert_eq!(story.world.runs_started(), 1);
    assert!(story.results.try_recv().is_err(), "a second result");
    assert_eq!(story.queue.unsettled(), 0);
    let handed_back = story.queue.handed_back.lock().unwrap().len();
    // Two or three an hour: after 15 to 19 minutes each, anew with each worker.
    assert!((144..=300).contains(&handed_back), "{handed_back}");
    story.end().await;
}
