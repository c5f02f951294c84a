//! Cancels, timeouts, deadlines: what stops a request, and what it finds.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use sparkferry_ports::engine::{Attached, Engine, Fault, Start};
use sparkferry_shared::{ErrorClass, EventType, Outcome};
use sparkferry_testkit::engine::fake::{Call, FakeEngine, Trouble};

use super::{Story, TestHost, passing};

/// An engine whose permits come late, and at a moment at which no timer is looked at.
struct Late(FakeEngine);

/// When they come.
const LATE: Duration = Duration::from_millis(100);

#[async_trait]
impl Engine for Late {
    async fn attach_or_start(&self, start: &Start<'_>) -> Result<Attached, Fault> {
        self.0.attach_or_start(start).await
    }

    async fn permit(&self) {
        // It is the thread that is held up, as a busy machine may do.
        std::thread::sleep(LATE);
    }

    async fn check(&self) -> Result<String, Fault> {
        self.0.check().await
    }

    fn trouble(&self) -> Option<String> {
        None
    }
}

#[tokio::test]
async fn a_permit_that_comes_with_the_deadline_comes_too_late() {
    let story = Story::new(&json!({})).deadline_in(LATE / 2);
    let engine = Late(FakeEngine::new(story.world.clone()));
    let host = TestHost::new(&story.world);
    let ending = story.worker_on(&engine, &host, false).await;
    assert_eq!(ending.outcome, Outcome::Expired);
    assert_eq!(story.world.runs_started(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_is_cancelled_on_the_engine() {
    let story = Story::new(&json!({ "fake": { "duration_ms": 60_000 } }));
    story.world.expect_trouble(Call::Cancel, passing(false));
    let host = TestHost::new(&story.world);
    let (ending, ()) = tokio::join!(story.worker(&host, false), async {
        host.until_told(EventType::StateChanged).await;
        host.cancel();
    });
    assert_eq!(ending.outcome, Outcome::Canceled);
    assert!(story.world.was_cancelled(&story.names.key(1)));
    let error = ending.error.unwrap();
    assert_eq!(error.class, ErrorClass::Canceled);
    assert!(error.message.contains("enough"));
    assert!(host.told().contains(&EventType::CancelRequested));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_in_spite_of_its_cancel_is_what_it_is() {
    let story = Story::new(&json!({ "fake": { "duration_ms": 60_000, "ignores_cancel": true } }));
    let host = TestHost::new(&story.world);
    let (ending, ()) = tokio::join!(story.worker(&host, false), async {
        host.until_told(EventType::StateChanged).await;
        host.cancel();
    });
    assert_eq!(ending.outcome, Outcome::Success);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_before_the_start_starts_nothing() {
    let story = Story::new(&json!({}));
    let host = TestHost::new(&story.world);
    host.cancel();
    let ending = story.worker(&host, false).await;
    assert_eq!(ending.outcome, Outcome::Canceled);
    assert!(ending.attempts.is_empty());
    assert_eq!(story.world.runs_started(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_while_an_earlier_worker_may_have_started_it_finds_the_run_first() {
    let story = Story::new(&json!({ "fake": { "duration_ms": 60_000 } }));
    let first = TestHost::new(&story.world);
    tokio::select! {
        _ = story.worker(&first, false) => panic!("the run takes a minute"),
        () = first.until_told(EventType::Submitted) => {}
    }
    let second = TestHost::new(&story.world);
    second.cancel();
    let ending = story.worker(&second, true).await;
    assert_eq!(ending.outcome, Outcome::Canceled);
    assert_eq!(ending.attempts.len(), 1);
    assert!(story.world.was_cancelled(&story.names.key(1)));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_between_attempts_ends_the_request() {
    let story = Story::new(&json!({ "fake": { "endings": ["infrastructure"] } }));
    let host = TestHost::new(&story.world);
    let (ending, ()) = tokio::join!(story.worker(&host, false), async {
        host.until_told(EventType::Retrying).await;
        host.cancel();
    });
    assert_eq!(ending.outcome, Outcome::Canceled);
    assert_eq!(story.world.runs_started(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_is_cancelled_and_timed_out() {
    let story = Story::new(&json!({ "timeout_seconds": 30, "fake": { "duration_ms": 60_000 } }));
    let ending = story.ending().await;
    assert_eq!(ending.outcome, Outcome::TimedOut);
    assert!(story.world.was_cancelled(&story.names.key(1)));
    assert!(
        ending
            .error
            .unwrap()
            .message
            .contains("timeout_seconds, 30")
    );
}

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_can_be_left_alone() {
    let story = Story::new(&json!({
        "timeout_seconds": 30, "on_timeout": "abandon", "fake": { "duration_ms": 60_000 },
    }));
    let ending = story.ending().await;
    assert_eq!(ending.outcome, Outcome::TimedOut);
    assert!(!story.world.was_cancelled(&story.names.key(1)));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_cancelled_is_timed_out_all_the_same() {
    let story =
        Story::new(&json!({ "timeout_seconds": 30, "fake": { "duration_ms": 86_400_000 } }));
    for _ in 0..100 {
        story.world.expect_trouble(Call::Cancel, passing(true));
    }
    let ending = story.ending().await;
    assert_eq!(ending.outcome, Outcome::TimedOut);
    assert!(
        ending
            .error
            .unwrap()
            .message
            .contains("could not be cancelled")
    );
}

#[tokio::test(start_paused = true)]
async fn past_the_deadline_nothing_is_started() {
    let story = Story::new(&json!({})).deadline_in(Duration::ZERO);
    let ending = story.ending().await;
    assert_eq!(ending.outcome, Outcome::Expired);
    assert_eq!(story.world.runs_started(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_while_the_engine_refuses_connections_is_an_expiry() {
    let story = Story::new(&json!({})).deadline_in(Duration::from_mins(1));
    for _ in 0..1000 {
        story
            .world
            .expect_trouble(Call::AttachOrStart, passing(false));
    }
    let ending = story.ending().await;
    assert_eq!(ending.outcome, Outcome::Expired);
    assert!(ending.error.unwrap().message.contains("connection refused"));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_while_nobody_knows_whether_it_began_is_no_expiry() {
    let story = Story::new(&json!({})).deadline_in(Duration::from_mins(1));
    for _ in 0..1000 {
        story
            .world
            .expect_trouble(Call::AttachOrStart, passing(true));
    }
    let ending = story.ending().await;
    assert_eq!(ending.outcome, Outcome::TimedOut);
    assert!(ending.error.unwrap().message.contains("not known"));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_an_earlier_worker_left_is_found_and_stopped_however_late() {
    let story = Story::new(&json!({ "fake": { "duration_ms": 86_400_000 } }));
    let first = TestHost::new(&story.world);
    tokio::select! {
        _ = story.worker(&first, false) => panic!("the run takes a day"),
        () = first.until_told(EventType::StateChanged) => {}
    }
    let story = story.deadline_in(Duration::from_mins(1));
    tokio::time::advance(Duration::from_hours(1)).await;
    let ending = story.worker(&TestHost::new(&story.world), true).await;
    assert_eq!(ending.outcome, Outcome::TimedOut);
    assert_eq!(ending.attempts.len(), 1);
    assert!(story.world.was_cancelled(&story.names.key(1)));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_stops_a_run_and_further_attempts() {
    let story = Story::new(&json!({ "fake": { "duration_ms": 90_000 } }));
    let ending = story.deadline_in(Duration::from_mins(1)).ending().await;
    assert_eq!(ending.outcome, Outcome::TimedOut);

    let story = Story::new(&json!({ "fake": { "endings": ["infrastructure"] } }));
    let story = story.deadline_in(Duration::from_secs(15));
    let ending = story.ending().await;
    assert_eq!(ending.outcome, Outcome::TimedOut);
    assert!(ending.error.unwrap().message.contains("the plan says"));
}

#[tokio::test(start_paused = true)]
async fn limits_at_the_end_of_time_crash_nothing() {
    let mut story = Story::new(&json!({ "timeout_seconds": u64::MAX }));
    story.request.deadline = Some(jiff::Timestamp::MAX);
    let lost = Trouble::ReplyLost;
    story.world.expect_trouble(Call::AttachOrStart, lost);
    assert_eq!(story.ending().await.outcome, Outcome::Success);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_took_too_long_is_followed_by_another_where_the_request_says_so() {
    let story = Story::new(&json!({
        "timeout_seconds": 30, "retry_on": ["timeout"], "max_retries": 2,
        "fake": { "duration_ms": 60_000 },
    }));
    let ending = story.ending().await;
    assert_eq!(ending.outcome, Outcome::TimedOut);
    assert_eq!(ending.attempts.len(), 3);
    assert_eq!(story.world.runs_started(), 3);
    // One that is left alone goes on: no other one begins beside it.
    let story = Story::new(&json!({
        "timeout_seconds": 30, "retry_on": ["timeout"], "on_timeout": "abandon",
        "fake": { "duration_ms": 60_000 },
    }));
    assert_eq!(story.ending().await.attempts.len(), 1);
}

/// The second worker sees a run that was cancelled, and no word about why.
#[tokio::test(start_paused = true)]
async fn what_an_earlier_worker_stopped_for_being_late_was_late() {
    let story = Story::new(&json!({
        "timeout_seconds": 30, "retry_on": ["timeout"], "max_retries": 1,
        "min_retry_interval_millis": 60_000, "fake": { "duration_ms": 60_000 },
    }));
    let first = TestHost::new(&story.world);
    tokio::select! {
        _ = story.worker(&first, false) => panic!("a second attempt follows"),
        () = async {
            first.until_told(EventType::Retrying).await;
            // Its second attempt runs.
            tokio::time::sleep(Duration::from_secs(100)).await;
        } => {}
    }
    assert_eq!(story.world.runs_started(), 2);
    let second = TestHost::new(&story.world);
    let ending = story.worker(&second, true).await;
    assert_eq!(ending.outcome, Outcome::TimedOut);
    assert_eq!(story.world.runs_started(), 2);
    let class = |nth: usize| ending.attempts[nth].error.as_ref().unwrap().class;
    assert_eq!([class(0), class(1)], [ErrorClass::Timeout; 2]);
}

/// As one who does so on the engine's own page: the second worker hears of no cancel.
#[tokio::test(start_paused = true)]
async fn a_run_that_somebody_cancelled_in_time_is_canceled() {
    let story = Story::new(&json!({
        "timeout_seconds": 30, "retry_on": ["timeout"], "fake": { "duration_ms": 60_000 },
    }));
    let first = TestHost::new(&story.world);
    tokio::join!(story.worker(&first, false), async {
        first.until_told(EventType::StateChanged).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        first.cancel();
    });
    let second = TestHost::new(&story.world);
    let ending = story.worker(&second, true).await;
    assert_eq!(ending.outcome, Outcome::Canceled);
    assert_eq!(story.world.runs_started(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_before_the_next_attempt_is_told_as_what_it_is() {
    let story = Story::new(&json!({
        "min_retry_interval_millis": 120_000, "fake": { "endings": ["infrastructure"] },
    }));
    let story = story.deadline_in(Duration::from_mins(1));
    let ending = story.ending().await;
    assert_eq!(ending.outcome, Outcome::TimedOut);
    let message = ending.error.unwrap().message;
    assert!(
        message.contains("the next attempt would begin after"),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_success_whose_output_is_never_told_is_a_success_after_a_while() {
    let story = Story::new(&json!({}));
    for _ in 0..1000 {
        story.world.expect_trouble(Call::Output, passing(false));
    }
    let began = tokio::time::Instant::now();
    let ending = story.ending().await;
    assert_eq!(ending.outcome, Outcome::Success);
    assert!(ending.output.unwrap()["unavailable"].is_string());
    let minutes = began.elapsed().as_secs() / 60;
    assert!((30..31).contains(&minutes), "{minutes}");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_while_the_output_is_asked_for_ends_that() {
    let story = Story::new(&json!({}));
    for _ in 0..1000 {
        story.world.expect_trouble(Call::Output, passing(false));
    }
    let host = TestHost::new(&story.world);
    let began = tokio::time::Instant::now();
    let (ending, ()) = tokio::join!(story.worker(&host, false), async {
        host.until_told(EventType::Submitted).await;
        tokio::time::sleep(Duration::from_mins(3)).await;
        host.cancel();
    });
    assert_eq!(ending.outcome, Outcome::Success, "it was over");
    assert!(began.elapsed() < Duration::from_mins(6));
}
