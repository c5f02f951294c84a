//! Cancels as workers hear them: early, late, twice, for nobody.

use std::time::Duration;

use serde_json::json;
use sparkferry_shared::{Cancel, Outcome, RunResult};
use sparkferry_testkit::queue::memory::Message;
use tokio::time::timeout;

use super::{CONNECTION, OTHER, Story};

fn cancel(id: &str, connection: Option<&str>, reason: &str) -> Cancel {
    Cancel {
        cancel: id.parse().unwrap(),
        connection: connection.map(str::to_owned),
        reason: Some(reason.to_owned()),
    }
}

/// A run of an hour.
fn long(connection: &str, id: &str) -> Message {
    Message::run_now(connection, id, &json!({ "duration_ms": 3_600_000 }))
}

/// Waits until so many runs were started.
async fn begun(story: &Story, runs: usize) {
    while story.world.runs_started() < runs {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_began_after_the_cancel_starts_nothing() {
    let mut story = Story::begin();
    story.stop().await;
    story.queue.submit("a");
    story.queue.cancel(cancel("a", None, "no"), None).await;
    story.go_on();
    assert_eq!(story.result().await.outcome, Outcome::Canceled);
    assert_eq!(story.world.runs_started(), 0);
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_cancelled_while_no_worker_is_there_is_found_and_cancelled_by_the_next() {
    let mut story = Story::begin();
    story.queue.put(long(CONNECTION, "a"));
    begun(&story, 1).await;
    story.stop().await;
    story.queue.cancel(cancel("a", None, "no"), None).await;
    story.go_on();
    let result = story.result().await;
    assert_eq!(result.outcome, Outcome::Canceled);
    let result: RunResult = serde_json::from_slice(&result.body).unwrap();
    assert!(result.attempts[0].adopted);
    assert_eq!(story.world.runs_started(), 1);
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_comes_twice_is_one_and_one_for_nobody_is_none() {
    let mut story = Story::begin();
    story.queue.put(long(CONNECTION, "a"));
    for reason in ["first", "second"] {
        for id in ["a", "nobody"] {
            story.queue.cancel(cancel(id, None, reason), None).await;
        }
    }
    let result = story.result().await;
    assert_eq!(result.outcome, Outcome::Canceled);
    let result: RunResult = serde_json::from_slice(&result.body).unwrap();
    assert!(result.error.unwrap().message.contains("first"));
    story.queue.cancel(cancel("a", None, "third"), None).await;
    story.queue.submit("b");
    assert_eq!(story.result().await.outcome, Outcome::Success);
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_id_on_two_connections_is_two_requests_and_a_cancel_may_mean_one() {
    let mut story = Story::begin();
    for connection in [CONNECTION, OTHER] {
        story.queue.put(long(connection, "a"));
    }
    begun(&story, 2).await;
    let one = cancel("a", Some(OTHER), "no");
    story.queue.cancel(one, None).await;
    let there = story.result().await;
    assert_eq!(there.outcome, Outcome::Canceled);
    assert_eq!(there.connection, OTHER);
    assert_eq!(story.queue.unsettled(), 1, "that of the other connection");
    let here = timeout(Duration::from_hours(2), story.results.recv()).await;
    let here = here.unwrap().unwrap();
    assert_eq!(here.outcome, Outcome::Success);
    assert_ne!(here.message_id, there.message_id);
    assert_eq!(story.world.runs_started(), 2);
    story.end().await;
}
