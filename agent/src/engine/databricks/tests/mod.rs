//! The engine against the stand-in workspace, over real HTTP.

#[cfg(feature = "spark_connect")]
mod clusters;
mod conforms;
mod faults;
mod reach;
mod repairs;
mod runs;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sparkferry_ports::engine::{
    Attached, Change, Ended, Engine, Fault, Run, Start, State, Unknown,
};
use sparkferry_sandbox::{Sandbox, SandboxOptions};
use sparkferry_shared::{Body, Names, OnFailure, Work};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::DatabricksEngine;
use crate::config::{Auth, DatabricksSettings, Reach, SecretSource};

/// A workspace of its own for one test.
struct Ground {
    host: String,
    http: reqwest::Client,
    _serving: DropGuard,
}

impl Ground {
    async fn new() -> Self {
        // The first test installs it; the others find it.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let sandbox = Sandbox::bind(SandboxOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            token: Some("t0k3n".to_owned().into()),
            exec: false,
            allow_remote: false,
        })
        .await
        .unwrap();
        let host = sandbox.host();
        let stop = CancellationToken::new();
        tokio::spawn(sandbox.serve(stop.clone()));
        Self {
            host,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            _serving: stop.drop_guard(),
        }
    }

    fn settings(&self) -> DatabricksSettings {
        DatabricksSettings {
            host: self.host.parse().unwrap(),
            auth: Auth::Pat(SecretSource::Value("t0k3n".to_owned().into())),
            reach: Reach::default(),
            max_active_runs: 1000,
            submit_per_second: 1000.0,
            poll_per_second: 1000.0,
            poll_interval: (Duration::from_millis(20), Duration::from_millis(100)),
            call_timeout: Duration::from_secs(10),
        }
    }

    /// Another worker.
    fn engine(&self) -> Arc<DatabricksEngine> {
        self.engine_with(|_| {})
    }

    fn engine_with(&self, change: impl FnOnce(&mut DatabricksSettings)) -> Arc<DatabricksEngine> {
        let mut settings = self.settings();
        change(&mut settings);
        Arc::new(DatabricksEngine::new("test", &settings).unwrap())
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let url = format!("{}/{path}", self.host);
        let request = self.http.post(url).bearer_auth("t0k3n");
        let reply = request.body(body.to_string()).send().await.unwrap();
        let status = reply.status();
        let text = reply.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn get(&self, path: &str) -> Value {
        let url = format!("{}/{path}", self.host);
        let reply = self.http.get(url).send().await.unwrap();
        serde_json::from_str(&reply.text().await.unwrap()).unwrap()
    }

    async fn rules(&self, rules: Value) {
        self.post("sandbox/rules", rules).await;
    }

    async fn stats(&self) -> Value {
        self.get("sandbox/stats").await
    }

    /// Calls of one kind so far.
    async fn calls(&self, call: &str) -> u64 {
        self.stats().await["calls"][call]["total"]
            .as_u64()
            .unwrap_or(0)
    }
}

/// A request and its computed names.
struct Asked {
    names: Names,
    work: Work,
    on_failure: OnFailure,
}

impl Asked {
    fn new(work: Work) -> Self {
        Self {
            names: Names::new("test", "test", &Uuid::now_v7().to_string()),
            work,
            on_failure: OnFailure::Rerun,
        }
    }

    fn repairing(work: Work) -> Self {
        Self {
            on_failure: OnFailure::Repair,
            ..Self::new(work)
        }
    }

    async fn try_attach(
        &self,
        engine: &DatabricksEngine,
        attempt: u32,
        seen_before: bool,
    ) -> Result<Attached, Fault> {
        let start = Start {
            names: &self.names,
            attempt,
            work: &self.work,
            on_failure: self.on_failure,
            seen_before,
            unknown: Unknown::Start,
            past: &[],
            since: Instant::now(),
        };
        let attaching = engine.attach_or_start(&start);
        timeout(Duration::from_secs(30), attaching).await.unwrap()
    }

    /// As the flow does it: passing faults are repeated.
    async fn attach(&self, engine: &DatabricksEngine, attempt: u32, seen_before: bool) -> Attached {
        loop {
            match self.try_attach(engine, attempt, seen_before).await {
                Ok(attached) => return attached,
                Err(Fault::Passing { .. }) => sleep(Duration::from_millis(10)).await,
                Err(fault) => panic!("{fault:?}"),
            }
        }
    }

    fn token(&self, attempt: u32) -> String {
        self.names.key(attempt).to_string()
    }
}

/// One-time work with these choices for its only task.
fn submit(choices: impl Into<Value>) -> Work {
    let choices: Value = choices.into();
    tasks(json!([{"task_key": "main", "notebook_task":
        {"notebook_path": "/n", "base_parameters": choices}}]))
}

fn tasks(tasks: impl Into<Value>) -> Work {
    let tasks: Value = tasks.into();
    Work::SubmitRun(body(json!({"run_name": "r", "tasks": tasks})))
}

fn body(value: Value) -> Body {
    serde_json::from_value(value).unwrap()
}

async fn change(run: &mut dyn Run) -> Change {
    timeout(Duration::from_mins(1), run.next()).await.unwrap()
}

async fn end(run: &mut dyn Run) -> Ended {
    loop {
        if let Change::Ended(ended) = change(run).await {
            return ended;
        }
    }
}

async fn state(run: &mut dyn Run) -> State {
    match change(run).await {
        Change::State(state) => state,
        Change::Ended(ended) => panic!("it ended: {ended:?}"),
    }
}

/// As the flow does it: passing faults are repeated.
async fn output(run: &mut dyn Run, limit: usize) -> Value {
    loop {
        match run.output(limit).await {
            Ok(output) => return output.unwrap_or_default(),
            Err(Fault::Passing { .. }) => sleep(Duration::from_millis(10)).await,
            Err(fault) => panic!("{fault:?}"),
        }
    }
}
