//! The producer's side: results and events that come back.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use sparkferry_ports::queue::{Listen, News, QueueError};
use sparkferry_shared::{Event, Id, RunResult};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::connect::{Pace, short};
use super::link::{Context, Link, Live};
use super::message;
use super::producer::Mine;
use super::publish::Publisher;

/// News on their way to the listener.
const WAITING: usize = 1024;
/// News that the broker sends ahead.
const PREFETCH: u16 = 500;

/// Begins to listen, and goes on through the broker's absences.
pub(super) async fn start(
    context: &Arc<Context>,
    link: &Link,
    publisher: &Publisher,
    mine: &Arc<Mine>,
    to: Listen,
) -> Result<mpsc::Receiver<News>, QueueError> {
    let (news, receiver) = mpsc::channel(WAITING);
    let ids = match to {
        Listen::Mine(ids) => Some(ids.into_iter().collect()),
        Listen::Everything => None,
    };
    let listener = Listener {
        context: Arc::clone(context),
        link: link.clone(),
        publisher: publisher.clone(),
        mine: Arc::clone(mine),
        ids,
        news,
    };
    let live = link.live().await;
    let opened = listener.open(&live).await;
    let ears = opened.map_err(|error| context.broker.error(&error))?;
    context.tasks.spawn(listener.run(live, ears));
    Ok(receiver)
}

/// One channel that listens.
struct Ears {
    channel: Channel,
    events: Consumer,
    results: Option<Consumer>,
}

struct Listener {
    context: Arc<Context>,
    link: Link,
    publisher: Publisher,
    mine: Arc<Mine>,
    /// Whose events are wanted; `None` is everybody's, and no results.
    ids: Option<HashSet<Id>>,
    news: mpsc::Sender<News>,
}

impl Listener {
    async fn run(self, mut live: Arc<Live>, mut ears: Ears) {
        let mut pace = Pace::new();
        let mut again = false;
        let shutdown = self.context.shutdown.clone();
        loop {
            pace.begin();
            let heard = tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.news.closed() => return,
                () = live.dead.cancelled() => Ok(()),
                heard = self.hear(&mut ears, again) => heard,
            };
            if let Err(error) = heard {
                tracing::debug!("listening again: {error}");
            }
            again = true;
            if self.ids.is_some() {
                self.mine.reply_queue.send_replace(None);
            }
            ears = loop {
                let next = async {
                    sleep(pace.next_wait()).await;
                    live = self.link.live().await;
                    self.open(&live).await
                };
                let opened = tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = self.news.closed() => return,
                    opened = next => opened,
                };
                match opened {
                    Ok(ears) => break ears,
                    Err(error) => tracing::warn!("can't listen, trying again: {error}"),
                }
            };
        }
    }

    async fn open(&self, live: &Live) -> lapin::Result<Ears> {
        let channel = live.connection.create_channel().await?;
        let qos = BasicQosOptions { global: false };
        channel.basic_qos(PREFETCH, qos).await?;
        let events = self.queue(&channel).await?;
        let exchange = self.context.declarer.topology().events_exchange();
        let bound = channel.queue_bind(
            events.clone(),
            short(&exchange),
            short("#"),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bound.await?;
        let events = consume(&channel, events).await?;
        let mut results = None;
        if self.ids.is_some() {
            let queue = self.queue(&channel).await?;
            results = Some(consume(&channel, queue.clone()).await?);
            self.mine.listens.send_replace(true);
            self.mine.reply_queue.send_replace(Some(queue.to_string()));
        }
        Ok(Ears {
            channel,
            events,
            results,
        })
    }

    /// A queue of our own, which goes with the connection. The broker names it, anew each time:
    /// the old one may still be held by a connection that the broker takes for alive.
    async fn queue(&self, channel: &Channel) -> lapin::Result<ShortString> {
        let options = QueueDeclareOptions::exclusive().auto_delete();
        let queue = channel.queue_declare(short(""), options, FieldTable::default());
        Ok(queue.await?.name().clone())
    }

    async fn hear(&self, ears: &mut Ears, again: bool) -> lapin::Result<()> {
        let mut resubmission = pin!(self.resubmit());
        let mut resubmitting = again && self.ids.is_some();
        loop {
            let result = async {
                match &mut ears.results {
                    Some(results) => results.next().await,
                    None => std::future::pending().await,
                }
            };
            let delivered = tokio::select! {
                () = &mut resubmission, if resubmitting => {
                    resubmitting = false;
                    continue;
                }
                delivered = result => delivered,
                delivered = ears.events.next() => delivered,
            };
            let Some(delivered) = delivered else {
                return Ok(());
            };
            let delivered = delivered?;
            let is_event = delivered.exchange.as_str() != "";
            if let Some(news) = self.read(is_event, &delivered.data)
                && self.news.send(news).await.is_err()
            {
                return Ok(());
            }
            let options = BasicAckOptions::default();
            ears.channel
                .basic_ack(delivered.delivery_tag, options)
                .await?;
        }
    }

    fn read(&self, is_event: bool, body: &[u8]) -> Option<News> {
        if is_event {
            let event: Event = readable("event", body)?;
            let wanted = self.ids.as_ref().is_none_or(|ids| ids.contains(&event.id));
            wanted.then(|| News::Event(Box::new(event)))
        } else {
            let result: RunResult = readable("result", body)?;
            self.mine.unanswered().remove(&result.id);
            Some(News::Result(Box::new(result)))
        }
    }

    /// Results that came while we were away went to a queue that is no more. The same id is the
    /// same work: asking again brings them again.
    async fn resubmit(&self) {
        let unanswered = self.mine.unanswered().clone();
        let queue = self.mine.reply_queue.borrow().clone();
        let topology = self.context.declarer.topology();
        for (id, (connection, body)) in unanswered {
            let (id, queue) = (id.as_str(), queue.as_deref());
            let message = message::request(topology, &connection, id, queue, body);
            let published = self.publisher.publish(message).await;
            tracing::debug!(id, ?published, "asked again");
        }
    }
}

async fn consume(channel: &Channel, queue: ShortString) -> lapin::Result<Consumer> {
    let options = BasicConsumeOptions {
        exclusive: true,
        ..BasicConsumeOptions::default()
    };
    channel
        .basic_consume(queue, short(""), options, FieldTable::default())
        .await
}

fn readable<T: serde::de::DeserializeOwned>(what: &str, body: &[u8]) -> Option<T> {
    match serde_json::from_slice(body) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!("this {what} can't be read, perhaps from a newer worker: {error}");
            None
        }
    }
}
