//! The fake keeps the promises of an engine too.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use sparkferry_ports::engine::Engine;
use sparkferry_shared::{Body, Key, Work};

use super::{FakeEngine, World};
use crate::engine::conformance::{self, Harness, SAID, Scenario};

#[async_trait]
impl Harness for World {
    fn engine(&self) -> Arc<dyn Engine> {
        Arc::new(FakeEngine::new(self.clone()))
    }

    fn work(&self, scenario: Scenario) -> Option<Work> {
        let said = |times: usize| json!(vec![SAID; times]);
        let plan = match scenario {
            Scenario::Succeeds => json!({ "output": SAID }),
            Scenario::FailsByUser => json!({ "endings": ["user"], "message": SAID }),
            Scenario::FailsByInfrastructure => json!({ "endings": ["infrastructure"] }),
            Scenario::UntilCancelled => json!({ "duration_ms": 1_000_000 }),
            Scenario::ThreeTasks => json!({ "tasks": 3, "output": said(3) }),
            Scenario::LargeOutput => json!({ "output": said(10_000) }),
        };
        let mut plan: Value = plan;
        if plan["duration_ms"].is_null() {
            plan["duration_ms"] = json!(100);
        }
        let mut body = Body::default();
        body.set("job_id", &1).unwrap();
        body.set("fake", &plan).unwrap();
        Some(Work::RunNow(body))
    }

    async fn runs_started(&self, key: Key) -> u64 {
        self.knows(&key).into()
    }

    async fn forget(&self, key: Key) {
        World::forget(self, &key);
    }
}

#[tokio::test(start_paused = true)]
async fn the_fake_keeps_the_promises_of_an_engine() {
    conformance::all(&World::default()).await;
}
