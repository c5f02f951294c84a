//! The promises that every engine makes.

use async_trait::async_trait;
use sparkferry_shared::Key;
use sparkferry_testkit::engine::conformance::{self, Harness, SAID, Scenario};

use super::*;

#[async_trait]
impl Harness for Ground {
    fn engine(&self) -> Arc<dyn Engine> {
        self.engine()
    }

    fn work(&self, scenario: Scenario) -> Option<Work> {
        let soon = |more: Value| {
            let mut choices = json!({"sandbox.duration_ms": "100"});
            choices
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            choices
        };
        let output = json!({"sandbox.output": SAID});
        Some(match scenario {
            Scenario::Succeeds => submit(soon(output)),
            Scenario::FailsByUser => submit(soon(json!({
                "sandbox.outcome": "FAILED", "sandbox.error": SAID, "sandbox.trace": "at line 1"
            }))),
            Scenario::FailsByInfrastructure => {
                submit(soon(json!({"sandbox.outcome": "CLUSTER_ERROR"})))
            }
            Scenario::UntilCancelled => submit(json!({"sandbox.duration_ms": "1000000"})),
            Scenario::ThreeTasks => {
                let task = |key: &str, after: Value| {
                    json!({"task_key": key, "depends_on": after, "notebook_task":
                        {"notebook_path": "/n", "base_parameters": soon(output.clone())}})
                };
                tasks(json!([
                    task("a", json!([])),
                    task("b", json!([{"task_key": "a"}])),
                    task("c", json!([{"task_key": "b"}])),
                ]))
            }
            Scenario::LargeOutput => submit(soon(
                json!({"sandbox.output": "all hands\n".repeat(12_000)}),
            )),
        })
    }

    async fn runs_started(&self, key: Key) -> u64 {
        self.stats().await["runs_by_token"][key.to_string()]
            .as_u64()
            .unwrap_or(0)
    }

    async fn forget(&self, key: Key) {
        // The faults of a test strike this call too.
        loop {
            let runs = self.get("sandbox/runs").await;
            let of_key = |run: &&Value| run["token"] == key.to_string();
            let run = runs.as_array().unwrap().iter().find(of_key).unwrap();
            if run["deleted"] == true {
                return;
            }
            let url = format!("{}/api/2.2/jobs/runs/delete", self.host);
            let body = json!({"run_id": run["run_id"]}).to_string();
            let call = self.http.post(url).bearer_auth("t0k3n").body(body);
            let _ = call.send().await;
        }
    }
}

#[tokio::test]
async fn databricks_keeps_the_promises_of_an_engine() {
    conformance::all(&Ground::new().await).await;
}

#[tokio::test]
async fn and_keeps_them_when_a_fifth_of_the_calls_go_wrong() {
    let ground = Ground::new().await;
    ground
        .rules(json!([
            {"call": "jobs/*", "probability": 0.05, "seed": 1, "status": 500},
            {"call": "jobs/*", "probability": 0.05, "seed": 2, "lose_reply": true},
            {"call": "jobs/*", "probability": 0.05, "seed": 3, "half_reply": true},
            {"call": "jobs/*", "probability": 0.03, "seed": 4, "reset": true},
            {"call": "jobs/*", "probability": 0.02, "seed": 5, "html": true, "status": 200},
        ]))
        .await;
    conformance::all(&ground).await;
}
