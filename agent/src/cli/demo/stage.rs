//! What the demo plays on: a sandbox, a queue in a file and a worker, in this process. A Spark Connect
//! server, if there is one, is a second connection.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sparkferry_ports::engine::Engine;
use sparkferry_ports::queue::Producer as _;
use sparkferry_sandbox::{Sandbox, SandboxOptions};
use sparkferry_shared::{Names, Topology};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::cases;
use crate::cli::exit::Exit;
use crate::cli::problem::Problem;
use crate::config::{Auth, DatabricksSettings, Reach, SecretSource};
use crate::engine::databricks::DatabricksEngine;
use crate::queue::sqlite::{SqliteProducer, SqliteQueue};
use crate::worker::{Parts, Served, Worker};

/// The connection to the sandbox.
pub(super) const CONNECTION: &str = "sandbox";
/// The connection to a Spark Connect server.
pub(super) const SPARK: &str = "spark";
/// Attempts of one request whose runs are looked for: more than any request of the demo may make.
const ATTEMPTS: u32 = 8;
/// How long a call to the sandbox may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that runs.
pub(super) struct Stage {
    /// Where requests are put and news comes from.
    pub(super) producer: SqliteProducer,
    /// Where the sandbox serves.
    pub(super) host: String,
    namespace: String,
    http: reqwest::Client,
    working: (CancellationToken, JoinHandle<()>),
    serving: (CancellationToken, JoinHandle<()>),
}

impl Stage {
    /// Starts all of it, with its queue in `folder`. With `python`, Python files are really run.
    /// `spark` is the engine of the connection [`SPARK`].
    pub(super) async fn set(
        folder: &Path,
        python: bool,
        namespace: String,
        spark: Option<Arc<dyn Engine>>,
    ) -> Result<Self, Problem> {
        let sandbox = Sandbox::bind(SandboxOptions {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            token: None,
            exec: python,
            allow_remote: false,
        })
        .await
        .map_err(failed)?;
        let host = sandbox.host();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(CALL_TIMEOUT)
            .build()
            .map_err(failed)?;
        let engine = DatabricksEngine::new(CONNECTION, &settings(&host)?).map_err(failed)?;
        let (queue, producer) = open(folder, &namespace).await?;
        let mut engines =
            BTreeMap::from([(CONNECTION.to_owned(), Served::new(100, Arc::new(engine)))]);
        engines.extend(spark.map(|engine| (SPARK.to_owned(), Served::new(16, engine))));
        let worker = Worker::new(Parts {
            topology: Topology::new(namespace.clone()),
            worker: "demo".to_owned(),
            max_message_bytes: 1 << 20,
            max_output_bytes: 256 * 1024,
            queue,
            engines,
        });
        let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
        let serving = tokio::spawn({
            let stop = stop.clone();
            async move {
                if let Err(error) = sandbox.serve(stop).await {
                    tracing::error!(%error, "the sandbox stopped serving");
                }
            }
        });
        let working = tokio::spawn({
            let stop = stopped.clone();
            async move {
                if let Err(error) = worker.run(&stop).await {
                    tracing::error!(%error, "the worker stopped");
                }
            }
        });
        Ok(Self {
            producer,
            host,
            namespace,
            http,
            working: (stopped, working),
            serving: (stop, serving),
        })
    }

    /// Creates the job that a request names, and the rule by which a reply gets lost.
    pub(super) async fn prepare(&self) -> Result<(), Problem> {
        for (path, body) in [
            ("/api/2.2/jobs/create", cases::job()),
            ("/sandbox/rules", cases::rule()),
        ] {
            let sent = self.http.post(format!("{}{path}", self.host));
            let reply = sent.bearer_auth("demo").json(&body).send().await;
            reply
                .and_then(reqwest::Response::error_for_status)
                .map_err(failed)?;
        }
        Ok(())
    }

    /// The sandbox's books.
    pub(super) async fn stats(&self) -> Result<Stats, Problem> {
        let asked = self.http.get(format!("{}/sandbox/stats", self.host));
        let reply = asked.send().await.map_err(failed)?;
        Ok(Stats {
            books: reply.json().await.map_err(failed)?,
            namespace: self.namespace.clone(),
        })
    }

    /// Ends it all: the worker first, that it finds the sandbox there.
    pub(super) async fn clear(self) {
        self.producer.close().await;
        for (stop, task) in [self.working, self.serving] {
            stop.cancel();
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of the demo ended badly");
            }
        }
    }
}

/// What the sandbox counted.
pub(super) struct Stats {
    books: Value,
    namespace: String,
}

impl Stats {
    /// Runs that were really created for a request.
    pub(super) fn runs_of(&self, id: &str) -> u64 {
        let names = Names::new(&self.namespace, CONNECTION, id);
        (1..=ATTEMPTS)
            .filter_map(|attempt| {
                self.books["runs_by_token"][names.key(attempt).to_string()].as_u64()
            })
            .sum()
    }

    /// Replies to runs/submit that were lost.
    pub(super) fn lost_replies(&self) -> u64 {
        let calls = &self.books["calls"]["jobs/runs/submit"];
        calls["cut"].as_u64().unwrap_or_default()
    }
}

/// A namespace that no other demo has: a Spark Connect server may have seen one before, and the same
/// names are the same runs.
pub(super) fn namespace() -> String {
    format!("demo-{}", Uuid::now_v7().simple())
}

/// Faster than towards a workspace: this one is ours alone.
fn settings(host: &str) -> Result<DatabricksSettings, Problem> {
    Ok(DatabricksSettings {
        host: host.parse().map_err(failed)?,
        auth: Auth::Pat(SecretSource::Value("demo".to_owned().into())),
        reach: Reach::default(),
        max_active_runs: 100,
        submit_per_second: 50.0,
        poll_per_second: 100.0,
        poll_interval: (Duration::from_millis(200), Duration::from_secs(1)),
        call_timeout: CALL_TIMEOUT,
    })
}

async fn open(
    folder: &Path,
    namespace: &str,
) -> Result<(Arc<SqliteQueue>, SqliteProducer), Problem> {
    let path = folder.join("queue.db");
    let topology = Topology::new(namespace);
    let opening = tokio::task::spawn_blocking(move || {
        let queue = SqliteQueue::open(&path, &topology, "demo")?;
        Ok::<_, Problem>((queue, SqliteProducer::open(&path, &topology)?))
    });
    opening.await.map_err(failed)?
}

/// Something that the demo needs is not to be had.
pub(super) fn failed(error: impl std::fmt::Display) -> Problem {
    Problem::told(Exit::NotSucceeded, format!("the demo can't go on: {error}"))
}
