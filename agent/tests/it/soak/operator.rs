//! An operator's hand on the queues: of the older kind, deleted, made anew.

use std::time::Duration;

use lapin::options::{
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use serde_json::Value;
use sparkferry_agent::queue::amqp::definitions;
use sparkferry_shared::Topology;
use tokio::time::timeout;

use super::books::channel;
use super::field::{Field, Queue};
use crate::stories::harness::CONNECTION;

/// A broker that is frozen answers nothing: then it is left alone.
const LIMIT: Duration = Duration::from_secs(10);

/// Queues of the older kind under our names, before any worker comes: they use them as they are.
pub(super) async fn declare(url: &str, topology: &Topology) -> lapin::Result<()> {
    let (_connection, channel) = channel(url).await?;
    let places = [
        (
            topology.requests_exchange(),
            ExchangeKind::Direct,
            topology.requests_queue(CONNECTION),
            CONNECTION,
        ),
        (
            topology.results_exchange(),
            ExchangeKind::Topic,
            topology.results_queue(),
            "#",
        ),
    ];
    for (exchange, kind, queue, key) in places {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let exchange: ShortString = exchange.as_str().into();
        let declared =
            channel.exchange_declare(exchange.clone(), kind, options, FieldTable::default());
        declared.await?;
        make(&channel, &queue, FieldTable::default(), exchange, key).await?;
    }
    Ok(())
}

async fn make(
    channel: &Channel,
    queue: &str,
    arguments: FieldTable,
    exchange: ShortString,
    key: &str,
) -> lapin::Result<()> {
    let options = QueueDeclareOptions::durable();
    let declared = channel.queue_declare(queue.into(), options, arguments);
    declared.await?;
    let options = QueueBindOptions::default();
    let bound = channel.queue_bind(
        queue.into(),
        exchange,
        key.into(),
        options,
        FieldTable::default(),
    );
    bound.await
}

/// The arguments that workers declare a quorum queue with.
fn arguments(topology: &Topology) -> FieldTable {
    let definitions = definitions(topology, &[CONNECTION.to_owned()], "/");
    let name = topology.requests_queue(CONNECTION);
    let queues = definitions["queues"].as_array().expect("a list");
    let queue = queues.iter().find(|queue| queue["name"] == name.as_str());
    let arguments = queue.expect("it is among them")["arguments"].as_object();
    let mut table = FieldTable::default();
    for (name, value) in arguments.expect("it has some") {
        let value = match value {
            Value::String(text) => AMQPValue::LongString(text.as_str().into()),
            other => AMQPValue::LongLongInt(other.as_i64().expect("a number")),
        };
        table.insert(name.as_str().into(), value);
    }
    table
}

impl Field {
    /// Deletes the queue with all requests in it. A quorum queue is left to the workers to make, or
    /// made `anew` at once, of which RabbitMQ tells its consumers nothing; a classic one is always
    /// made anew, for workers would make another kind. A broker that is away keeps it.
    pub(super) async fn delete_queue(&self, anew: bool) {
        let topology = &self.ground.topology;
        let (Queue::Quorum(url) | Queue::Classic(url)) = &self.queue else {
            unreachable!("the plan knows the queue");
        };
        let deleting = async {
            let (_connection, channel) = channel(url).await?;
            let name = topology.requests_queue(CONNECTION);
            let options = QueueDeleteOptions::default();
            channel.queue_delete(name.as_str().into(), options).await?;
            let exchange = topology.requests_exchange().as_str().into();
            let arguments = match &self.queue {
                Queue::Classic(_) => FieldTable::default(),
                _ if anew => arguments(topology),
                _ => return Ok(()),
            };
            make(&channel, &name, arguments, exchange, CONNECTION).await
        };
        match timeout(LIMIT, deleting).await {
            Ok(Ok(())) => {}
            other => eprintln!("the queue may be there still: {other:?}"),
        }
        // Also where it is not known whether it was.
        self.deleted.send_modify(|times| *times += 1);
    }
}
