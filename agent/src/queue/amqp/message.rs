//! AMQP messages and what the port makes of them.

use bytes::Bytes;
use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use sparkferry_ports::queue::{Answer, Delivery, Lease, Outgoing};
use sparkferry_shared::decode::Unreadable;
use sparkferry_shared::event::EVENT_TYPE;
use sparkferry_shared::result::RESULT_TYPE;
use sparkferry_shared::topology::{DEAD_CONNECTION_HEADER, DEAD_ERROR_HEADER, DEAD_REASON_HEADER};
use sparkferry_shared::{Cancel, Event, Topology};
use uuid::Uuid;

use super::connect::short;
use super::inspect::Fault;
use super::publish::Message;
use super::trace;

pub(super) const TRACE_PARENT: &str = "traceparent";
pub(super) const TRACE_STATE: &str = "tracestate";
/// Tells one dead letter from another while it is published, whatever it calls itself.
pub(super) const LETTER_HEADER: &str = "x-sparkferry-letter";
/// What a producer writes that wants its reply on the channel that it publishes on; the broker puts an
/// address of that channel in its place.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";
/// AMQP's delivery mode of messages that survive the broker's restart.
const PERSISTENT: u8 = 2;
const TRANSIENT: u8 = 1;
/// The longest text of [`DEAD_ERROR_HEADER`]. With it the header of all that we publish stays far
/// below the smallest frame that AMQP allows, 4096 bytes: all else in it are names and ids of at most
/// 255 bytes each, and a trace context.
const ERROR_BYTES: usize = 1024;

/// What was delivered from a connection's queue, as the port has it.
pub(super) fn delivery(
    topology: &Topology,
    connection: &str,
    delivered: lapin::message::Delivery,
    lease: Lease,
) -> Delivery {
    let properties = &delivered.properties;
    // RabbitMQ looks at the routing key alone when it judges what a producer may publish, and routes by
    // the headers CC and BCC as well. (What came by another exchange was routed by somebody else.)
    let key = delivered.routing_key.as_str();
    let by_requests = delivered.exchange.as_str() == topology.requests_exchange();
    let misrouted =
        (by_requests && key != connection).then(|| Unreadable::Misrouted(key.to_owned()));
    Delivery {
        message_id: text(properties.message_id().as_ref()),
        correlation_id: text(properties.correlation_id().as_ref()),
        reply_to: text(properties.reply_to().as_ref()),
        trace: trace::context(
            header(properties, TRACE_PARENT),
            header(properties, TRACE_STATE),
        ),
        unreadable: unreadable(properties).or(misrouted),
        seen_before: delivered.redelivered,
        sent_at: sent_at(properties),
        received_at: Timestamp::now(),
        lease,
        body: Bytes::from(delivered.data),
    }
}

/// The result of an answered delivery, for the results exchange.
pub(super) fn result(topology: &Topology, result: &Outgoing, answer: &Answer) -> Message {
    Message {
        exchange: short(&topology.results_exchange()),
        routing_key: short(&format!("{}.{}", result.connection, result.outcome)),
        properties: result_properties(result, answer),
        body: result.body.clone(),
    }
}

/// The result of an answered delivery, for the queue that its producer named.
pub(super) fn reply(result: &Outgoing, answer: &Answer, reply_to: &str) -> Message {
    Message {
        exchange: short(""),
        routing_key: short(reply_to),
        properties: result_properties(result, answer),
        body: result.body.clone(),
    }
}

/// A result that answers a message without a usable id.
pub(super) fn bare_reply(reply_to: &str, correlation_id: Option<&str>, body: Bytes) -> Message {
    let mut properties = json(PERSISTENT)
        .with_type(short(RESULT_TYPE))
        .with_message_id(short(&Uuid::now_v7().to_string()));
    if let Some(id) = correlation_id {
        properties = properties.with_correlation_id(short(id));
    }
    Message {
        exchange: short(""),
        routing_key: short(reply_to),
        properties,
        body,
    }
}

/// A dead letter. Of a body that is larger than the broker takes (`max`) the beginning stays.
pub(super) fn dead_letter(
    topology: &Topology,
    delivery: &Delivery,
    connection: Option<&str>,
    why: &Unreadable,
    max: Option<usize>,
) -> Message {
    let size = delivery.body.len();
    let kept = max.unwrap_or(size).min(size);
    let mut error = why.to_string();
    error.truncate(error.floor_char_boundary(ERROR_BYTES));
    if kept < size {
        error = format!(
            "{error}; of its {size} bytes these are the first {kept}, which is what the broker \
             takes (max_message_size)"
        );
    }
    let mut headers = FieldTable::default();
    let mut header = |name: &str, value: &str| {
        headers.insert(short(name), AMQPValue::LongString(value.into()));
    };
    header(LETTER_HEADER, &Uuid::now_v7().to_string());
    header(DEAD_REASON_HEADER, why.reason());
    header(DEAD_ERROR_HEADER, &error);
    // What had no right to this connection is not to be sent back there.
    if let Some(connection) = connection
        && !matches!(why, Unreadable::Misrouted(_))
    {
        header(DEAD_CONNECTION_HEADER, connection);
    }
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(now())
        .with_headers(headers);
    if let Some(id) = &delivery.message_id {
        properties = properties.with_message_id(short(id));
    }
    if let Some(id) = &delivery.correlation_id {
        properties = properties.with_correlation_id(short(id));
    }
    // (This very name asks for a consumer of replies, which we have none of: the channel would be closed.)
    if let Some(queue) = &delivery.reply_to
        && queue != DIRECT_REPLY_TO
    {
        properties = properties.with_reply_to(short(queue));
    }
    Message {
        exchange: short(&topology.dead_exchange()),
        routing_key: short(""),
        properties,
        body: delivery.body.slice(..kept),
    }
}

/// An event; `None` where it can't be written as JSON.
pub(super) fn event(topology: &Topology, event: &Event) -> Option<Message> {
    Some(Message {
        exchange: short(&topology.events_exchange()),
        routing_key: short(&format!("{}.{}", event.connection, event.event_type)),
        properties: json(TRANSIENT).with_type(short(EVENT_TYPE)),
        body: serde_json::to_vec(event).ok()?.into(),
    })
}

/// What tells a message from the others that are under way with it.
pub(super) fn mark(properties: &BasicProperties) -> Option<ShortString> {
    match header(properties, LETTER_HEADER) {
        Some(letter) => Some(short(&letter)),
        None => properties.message_id().clone(),
    }
}

/// A request.
pub(super) fn request(
    topology: &Topology,
    connection: &str,
    id: &str,
    reply_to: Option<&str>,
    body: Bytes,
) -> Message {
    let mut properties = persistent_json(id);
    if let Some(queue) = reply_to {
        properties = properties.with_reply_to(short(queue));
    }
    Message {
        exchange: short(&topology.requests_exchange()),
        routing_key: short(connection),
        properties,
        body,
    }
}

/// A cancel, for every worker.
pub(super) fn cancel(topology: &Topology, cancel: &Cancel) -> Message {
    let body = serde_json::json!(cancel).to_string();
    Message {
        exchange: short(&topology.control_exchange()),
        routing_key: short(""),
        properties: persistent_json(&Uuid::now_v7().to_string()),
        body: body.into(),
    }
}

/// A dead letter, back on its way to the queue it came from: as its producer sent it, as far as it could be
/// read and means the same now.
pub(super) fn resurrected(
    topology: &Topology,
    connection: &str,
    properties: &BasicProperties,
    body: Vec<u8>,
) -> Message {
    // Ours; and what would have copies of it sent to other connections, by the operator's rights.
    let dropped = [
        Fault::HEADER,
        DEAD_REASON_HEADER,
        DEAD_ERROR_HEADER,
        DEAD_CONNECTION_HEADER,
        "CC",
        "BCC",
    ];
    let mut headers = FieldTable::default();
    for (name, value) in properties.headers().iter().flatten() {
        if !dropped.contains(&name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    if mark(properties).is_none() {
        let letter = Uuid::now_v7().to_string();
        headers.insert(short(LETTER_HEADER), AMQPValue::LongString(letter.into()));
    }
    Message {
        exchange: short(&topology.requests_exchange()),
        routing_key: short(connection),
        properties: sent_again(properties).with_headers(headers),
        body: body.into(),
    }
}

/// Sets one of the properties that are texts.
type SetText = fn(BasicProperties, ShortString) -> BasicProperties;

/// The properties of a message that somebody else publishes again: without the user, which must be who
/// publishes, and without the time after which it would be a dead letter again.
fn sent_again(properties: &BasicProperties) -> BasicProperties {
    let mut again = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let texts: [(&Option<ShortString>, SetText); 7] = [
        (
            properties.content_type(),
            BasicProperties::with_content_type,
        ),
        (
            properties.content_encoding(),
            BasicProperties::with_content_encoding,
        ),
        (
            properties.correlation_id(),
            BasicProperties::with_correlation_id,
        ),
        (properties.reply_to(), BasicProperties::with_reply_to),
        (properties.message_id(), BasicProperties::with_message_id),
        (properties.kind(), BasicProperties::with_type),
        (properties.app_id(), BasicProperties::with_app_id),
    ];
    for (text, with) in texts {
        if let Some(text) = text {
            again = with(again, text.clone());
        }
    }
    match properties.timestamp() {
        Some(at) => again.with_timestamp(*at),
        None => again,
    }
}

/// Properties of a persistent JSON message.
fn persistent_json(message_id: &str) -> BasicProperties {
    json(PERSISTENT).with_message_id(short(message_id))
}

/// Why a message's properties can't be read, where they can't.
pub(super) fn unreadable(properties: &BasicProperties) -> Option<Unreadable> {
    let fault = Fault::of(properties)?;
    Some(Unreadable::Properties(fault.to_string()))
}

/// When a message was sent, to the second, if it says so.
pub(super) fn sent_at(properties: &BasicProperties) -> Option<Timestamp> {
    let seconds = i64::try_from((*properties.timestamp())?).ok()?;
    Timestamp::from_second(seconds).ok()
}

/// A header's text.
pub(super) fn header(properties: &BasicProperties, name: &str) -> Option<String> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

/// A property's text.
pub(super) fn text(property: Option<&ShortString>) -> Option<String> {
    property.map(ToString::to_string)
}

fn result_properties(result: &Outgoing, answer: &Answer) -> BasicProperties {
    let correlation_id = answer.correlation_id.as_deref();
    let properties = persistent_json(&result.message_id.to_string())
        .with_type(short(RESULT_TYPE))
        .with_correlation_id(short(correlation_id.unwrap_or(result.id.as_str())));
    let trace = [
        (TRACE_PARENT, &answer.trace.parent),
        (TRACE_STATE, &answer.trace.state),
    ];
    if trace.iter().all(|(_, value)| value.is_none()) {
        return properties;
    }
    let mut headers = FieldTable::default();
    for (name, value) in trace {
        if let Some(value) = value {
            headers.insert(short(name), AMQPValue::LongString(value.as_str().into()));
        }
    }
    properties.with_headers(headers)
}

fn json(delivery_mode: u8) -> BasicProperties {
    BasicProperties::default()
        .with_content_type(short("application/json"))
        .with_delivery_mode(delivery_mode)
        .with_timestamp(now())
}

/// AMQP's timestamps are seconds since 1970.
fn now() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or_default()
}
