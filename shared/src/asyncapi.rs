//! The AsyncAPI 3 document: which message travels over which exchange or queue.

use serde_json::{Value, json};

use crate::event::EVENT_TYPE;
use crate::result::RESULT_TYPE;
use crate::schema;
use crate::topology::{DEAD_CONNECTION_HEADER, DEAD_ERROR_HEADER, DEAD_REASON_HEADER, Topology};
use crate::{EventType, Outcome};

/// The version of AsyncAPI's AMQP bindings that the document uses.
const BINDING_VERSION: &str = "0.3.0";

/// The document for a namespace, as the worker sees it: it receives requests and cancels, and
/// sends results, events and dead letters.
pub fn document(topology: &Topology) -> Value {
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Sparkferry",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Run requests go in, results of Databricks runs and Spark Connect operations come out.",
            "license": { "name": "Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "channels": channels(topology),
        "operations": operations(),
        "components": { "messages": messages(), "schemas": schema::components() },
    })
}

fn channels(topology: &Topology) -> Value {
    let connection = json!({ "description": "A connection of the worker's configuration." });
    json!({
        "requests": {
            "address": "{connection}",
            "description": format!(
                "Routing key on the exchange {}; each connection has its own queue, {}.",
                topology.requests_exchange(), topology.requests_queue("{connection}"),
            ),
            "parameters": { "connection": connection },
            "messages": { "request": { "$ref": "#/components/messages/request" } },
            "bindings": exchange(&topology.requests_exchange(), "direct"),
        },
        "results": {
            "address": "{connection}.{outcome}",
            "description": format!(
                "Routing key on the exchange {}; the queue {} receives all.",
                topology.results_exchange(), topology.results_queue(),
            ),
            "parameters": {
                "connection": connection,
                "outcome": { "enum": Outcome::ALL.map(Outcome::as_str) },
            },
            "messages": { "result": { "$ref": "#/components/messages/result" } },
            "bindings": exchange(&topology.results_exchange(), "topic"),
        },
        "replies": {
            "address": null,
            "description": "The queue that a request names in its property reply_to, by the default exchange.",
            "messages": { "result": { "$ref": "#/components/messages/result" } },
        },
        "events": {
            "address": "{connection}.{type}",
            "description": format!(
                "Routing key on the exchange {}. Best effort; nobody has to listen.",
                topology.events_exchange(),
            ),
            "parameters": {
                "connection": connection,
                "type": { "enum": EventType::ALL.map(EventType::as_str) },
            },
            "messages": { "event": { "$ref": "#/components/messages/event" } },
            "bindings": exchange(&topology.events_exchange(), "topic"),
        },
        "control": {
            "address": "",
            "description": format!(
                "The exchange {} needs no routing key. A cancel reaches every worker, for 24 hours also those that start later.",
                topology.control_exchange(),
            ),
            "messages": { "cancel": { "$ref": "#/components/messages/cancel" } },
            "bindings": exchange(&topology.control_exchange(), "fanout"),
        },
        "dead": {
            "address": "",
            "description": format!(
                "The exchange {} needs no routing key; the queue {} keeps what could not be read.",
                topology.dead_exchange(), topology.dead_queue(),
            ),
            "messages": { "deadLetter": { "$ref": "#/components/messages/deadLetter" } },
            "bindings": exchange(&topology.dead_exchange(), "fanout"),
        },
    })
}

fn operations() -> Value {
    let mut send_result = operation("send", "results");
    // Persistent and mandatory: a result that reaches no queue is an error, not a loss.
    send_result["bindings"] = json!({ "amqp": {
        "deliveryMode": 2, "mandatory": true, "bindingVersion": BINDING_VERSION,
    }});
    let mut receive_request = operation("receive", "requests");
    receive_request["reply"] = json!({
        "address": { "location": "$message.header#/reply_to" },
        "channel": { "$ref": "#/channels/replies" },
    });
    json!({
        "receiveRequest": receive_request,
        "sendResult": send_result,
        "sendEvent": operation("send", "events"),
        "receiveCancel": operation("receive", "control"),
        "sendDeadLetter": operation("send", "dead"),
    })
}

fn messages() -> Value {
    let mut result = message("Result");
    result["bindings"] = message_type(RESULT_TYPE);
    result["correlationId"] = json!({
        "location": "$message.header#/correlation_id",
        "description": "The request's correlation_id, or its id.",
    });
    let mut event = message("Event");
    event["bindings"] = message_type(EVENT_TYPE);
    json!({
        "request": message("Request"),
        "result": result,
        "event": event,
        "cancel": message("Cancel"),
        "deadLetter": {
            "name": "DeadLetter",
            "contentType": "application/octet-stream",
            "summary": "A message as it came, which could not be read.",
            "headers": {
                "type": "object",
                "required": [DEAD_REASON_HEADER, DEAD_ERROR_HEADER],
                "properties": {
                    DEAD_REASON_HEADER: { "type": "string", "description": "Why, in one word." },
                    DEAD_ERROR_HEADER: { "type": "string", "description": "Why, in a sentence." },
                    DEAD_CONNECTION_HEADER: {
                        "type": "string",
                        "description": "The connection whose queue it came from.",
                    },
                },
            },
        },
    })
}

fn exchange(name: &str, kind: &str) -> Value {
    json!({ "amqp": {
        "is": "routingKey",
        "exchange": { "name": name, "type": kind, "durable": true, "autoDelete": false },
        "bindingVersion": BINDING_VERSION,
    }})
}

fn operation(action: &str, channel: &str) -> Value {
    json!({ "action": action, "channel": { "$ref": format!("#/channels/{channel}") } })
}

/// A message in JSON whose body has the schema of that name.
fn message(name: &str) -> Value {
    json!({
        "name": name,
        "contentType": "application/json",
        "payload": { "$ref": format!("#/components/schemas/{name}") },
    })
}

/// The property `type` of a message.
fn message_type(name: &str) -> Value {
    json!({ "amqp": { "messageType": name, "bindingVersion": BINDING_VERSION } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document(&Topology::new("sparkferry"));
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn names_follow_the_namespace() {
        let text = document(&Topology::new("other")).to_string();
        for name in [
            "other.requests",
            "other.results",
            "other.events",
            "other.control",
            "other.dead",
        ] {
            assert!(text.contains(&format!("\"{name}\"")), "{name}");
        }
        assert!(!text.contains("sparkferry.requests"), "{text}");
    }
}
