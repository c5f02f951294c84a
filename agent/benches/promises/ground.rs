//! A queue of our own on the broker, and what all measurements do with it.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use jiff::Timestamp;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeclareOptions,
    QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use serde_json::{Value, json};
use sparkferry_agent::config::{self, QueuePlace, Settings};
use sparkferry_agent::queue::amqp::AmqpQueue;
use sparkferry_agent::worker::{Parts, Served, Worker};
use sparkferry_ports::engine::Engine;
use sparkferry_ports::queue::Queue;
use sparkferry_shared::Topology;
use sparkferry_testkit::story;
pub(crate) use sparkferry_testkit::story::Workspace;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The one connection.
pub(crate) const CONNECTION: &str = "prod";
/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);
/// Messages on their way at a time.
const UNDER_WAY: usize = 1000;
/// The parameters of a run, in bytes: a request then has about 1 KiB.
const PARAMETER_BYTES: usize = 700;

/// Names of our own on the broker, settings, and a channel to publish with.
pub(crate) struct Ground {
    pub(crate) topology: Topology,
    pub(crate) url: String,
    connection: Connection,
    channel: Channel,
    pub(crate) folder: TempDir,
}

impl Ground {
    /// Everything is declared, as the worker declares it.
    pub(crate) async fn new() -> Self {
        let url = std::env::var("TEST_AMQP_URL")
            .unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned());
        let connection = Connection::connect(&url, ConnectionProperties::default());
        let connection = connection.await.expect("RabbitMQ answers");
        let channel = connection.create_channel().await.expect("a channel");
        let confirms = ConfirmSelectOptions::default();
        channel.confirm_select(confirms).await.expect("confirms");
        let ground = Self {
            topology: Topology::new(format!("bench-{}", Uuid::now_v7().simple())),
            url,
            connection,
            channel,
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        let queue = ground.queue(&ground.settings("", ""));
        let mut health = queue.health();
        let well = health.wait_for(|health| health.trouble.is_none());
        let well = timeout(PATIENCE, well).await.map(|health| health.is_ok());
        assert_eq!(well, Ok(true), "the broker takes our declarations");
        queue.close().await;
        ground
    }

    /// The settings of a worker, read from a file as the program reads them.
    pub(crate) fn settings(&self, listen: &str, connection: &str) -> Settings {
        let path = self.folder.path().join("agent.toml");
        let text = format!(
            r#"
namespace = "{}"
[queue]
url = "{}"
[http]
listen = "{listen}"
[log]
level = "warn"
[connections.{CONNECTION}]
type = "databricks"
host = "http://127.0.0.1:1"
auth = {{ type = "pat", token = "any" }}
{connection}
"#,
            self.topology.namespace(),
            self.url,
        );
        // What a measurement says goes over what stands above.
        let text = if connection.contains("host = ") {
            text.replace("host = \"http://127.0.0.1:1\"\n", "")
        } else {
            text
        };
        fs::write(&path, text).expect("our own folder");
        config::load(Some(&path), &std::collections::HashMap::new()).expect("right settings")
    }

    fn queue(&self, settings: &Settings) -> Arc<AmqpQueue> {
        let QueuePlace::Amqp(url) = &settings.queue.place else {
            panic!("the settings name RabbitMQ");
        };
        let names = [CONNECTION.to_owned()];
        AmqpQueue::open(url, &settings.queue, &self.topology, "bench", &names).expect("a right URL")
    }

    /// A worker in this process, with an engine of the measurement's choice.
    pub(crate) fn worker(&self, engine: Arc<dyn Engine>, max_active_runs: u32) -> Working {
        let settings = self.settings("", "");
        let worker = Worker::new(Parts {
            topology: self.topology.clone(),
            worker: settings.worker.name.clone(),
            max_message_bytes: settings.queue.max_message_bytes,
            max_output_bytes: settings.worker.max_output_bytes,
            queue: self.queue(&settings),
            engines: [(CONNECTION.to_owned(), Served::new(max_active_runs, engine))].into(),
        });
        let stop = CancellationToken::new();
        let told = stop.clone();
        let task = tokio::spawn(async move { worker.run(&told).await.expect("no panic") });
        Working { stop, task }
    }

    /// Publishes a request and waits for its confirm; returns when it set out.
    pub(crate) async fn publish(&self, id: &str, work: &Value) -> Timestamp {
        let body = request(id, work);
        let at = Timestamp::now();
        let sent = self.send(&body).await;
        sent.await.expect("confirmed");
        at
    }

    /// Publishes so many requests, many at a time.
    pub(crate) async fn fill(&self, count: usize, work: &Value) {
        let mut under_way = FuturesOrdered::new();
        for number in 0..count {
            if under_way.len() >= UNDER_WAY {
                under_way.try_next().await.expect("confirmed");
            }
            let body = request(&format!("{}-{number}", Uuid::now_v7()), work);
            under_way.push_back(self.send(&body).await);
        }
        while under_way.try_next().await.expect("confirmed").is_some() {}
    }

    /// Once around, a hundred at a time: what the first requests set up belongs to none of them.
    pub(crate) async fn warm_up(&self, count: usize, work: &Value) {
        let results = self.topology.results_queue();
        for done in (100..=count).step_by(100) {
            self.fill(100, work).await;
            self.until_waiting(&results, done).await;
        }
        self.forget_results().await;
    }

    /// Sends a request; what comes back waits for its confirm.
    async fn send(&self, body: &[u8]) -> BoxFuture<'static, lapin::Result<Confirmation>> {
        let sent = self.channel.basic_publish(
            self.topology.requests_exchange().into(),
            CONNECTION.into(),
            BasicPublishOptions::default(),
            body,
            BasicProperties::default().with_delivery_mode(2),
        );
        Box::pin(sent.await.expect("the broker is there"))
    }

    /// Messages that nobody has taken.
    pub(crate) async fn waiting(&self, queue: &str) -> usize {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = self
            .channel
            .queue_declare(queue.into(), options, FieldTable::default());
        let declared = declared.await.expect("it is there");
        declared.message_count().try_into().expect("a count")
    }

    /// Waits until so many messages wait in a queue.
    pub(crate) async fn until_waiting(&self, queue: &str, count: usize) {
        let mut looks = interval(Duration::from_millis(5));
        let waiting = async {
            while self.waiting(queue).await < count {
                looks.tick().await;
            }
        };
        let waited = timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("waited in vain for {count} messages in {queue}"));
    }

    /// Empties the queue of results.
    pub(crate) async fn forget_results(&self) {
        let purge = QueuePurgeOptions::default();
        let queue = self.topology.results_queue();
        let purged = self.channel.queue_purge(queue.into(), purge).await;
        purged.expect("the broker is there");
    }

    /// Takes our names off the broker.
    pub(crate) async fn leave(self) {
        let topology = &self.topology;
        for queue in [
            topology.requests_queue(CONNECTION),
            topology.results_queue(),
            topology.dead_queue(),
            topology.control_queue(),
        ] {
            let options = QueueDeleteOptions::default();
            let deleted = self.channel.queue_delete(queue.into(), options);
            deleted.await.expect("deleted");
        }
        for exchange in [
            topology.requests_exchange(),
            topology.results_exchange(),
            topology.events_exchange(),
            topology.control_exchange(),
            topology.dead_exchange(),
        ] {
            let options = ExchangeDeleteOptions::default();
            let deleted = self.channel.exchange_delete(exchange.into(), options);
            deleted.await.expect("deleted");
        }
        let closed = self.connection.close(200, "done".into()).await;
        closed.expect("closed");
    }
}

/// A worker that works.
pub(crate) struct Working {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Working {
    /// Drains it.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("no panic");
    }
}

fn request(id: &str, work: &Value) -> Vec<u8> {
    let mut request = json!({
        "id": id,
        "labels": {"team": "ferries", "order": id},
    });
    let fields = request.as_object_mut().expect("an object");
    fields.extend(work.as_object().expect("an object").clone());
    request.to_string().into_bytes()
}

/// Work for the engine in memory.
pub(crate) fn fake_work(plan: &Value) -> Value {
    json!({"run_now": {
        "job_id": 1,
        "job_parameters": {"orders": "o".repeat(PARAMETER_BYTES)},
        "fake": plan,
    }})
}

/// Work for the sandbox.
pub(crate) fn sandbox_work(duration: Duration) -> Value {
    json!({"submit_run": {"run_name": "bench", "tasks": [{
        "task_key": "main",
        "existing_cluster_id": "c",
        "notebook_task": {"notebook_path": "/n", "base_parameters": {
            "sandbox.duration_ms": duration.as_millis().to_string(),
            "orders": "o".repeat(PARAMETER_BYTES),
        }},
    }]}})
}

/// Looks at the sandbox's books until they say so: longer than a test would.
pub(crate) async fn until(workspace: &Workspace, what: &str, say: impl Fn(&Value) -> bool) {
    let mut looks = interval(Duration::from_millis(500));
    let looking = async {
        loop {
            looks.tick().await;
            if say(&workspace.stats().await) {
                return;
            }
        }
    };
    let found = timeout(PATIENCE, looking).await;
    found.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

/// A number in the sandbox's books; 0 where it is absent.
pub(crate) fn count(stats: &Value, pointer: &str) -> usize {
    usize::try_from(story::count(stats, pointer)).expect("a count")
}

/// Memory of a process that is resident, in KiB.
pub(crate) fn resident_kib(process: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).expect("KiB")
}
