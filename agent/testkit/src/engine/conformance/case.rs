//! One piece of work on one engine, and patience with it.

use std::time::Duration;

use sparkferry_ports::engine::{Attached, Change, Ended, Engine, Fault, Run, Start, Unknown};
use sparkferry_shared::{Names, OnFailure, Work};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::{Harness, Scenario};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request of one scenario.
pub(super) struct Case<'a, H> {
    pub(super) harness: &'a H,
    pub(super) names: Names,
    pub(super) work: Work,
}

impl<'a, H: Harness> Case<'a, H> {
    pub(super) fn new(harness: &'a H, scenario: Scenario) -> Self {
        Self::if_possible(harness, scenario).unwrap_or_else(|| panic!("{scenario:?} is needed"))
    }

    pub(super) fn if_possible(harness: &'a H, scenario: Scenario) -> Option<Self> {
        Some(Self {
            harness,
            names: Names::new("conformance", "c", &Uuid::now_v7().to_string()),
            work: harness.work(scenario)?,
        })
    }

    pub(super) fn start(&self, attempt: u32, seen_before: bool) -> Start<'_> {
        Start {
            names: &self.names,
            attempt,
            work: &self.work,
            on_failure: OnFailure::Rerun,
            seen_before,
            unknown: Unknown::Start,
            past: &[],
            since: Instant::now(),
        }
    }

    pub(super) async fn attach(&self, attempt: u32, seen_before: bool) -> Attached {
        let engine = self.harness.engine();
        self.attach_with(&*engine, attempt, seen_before).await
    }

    pub(super) async fn attach_with(
        &self,
        engine: &dyn Engine,
        attempt: u32,
        seen_before: bool,
    ) -> Attached {
        let start = self.start(attempt, seen_before);
        bounded("attaching", repeated(|| engine.attach_or_start(&start))).await
    }

    pub(super) async fn change(&self, run: &mut dyn Run) -> Change {
        bounded("a change", run.next()).await
    }

    pub(super) async fn end(&self, run: &mut dyn Run) -> Ended {
        loop {
            if let Change::Ended(ended) = self.change(run).await {
                return ended;
            }
        }
    }

    pub(super) async fn cancel(&self, run: &mut dyn Run) {
        let mut tries = 0;
        while let Err(fault) = bounded("cancelling", run.cancel()).await {
            tries = passing(&fault, tries).await;
        }
    }

    pub(super) async fn output(&self, run: &mut dyn Run, limit: usize) -> serde_json::Value {
        let mut tries = 0;
        loop {
            match bounded("output", run.output(limit)).await {
                Ok(output) => return output.expect("it produced something"),
                Err(fault) => tries = passing(&fault, tries).await,
            }
        }
    }

    pub(super) async fn started(&self, attempt: u32, expected: u64) {
        let started = self.harness.runs_started(self.names.key(attempt)).await;
        assert_eq!(started, expected, "runs started for attempt {attempt}");
    }
}

pub(super) async fn repeated<T, F: Future<Output = Result<T, Fault>>>(call: impl Fn() -> F) -> T {
    let mut tries = 0;
    loop {
        match call().await {
            Ok(done) => return done,
            Err(fault) => tries = passing(&fault, tries).await,
        }
    }
}

/// A passing fault is waited for, as the flow does it.
async fn passing(fault: &Fault, tries: u32) -> u32 {
    assert!(matches!(fault, Fault::Passing { .. }), "{fault:?}");
    assert!(tries < 100, "it does not pass: {fault:?}");
    sleep(Duration::from_millis(20)).await;
    tries + 1
}

pub(super) async fn bounded<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    let done = timeout(PATIENCE, waiting).await;
    done.unwrap_or_else(|_| panic!("{what} takes longer than {PATIENCE:?}"))
}
