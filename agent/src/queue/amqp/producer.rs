//! The producer's side: requests and cancels.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sparkferry_ports::queue::{DeadLetter, Listen, News, Producer, QueueError, SettleDead};
use sparkferry_shared::{Cancel, Id, Topology};
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::time::{sleep, timeout};

use super::confirm::Published;
use super::connect::{Broker, Pace, short};
use super::declare::{Declarer, Destination, LEFT_DELETED, Role};
use super::link::{Context, Link, connection_name, this_process};
use super::publish::{Confirms, Message, Publisher};
use super::{dead, listen, message};
use crate::config::BrokerUrl;

/// What the connection is for, in the log and to the broker's operator.
const ROLE: &str = "producer";
/// How long closing may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// The producer's side of RabbitMQ.
pub struct AmqpProducer {
    context: Arc<Context>,
    link: Link,
    publisher: Publisher,
    declare: bool,
    ensured: Mutex<HashMap<Destination, Arc<OnceCell<()>>>>,
    mine: Arc<Mine>,
}

/// What this producer has asked for.
#[derive(Default)]
pub(super) struct Mine {
    /// Requests without a result so far, by id: their connection and their body.
    unanswered: Mutex<BTreeMap<Id, (String, Bytes)>>,
    /// The queue for replies; `None` while the broker is away, or where none was asked for.
    pub(super) reply_queue: watch::Sender<Option<String>>,
    /// Results are wanted back.
    pub(super) listens: watch::Sender<bool>,
}

impl Mine {
    /// The requests without a result.
    pub(super) fn unanswered(&self) -> MutexGuard<'_, BTreeMap<Id, (String, Bytes)>> {
        self.unanswered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue for replies, as soon as there is one; `None` where no results are wanted.
    async fn reply_to(&self) -> Option<String> {
        if !*self.listens.borrow() {
            return None;
        }
        let mut queue = self.reply_queue.subscribe();
        let found = queue.wait_for(Option::is_some).await.ok()?;
        found.clone()
    }
}

impl AmqpProducer {
    /// Connects. `declare` is false where the operator makes all exchanges and queues.
    ///
    /// # Errors
    /// Where the broker can't be reached now, or refuses.
    pub async fn connect(
        url: &BrokerUrl,
        topology: &Topology,
        declare: bool,
    ) -> Result<Self, QueueError> {
        let broker = Broker::new(url)?;
        let client = this_process();
        let first = broker.connect(&connection_name(ROLE, &client)).await?;
        let declarer = Declarer::new(topology, Role::Producer, declare);
        declarer.ensure(&broker, &first).await?;
        let context = Context::new(broker, declarer, &client);
        let link = Link::start(&context, ROLE, Some(first));
        Ok(Self {
            publisher: Publisher::start(&context, &link, "messages", Confirms::Yes),
            declare,
            ensured: Mutex::default(),
            mine: Arc::default(),
            link,
            context,
        })
    }

    /// Sees to what is about to be published to, once however many ask at a time, through the broker's
    /// absences.
    async fn ensure(&self, destination: &Destination) -> Result<(), QueueError> {
        let ensured = Arc::clone(self.ensured().entry(destination.clone()).or_default());
        let ensuring = ensured.get_or_try_init(async || {
            let Context {
                broker, declarer, ..
            } = &*self.context;
            let mut pace = Pace::new();
            loop {
                pace.begin();
                let live = self.link.live().await;
                let ensuring = declarer.ensure_destination(broker, &live.connection, destination);
                match ensuring.await {
                    Err(QueueError::Unreachable { why, .. }) => {
                        tracing::debug!(?destination, "seeing to it again: {why}");
                        sleep(pace.next_wait()).await;
                    }
                    ensured => return ensured,
                }
            }
        });
        ensuring.await.copied()
    }

    fn ensured(&self) -> MutexGuard<'_, HashMap<Destination, Arc<OnceCell<()>>>> {
        self.ensured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes, through the broker's absences: twice is as good as once for all that a producer
    /// sends. `reply` is whether it asks for a result.
    async fn send(&self, reply: bool, message: impl Fn(Option<&str>) -> Message) -> Published {
        let mut pace = Pace::new();
        loop {
            pace.begin();
            let queue = if reply {
                self.mine.reply_to().await
            } else {
                None
            };
            match self.publisher.publish(message(queue.as_deref())).await {
                Published::Unknown(why) => {
                    tracing::debug!("sending again: {why}");
                    sleep(pace.next_wait()).await;
                }
                published => return published,
            }
        }
    }

    /// Says it of `what`, which went to `place`, in words.
    fn judge(
        &self,
        published: &Published,
        (what, body): (&str, &[u8]),
        place: &str,
        nowhere: &str,
    ) -> Result<(), QueueError> {
        let refused = |why| QueueError::Refused {
            place: self.context.broker.place().to_owned(),
            why,
        };
        match published {
            Published::Returned => Err(refused(nowhere.to_owned())),
            Published::Refused => Err(refused(format!("{place} is full, or has failed"))),
            Published::Forbidden(why) => Err(refused(format!(
                "user {:?} lacks a permission ({why})",
                self.context.broker.user()
            ))),
            Published::TooLarge { max } => Err(QueueError::TooLarge {
                place: self.context.broker.place().to_owned(),
                why: format!(
                    "{what} of {} bytes is larger than the broker takes (max_message_size {max}): \
                     make it smaller, or have the broker's limit raised",
                    body.len()
                ),
            }),
            Published::Confirmed | Published::Unknown(_) => Ok(()),
        }
    }
}

#[async_trait]
impl Producer for AmqpProducer {
    async fn listen(&self, to: Listen) -> Result<mpsc::Receiver<News>, QueueError> {
        listen::start(&self.context, &self.link, &self.publisher, &self.mine, to).await
    }

    async fn submit(&self, connection: &str, id: &Id, body: Bytes) -> Result<(), QueueError> {
        let destination = Destination::Requests(connection.to_owned());
        self.ensure(&destination).await?;
        if *self.mine.listens.borrow() {
            let request = (connection.to_owned(), body.clone());
            self.mine.unanswered().insert(id.clone(), request);
        }
        let topology = self.context.declarer.topology();
        let request = |queue: Option<&str>| {
            message::request(topology, connection, id.as_str(), queue, body.clone())
        };
        let mut published = self.send(true, request).await;
        if published == Published::Returned && self.declare {
            // Somebody deleted the queue since we declared it.
            sleep(LEFT_DELETED).await;
            self.ensured().remove(&destination);
            self.ensure(&destination).await?;
            published = self.send(true, request).await;
        }
        let queue = topology.requests_queue(connection);
        let judged = self.judge(
            &published,
            (&format!("the request `{id}`"), &body),
            &format!("the queue `{queue}`"),
            &format!(
                "no queue for connection `{connection}`: start a worker that has it once, or \
                 import what `sparkferry topology` prints"
            ),
        );
        if judged.is_err() {
            self.mine.unanswered().remove(id);
        }
        judged
    }

    async fn cancel(&self, cancel: &Cancel) -> Result<(), QueueError> {
        self.ensure(&Destination::Control).await?;
        let topology = self.context.declarer.topology();
        let message = |_: Option<&str>| message::cancel(topology, cancel);
        let published = self.send(false, message).await;
        self.judge(
            &published,
            ("the cancel", &message(None).body),
            "the control stream",
            "no worker and no queue would get the cancel: the control exchange has no binding",
        )
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        dead::list(&self.context, &self.link, limit).await
    }

    async fn settle_dead(&self, how: SettleDead, limit: usize) -> Result<usize, QueueError> {
        dead::settle(&self.context, &self.link, &self.publisher, how, limit).await
    }

    async fn close(&self) {
        let closing = async {
            if let Some(live) = self.link.now()
                && let Err(error) = live.connection.close(200, short("closing")).await
            {
                tracing::debug!("the connection had ended already: {error}");
            }
        };
        if timeout(CLOSE_LIMIT, closing).await.is_err() {
            tracing::debug!("the broker does not answer; the connection is dropped");
        }
        self.context.shutdown.cancel();
    }
}

impl Drop for AmqpProducer {
    fn drop(&mut self) {
        self.context.shutdown.cancel();
    }
}
