//! A request as an engine sees it, asked for by one worker after another.

use std::time::Duration;

use serde_json::Value;
use sparkferry_ports::engine::{Attached, Change, Ended, Engine, Fault, Run, Start, Unknown};
use sparkferry_shared::{Attempt, Names, OnFailure, RunError, Work};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::conformance::steps;

/// How long anything may take.
pub(super) const PATIENCE: Duration = Duration::from_mins(4);

/// A request and its computed names.
pub(super) struct Asked {
    pub(super) names: Names,
    work: Work,
    /// The attempt that is asked for.
    number: u32,
    /// Those before it.
    past: Vec<Attempt>,
}

impl Asked {
    pub(super) fn new(statements: &[String]) -> Self {
        Self {
            names: Names::new("conformance", "c", &Uuid::now_v7().to_string()),
            work: steps(statements),
            number: 1,
            past: Vec::new(),
        }
    }

    /// The attempt after this one, which ended so.
    pub(super) fn next(&self, error: RunError) -> Self {
        let mut past = self.past.clone();
        past.push(Attempt {
            number: self.number,
            key: self.names.key(self.number),
            run_id: None,
            operation_ids: Vec::new(),
            run_page_url: None,
            state: None,
            status: None,
            started_at: None,
            ended_at: None,
            setup_duration_ms: None,
            execution_duration_ms: None,
            queue_duration_ms: None,
            adopted: false,
            error: Some(error),
        });
        Self {
            names: self.names,
            work: self.work.clone(),
            number: self.number + 1,
            past,
        }
    }

    /// The server's name of the attempt.
    pub(super) fn session(&self) -> Uuid {
        self.names.key(self.number).as_uuid()
    }

    pub(super) async fn try_attach(
        &self,
        engine: &dyn Engine,
        seen_before: bool,
        unknown: Unknown,
    ) -> Result<Attached, Fault> {
        let start = Start {
            names: &self.names,
            attempt: self.number,
            work: &self.work,
            on_failure: OnFailure::Rerun,
            seen_before,
            unknown,
            past: &self.past,
            since: Instant::now(),
        };
        let attaching = engine.attach_or_start(&start);
        timeout(PATIENCE, attaching).await.expect("in time")
    }

    /// As a worker that is given the request for the first time.
    pub(super) async fn begin(&self, engine: &dyn Engine) -> Attached {
        let begun = self.try_attach(engine, false, Unknown::Start).await;
        begun.expect("it begins")
    }

    /// As a worker that is given it after another one, and may not run it twice.
    pub(super) async fn take_over(&self, engine: &dyn Engine) -> Attached {
        let found = self.try_attach(engine, true, Unknown::Lost).await;
        found.expect("it is there")
    }
}

pub(super) async fn change(run: &mut dyn Run) -> Change {
    timeout(PATIENCE, run.next()).await.expect("in time")
}

pub(super) async fn end(run: &mut dyn Run) -> Ended {
    loop {
        if let Change::Ended(ended) = change(run).await {
            return ended;
        }
    }
}

pub(super) async fn output(run: &mut dyn Run) -> Value {
    let output = run.output(100_000).await;
    output.expect("no fault").expect("it produced something")
}
