//! From the first attempt to the last: endings, failures, faults on the way.

use serde_json::json;
use sparkferry_ports::engine::Fault;
use sparkferry_shared::{ErrorClass, EventType, Outcome, RunError};
use sparkferry_testkit::engine::fake::{Call, Trouble};

use super::{Story, TestHost, passing};

#[tokio::test(start_paused = true)]
async fn a_run_succeeds_and_its_output_comes_back() {
    let story = Story::new(&json!({ "fake": { "duration_ms": 500, "output": { "rows": 3 } } }));
    let (ending, told) = story.told().await;
    assert_eq!(ending.outcome, Outcome::Success);
    assert_eq!(ending.output, Some(json!({ "rows": 3 })));
    assert_eq!(ending.error, None);
    assert_eq!(ending.attempts.len(), 1);
    assert_eq!(ending.attempts[0].key, story.names.key(1));
    assert!(!ending.attempts[0].adopted);
    assert_eq!(told, [EventType::Submitted, EventType::StateChanged]);
}

#[tokio::test(start_paused = true)]
async fn an_infrastructure_failure_earns_another_attempt_after_its_wait() {
    let story = Story::new(&json!({ "fake": { "endings": ["infrastructure", "success"] } }));
    let (ending, told) = story.told().await;
    assert_eq!(ending.outcome, Outcome::Success);
    assert_eq!(ending.attempts.len(), 2);
    assert_eq!(ending.attempts[1].key, story.names.key(2));
    let error = ending.attempts[0].error.as_ref().unwrap();
    assert_eq!(error.class, ErrorClass::Infrastructure);
    assert!(told.contains(&EventType::Retrying));
    let (ended, began) = (ending.attempts[0].ended_at, ending.attempts[1].started_at);
    let wait = began.unwrap().duration_since(ended.unwrap());
    assert!(wait >= jiff::SignedDuration::from_secs(10), "{wait:?}");
    assert!(wait <= jiff::SignedDuration::from_secs(16), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn a_user_error_earns_none_and_is_never_green() {
    let story = Story::new(&json!({ "fake": { "endings": ["user", "success"] } }));
    let ending = story.ending().await;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert_eq!(ending.error.unwrap().class, ErrorClass::User);
    assert_eq!(story.world.runs_started(), 1);
}

#[tokio::test(start_paused = true)]
async fn attempts_end_with_max_retries() {
    let story = Story::new(&json!({ "max_retries": 2, "fake": { "endings": ["infrastructure"] } }));
    let ending = story.ending().await;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert_eq!(ending.attempts.len(), 3);
    assert_eq!(story.world.runs_started(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_makes_one_run() {
    let story = Story::new(&json!({}));
    for _ in 0..5 {
        story
            .world
            .expect_trouble(Call::AttachOrStart, Trouble::ReplyLost);
    }
    let ending = story.ending().await;
    assert_eq!(ending.outcome, Outcome::Success);
    assert_eq!(story.world.runs_started(), 1);
}

#[tokio::test(start_paused = true)]
async fn passing_faults_never_end_a_request_however_many() {
    let story = Story::new(&json!({ "fake": { "output": { "a": 1 } } }));
    for _ in 0..200 {
        story
            .world
            .expect_trouble(Call::AttachOrStart, passing(true));
    }
    for _ in 0..10 {
        story.world.expect_trouble(Call::Output, passing(true));
    }
    let ending = story.ending().await;
    assert_eq!(ending.outcome, Outcome::Success);
    assert_eq!(ending.output, Some(json!({ "a": 1 })));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_first_attempt_is_a_rejection() {
    let story = Story::new(&json!({}));
    let refusal = RunError::new(ErrorClass::Request, "Job 1 does not exist.");
    let refusal = Trouble::Fails(Fault::Refused(Box::new(refusal)));
    story.world.expect_trouble(Call::AttachOrStart, refusal);
    let ending = story.ending().await;
    assert_eq!(ending.outcome, Outcome::Rejected);
    assert!(ending.attempts.is_empty());
    assert_eq!(ending.error.unwrap().message, "Job 1 does not exist.");
}

#[tokio::test(start_paused = true)]
async fn without_waiting_the_result_comes_once_the_run_is_accepted() {
    let story = Story::new(&json!({ "wait": false, "fake": { "duration_ms": 60_000 } }));
    let ending = story.ending().await;
    assert_eq!(ending.outcome, Outcome::Submitted);
    assert_eq!(ending.attempts[0].run_id, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_end_of_time_is_waited_for_and_crashes_nothing() {
    let story = Story::new(&json!({
        "min_retry_interval_millis": u64::MAX, "fake": { "endings": ["infrastructure"] },
    }));
    let host = TestHost::new(&story.world);
    let (ending, ()) = tokio::join!(story.worker(&host, false), async {
        host.until_told(EventType::Retrying).await;
        host.cancel();
    });
    assert_eq!(ending.outcome, Outcome::Canceled);
    assert_eq!(story.world.runs_started(), 1);
}
