//! Cancels: those of the last 24 hours, then those to come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Consumer};
use serde_json::Value;
use sparkferry_ports::queue::SentCancel;
use sparkferry_shared::Cancel;
use sparkferry_shared::cancel::CANCEL_LIFETIME_SECONDS;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connect::{Pace, short};
use super::link::{Context, Link, Live};
use super::message;

/// Cancels on their way to the worker.
const WAITING: usize = 1024;
/// So long without a further one, and the past ones are read.
const QUIET: Duration = Duration::from_millis(250);
/// The longest wait for the past ones, the broker's absence included.
const LONGEST: Duration = Duration::from_secs(3);
/// Streams want a prefetch.
const PREFETCH: u16 = 200;
const OFFSET: &str = "x-stream-offset";

/// Starts to read cancels; returns once the past ones are read, or after a few seconds.
pub(super) async fn read(context: &Arc<Context>, receiving: &Link) -> mpsc::Receiver<SentCancel> {
    let (cancels, receiver) = mpsc::channel(WAITING);
    let caught_up = CancellationToken::new();
    let reader = Reader {
        context: Arc::clone(context),
        receiving: receiving.clone(),
        caught_up: caught_up.clone(),
        cancels,
        told_unknown: false,
    };
    context.tasks.spawn(reader.run());
    if timeout(LONGEST, caught_up.cancelled()).await.is_err() {
        tracing::debug!("cancels of the last 24 hours are not read yet");
    }
    receiver
}

struct Reader {
    context: Arc<Context>,
    receiving: Link,
    caught_up: CancellationToken,
    cancels: mpsc::Sender<SentCancel>,
    /// It was told that a cancel has an unknown field.
    told_unknown: bool,
}

impl Reader {
    async fn run(mut self) {
        let mut pace = Pace::new();
        let shutdown = self.context.shutdown.clone();
        loop {
            let live = tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.cancels.closed() => return,
                live = self.receiving.live() => live,
            };
            pace.begin();
            let error = tokio::select! {
                () = shutdown.cancelled() => return,
                () = live.dead.cancelled() => None,
                read = self.read(&live) => read.err(),
            };
            if self.cancels.is_closed() {
                return;
            }
            if let Some(error) = &error
                && !live.is_over()
            {
                let why = self.context.broker.error(error).to_string();
                if self.context.board.set("cancels", Some(why.clone())) {
                    tracing::warn!("cancels can't be read, trying again: {why}");
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(pace.next_wait()) => {}
            }
        }
    }

    /// Reads until the subscription ends.
    async fn read(&mut self, live: &Live) -> lapin::Result<()> {
        let channel = live.connection.create_channel().await?;
        let mut consumer = self.subscribe(&channel).await?;
        self.context.board.set("cancels", None);
        loop {
            let Ok(next) = timeout(QUIET, consumer.next()).await else {
                self.caught_up.cancel();
                match consumer.next().await {
                    Some(delivered) => self.pass_on(&channel, delivered?).await?,
                    None => return Ok(()),
                }
                continue;
            };
            match next {
                Some(delivered) => self.pass_on(&channel, delivered?).await?,
                None => return Ok(()),
            }
            if self.cancels.is_closed() {
                return Ok(());
            }
        }
    }

    async fn subscribe(&self, channel: &Channel) -> lapin::Result<Consumer> {
        let declarer = &self.context.declarer;
        let topology = declarer.topology();
        channel
            .basic_qos(PREFETCH, BasicQosOptions { global: false })
            .await?;
        let mut arguments = FieldTable::default();
        let queue = if declarer.no_streams() {
            // A queue of our own: cancels sent while we are away are missed.
            let options = QueueDeclareOptions::exclusive().auto_delete();
            let queue = channel
                .queue_declare(short(""), options, FieldTable::default())
                .await?;
            let bound = channel.queue_bind(
                queue.name().clone(),
                short(&topology.control_exchange()),
                short(""),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            bound.await?;
            queue.name().clone()
        } else {
            // Also after a reconnect: the stream may be another one, in which an offset means nothing.
            arguments.insert(short(OFFSET), AMQPValue::Timestamp(a_lifetime_ago()));
            short(&topology.control_queue())
        };
        let options = BasicConsumeOptions::default();
        channel
            .basic_consume(queue, short(""), options, arguments)
            .await
    }

    async fn pass_on(
        &mut self,
        channel: &Channel,
        delivered: lapin::message::Delivery,
    ) -> lapin::Result<()> {
        if let Some(why) = message::unreadable(&delivered.properties) {
            tracing::warn!("a message on the control exchange is no cancel: {why}");
            return acknowledge(channel, delivered.delivery_tag).await;
        }
        match Cancel::read(&delivered.data) {
            Ok(cancel) if is_in_force(&delivered.properties) => {
                // Once: the past ones are read again after each reconnect.
                if !self.told_unknown
                    && let Some(field) = unknown_field(&delivered.data)
                {
                    self.told_unknown = true;
                    tracing::warn!(id = %cancel.cancel, field, "a cancel has an unknown field, which is ignored");
                }
                if self.cancels.capacity() == 0 {
                    // The past ones fill the way: the worker has to read to go on.
                    self.caught_up.cancel();
                }
                let sent_at = message::sent_at(&delivered.properties);
                // An error means that nobody listens any more, which the caller sees.
                let _ = self.cancels.send(SentCancel { cancel, sent_at }).await;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("a message on the control exchange is no cancel: {error}"),
        }
        acknowledge(channel, delivered.delivery_tag).await
    }
}

/// Tells the broker that a message was read, so that it sends more.
async fn acknowledge(channel: &Channel, tag: u64) -> lapin::Result<()> {
    channel.basic_ack(tag, BasicAckOptions::default()).await
}

/// A field that a newer sender added, or that somebody misspelt.
fn unknown_field(cancel: &[u8]) -> Option<String> {
    let fields: BTreeMap<String, Value> = serde_json::from_slice(cancel).ok()?;
    let known = |name: &String| ["cancel", "connection", "reason"].contains(&name.as_str());
    fields.into_keys().find(|name| !known(name))
}

/// A stream begins at the chunk that holds the offset in time: some of it may be older.
fn is_in_force(properties: &BasicProperties) -> bool {
    properties
        .timestamp()
        .is_none_or(|sent| sent >= a_lifetime_ago())
}

/// In seconds since 1970.
fn a_lifetime_ago() -> u64 {
    let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
    now.saturating_sub(CANCEL_LIFETIME_SECONDS)
}
