//! What the stories share: a sandbox, a queue of its own, worker processes, a producer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::ops::Deref;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use serde_json::{Value, json};
use sparkferry_agent::queue::amqp::AmqpProducer;
use sparkferry_agent::queue::sqlite::SqliteProducer;
use sparkferry_agent::queue::{Listen, News, Producer};
use sparkferry_agent::sandbox::{Sandbox, SandboxOptions};
use sparkferry_shared::{EventType, Id, RunResult, Topology};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The one connection of all stories.
pub(crate) const CONNECTION: &str = "prod";
/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The queue of [`Place::Sqlite`], in the story's folder.
const DATABASE: &str = "queue.db";
/// What a worker promises its service manager.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Ends a worker by SIGTERM, as it promises.
pub(crate) async fn stop(worker: &mut Child) {
    signal(worker, "TERM").await;
    let ended = timeout(STOP_LIMIT, worker.wait()).await;
    let ended = ended.unwrap_or_else(|_| panic!("it runs on after {STOP_LIMIT:?}"));
    assert_eq!(ended.expect("our own child").code(), Some(0));
}

/// Sends a signal by its name, such as `STOP`.
pub(crate) async fn signal(worker: &Child, name: &str) {
    let pid = worker.id().expect("it runs").to_string();
    let signal = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(signal.await.expect("kill is there").success());
}

/// A sandbox that serves until it is dropped.
pub(crate) struct Workspace {
    pub(crate) host: String,
    http: reqwest::Client,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Workspace {
    pub(crate) async fn start() -> Self {
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

    pub(crate) async fn rules(&self, rules: Value) {
        self.post("sandbox/rules", &rules).await;
    }

    /// Forgets all rules: from now on every call is served.
    pub(crate) async fn calm(&self) {
        let call = self.http.delete(format!("{}/sandbox/rules", self.host));
        let calmed = call.send().await.expect("the sandbox answers");
        assert!(calmed.status().is_success(), "{calmed:?}");
    }

    /// A call that is no worker's.
    pub(crate) async fn post(&self, path: &str, body: &Value) {
        let url = format!("{}/{path}", self.host);
        let call = self.http.post(url).bearer_auth("any").json(body);
        let posted = call.send().await.expect("the sandbox answers");
        assert!(posted.status().is_success(), "{posted:?}");
    }

    pub(crate) async fn stats(&self) -> Value {
        self.page("stats").await
    }

    /// A page of the sandbox's own: `stats`, `runs` or `rules`.
    pub(crate) async fn page(&self, name: &str) -> Value {
        let url = format!("{}/sandbox/{name}", self.host);
        let reply = self.http.get(url).send().await;
        let reply = reply.expect("the sandbox answers");
        reply.json().await.expect("JSON")
    }

    /// Looks at the books until they say so.
    pub(crate) async fn until(&self, what: &str, say: impl Fn(&Value) -> bool) -> Value {
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
    pub(crate) fn close(&self) {
        self.serving.abort();
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        self.close();
    }
}

/// A queue that belongs to one story.
pub(crate) enum Place {
    /// RabbitMQ at this URL.
    Amqp(String),
    /// RabbitMQ, which the workers reach by another way than the producer.
    Proxied { worker: String, producer: String },
    /// A database in the story's folder.
    Sqlite,
}

impl Place {
    /// The RabbitMQ that all tests share.
    pub(crate) fn shared_broker() -> Self {
        let url = std::env::var("TEST_AMQP_URL");
        Self::Amqp(url.unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned()))
    }
}

/// A queue with names of its own, a folder for the workers' files, and their configuration.
pub(crate) struct Ground {
    pub(crate) topology: Topology,
    folder: TempDir,
    place: Place,
    configuration: PathBuf,
}

impl Ground {
    /// `hold_limit_seconds` is that of the workers, `connection` the settings of [`CONNECTION`].
    pub(crate) fn new(place: Place, hold_limit_seconds: u32, connection: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let topology = Topology::new(format!("story-{}", Uuid::now_v7().simple()));
        let url = match &place {
            Place::Amqp(url) => url.clone(),
            Place::Proxied { worker, .. } => worker.clone(),
            Place::Sqlite => format!("sqlite:{}", folder.path().join(DATABASE).display()),
        };
        let text = format!(
            r#"
namespace = "{}"
[queue]
url = "{url}"
hold_limit_seconds = {hold_limit_seconds}
[http]
listen = ""
[log]
level = "warn"
[connections.{CONNECTION}]
{connection}
"#,
            topology.namespace(),
        );
        let configuration = folder.path().join("agent.toml");
        fs::write(&configuration, text).expect("our own folder");
        Self {
            topology,
            folder,
            place,
            configuration,
        }
    }

    /// Changes a part of the workers' configuration, which they read when they are told to.
    pub(super) fn reconfigure(&self, part: &str, instead: &str) {
        let text = fs::read_to_string(&self.configuration).expect("our own file");
        assert!(text.contains(part), "{text}");
        fs::write(&self.configuration, text.replace(part, instead)).expect("our own file");
    }

    /// The file of [`Place::Sqlite`].
    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join(DATABASE)
    }

    /// What the workers have logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("workers.log")).unwrap_or_default()
    }

    /// Further settings, for workers to come.
    pub(super) fn add_settings(&self, text: &str) {
        let before = fs::read_to_string(&self.configuration).expect("our own file");
        fs::write(&self.configuration, before + text).expect("our own file");
    }

    /// Starts a worker process. It is killed when it is dropped.
    pub(crate) fn worker(&self) -> Child {
        self.worker_with(&[])
    }

    /// The same, with variables that go over the settings.
    pub(crate) fn worker_with(&self, variables: &[(&str, &str)]) -> Child {
        let log = self.folder.path().join("workers.log");
        let log = OpenOptions::new().create(true).append(true).open(log);
        let log = log.expect("our own folder");
        let copy = log.try_clone().expect("a file");
        self.command("run")
            .envs(variables.iter().copied())
            .stdout(log)
            .stderr(copy)
            .spawn()
            .expect("our own program")
    }

    /// The results that wait in the broker's queue for them.
    pub(super) async fn results_waiting(&self) -> u32 {
        let Place::Amqp(url) = &self.place else {
            panic!("this story has no broker");
        };
        let connecting = Connection::connect(url, ConnectionProperties::default());
        let connection = connecting.await.expect("the broker is there");
        let channel = connection.create_channel().await.expect("a channel");
        let name = self.topology.results_queue().into();
        let options = QueueDeclareOptions::durable().passive();
        let queue = channel.queue_declare(name, options, FieldTable::default());
        queue.await.expect("it is there").message_count()
    }

    /// The program, with the workers' configuration. It is killed when it is dropped.
    pub(crate) fn command(&self, command: &str) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_sparkferry"));
        program
            .args([command, "--config"])
            .arg(&self.configuration)
            .current_dir(self.folder.path())
            .env_clear()
            .stdin(Stdio::null())
            .kill_on_drop(true);
        program
    }

    /// A producer, connected.
    pub(crate) async fn producer(&self) -> Box<dyn Producer> {
        match &self.place {
            Place::Amqp(url) | Place::Proxied { producer: url, .. } => {
                let url = url.clone().into();
                let connected = AmqpProducer::connect(&url, &self.topology, true).await;
                Box::new(connected.expect("the broker is there"))
            }
            Place::Sqlite => Box::new(
                SqliteProducer::open(&self.database(), &self.topology).expect("our own folder"),
            ),
        }
    }
}

impl Ground {
    /// Submits requests with these ids, once there is somebody to hear what becomes of them.
    pub(crate) async fn submit(
        &self,
        requests: Vec<(Id, Vec<u8>)>,
    ) -> (Box<dyn Producer>, Receiver<News>) {
        let producer = self.producer().await;
        let ids = requests.iter().map(|(id, _)| id.clone()).collect();
        let news = producer.listen(Listen::Mine(ids)).await;
        let news = news.expect("the queue is there");
        let sending = async {
            for (id, body) in requests {
                let sent = producer.submit(CONNECTION, &id, body.into()).await;
                sent.expect("the queue takes it");
            }
        };
        let sent = timeout(PATIENCE, sending).await;
        sent.expect("waited in vain for the submissions");
        (producer, news)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("the workers' last lines, newest first: {last:#?}");
        }
        if let Place::Amqp(url) | Place::Proxied { producer: url, .. } = &self.place {
            let (url, topology) = (url.clone(), self.topology.clone());
            let cleaning = std::thread::spawn(move || {
                let runtime = tokio::runtime::Runtime::new().expect("threads");
                runtime.block_on(delete(&url, &topology));
            });
            let _ = cleaning.join();
        }
    }
}

/// A ground and a sandbox.
pub(super) struct Story {
    pub(super) workspace: Workspace,
    ground: Ground,
}

impl Deref for Story {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

impl Story {
    /// `hold_limit_seconds` is that of the workers.
    pub(super) async fn new(place: Place, hold_limit_seconds: u32) -> Self {
        let workspace = Workspace::start().await;
        let connection = format!(
            r#"
type = "databricks"
host = "{}"
auth = {{ type = "pat", token = "any" }}
max_active_runs = 1000
submit_per_second = 300
poll_per_second = 100
poll_interval_seconds = {{ min = 0.2, max = 1.0 }}
"#,
            workspace.host,
        );
        let ground = Ground::new(place, hold_limit_seconds, &connection);
        Self { workspace, ground }
    }

    /// Submits everything, once there is somebody to hear what becomes of it.
    pub(super) async fn submit(&self, work: &[Work]) -> (Box<dyn Producer>, Receiver<News>) {
        let requests = work.iter().map(|work| (work.id.clone(), work.body()));
        self.ground.submit(requests.collect()).await
    }
}

/// Takes a story's names off the broker. What is not there is no error, nor is a broker that is away.
async fn delete(url: &str, topology: &Topology) {
    let connecting = Connection::connect(url, ConnectionProperties::default());
    let Ok(connection) = connecting.await else {
        return;
    };
    let Ok(channel) = connection.create_channel().await else {
        return;
    };
    for queue in [
        topology.requests_queue(CONNECTION),
        topology.results_queue(),
        topology.dead_queue(),
        topology.control_queue(),
    ] {
        let deleted = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
        let _ = deleted.await;
    }
    for exchange in [
        topology.requests_exchange(),
        topology.results_exchange(),
        topology.events_exchange(),
        topology.control_exchange(),
        topology.dead_exchange(),
    ] {
        let deleted = channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default());
        let _ = deleted.await;
    }
}

/// One request: a one-time run of one task.
pub(crate) struct Work {
    pub(crate) id: Id,
    pub(crate) duration_ms: usize,
    /// What becomes of its first attempt, its second, and so on.
    pub(crate) outcomes: &'static str,
    /// Its label `team`.
    pub(super) label: Option<&'static str>,
}

impl Work {
    pub(crate) fn new(number: usize, duration_ms: usize, outcomes: &'static str) -> Self {
        Self {
            id: format!("work-{number}").parse().expect("an id"),
            duration_ms,
            outcomes,
            label: None,
        }
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let parameters = json!({
            "sandbox.duration_ms": self.duration_ms.to_string(),
            "sandbox.outcomes": self.outcomes,
        });
        let body = json!({
            "id": self.id.as_str(),
            "labels": self.label.map(|label| json!({"team": label})).unwrap_or(json!({})),
            "max_retries": 3,
            "min_retry_interval_millis": 100,
            "max_retry_interval_millis": 200,
            "submit_run": {"run_name": self.id.as_str(), "tasks": [{
                "task_key": "main",
                "existing_cluster_id": "c",
                "notebook_task": {"notebook_path": "/n", "base_parameters": parameters},
            }]},
        });
        serde_json::to_vec(&body).expect("JSON")
    }
}

/// What a producer has heard so far.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) results: BTreeMap<Id, RunResult>,
    pub(crate) events: Vec<(Id, EventType)>,
}

impl Heard {
    /// Listens until so many distinct requests have had such an event.
    pub(super) async fn events_of(
        &mut self,
        news: &mut Receiver<News>,
        event_type: EventType,
        wanted: usize,
    ) {
        let mut ids = BTreeSet::new();
        while ids.len() < wanted {
            let heard = timeout(PATIENCE, news.recv()).await;
            let heard = heard
                .unwrap_or_else(|_| panic!("{event_type:?} of {} requests of {wanted}", ids.len()));
            match heard.expect("the producer listens") {
                News::Event(event) => {
                    if event.event_type == event_type {
                        ids.insert(event.id.clone());
                    }
                    self.events.push((event.id, event.event_type));
                }
                News::Result(result) => drop(self.results.insert(result.id.clone(), *result)),
            }
        }
    }

    /// Listens until there are so many distinct results. A result that comes twice is the same.
    pub(crate) async fn listen(&mut self, news: &mut Receiver<News>, wanted: usize) {
        while self.results.len() < wanted {
            let heard = timeout(PATIENCE, news.recv()).await;
            let heard = heard.unwrap_or_else(|_| {
                panic!("{} results of {wanted}, and no more", self.results.len())
            });
            match heard.expect("the producer listens") {
                News::Event(event) => self.events.push((event.id, event.event_type)),
                News::Result(result) => {
                    let before = self.results.insert(result.id.clone(), (*result).clone());
                    if let Some(before) = before {
                        assert_eq!(before.outcome, result.outcome, "{}", result.id);
                    }
                }
            }
        }
    }
}

/// A number in the books; 0 where it is absent.
pub(crate) fn count(stats: &Value, pointer: &str) -> u64 {
    stats.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// Exactly one run for each attempt that was reported, and no other.
pub(crate) fn one_run_for_each_attempt(heard: &Heard, stats: &Value) {
    let reported: BTreeMap<String, u64> = heard
        .results
        .values()
        .flat_map(|result| &result.attempts)
        .map(|attempt| (attempt.key.to_string(), 1))
        .collect();
    let books = stats["runs_by_token"].clone();
    let books: BTreeMap<String, u64> = serde_json::from_value(books).expect("counts by token");
    assert_eq!(books, reported);
    assert_eq!(count(stats, "/runs_started"), reported.len() as u64);
}
