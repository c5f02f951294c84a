//! Stories over a real RabbitMQ: the one that `TEST_AMQP_URL` names (guest on 127.0.0.1:5672
//! without it), in a namespace of its own that is deleted afterwards.

mod faults;
mod limits;
mod names;
mod rights;
mod settling;
mod sizes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use lapin::Channel;
use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use sparkferry_ports::queue::{
    Answer, Delivery, NotPublished, Outgoing, Producer, Queue, TraceContext,
};
use sparkferry_shared::{Id, Outcome, RunResult, Topology};
use sparkferry_testkit::queue::conformance::Harness;
use tokio::runtime::Builder;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;
use uuid::Uuid;

use super::connect::{Broker, short};
use super::{AmqpProducer, AmqpQueue};
use crate::config::{BrokerUrl, QueuePlace, QueueSettings};

/// How long a story waits for what must happen: a frozen broker is noticed in two heartbeats, and
/// a machine that runs all stories at once is slow.
const PATIENCE: Duration = Duration::from_mins(1);
/// The connections of every story.
const CONNECTIONS: [&str; 2] = ["prod", "lake"];

/// What every worker calls itself.
const WORKER: &str = "worker-7";

fn url() -> BrokerUrl {
    std::env::var("TEST_AMQP_URL")
        .unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".into())
        .into()
}

/// A namespace on a broker; its queues and exchanges go with it.
struct Namespace {
    url: BrokerUrl,
    topology: Topology,
    declare: bool,
    hold_limit: Duration,
}

impl Namespace {
    fn new(url: BrokerUrl) -> Self {
        Self {
            url,
            topology: Topology::new(format!("test-{}", uuid::Uuid::now_v7().simple())),
            declare: true,
            hold_limit: Duration::from_mins(20),
        }
    }

    fn connections() -> [String; 2] {
        CONNECTIONS.map(str::to_owned)
    }

    fn settings(&self) -> QueueSettings {
        QueueSettings {
            place: QueuePlace::Amqp(self.url.clone()),
            hold_limit: self.hold_limit,
            declare: self.declare,
            max_message_bytes: 1024 * 1024,
        }
    }

    fn open(&self) -> Arc<AmqpQueue> {
        let (settings, connections) = (self.settings(), Self::connections());
        AmqpQueue::open(&self.url, &settings, &self.topology, WORKER, &connections).expect("a URL")
    }

    async fn connect(&self) -> AmqpProducer {
        AmqpProducer::connect(&self.url, &self.topology, self.declare)
            .await
            .expect("the broker is there")
    }

    /// A channel of the test's own, on a connection that lives as long as it.
    async fn channel(&self) -> Channel {
        let broker = Broker::new(&self.url).expect("a URL");
        let connected = broker.connect("sparkferry test").await;
        let connection = connected.expect("the broker is there");
        connection.create_channel().await.expect("a channel")
    }

    /// Makes the queue of `prod` with these arguments, as an operator may.
    async fn make_requests(&self, channel: &Channel, arguments: &[(&str, AMQPValue)]) {
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert(short(name), value.clone());
        }
        let name = self.topology.requests_queue("prod");
        let options = QueueDeclareOptions::durable();
        let made = channel.queue_declare(short(&name), options, table);
        made.await.expect("it was not there");
    }

    /// Deletes the queue of `prod`, as an operator may.
    async fn delete_requests(&self, channel: &Channel) {
        let name = self.topology.requests_queue("prod");
        let deleted = channel.queue_delete(short(&name), QueueDeleteOptions::default());
        deleted.await.expect("it was there");
    }

    async fn delete(url: &BrokerUrl, topology: &Topology) {
        let broker = Broker::new(url).expect("a URL");
        let Ok(connection) = broker.connect("sparkferry test, cleaning").await else {
            return;
        };
        let mut queues = CONNECTIONS
            .map(|name| topology.requests_queue(name))
            .to_vec();
        queues.extend([
            topology.results_queue(),
            topology.dead_queue(),
            topology.control_queue(),
        ]);
        let exchanges = [
            topology.requests_exchange(),
            topology.results_exchange(),
            topology.events_exchange(),
            topology.control_exchange(),
            topology.dead_exchange(),
        ];
        let Ok(channel) = connection.create_channel().await else {
            return;
        };
        // Deleting what is not there is no error.
        for queue in queues {
            let options = QueueDeleteOptions::default();
            let _ = channel.queue_delete(short(&queue), options).await;
        }
        for exchange in exchanges {
            let options = ExchangeDeleteOptions::default();
            let _ = channel.exchange_delete(short(&exchange), options).await;
        }
        let _ = connection.close(200, short("cleaned")).await;
    }
}

/// Waits for what must happen.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = timeout(PATIENCE, future).await else {
        panic!("waited in vain for {what}");
    };
    value
}

/// Waits until the queue is well.
async fn well(queue: &AmqpQueue) {
    let mut health = queue.health();
    let well = health.wait_for(|health| health.trouble.is_none());
    soon("health", well).await.expect("the queue lives");
}

/// Waits for a trouble that says this.
async fn trouble(queue: &AmqpQueue, part: &str) -> String {
    let mut health = queue.health();
    let told = health.wait_for(|health| health.to_string().contains(part));
    soon(part, told).await.expect("the queue lives").to_string()
}

fn id(text: &str) -> Id {
    text.parse().expect("an id")
}

fn answer(delivery: &Delivery) -> Answer {
    Answer {
        lease: delivery.lease.clone(),
        reply_to: delivery.reply_to.clone(),
        correlation_id: delivery.correlation_id.clone(),
        trace: delivery.trace.clone(),
        announced: false,
    }
}

/// What a worker publishes for a request that went well.
fn success(connection: &str, delivery: &Delivery) -> Outgoing {
    let id = id(delivery.message_id.as_deref().expect("a message_id"));
    let result = RunResult {
        id: id.clone(),
        outcome: Outcome::Success,
        connection: connection.to_owned(),
        kind: None,
        labels: BTreeMap::new(),
        attempts: Vec::new(),
        output: None,
        error: None,
        received_at: delivery.received_at,
        finished_at: Timestamp::now(),
        worker: "tester".to_owned(),
        redelivered: delivery.seen_before,
        truncated: false,
    };
    Outgoing {
        message_id: Uuid::new_v5(&Uuid::NAMESPACE_URL, id.as_str().as_bytes()),
        body: serde_json::to_vec(&result).expect("JSON").into(),
        outcome: Outcome::Success,
        connection: connection.to_owned(),
        id,
    }
}

async fn finish(
    queue: &AmqpQueue,
    connection: &str,
    delivery: &Delivery,
) -> Result<(), NotPublished> {
    let result = success(connection, delivery);
    queue.finish(&[answer(delivery)], &result).await
}

async fn submit(producer: &AmqpProducer, connection: &str, name: &str) {
    let (id, body) = (id(name), Bytes::from_static(b"{}"));
    let submitted = producer.submit(connection, &id, body);
    soon("the submission", submitted)
        .await
        .expect("it is taken");
}

async fn next(deliveries: &mut Receiver<Delivery>) -> Delivery {
    let delivery = soon("a delivery", deliveries.recv()).await;
    delivery.expect("the receiver goes on")
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let (url, topology) = (self.url.clone(), self.topology.clone());
        let cleaning = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                runtime.block_on(Self::delete(&url, &topology));
            }
        });
        let _ = cleaning.join();
    }
}

#[async_trait]
impl Harness for Namespace {
    type Worker = AmqpQueue;
    type Producer = AmqpProducer;

    fn connections(&self) -> [&str; 2] {
        CONNECTIONS
    }

    fn remembers_results(&self) -> bool {
        false
    }

    async fn worker(&self) -> Arc<AmqpQueue> {
        self.open()
    }

    async fn producer(&self) -> Arc<AmqpProducer> {
        Arc::new(self.connect().await)
    }

    async fn kill(&self, worker: Arc<AmqpQueue>) {
        drop(worker);
    }

    async fn sever(&self, worker: &AmqpQueue) {
        let live = worker.receiving.live().await;
        let closed = live.connection.close(320, short("cut by the test"));
        closed.await.expect("the connection was open");
    }
}

sparkferry_testkit::queue_conformance!(async { Namespace::new(url()) });
