//! What the stories share: a sandbox, a queue of its own, worker processes, a producer.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::ops::Deref;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use lapin::options::{
    BasicGetOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use sparkferry_agent::queue::amqp::AmqpProducer;
use sparkferry_agent::queue::sqlite::SqliteProducer;
use sparkferry_ports::queue::{Listen, News, Producer};
use sparkferry_shared::{Id, Outcome, RunResult, Topology};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::mpsc::Receiver;
use tokio::time::{interval, timeout};
use uuid::Uuid;

pub(crate) use sparkferry_testkit::story::processes::{
    FULL_DISK, limit_files, peak_memory, signal, stop,
};
pub(crate) use sparkferry_testkit::story::{
    Heard, PATIENCE, Work, Workspace, count, one_run_for_each_attempt,
};

/// The connection of all stories.
pub(crate) const CONNECTION: &str = "prod";
/// A further one, of those that [`Story::with_another`] has.
pub(super) const OTHER: &str = "lake";

/// The queue of [`Place::Sqlite`], in the story's folder.
const DATABASE: &str = "queue.db";
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

    /// Waits until a worker of this name has said that it works.
    pub(crate) async fn until_at_work(&self, name: &str) {
        let said = |line: &str| line.contains("\"working\"") && line.contains(name);
        self.until_logged(said).await;
    }

    /// Waits for a line of the workers' log.
    pub(crate) async fn until_logged(&self, wanted: impl Fn(&str) -> bool) {
        let looking = async {
            let mut looks = interval(Duration::from_millis(100));
            while !self.log().lines().any(&wanted) {
                looks.tick().await;
            }
        };
        let came = timeout(PATIENCE, looking).await;
        came.expect("waited in vain for a line of the log");
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
        // The system's answer to a file that may not grow is first a signal that kills, and an error
        // only to those who ignore it, or whose parent did.
        let program = self.command("run");
        let program = program.as_std();
        Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(program.get_program())
            .args(program.get_args())
            .current_dir(self.folder.path())
            .env_clear()
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .envs(variables.iter().copied())
            .stdout(log)
            .stderr(copy)
            .spawn()
            .expect("our own program")
    }

    /// The results that wait in the broker's queue for them.
    pub(super) async fn results_waiting(&self) -> u32 {
        let (_connection, channel) = self.channel().await;
        let name = self.topology.results_queue().into();
        let options = QueueDeclareOptions::durable().passive();
        let queue = channel.queue_declare(name, options, FieldTable::default());
        queue.await.expect("it is there").message_count()
    }

    /// Takes so many results out of the broker's queue for them.
    pub(super) async fn take_results(&self, wanted: usize) -> Vec<RunResult> {
        let (_connection, channel) = self.channel().await;
        let name = self.topology.results_queue();
        let (mut results, mut looks) = (Vec::new(), interval(Duration::from_millis(100)));
        let taking = async {
            while results.len() < wanted {
                looks.tick().await;
                let options = BasicGetOptions { no_ack: true };
                while let Ok(Some(got)) = channel.basic_get(name.as_str().into(), options).await {
                    results.push(serde_json::from_slice(&got.data).expect("a result"));
                }
            }
        };
        let taken = timeout(PATIENCE, taking).await;
        taken.unwrap_or_else(|_| panic!("{} results of {wanted}", results.len()));
        results
    }

    /// The different results in the broker's queue for them, by their `message_id`s.
    pub(crate) async fn results_there(&self) -> BTreeSet<String> {
        let (_connection, channel) = self.channel().await;
        let mut found = BTreeSet::new();
        // Not acknowledged: they are back when the connection ends.
        loop {
            let name = self.topology.results_queue().into();
            let got = channel.basic_get(name, BasicGetOptions::default()).await;
            let Some(got) = got.expect("the queue is there") else {
                return found;
            };
            let id = got.delivery.properties.message_id();
            found.insert(id.as_ref().expect("a message_id").to_string());
        }
    }

    /// A channel to the stories' broker, and its connection.
    async fn channel(&self) -> (Connection, Channel) {
        let Place::Amqp(url) = &self.place else {
            panic!("this story has no broker");
        };
        let connecting = Connection::connect(url, ConnectionProperties::default());
        let connection = connecting.await.expect("the broker is there");
        let channel = connection.create_channel().await.expect("a channel");
        (connection, channel)
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

    /// The same, with a connection [`OTHER`] to the same workspace; of [`CONNECTION`] so many runs
    /// may be under way.
    pub(super) async fn with_another(place: Place, active: usize) -> Self {
        let story = Self::new(place, 600).await;
        story.reconfigure(
            "max_active_runs = 1000",
            &format!("max_active_runs = {active}"),
        );
        story.add_settings(&format!(
            r#"
[connections.{OTHER}]
type = "databricks"
host = "{}"
auth = {{ type = "pat", token = "any" }}
max_active_runs = 10
poll_interval_seconds = {{ min = 0.2, max = 1.0 }}
"#,
            story.workspace.host
        ));
        story
    }

    /// So many requests all succeeded, with one run each and no other.
    pub(super) async fn all_succeeded_once(&self, heard: &Heard, requests: usize) {
        let outcomes = heard.results.values().map(|result| result.outcome);
        let succeeded = outcomes.filter(|outcome| *outcome == Outcome::Success);
        assert_eq!(succeeded.count(), requests);
        let stats = self.workspace.stats().await;
        one_run_for_each_attempt(heard, &stats);
        assert_eq!(count(&stats, "/runs_started"), requests as u64);
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
        topology.requests_queue(OTHER),
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
