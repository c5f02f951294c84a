//! Stories of one request, on a paused clock with the fake engine.

use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};
use sparkferry_shared::event::EventDetails;
use sparkferry_shared::{ErrorClass, EventType, Names, Outcome, Request, RunError, decode};
use tokio::sync::Notify;

use super::{Ending, Flow, Host};
use crate::engine::Fault;
use crate::engine::fake::{Call, FakeEngine, Trouble, World};

struct TestHost {
    world: World,
    cancel: OnceLock<String>,
    cancelled: Notify,
    told: Mutex<Vec<EventType>>,
    stirred: Notify,
}

impl TestHost {
    fn new(world: &World) -> Self {
        Self {
            world: world.clone(),
            cancel: OnceLock::new(),
            cancelled: Notify::new(),
            told: Mutex::default(),
            stirred: Notify::new(),
        }
    }

    fn cancel(&self) {
        self.cancel.set("enough".into()).unwrap();
        self.cancelled.notify_waiters();
    }

    fn told(&self) -> Vec<EventType> {
        self.told.lock().unwrap().clone()
    }

    async fn until_told(&self, event: EventType) {
        loop {
            let stirred = self.stirred.notified();
            if self.told().contains(&event) {
                return;
            }
            stirred.await;
        }
    }
}

#[async_trait]
impl Host for TestHost {
    fn now(&self) -> Timestamp {
        self.world.now()
    }

    async fn held(&self) {}

    async fn cancelled(&self) -> String {
        loop {
            let cancelled = self.cancelled.notified();
            if let Some(reason) = self.cancel.get() {
                return reason.clone();
            }
            cancelled.await;
        }
    }

    fn tell(&self, event: EventType, _: Option<u32>, _: EventDetails) {
        self.told.lock().unwrap().push(event);
        self.stirred.notify_waiters();
    }

    fn attempt_ended(&self, _: Option<ErrorClass>) {}
}

/// One request in one world; workers come and go.
struct Story {
    world: World,
    request: Request,
    names: Names,
}

impl Story {
    fn new(fields: &Value) -> Self {
        let mut body = json!({ "id": "x", "run_now": { "job_id": 1, "fake": {} } });
        for (name, value) in fields.as_object().unwrap() {
            match name.as_str() {
                "fake" => body["run_now"]["fake"] = value.clone(),
                _ => body[name] = value.clone(),
            }
        }
        Self {
            world: World::default(),
            request: decode(body.to_string().as_bytes(), None, None, 1 << 20).unwrap(),
            names: Names::new("sparkferry", "prod", "x"),
        }
    }

    async fn worker(&self, host: &TestHost, seen_before: bool) -> Ending {
        let engine = FakeEngine::new(self.world.clone());
        let flow = Flow {
            engine: &engine,
            host,
            request: &self.request,
            names: self.names,
            received_at: self.world.now(),
            seen_before,
            max_output_bytes: 1024,
        };
        flow.carry_out().await
    }

    async fn told(&self) -> (Ending, Vec<EventType>) {
        let host = TestHost::new(&self.world);
        let ending = self.worker(&host, false).await;
        (ending, host.told())
    }

    async fn ending(&self) -> Ending {
        self.told().await.0
    }

    fn deadline_in(mut self, wait: Duration) -> Self {
        self.request.deadline = Some(self.world.now() + wait);
        self
    }
}

fn passing(perhaps_done: bool) -> Trouble {
    Trouble::Fails(Fault::Passing {
        message: "engine.example: connection refused".into(),
        class: ErrorClass::Infrastructure,
        retry_after: None,
        perhaps_done,
    })
}

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
async fn without_waiting_the_result_comes_once_the_run_is_accepted() {
    let story = Story::new(&json!({ "wait": false, "fake": { "duration_ms": 60_000 } }));
    let ending = story.ending().await;
    assert_eq!(ending.outcome, Outcome::Submitted);
    assert_eq!(ending.attempts[0].run_id, Some(1));
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
