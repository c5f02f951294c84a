//! The AsyncAPI 3 document: which message travels over which exchange or queue.

use schemars::Schema;
use serde_json::{Value, json};

use crate::result::RESULT_TYPE;
use crate::schema;
use crate::topology::Topology;

/// The document for a namespace.
pub fn document(topology: &Topology) -> Value {
    let exchange = |name: String, kind: &str| {
        json!({ "amqp": {
            "is": "routingKey",
            "exchange": { "name": name, "type": kind, "durable": true, "autoDelete": false },
            "bindingVersion": "0.3.0",
        }})
    };
    let connection = json!({ "description": "A connection of the worker's configuration." });
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Sparkferry",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Run requests go in, results of Databricks runs and Spark Connect operations come out.",
            "license": { "name": "Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "channels": {
            "requests": {
                "address": "{connection}",
                "description": format!(
                    "Routing key on the exchange {}; each connection has its own queue, {}.",
                    topology.requests_exchange(), topology.requests_queue("{connection}"),
                ),
                "parameters": { "connection": connection },
                "messages": { "request": { "$ref": "#/components/messages/request" } },
                "bindings": exchange(topology.requests_exchange(), "direct"),
            },
            "results": {
                "address": "{connection}.{outcome}",
                "description": format!(
                    "Routing key on the exchange {}; the queue {} receives all.",
                    topology.results_exchange(), topology.results_queue(),
                ),
                "parameters": {
                    "connection": connection,
                    "outcome": { "enum": crate::Outcome::ALL.map(crate::Outcome::as_str) },
                },
                "messages": { "result": { "$ref": "#/components/messages/result" } },
                "bindings": exchange(topology.results_exchange(), "topic"),
            },
            "events": {
                "address": "{connection}.{type}",
                "description": "Best effort; nobody has to listen.",
                "parameters": {
                    "connection": connection,
                    "type": { "enum": crate::EventType::ALL.map(crate::EventType::as_str) },
                },
                "messages": { "event": { "$ref": "#/components/messages/event" } },
                "bindings": exchange(topology.events_exchange(), "topic"),
            },
            "control": {
                "address": "",
                "description": "Reaches every worker, for 24 hours also those that start later.",
                "messages": { "cancel": { "$ref": "#/components/messages/cancel" } },
                "bindings": exchange(topology.control_exchange(), "fanout"),
            },
        },
        "operations": {
            "receiveRequest": operation("receive", "requests"),
            "sendResult": operation("send", "results"),
            "sendEvent": operation("send", "events"),
            "receiveCancel": operation("receive", "control"),
        },
        "components": {
            "messages": {
                "request": message("request", &schema::request()),
                "result": {
                    "name": RESULT_TYPE,
                    "contentType": "application/json",
                    "correlationId": {
                        "location": "$message.header#/correlation_id",
                        "description": "The request's correlation_id, or its id.",
                    },
                    "payload": payload(&schema::result()),
                },
                "event": message("event", &schema::event()),
                "cancel": message("cancel", &schema::cancel()),
            },
        },
    })
}

fn operation(action: &str, channel: &str) -> Value {
    json!({ "action": action, "channel": { "$ref": format!("#/channels/{channel}") } })
}

fn message(name: &str, schema: &Schema) -> Value {
    json!({ "name": name, "contentType": "application/json", "payload": payload(schema) })
}

/// The schema with its dialect named beside it, as AsyncAPI wants it for anything but its own.
fn payload(schema: &Schema) -> Value {
    json!({
        "schemaFormat": "application/schema+json;version=draft-07",
        "schema": schema,
    })
}
