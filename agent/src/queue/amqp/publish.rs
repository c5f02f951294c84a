//! Publishing with confirms, many at a time.
//!
//! One task owns the channel. That is what makes the confirms exact: lapin hands a returned
//! (unroutable) message to whichever confirm comes next, so a confirm is believed only after all
//! that arrived before it have been looked at.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, ErrorKind};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::connect::Pace;
use super::link::{Context, Link, Live};
use super::message;

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

/// How publishing ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Published {
    /// The broker has it.
    Confirmed,
    /// No queue is bound for it.
    Returned,
    /// A queue refuses it, because it is full or has failed.
    Refused,
    /// The user may not publish to this exchange, or not under this key.
    Forbidden(String),
    /// The channel ended before the broker said anything: it may have it or not.
    Unknown(String),
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

/// What came of one message, and who asks.
struct Outcome {
    mark: Option<ShortString>,
    exchange: ShortString,
    routing_key: ShortString,
    confirmed: lapin::Result<Confirmation>,
    done: Option<oneshot::Sender<Published>>,
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
            let why = tokio::select! {
                () = self.context.shutdown.cancelled() => return,
                () = live.dead.cancelled() => None,
                why = self.serve(&live, &mut jobs) => why,
            };
            if !live.is_over() {
                let Some(why) = why else { return };
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
        let context = &self.context;
        let ensured = context.declarer.ensure(&context.broker, &live.connection);
        if let Err(error) = ensured.await {
            self.trouble(Some(error.to_string()));
        }
    }

    fn trouble(&self, why: Option<String>) {
        if self.context.board.set(self.purpose, why.clone()) {
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
                        return Some(error);
                    }
                }
                job = jobs.recv(), if under_way.len() < UNDER_WAY => match job {
                    None => return None,
                    Some(Job::Flush(done)) => flushes.push(done),
                    // Nobody waits for it any more: its lease is lost.
                    Some(Job::Send(_, Some(done))) if done.is_closed() => {}
                    Some(Job::Send(message, done)) => {
                        under_way.push(self.send(&channel, message, done));
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

/// What became of a message, `returned` being the marks of all that came back so far.
fn judge(outcome: &Outcome, returned: &mut HashSet<ShortString>) -> Published {
    let mark = outcome.mark.as_ref();
    match &outcome.confirmed {
        Ok(_) if mark.is_some_and(|mark| returned.remove(mark)) => Published::Returned,
        Ok(Confirmation::Ack(_) | Confirmation::NotRequested) => Published::Confirmed,
        Ok(Confirmation::Nack(_)) => Published::Refused,
        Err(error) if forbids(error, outcome) => Published::Forbidden(error.to_string()),
        Err(error) => Published::Unknown(error.to_string()),
    }
}

/// Whether the channel ended because of this very message. All that were under way with it see the
/// same error, and only its text tells whose it is.
fn forbids(error: &lapin::Error, outcome: &Outcome) -> bool {
    let ErrorKind::ProtocolError(amqp) = error.kind() else {
        return false;
    };
    let text = amqp.get_message().as_str();
    let key = format!("topic '{}'", outcome.routing_key);
    let exchange = match outcome.exchange.as_str() {
        "" => "amq.default",
        named => named,
    };
    *amqp.kind() == AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
        && text.contains(&format!("exchange '{exchange}'"))
        && (text.contains(&key) || !text.contains("topic '"))
}

/// The mark of the message that came back with a confirm, which need not be the confirmed one.
fn returned_mark(outcome: &Outcome) -> Option<ShortString> {
    match outcome.confirmed.as_ref().ok()? {
        Confirmation::Ack(message) | Confirmation::Nack(message) => {
            message::mark(&message.as_ref()?.properties)
        }
        Confirmation::NotRequested => None,
    }
}

/// Waits until something is ready, then takes all that is: a message whose return was mistaken for
/// another one's is so always in the same batch as that other one, or in a later one.
async fn all_ready<F: Future>(under_way: &mut FuturesUnordered<F>) -> Vec<F::Output> {
    let mut outcomes = Vec::new();
    std::future::poll_fn(|cx| {
        loop {
            match Pin::new(&mut *under_way).poll_next(cx) {
                Poll::Ready(Some(outcome)) => outcomes.push(outcome),
                Poll::Pending if outcomes.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => return Poll::Ready(()),
            }
        }
    })
    .await;
    outcomes
}

#[cfg(test)]
mod tests {
    use lapin::message::{BasicReturnMessage, Delivery};

    use super::super::connect::short;
    use super::*;

    fn outcome(mark: &str, came_with: Option<&str>) -> Outcome {
        let returned = came_with.map(|mark| {
            let mut delivery = Delivery::mock(0, short(""), short(""), false, Vec::new());
            delivery.properties = BasicProperties::default().with_message_id(short(mark));
            BasicReturnMessage {
                delivery,
                reply_code: 312,
                reply_text: short("NO_ROUTE"),
            }
        });
        Outcome {
            mark: Some(short(mark)),
            exchange: short("requests"),
            routing_key: short("prod"),
            confirmed: Ok(Confirmation::Ack(returned)),
            done: None,
        }
    }

    #[test]
    fn a_return_counts_for_the_message_that_came_back() {
        let mut returned = HashSet::new();
        let mut judged = |outcomes: &[Outcome]| -> Vec<Published> {
            returned.extend(outcomes.iter().filter_map(returned_mark));
            let judged = outcomes.iter().map(|one| judge(one, &mut returned));
            judged.collect()
        };
        // The confirm of `a` brought what came back of `b`, in whichever order they are looked at.
        let (a, b) = (outcome("a", Some("b")), outcome("b", None));
        let (came, went) = (Published::Confirmed, Published::Returned);
        assert_eq!(judged(&[b, a]), [went.clone(), came.clone()]);
        // Or a batch later.
        let mut judged_alone = |one| judged(&[one]).remove(0);
        assert_eq!(judged_alone(outcome("a", Some("b"))), came);
        assert_eq!(judged_alone(outcome("b", None)), went);
        // Published again, and taken.
        assert_eq!(judged_alone(outcome("b", None)), came);
    }
}
