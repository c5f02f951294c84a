//! Clocks that differ between workers and the engine, and clocks that are stepped.

use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use serde_json::json;
use sparkferry_ports::engine::{Attached, Engine, Fault, Start};
use sparkferry_shared::{EventType, Outcome};
use sparkferry_testkit::engine::fake::FakeEngine;
use tokio::time::{Instant, sleep};

use super::{Story, TestHost};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// An engine whose clock is known, and that can't be reached before a moment.
struct Clocked {
    engine: FakeEngine,
    ahead: SignedDuration,
    away_until: Instant,
}

#[async_trait]
impl Engine for Clocked {
    async fn attach_or_start(&self, start: &Start<'_>) -> Result<Attached, Fault> {
        if Instant::now() < self.away_until {
            return Err(super::fault(false));
        }
        self.engine.attach_or_start(start).await
    }

    async fn permit(&self) {}

    async fn check(&self) -> Result<String, Fault> {
        self.engine.check().await
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    fn clock_ahead(&self) -> SignedDuration {
        self.ahead
    }
}

/// A worker whose clock is so far ahead of the engine's, and the engine as it sees it.
fn worker(story: &Story, ahead: SignedDuration) -> (TestHost, Clocked) {
    let host = TestHost::new(&story.world);
    host.set_clock(ahead);
    let engine = Clocked {
        engine: FakeEngine::new(story.world.clone()),
        ahead: -ahead,
        away_until: Instant::now(),
    };
    (host, engine)
}

#[tokio::test(start_paused = true)]
async fn the_wait_before_an_attempt_is_the_same_by_any_clock() {
    for ahead in [-HOUR, HOUR] {
        let story = Story::new(&json!({ "fake": { "endings": ["infrastructure", "success"] } }));
        let (host, engine) = worker(&story, ahead);
        let since = Instant::now();
        let ending = story.worker_on(&engine, &host, false).await;
        assert_eq!(ending.outcome, Outcome::Success);
        let waited = since.elapsed().as_secs();
        assert!((10..=16).contains(&waited), "{ahead:?}: {waited} s");
    }
}

/// Spark Connect tells no clock: what another worker wrote down is by that worker's.
#[tokio::test(start_paused = true)]
async fn the_wait_before_an_attempt_is_never_longer_than_it_was_to_be() {
    let story = Story::new(&json!({ "fake": { "endings": ["infrastructure", "success"] } }));
    let host = TestHost::new(&story.world);
    host.set_clock(-HOUR);
    let since = Instant::now();
    let ending = story.worker(&host, false).await;
    assert_eq!(ending.outcome, Outcome::Success);
    assert!(since.elapsed().as_secs() <= 16, "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_timeout_is_counted_by_the_engines_clock() {
    for (duration_ms, outcome) in [(60_000, Outcome::Success), (180_000, Outcome::TimedOut)] {
        for ahead in [-HOUR, HOUR] {
            let fake = json!({ "duration_ms": duration_ms });
            let story = Story::new(&json!({ "timeout_seconds": 120, "fake": fake }));
            let (host, engine) = worker(&story, ahead);
            let since = Instant::now();
            let ending = story.worker_on(&engine, &host, false).await;
            assert_eq!(ending.outcome, outcome, "{ahead:?}");
            assert!(since.elapsed().as_secs() <= 125, "{:?}", since.elapsed());
        }
    }
}

/// The second worker's clock says that the second attempt is not due for an hour.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_started_is_cancelled_by_a_worker_whose_clock_is_behind() {
    let fake = json!({ "duration_ms": 60_000, "endings": ["infrastructure", "success"] });
    let story = Story::new(&json!({ "fake": fake }));
    let (first, engine) = worker(&story, SignedDuration::ZERO);
    tokio::select! {
        _ = story.worker_on(&engine, &first, false) => panic!("the second attempt takes a minute"),
        () = async {
            first.until_told(EventType::Retrying).await;
            sleep(Duration::from_secs(30)).await;
        } => {}
    }
    assert_eq!(story.world.runs_started(), 2);
    let (second, engine) = worker(&story, -HOUR);
    second.cancel();
    let ending = story.worker_on(&engine, &second, true).await;
    assert_eq!(ending.outcome, Outcome::Canceled);
    assert_eq!(ending.attempts.len(), 2);
    assert!(story.world.was_cancelled(&story.names.key(2)));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_stepped_moves_the_deadline_with_it() {
    // By how much the clock is set, and the seconds after which a deadline of 10 minutes comes.
    for (by, comes) in [(300, 300..=361), (-300, 900..=901)] {
        let fake = json!({ "duration_ms": 86_400_000 });
        let story = Story::new(&json!({ "fake": fake })).deadline_in(Duration::from_mins(10));
        let host = TestHost::new(&story.world);
        let since = Instant::now();
        let (ending, ()) = tokio::join!(story.worker(&host, false), async {
            sleep(Duration::from_secs(5)).await;
            host.set_clock(SignedDuration::from_secs(by));
        });
        assert_eq!(ending.outcome, Outcome::TimedOut);
        let came = since.elapsed().as_secs();
        assert!(comes.contains(&came), "{by}: {came} s");
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_for_ten_minutes_costs_ten_minutes() {
    let story = Story::new(&json!({ "fake": { "duration_ms": 1000, "output": "done" } }));
    let away = Duration::from_mins(10);
    let (host, engine) = worker(&story, SignedDuration::ZERO);
    let engine = Clocked {
        away_until: Instant::now() + away,
        ..engine
    };
    let since = Instant::now();
    let ending = story.worker_on(&engine, &host, false).await;
    assert_eq!(ending.outcome, Outcome::Success);
    assert_eq!(story.world.runs_started(), 1);
    let took = since.elapsed();
    assert!(
        took >= away && took <= away + Duration::from_secs(40),
        "{took:?}"
    );
}
