//! Publishing with confirms, many at a time.
//!
//! One task owns the channel: that is what makes the confirms exact. What is larger than the broker
//! takes is not sent, once that is known.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::confirm::{Outcome, Published, all_ready, judge, returned_mark};
use super::connect::Pace;
use super::link::{Context, Link, Live};
use super::{message, size};
use crate::observe::metrics;

/// Messages that wait for their turn; more wait at the sender.
const WAITING: usize = 1024;
/// Messages on their way at a time.
const UNDER_WAY: usize = 2048;

/// A message to be published.
pub(super) struct Message {
    /// Where to.
    pub(super) exchange: ShortString,
    /// Under which key.
    pub(super) routing_key: ShortString,
    /// Its properties. Where it is confirmed they hold a [`message::mark`].
    pub(super) properties: BasicProperties,
    /// Its body.
    pub(super) body: Bytes,
}

enum Job {
    Send(Box<Message>, Option<oneshot::Sender<Published>>),
    /// Tell once all before it is sent.
    Flush(oneshot::Sender<()>),
}

/// A channel that publishes, made again whenever it ends.
#[derive(Clone)]
pub(super) struct Publisher {
    jobs: mpsc::Sender<Job>,
}

/// What a publisher is asked to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Confirms {
    /// Every message is mandatory and confirmed.
    Yes,
    /// Messages are sent and forgotten.
    No,
}

impl Publisher {
    /// Starts a publisher. `purpose` names it in the log and in the health.
    pub(super) fn start(
        context: &Arc<Context>,
        link: &Link,
        purpose: &'static str,
        confirms: Confirms,
    ) -> Self {
        let (jobs, queue) = mpsc::channel(WAITING);
        let desk = Desk {
            context: Arc::clone(context),
            link: link.clone(),
            purpose,
            confirms,
        };
        context.tasks.spawn(desk.run(queue));
        Self { jobs }
    }

    /// Publishes and waits for what becomes of it, through all the time that the broker is away.
    pub(super) async fn publish(&self, message: Message) -> Published {
        let (done, published) = oneshot::channel();
        let gone = || Published::Unknown("the channel ended".into());
        let job = Job::Send(Box::new(message), Some(done));
        if self.jobs.send(job).await.is_err() {
            return gone();
        }
        published.await.unwrap_or_else(|_| gone())
    }

    /// Publishes, or doesn't: false where too many wait already.
    pub(super) fn try_publish(&self, message: Message) -> bool {
        self.jobs
            .try_send(Job::Send(Box::new(message), None))
            .is_ok()
    }

    /// Returns once all that was given to it so far is sent, or can't be any more.
    pub(super) async fn flushed(&self) {
        let (done, flushed) = oneshot::channel();
        if self.jobs.send(Job::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
    }
}

struct Desk {
    context: Arc<Context>,
    link: Link,
    purpose: &'static str,
    confirms: Confirms,
}

impl Desk {
    async fn run(self, mut jobs: mpsc::Receiver<Job>) {
        let mut pace = Pace::new();
        loop {
            let live = tokio::select! {
                () = self.context.shutdown.cancelled() => return,
                live = self.link.live() => live,
            };
            pace.begin();
            let largest = live.largest.now();
            let why = tokio::select! {
                () = self.context.shutdown.cancelled() => return,
                () = live.dead.cancelled() => None,
                why = self.serve(&live, &mut jobs) => why,
            };
            if !live.is_over() {
                let Some(why) = why else { return };
                // Without confirms the error itself does not tell it.
                let unconfirmed = self.confirms == Confirms::No && live.largest.now() != largest;
                if size::told_by(&why).is_some() || unconfirmed {
                    let (purpose, max) = (self.purpose, live.largest.now());
                    tracing::warn!(
                        "publishing {purpose}: a message was larger than the broker takes \
                         (max_message_size {max}); from now on they are measured"
                    );
                    continue;
                }
                self.trouble(Some(self.context.broker.error(&why).to_string()));
                tokio::select! {
                    () = self.context.shutdown.cancelled() => return,
                    () = sleep(pace.next_wait()) => {}
                }
                self.repair(&live).await;
            }
        }
    }

    /// What a channel died of may be an exchange that somebody deleted.
    async fn repair(&self, live: &Live) {
        if self.link.apart {
            return;
        }
        let context = &self.context;
        let ensured = context.declarer.ensure(&context.broker, &live.connection);
        if let Err(error) = ensured.await {
            self.trouble(Some(error.to_string()));
        }
    }

    fn trouble(&self, why: Option<String>) {
        if !self.link.apart && self.context.board.set(self.purpose, why.clone()) {
            if let Some(why) = why {
                tracing::warn!("publishing {} fails: {why}", self.purpose);
            } else {
                tracing::info!("publishing {} works again", self.purpose);
            }
        }
    }

    /// Publishes until the channel fails, and tells why it did; `None` when nobody is left to
    /// publish for.
    async fn serve(&self, live: &Live, jobs: &mut mpsc::Receiver<Job>) -> Option<lapin::Error> {
        let channel = match self.open(live).await {
            Ok(channel) => channel,
            Err(error) => return Some(error),
        };
        let mut under_way = FuturesUnordered::new();
        let mut returned = HashSet::new();
        let mut flushes: Vec<oneshot::Sender<()>> = Vec::new();
        loop {
            if under_way.is_empty() {
                for flush in flushes.drain(..) {
                    // An error means that the asker has stopped waiting.
                    let _ = flush.send(());
                }
            }
            tokio::select! {
                outcomes = all_ready(&mut under_way), if !under_way.is_empty() => {
                    if let Some(error) = self.settle(outcomes, &mut returned) {
                        live.largest.learn(&error);
                        return Some(error);
                    }
                }
                job = jobs.recv(), if under_way.len() < UNDER_WAY => match job {
                    None => return None,
                    Some(Job::Flush(done)) => flushes.push(done),
                    // Nobody waits for it any more: its lease is lost.
                    Some(Job::Send(_, Some(done))) if done.is_closed() => {}
                    Some(Job::Send(message, done)) => {
                        match live.largest.exceeded_by(message.body.len()) {
                            Some(max) => too_large(max, done),
                            None => under_way.push(self.send(&channel, message, done)),
                        }
                    }
                },
            }
        }
    }

    async fn open(&self, live: &Live) -> lapin::Result<Channel> {
        let channel = live.connection.create_channel().await?;
        if self.confirms == Confirms::Yes {
            let options = ConfirmSelectOptions::default();
            channel.confirm_select(options).await?;
        }
        Ok(channel)
    }

    fn send(
        &self,
        channel: &Channel,
        message: Box<Message>,
        done: Option<oneshot::Sender<Published>>,
    ) -> impl Future<Output = Outcome> + use<> {
        let options = BasicPublishOptions {
            mandatory: self.confirms == Confirms::Yes,
            immediate: false,
        };
        let channel = channel.clone();
        async move {
            let mark = message::mark(&message.properties);
            let (exchange, routing_key) = (message.exchange, message.routing_key);
            let sent = channel.basic_publish(
                exchange.clone(),
                routing_key.clone(),
                options,
                &message.body,
                message.properties,
            );
            let confirmed = match sent.await {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            Outcome {
                mark,
                exchange,
                routing_key,
                size: message.body.len(),
                confirmed,
                done,
            }
        }
    }

    /// Tells everybody who asked. Tells the error if the channel failed.
    fn settle(
        &self,
        outcomes: Vec<Outcome>,
        returned: &mut HashSet<ShortString>,
    ) -> Option<lapin::Error> {
        returned.extend(outcomes.iter().filter_map(returned_mark));
        let mut failed = None;
        let mut works = false;
        for outcome in outcomes {
            let published = judge(&outcome, returned);
            if let Err(error) = outcome.confirmed {
                failed = Some(error);
            }
            works |= published == Published::Confirmed;
            if let Some(done) = outcome.done {
                // An error means that the asker has stopped waiting.
                let _ = done.send(published);
            }
        }
        if works {
            self.trouble(None);
        }
        failed
    }
}

/// Nothing is sent of a message that is too large. What nobody waits for is an event.
fn too_large(max: usize, done: Option<oneshot::Sender<Published>>) {
    match done {
        // An error means that the asker has stopped waiting.
        Some(done) => drop(done.send(Published::TooLarge { max })),
        None => metrics::event_dropped(),
    }
}
