//! The producer's side: dead letters.

use std::sync::Arc;

use lapin::message::BasicGetMessage;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use sparkferry_ports::queue::{DeadLetter, QueueError, SettleDead};
use sparkferry_shared::Topology;
use sparkferry_shared::topology::{DEAD_CONNECTION_HEADER, DEAD_ERROR_HEADER, DEAD_REASON_HEADER};

use super::confirm::Published;
use super::connect::short;
use super::link::{Context, Link};
use super::message;
use super::publish::Publisher;

/// The dead letters, oldest first. Each is taken without being acknowledged, and all are given
/// back at the end; should we die in between, the broker takes them back.
pub(super) async fn list(
    context: &Arc<Context>,
    link: &Link,
    limit: usize,
) -> Result<Vec<DeadLetter>, QueueError> {
    let live = link.live().await;
    let listed = async {
        let channel = live.connection.create_channel().await?;
        let mut letters = Vec::new();
        let topology = context.declarer.topology();
        while letters.len() < limit
            && let Some(got) = next(&channel, topology).await?
        {
            letters.push(letter(topology, got));
        }
        give_back(&channel).await?;
        Ok(letters)
    };
    listed.await.map_err(|error| context.broker.error(&error))
}

/// Takes dead letters off: one is acknowledged only after what becomes of it is confirmed.
pub(super) async fn settle(
    context: &Arc<Context>,
    link: &Link,
    publisher: &Publisher,
    how: SettleDead,
    limit: usize,
) -> Result<usize, QueueError> {
    let live = link.live().await;
    let topology = context.declarer.topology();
    let settled = async {
        let channel = live.connection.create_channel().await?;
        let mut settled = 0;
        // What is requeued may die again at once: those that were there at the start are enough.
        let mut left = limit;
        let mut counted = false;
        while left > 0
            && let Some(got) = next(&channel, topology).await?
        {
            if !counted {
                counted = true;
                left = left.min(got.message_count as usize + 1);
            }
            left -= 1;
            let tag = got.delivery_tag;
            let gone = match how {
                SettleDead::Drop => true,
                SettleDead::Requeue => requeue(topology, publisher, got).await,
            };
            if gone {
                channel.basic_ack(tag, BasicAckOptions::default()).await?;
                settled += 1;
            }
        }
        give_back(&channel).await?;
        Ok(settled)
    };
    settled.await.map_err(|error| context.broker.error(&error))
}

async fn requeue(topology: &Topology, publisher: &Publisher, got: BasicGetMessage) -> bool {
    let Some(connection) = connection(topology, &got.properties) else {
        tracing::warn!("a dead letter does not tell which queue it came from: it stays");
        return false;
    };
    let lapin::message::Delivery {
        properties, data, ..
    } = got.delivery;
    let message = message::resurrected(topology, &connection, &properties, data);
    let outcome = publisher.publish(message).await;
    let gone = outcome == Published::Confirmed;
    if !gone {
        tracing::warn!(
            connection,
            ?outcome,
            "a dead letter could not be requeued: it stays"
        );
    }
    gone
}

async fn next(channel: &Channel, topology: &Topology) -> lapin::Result<Option<BasicGetMessage>> {
    let queue = short(&topology.dead_queue());
    channel.basic_get(queue, BasicGetOptions::default()).await
}

/// Gives back all that is taken and not acknowledged, and ends the channel.
async fn give_back(channel: &Channel) -> lapin::Result<()> {
    let everything = BasicNackOptions {
        multiple: true,
        requeue: true,
    };
    channel.basic_nack(0, everything).await?;
    channel.close(200, short("done")).await
}

fn letter(topology: &Topology, got: BasicGetMessage) -> DeadLetter {
    let properties = &got.properties;
    let by_broker = death(properties, "reason");
    // What the broker made a dead letter has its producer's headers.
    let header = |name| match by_broker {
        Some(_) => None,
        None => message::header(properties, name),
    };
    // Of what the broker put here by itself nobody has told yet that it can't be read.
    let unreadable = message::unreadable(properties);
    let reason = header(DEAD_REASON_HEADER)
        .or_else(|| unreadable.as_ref().map(|why| why.reason().to_owned()))
        .or_else(|| by_broker.clone());
    let error = header(DEAD_ERROR_HEADER)
        .or_else(|| unreadable.map(|why| why.to_string()))
        .or_else(|| {
            by_broker.map(|reason| format!("the broker made it a dead letter by itself ({reason})"))
        });
    DeadLetter {
        reason: reason.unwrap_or_else(|| "unknown".into()),
        error: error.unwrap_or_else(|| "nothing tells why it is here".into()),
        connection: connection(topology, properties),
        message_id: message::text(properties.message_id().as_ref()),
        body: got.delivery.data.into(),
    }
}

/// The connection whose queue a dead letter came from. Where the broker made it a dead letter by itself the
/// headers are its producer's, and the broker's word alone counts; else a worker has written them.
fn connection(topology: &Topology, properties: &BasicProperties) -> Option<String> {
    match death(properties, "queue") {
        Some(queue) => {
            let connection = queue.strip_prefix(&topology.requests_queue(""))?;
            Some(connection.to_owned())
        }
        None => message::header(properties, DEAD_CONNECTION_HEADER),
    }
}

/// A field of the latest entry in `x-death`, which the broker writes when it makes a dead letter
/// by itself.
fn death(properties: &BasicProperties, field: &str) -> Option<String> {
    let headers: &FieldTable = properties.headers().as_ref()?;
    let AMQPValue::FieldArray(deaths) = headers.inner().get("x-death")? else {
        return None;
    };
    let AMQPValue::FieldTable(latest) = deaths.as_slice().first()? else {
        return None;
    };
    match latest.inner().get(field)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}
