//! What earlier workers left, and what the engine forgot.

use std::time::Duration;

use serde_json::json;
use sparkferry_ports::engine::{CLOSED, Fault};
use sparkferry_shared::{ErrorClass, EventType, Outcome, RunError};
use sparkferry_testkit::engine::fake::{Call, Trouble};

use super::{Story, TestHost};

#[tokio::test(start_paused = true)]
async fn another_worker_finds_the_run_and_goes_on() {
    let story = Story::new(&json!({ "fake": { "duration_ms": 60_000, "output": "done" } }));
    let first = TestHost::new(&story.world);
    tokio::select! {
        _ = story.worker(&first, false) => panic!("the run takes a minute"),
        () = first.until_told(EventType::StateChanged) => {}
    }
    let second = TestHost::new(&story.world);
    let ending = story.worker(&second, true).await;
    assert_eq!(ending.outcome, Outcome::Success);
    assert!(ending.attempts[0].adopted);
    assert_eq!(story.world.runs_started(), 1);
    assert!(second.told().contains(&EventType::Adopted));
}

#[tokio::test(start_paused = true)]
async fn another_worker_walks_past_failed_attempts_without_waiting_again() {
    let story = Story::new(&json!({
        "fake": { "duration_ms": 1000, "endings": ["infrastructure", "infrastructure", "success"] },
    }));
    let before = story.ending().await;
    assert_eq!(before.attempts.len(), 3);
    let started = tokio::time::Instant::now();
    let host = TestHost::new(&story.world);
    let after = story.worker(&host, true).await;
    assert_eq!(after.outcome, Outcome::Success);
    assert_eq!(after.attempts.len(), 3);
    assert!(after.attempts.iter().all(|attempt| attempt.adopted));
    assert_eq!(story.world.runs_started(), 3);
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_what_an_earlier_worker_may_have_started_says_so() {
    let story = Story::new(&json!({}));
    let refusal = RunError::new(ErrorClass::Request, "Job 1 does not exist.");
    let refusal = Trouble::Fails(Fault::Refused(Box::new(refusal)));
    story.world.expect_trouble(Call::AttachOrStart, refusal);
    let ending = story.worker(&TestHost::new(&story.world), true).await;
    assert_eq!(ending.outcome, Outcome::Rejected);
    let message = ending.error.unwrap().message;
    assert!(message.contains("Job 1 does not exist."), "{message}");
    assert!(message.contains("goes on unattended"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_released_as_done_is_never_run_again() {
    let story = Story::new(&json!({ "rerun_if_lost": true }));
    let closed = RunError::new(ErrorClass::Lost, "the session is closed").with_code(CLOSED);
    let closed = Trouble::Fails(Fault::Lost(Box::new(closed)));
    story.world.expect_trouble(Call::AttachOrStart, closed);
    let ending = story.worker(&TestHost::new(&story.world), true).await;
    assert_eq!(ending.outcome, Outcome::Lost);
    assert_eq!(story.world.runs_started(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_engine_forgot_is_lost_and_run_again_only_if_allowed() {
    for (fields, outcome, runs) in [
        (json!({}), Outcome::Lost, 1),
        (json!({ "rerun_if_lost": true }), Outcome::Success, 2),
        (
            json!({ "rerun_if_lost": true, "retry_on": [] }),
            Outcome::Lost,
            1,
        ),
    ] {
        let mut fields = fields;
        fields["fake"] = json!({ "endings": ["lost", "success"] });
        let story = Story::new(&fields);
        let ending = story.ending().await;
        assert_eq!(ending.outcome, outcome);
        assert_eq!(story.world.runs_started(), runs);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_run_is_lost_for_the_next_worker() {
    let story = Story::new(&json!({}));
    story.ending().await;
    story.world.forget(&story.names.key(1));
    let ending = story.worker(&TestHost::new(&story.world), true).await;
    assert_eq!(ending.outcome, Outcome::Lost);
    assert_eq!(ending.attempts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_after_a_lost_one_is_looked_for_also_past_the_deadline() {
    let story = Story::new(&json!({
        "retry_on": ["lost"],
        "rerun_if_lost": true,
        "min_retry_interval_millis": 1,
        "max_retry_interval_millis": 1,
        "fake": { "duration_ms": 600_000 },
    }))
    .deadline_in(Duration::from_mins(1));
    let first = TestHost::new(&story.world);
    let key = |attempt| story.names.key(attempt);
    let watching = async {
        first.until_told(EventType::Submitted).await;
        story.world.forget(&key(1));
        while !story.world.knows(&key(2)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        _ = story.worker(&first, false) => panic!("the run takes ten minutes"),
        () = watching => {}
    }
    tokio::time::advance(Duration::from_mins(2)).await;
    let second = TestHost::new(&story.world);
    let ending = story.worker(&second, true).await;
    assert_eq!(ending.outcome, Outcome::TimedOut);
    assert!(story.world.was_cancelled(&key(2)), "it is left to itself");
    assert_eq!(story.world.runs_started(), 2);
}
