//! The sandbox of a story.

use std::time::Duration;

use serde_json::Value;
use sparkferry_sandbox::{Sandbox, SandboxOptions};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

use super::PATIENCE;

/// A sandbox that serves until it is dropped.
pub struct Workspace {
    /// Its URL.
    pub host: String,
    http: reqwest::Client,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Workspace {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        // Only the first of several tests in a process installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let sandbox = Sandbox::bind(SandboxOptions {
            listen: "127.0.0.1:0".parse().expect("an address"),
            token: None,
            exec: false,
            allow_remote: false,
        });
        let sandbox = sandbox.await.expect("a free port");
        Self {
            host: sandbox.host(),
            http: reqwest::Client::builder().no_proxy().build().expect("TLS"),
            serving: tokio::spawn(sandbox.serve(CancellationToken::new())),
        }
    }

    /// Adds rules for calls and runs to come.
    pub async fn rules(&self, rules: Value) {
        self.post("sandbox/rules", &rules).await;
    }

    /// Forgets all rules: from now on every call is served.
    pub async fn calm(&self) {
        let call = self.http.delete(format!("{}/sandbox/rules", self.host));
        let calmed = call.send().await.expect("the sandbox answers");
        assert!(calmed.status().is_success(), "{calmed:?}");
    }

    /// A call that is no worker's.
    pub async fn post(&self, path: &str, body: &Value) {
        let url = format!("{}/{path}", self.host);
        let call = self.http.post(url).bearer_auth("any").json(body);
        let posted = call.send().await.expect("the sandbox answers");
        assert!(posted.status().is_success(), "{posted:?}");
    }

    /// What was asked of it, and what it started.
    pub async fn stats(&self) -> Value {
        self.page("stats").await
    }

    /// A page of the sandbox's own: `stats`, `runs` or `rules`.
    pub async fn page(&self, name: &str) -> Value {
        let url = format!("{}/sandbox/{name}", self.host);
        let reply = self.http.get(url).send().await;
        let reply = reply.expect("the sandbox answers");
        reply.json().await.expect("JSON")
    }

    /// Looks at the books until they say so.
    pub async fn until(&self, what: &str, say: impl Fn(&Value) -> bool) -> Value {
        let mut looks = interval(Duration::from_millis(100));
        let looking = async {
            loop {
                looks.tick().await;
                let stats = self.stats().await;
                if say(&stats) {
                    return stats;
                }
            }
        };
        let found = timeout(PATIENCE, looking).await;
        found.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }
}

impl Workspace {
    /// Serves no longer.
    pub fn close(&self) {
        self.serving.abort();
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        self.close();
    }
}

/// A number in the books; 0 where it is absent.
pub fn count(stats: &Value, pointer: &str) -> u64 {
    stats.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}
