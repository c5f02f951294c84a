//! What a run is to run on is made ready first, or does not become ready.

use std::time::Duration;

use serde_json::json;
use sparkferry_ports::engine::Fault;
use sparkferry_shared::EventType::{self, Progress, StateChanged, Submitted};
use sparkferry_shared::{ErrorClass, Outcome, RunError};
use sparkferry_testkit::engine::fake::{Call, Trouble};
use tokio::time::Instant;

use super::{Story, TestHost};

/// The next call finds that it is too early.
fn wait_for(story: &Story, message: &str) {
    let waiting = Fault::Waiting {
        message: message.to_owned(),
        retry_after: Duration::from_secs(20),
    };
    let trouble = Trouble::Fails(waiting);
    story.world.expect_trouble(Call::AttachOrStart, trouble);
}

/// The next call finds that it was waited for in vain.
fn in_vain(story: &Story) {
    let why = RunError::new(ErrorClass::Infrastructure, "cluster c1 was not ready");
    let trouble = Trouble::Fails(Fault::Unready(why.into()));
    story.world.expect_trouble(Call::AttachOrStart, trouble);
}

#[tokio::test(start_paused = true)]
async fn what_is_waited_for_is_told_as_long_as_it_takes() {
    let story = Story::new(&json!({}));
    for message in ["c1 is PENDING", "c1 is PENDING", "c1 installs numpy"] {
        wait_for(&story, message);
    }
    let host = TestHost::new(&story.world);
    let since = Instant::now();
    let ending = story.worker(&host, false).await;
    assert_eq!(ending.outcome, Outcome::Success);
    assert!(since.elapsed() >= Duration::from_mins(1));
    assert_eq!(
        host.told()[..4],
        [StateChanged, Progress, StateChanged, Submitted]
    );
    let waiting = "WAITING: c1 is PENDING";
    assert_eq!(
        host.states.lock().unwrap()[..3],
        [waiting, waiting, "WAITING: c1 installs numpy"]
    );
}

#[tokio::test(start_paused = true)]
async fn what_waits_can_be_cancelled_and_nothing_was_started() {
    let story = Story::new(&json!({}));
    for _ in 0..10 {
        wait_for(&story, "c1 is PENDING");
    }
    let host = TestHost::new(&story.world);
    let (ending, ()) = tokio::join!(story.worker(&host, false), async {
        host.until_told(Progress).await;
        host.cancel();
    });
    assert_eq!(ending.outcome, Outcome::Canceled);
    assert_eq!(story.world.runs_started(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_never_became_ready_is_a_failed_attempt_and_another_follows() {
    let story = Story::new(&json!({}));
    in_vain(&story);
    let (ending, told) = story.told().await;
    assert_eq!(ending.outcome, Outcome::Success);
    assert_eq!(ending.attempts.len(), 2);
    let first = ending.attempts[0].error.as_ref().unwrap();
    assert_eq!(first.class, ErrorClass::Infrastructure);
    assert!(!ending.attempts[0].adopted);
    assert_eq!(story.world.runs_started(), 1);
    assert!(told.contains(&EventType::Retrying), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn what_never_became_ready_fails_where_nothing_is_forgiven() {
    for (fields, attempts) in [
        (json!({ "retry_on": ["throttled"] }), 1),
        (json!({ "max_retries": 2 }), 3),
    ] {
        let story = Story::new(&fields);
        for _ in 0..3 {
            in_vain(&story);
        }
        let ending = story.ending().await;
        assert_eq!(ending.outcome, Outcome::Failed);
        assert_eq!(ending.attempts.len(), attempts);
        let error = ending.error.unwrap();
        assert_eq!(error.class, ErrorClass::Infrastructure);
        assert_eq!(error.message, "cluster c1 was not ready");
        assert_eq!(story.world.runs_started(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_have_begun_before_is_lost_and_not_begun_again_unasked() {
    for (fields, outcome, runs) in [
        (json!({}), Outcome::Lost, 0),
        (json!({ "rerun_if_lost": true }), Outcome::Success, 1),
    ] {
        let story = Story::new(&fields);
        in_vain(&story);
        let ending = story.worker(&TestHost::new(&story.world), true).await;
        assert_eq!(ending.outcome, outcome);
        assert_eq!(story.world.runs_started(), runs);
        let first = ending.attempts[0].error.as_ref().unwrap();
        let lost = outcome == Outcome::Lost;
        assert_eq!(first.class == ErrorClass::Lost, lost, "{first:?}");
        assert_eq!(first.message.contains("what it did is not known"), lost);
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_what_waits_says_what_for() {
    let story = Story::new(&json!({})).deadline_in(Duration::from_secs(30));
    for _ in 0..10 {
        wait_for(&story, "c1 is PENDING");
    }
    let ending = story.ending().await;
    assert_eq!(ending.outcome, Outcome::Expired);
    let message = ending.error.unwrap().message;
    assert!(message.contains("c1 is PENDING"), "{message}");
}
