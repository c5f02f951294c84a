//! The sandbox over real HTTP.

mod access;
mod exec;
mod faults;
mod rounds;
mod runs;
mod tokens;

use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Sandbox, SandboxOptions};

/// A sandbox that serves, and a client for it.
struct Workspace {
    host: String,
    client: Client,
    stop: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

fn options(exec: bool) -> SandboxOptions {
    SandboxOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        token: None,
        exec,
        allow_remote: false,
    }
}

impl Workspace {
    async fn start() -> Self {
        Self::with(options(false)).await
    }

    async fn with(options: SandboxOptions) -> Self {
        // Fails when another test of this process was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let sandbox = Sandbox::bind(options).await.unwrap();
        let host = sandbox.host();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(sandbox.serve(stop.clone()));
        let client = Client::builder().no_proxy().build().unwrap();
        Self {
            host,
            client,
            stop,
            serving,
        }
    }

    /// Sends a call under the token `t`, or says how the connection failed.
    async fn send(&self, method: Method, path: &str, body: &Value) -> reqwest::Result<Response> {
        let request = self
            .client
            .request(method, format!("{}{path}", self.host))
            .bearer_auth("t");
        if body.is_null() {
            request.send().await
        } else {
            request.json(body).send().await
        }
    }

    /// Status and body of a call.
    async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let response = self.send(method, path, &body).await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(Method::POST, path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    async fn refused(&self, method: Method, path: &str, body: Value) -> (u16, String, String) {
        let (status, body) = self.call(method, path, body).await;
        assert!(status >= 400, "{path}: {body}");
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        (status, text("error_code"), text("message"))
    }

    async fn rule(&self, rule: Value) {
        self.post("/sandbox/rules", rule).await;
    }

    async fn submit(&self, body: Value) -> i64 {
        self.post("/api/2.2/jobs/runs/submit", body).await["run_id"]
            .as_i64()
            .unwrap()
    }

    async fn run(&self, run_id: i64) -> Value {
        self.get(&format!("/api/2.2/jobs/runs/get?run_id={run_id}"))
            .await
    }

    /// Polls a run until it has ended.
    async fn end(&self, run_id: i64) -> Value {
        loop {
            let run = self.run(run_id).await;
            if run["status"]["state"] == "TERMINATED" {
                return run;
            }
        }
    }

    async fn output(&self, run: &Value, task: usize) -> Value {
        let id = &run["tasks"][task]["run_id"];
        self.get(&format!("/api/2.2/jobs/runs/get-output?run_id={id}"))
            .await
    }

    async fn stats(&self) -> Value {
        self.get("/sandbox/stats").await
    }

    async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap().unwrap();
    }
}

/// A task that is only pretended, with choices.
fn notebook(key: &str, choices: &Value) -> Value {
    json!({"task_key": key, "notebook_task": {"notebook_path": "/n", "base_parameters": choices}})
}

/// A submit body of one such task.
fn one(choices: &Value) -> Value {
    json!({"run_name": "r", "tasks": [notebook("main", choices)]})
}
