//! Runs that end when nobody attends them, and results that are due before they end.

use std::time::Duration;

use serde_json::json;
use sparkferry_shared::{EventType, Outcome};
use sparkferry_testkit::engine::fake::Call;
use tokio::time::Instant;

use super::{Story, TestHost, passing};

const MINUTE: Duration = Duration::from_mins(1);

/// A worker whose engine's runs need to be attended.
fn attended(story: &Story) -> TestHost {
    story.world.wants_attendance();
    TestHost::new(&story.world)
}

#[tokio::test(start_paused = true)]
async fn a_run_that_nobody_waits_for_is_attended_to_its_end() {
    let story = Story::new(&json!({ "wait": false, "fake": { "duration_ms": 60_000 } }));
    let host = attended(&story);
    let began = Instant::now();
    let (ending, ()) = tokio::join!(story.worker(&host, false), async {
        host.until_announced().await;
        assert!(began.elapsed() < MINUTE);
    });
    assert!(began.elapsed() >= MINUTE);
    assert_eq!(host.announced(), [Outcome::Submitted]);
    assert_eq!(
        (ending.outcome, ending.announced),
        (Outcome::Submitted, true)
    );
    assert_eq!(ending.attempts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_needs_nobody_is_left_at_once() {
    let story = Story::new(&json!({ "wait": false, "fake": { "duration_ms": 60_000 } }));
    let host = TestHost::new(&story.world);
    let began = Instant::now();
    let ending = story.worker(&host, false).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(
        (ending.outcome, ending.announced),
        (Outcome::Submitted, false)
    );
    assert!(host.announced().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_announced_is_cancelled_when_it_is_late_and_not_tried_again() {
    let story = Story::new(&json!({
        "wait": false,
        "timeout_seconds": 10,
        "min_retry_interval_millis": 1,
        "fake": { "duration_ms": 60_000, "endings": ["infrastructure", "success"] },
    }));
    let host = attended(&story);
    let began = Instant::now();
    let ending = story.worker(&host, false).await;
    assert!(began.elapsed() < MINUTE / 2);
    assert_eq!(ending.outcome, Outcome::Submitted);
    assert!(story.world.was_cancelled(&story.names.key(1)));
    assert_eq!(story.world.runs_started(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_is_attended_also_while_its_result_can_not_be_published() {
    let story =
        Story::new(&json!({ "wait": false, "fake": { "duration_ms": 60_000, "tasks": 6 } }));
    story.world.wants_attendance();
    let host = TestHost {
        announcing: 5 * MINUTE,
        ..TestHost::new(&story.world)
    };
    let (_, ()) = tokio::join!(story.worker(&host, false), async {
        host.until_told(EventType::Progress).await;
        assert!(host.announced().is_empty());
    });
    assert_eq!(host.announced(), [Outcome::Submitted]);
}

#[tokio::test(start_paused = true)]
async fn what_was_left_alone_is_attended_by_the_next_worker_however_late_it_is() {
    let story = Story::new(&json!({
        "on_timeout": "abandon",
        "fake": { "duration_ms": 600_000 },
    }))
    .deadline_in(MINUTE);
    story.world.wants_attendance();
    let first = TestHost::new(&story.world);
    tokio::select! {
        _ = story.worker(&first, false) => panic!("the run takes ten minutes"),
        () = first.until_announced() => {}
    }
    // The engine is out of reach for longer than anybody looks for what may have begun.
    for _ in 0..20 {
        story
            .world
            .expect_trouble(Call::AttachOrStart, passing(false));
    }
    let second = TestHost::new(&story.world);
    let ending = story.worker(&second, true).await;
    assert_eq!(second.announced(), [Outcome::TimedOut]);
    assert_eq!(ending.attempts.len(), 1);
    assert!(ending.attempts[0].adopted);
    assert!(!story.world.was_cancelled(&story.names.key(1)));
}

#[tokio::test(start_paused = true)]
async fn what_is_left_alone_after_its_timeout_is_attended_to_its_end() {
    let story = Story::new(&json!({
        "timeout_seconds": 10,
        "on_timeout": "abandon",
        "fake": { "duration_ms": 60_000 },
    }));
    let host = attended(&story);
    let began = Instant::now();
    let ending = story.worker(&host, false).await;
    assert!(began.elapsed() >= MINUTE);
    assert_eq!(host.announced(), [Outcome::TimedOut]);
    assert_eq!(ending.outcome, Outcome::TimedOut);
    assert!(!story.world.was_cancelled(&story.names.key(1)));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_still_reaches_a_run_whose_result_is_out() {
    let story = Story::new(&json!({ "wait": false, "fake": { "duration_ms": 60_000 } }));
    let host = attended(&story);
    let began = Instant::now();
    let (ending, ()) = tokio::join!(story.worker(&host, false), async {
        host.until_announced().await;
        host.cancel();
    });
    assert!(began.elapsed() < MINUTE);
    assert!(story.world.was_cancelled(&story.names.key(1)));
    // What was published stays as it is.
    assert_eq!(
        (host.announced(), ending.outcome),
        (vec![Outcome::Submitted], Outcome::Submitted)
    );
    assert!(host.told().contains(&EventType::CancelRequested));
}
