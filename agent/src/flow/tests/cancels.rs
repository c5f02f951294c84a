//! A cancel at every moment of a request: CANCELED is said only of what was.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use sparkferry_ports::engine::{Attached, Engine, Fault, Start};
use sparkferry_shared::{EventType, Outcome};
use sparkferry_testkit::engine::fake::{Call, FakeEngine, Trouble};
use tokio::time::sleep;

use super::{Story, TestHost, passing};

/// An engine that permits nothing.
struct Full(FakeEngine);

#[async_trait]
impl Engine for Full {
    async fn attach_or_start(&self, start: &Start<'_>) -> Result<Attached, Fault> {
        self.0.attach_or_start(start).await
    }

    async fn permit(&self) {
        std::future::pending::<()>().await;
    }

    async fn check(&self) -> Result<String, Fault> {
        self.0.check().await
    }

    fn trouble(&self) -> Option<String> {
        None
    }
}

/// Shorter than the first pause after a fault.
const MOMENT: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn while_it_waits_for_a_permit_nothing_is_started() {
    let story = Story::new(&json!({}));
    let engine = Full(FakeEngine::new(story.world.clone()));
    let host = TestHost::new(&story.world);
    let (ending, ()) = tokio::join!(story.worker_on(&engine, &host, false), async {
        sleep(Duration::from_hours(1)).await;
        host.cancel();
    });
    assert_eq!(ending.outcome, Outcome::Canceled);
    assert!(ending.attempts.is_empty());
    assert_eq!(story.world.runs_started(), 0);
}

#[tokio::test(start_paused = true)]
async fn while_the_engine_refuses_connections_nothing_is_started() {
    let story = Story::new(&json!({}));
    let trouble = passing(false);
    story.world.expect_trouble(Call::AttachOrStart, trouble);
    let host = TestHost::new(&story.world);
    let (ending, ()) = tokio::join!(story.worker(&host, false), async {
        sleep(MOMENT).await;
        host.cancel();
    });
    assert_eq!(ending.outcome, Outcome::Canceled);
    assert!(ending.error.unwrap().message.contains("connection refused"));
    assert_eq!(story.world.runs_started(), 0);
}

#[tokio::test(start_paused = true)]
async fn while_it_starts_and_the_reply_is_lost_the_run_is_found_and_cancelled() {
    for (fake, outcome) in [
        (json!({ "duration_ms": 60_000 }), Outcome::Canceled),
        (
            json!({ "duration_ms": 60_000, "ignores_cancel": true }),
            Outcome::Success,
        ),
        // It finished first.
        (json!({}), Outcome::Success),
    ] {
        let story = Story::new(&json!({ "fake": fake }));
        let lost = Trouble::ReplyLost;
        story.world.expect_trouble(Call::AttachOrStart, lost);
        let host = TestHost::new(&story.world);
        let (ending, ()) = tokio::join!(story.worker(&host, false), async {
            sleep(MOMENT).await;
            host.cancel();
        });
        assert_eq!(ending.outcome, outcome);
        assert_eq!(ending.attempts.len(), 1);
        assert_eq!(story.world.runs_started(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_the_cancel_is_asked_again() {
    let story = Story::new(&json!({ "fake": { "duration_ms": 60_000 } }));
    story.world.expect_trouble(Call::Cancel, Trouble::ReplyLost);
    let host = TestHost::new(&story.world);
    let (ending, ()) = tokio::join!(story.worker(&host, false), async {
        host.until_told(EventType::StateChanged).await;
        host.cancel();
    });
    assert_eq!(ending.outcome, Outcome::Canceled);
}

#[tokio::test(start_paused = true)]
async fn what_ended_before_the_next_worker_heard_of_the_cancel_keeps_its_ending() {
    for (fields, outcome) in [
        (json!({}), Outcome::Success),
        (json!({ "fake": { "endings": ["user"] } }), Outcome::Failed),
        (
            json!({ "fake": { "endings": ["skipped"] }, "retry_on": [] }),
            Outcome::Skipped,
        ),
    ] {
        let story = Story::new(&fields);
        assert_eq!(story.ending().await.outcome, outcome);
        let host = TestHost::new(&story.world);
        host.cancel();
        assert_eq!(story.worker(&host, true).await.outcome, outcome);
        assert_eq!(story.world.runs_started(), 1);
    }
}

/// A worker comes to the second attempt and dies; the next one knows of a cancel from the start.
async fn cancelled_after_a_second_attempt(fields: &Value) {
    let story = Story::new(fields);
    let first = TestHost::new(&story.world);
    tokio::select! {
        _ = story.worker(&first, false) => panic!("the second attempt takes an hour"),
        () = async {
            first.until_told(EventType::Retrying).await;
            while story.world.runs_started() < 2 {
                sleep(Duration::from_secs(1)).await;
            }
        } => {}
    }
    let second = TestHost::new(&story.world);
    second.cancel();
    let ending = story.worker(&second, true).await;
    assert_eq!(ending.outcome, Outcome::Canceled);
    assert_eq!(ending.attempts.len(), 2, "{:?}", ending.error);
    assert!(story.world.was_cancelled(&story.names.key(2)));
}

#[tokio::test(start_paused = true)]
async fn an_earlier_workers_second_attempt_is_found_and_cancelled() {
    let fake = json!({ "duration_ms": 3_600_000, "endings": ["infrastructure", "success"] });
    cancelled_after_a_second_attempt(&json!({ "fake": fake })).await;
}

#[tokio::test(start_paused = true)]
async fn an_earlier_workers_second_attempt_after_a_lost_one_is_found_and_cancelled() {
    let fake = json!({ "duration_ms": 3_600_000, "endings": ["lost", "success"] });
    cancelled_after_a_second_attempt(&json!({ "fake": fake, "rerun_if_lost": true })).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_no_ending_is_cancelled_like_any_other() {
    let fields = json!({ "wait": false, "fake": { "duration_ms": 60_000 } });
    let story = Story::new(&fields);
    let lost = Trouble::ReplyLost;
    story.world.expect_trouble(Call::AttachOrStart, lost);
    let host = TestHost::new(&story.world);
    let (ending, ()) = tokio::join!(story.worker(&host, false), async {
        sleep(MOMENT).await;
        host.cancel();
    });
    assert_eq!(ending.outcome, Outcome::Canceled);
    assert!(story.world.was_cancelled(&story.names.key(1)));
}
