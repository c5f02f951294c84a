//! The exchanges and queues of the contract, as they should be on the broker.

use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use sparkferry_shared::Topology;

/// How often a request may be delivered before the broker itself makes it a dead letter: the last resort
/// against one that brings down whoever takes it. Up to RabbitMQ 4.2 each hand-back counts, too, of which
/// a request that is held for a week sees a few hundred. RabbitMQ 3.x has no limit of its own and refuses
/// -1; 4.x has 20. A number that all of them take also survives the broker's upgrade, where a queue's
/// arguments can't be changed.
pub(super) const DELIVERY_LIMIT: u32 = 1000;
/// The same for dead letters: `sparkferry dead list` takes them and puts them back, and one over the limit
/// would be gone.
const DEAD_DELIVERY_LIMIT: u32 = 1_000_000;
/// How long the control stream keeps cancels: 24 hours, as the contract has it.
const CONTROL_MAX_AGE: &str = "1D";
/// A stream forgets whole segments only: small ones, so that it forgets at all. In bytes.
const CONTROL_SEGMENT_BYTES: i64 = 1024 * 1024;

/// One exchange.
pub(super) struct Exchange {
    /// Its name.
    pub(super) name: String,
    /// Its type.
    pub(super) kind: &'static str,
}

/// One queue, with its one binding.
pub(super) struct Queue {
    /// Its name.
    pub(super) name: String,
    arguments: Vec<(&'static str, Value)>,
    /// The exchange that it is bound to.
    pub(super) exchange: String,
    /// The key that it is bound with.
    pub(super) routing_key: String,
}

/// All exchanges.
pub(super) fn exchanges(topology: &Topology) -> Vec<Exchange> {
    [
        (topology.requests_exchange(), "direct"),
        (topology.results_exchange(), "topic"),
        (topology.events_exchange(), "topic"),
        (topology.control_exchange(), "fanout"),
        (topology.dead_exchange(), "fanout"),
    ]
    .map(|(name, kind)| Exchange { name, kind })
    .into()
}

/// The queue of a connection's requests.
pub(super) fn requests(topology: &Topology, connection: &str) -> Queue {
    Queue {
        name: topology.requests_queue(connection),
        arguments: vec![
            ("x-queue-type", "quorum".into()),
            ("x-dead-letter-exchange", topology.dead_exchange().into()),
            // At least once needs reject-publish; without it RabbitMQ silently falls back.
            ("x-dead-letter-strategy", "at-least-once".into()),
            ("x-overflow", "reject-publish".into()),
            ("x-delivery-limit", DELIVERY_LIMIT.into()),
        ],
        exchange: topology.requests_exchange(),
        routing_key: connection.to_owned(),
    }
}

/// The queue with all results.
pub(super) fn results(topology: &Topology) -> Queue {
    Queue {
        name: topology.results_queue(),
        arguments: vec![
            ("x-queue-type", "quorum".into()),
            ("x-overflow", "reject-publish".into()),
        ],
        exchange: topology.results_exchange(),
        routing_key: "#".into(),
    }
}

/// The queue with what can't be read.
pub(super) fn dead(topology: &Topology) -> Queue {
    Queue {
        name: topology.dead_queue(),
        arguments: vec![
            ("x-queue-type", "quorum".into()),
            ("x-delivery-limit", DEAD_DELIVERY_LIMIT.into()),
        ],
        exchange: topology.dead_exchange(),
        routing_key: String::new(),
    }
}

/// The stream of cancels.
pub(super) fn control(topology: &Topology) -> Queue {
    Queue {
        name: topology.control_queue(),
        arguments: vec![
            ("x-queue-type", "stream".into()),
            ("x-max-age", CONTROL_MAX_AGE.into()),
            (
                "x-stream-max-segment-size-bytes",
                CONTROL_SEGMENT_BYTES.into(),
            ),
        ],
        exchange: topology.control_exchange(),
        routing_key: String::new(),
    }
}

/// RabbitMQ's definitions of everything that a worker with these connections needs, for
/// `rabbitmqctl import_definitions`, in the virtual host that the worker's URL names (`/` where it
/// names none).
pub fn definitions(topology: &Topology, connections: &[String], vhost: &str) -> Value {
    let mut queues = vec![results(topology), dead(topology), control(topology)];
    queues.extend(connections.iter().map(|name| requests(topology, name)));
    let exchanges: Vec<Value> = exchanges(topology)
        .iter()
        .map(|exchange| {
            json!({
                "name": exchange.name, "vhost": vhost, "type": exchange.kind, "durable": true,
                "auto_delete": false, "internal": false, "arguments": {},
            })
        })
        .collect();
    let bindings: Vec<Value> = queues
        .iter()
        .map(|queue| {
            json!({
                "source": queue.exchange, "vhost": vhost, "destination": queue.name,
                "destination_type": "queue", "routing_key": queue.routing_key, "arguments": {},
            })
        })
        .collect();
    let queues: Vec<Value> = queues
        .into_iter()
        .map(|queue| {
            let arguments: serde_json::Map<String, Value> = queue
                .arguments
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            json!({
                "name": queue.name, "vhost": vhost, "durable": true, "auto_delete": false,
                "arguments": arguments,
            })
        })
        .collect();
    json!({
        "vhosts": [{ "name": vhost }],
        "exchanges": exchanges, "queues": queues, "bindings": bindings,
    })
}

impl Queue {
    /// Its arguments, as AMQP has them.
    pub(super) fn table(&self) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in &self.arguments {
            let value = match value {
                Value::Number(number) => {
                    AMQPValue::LongLongInt(number.as_i64().unwrap_or_default())
                }
                value => AMQPValue::LongString(value.as_str().unwrap_or_default().into()),
            };
            table.insert((*name).into(), value);
        }
        table
    }
}
