//! Replies: results for the queues that producers name.
//!
//! A name is the producer's own. Nearly any is harmless: a queue that is not there, or that we may not
//! write to. But RabbitMQ closes the *connection* on which it is sent a reply for a made-up
//! `amq.rabbitmq.reply-to.X.Y` (an address of its direct reply-to). Such addresses therefore have a connection
//! of their own, made for the first of them, and one reply at a time is under way on it: what the
//! broker closes it for costs no other reply.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::confirm::Published;
use super::connect::Pace;
use super::link::{Context, Link, Live};
use super::publish::{Confirms, Message, Publisher};

/// What the connection is for, in the log and to the broker's operator.
const REPLYING: &str = "worker, replying";
/// How the addresses of RabbitMQ's direct reply-to begin.
const DIRECT: &str = "amq.rabbitmq.reply-to";
/// How long a reply may take. It never holds up the result for longer.
const REPLY_LIMIT: Duration = Duration::from_secs(5);

/// Sends replies.
pub(super) struct Replies {
    context: Arc<Context>,
    to_queues: Publisher,
    direct: OnceLock<Direct>,
}

struct Direct {
    link: Link,
    publisher: Publisher,
    turn: Semaphore,
}

impl Replies {
    /// Replies to queues go over this connection.
    pub(super) fn new(context: &Arc<Context>, publishing: &Link) -> Self {
        Self {
            context: Arc::clone(context),
            to_queues: Publisher::start(context, publishing, "replies", Confirms::Yes),
            direct: OnceLock::new(),
        }
    }

    /// Sends a reply: confirmed, or given up after a few seconds.
    pub(super) async fn send(&self, reply_to: &str, message: impl Fn() -> Message) {
        let sending = async {
            if reply_to.starts_with(DIRECT) {
                self.send_directly(message()).await
            } else {
                self.send_to_queue(reply_to, message).await
            }
        };
        match timeout(REPLY_LIMIT, sending).await {
            Ok(Published::Confirmed) => {}
            Ok(published) => tracing::debug!(reply_to, ?published, "the reply was not taken"),
            Err(_) => tracing::debug!(reply_to, "the reply was given up"),
        }
    }

    /// The connection for direct replies, if there is one now.
    pub(super) fn now(&self) -> Option<Arc<Live>> {
        self.direct.get()?.link.now()
    }

    async fn send_to_queue(&self, reply_to: &str, message: impl Fn() -> Message) -> Published {
        let mut pace = Pace::new();
        loop {
            pace.begin();
            match self.to_queues.publish(message()).await {
                Published::Unknown(why) => tracing::debug!(reply_to, "reply repeated: {why}"),
                published => return published,
            }
            sleep(pace.next_wait()).await;
        }
    }

    /// Once: where it ended the connection, it would do so again.
    async fn send_directly(&self, message: Message) -> Published {
        let direct = self.direct.get_or_init(|| Direct::start(&self.context));
        // Never closed: an error would only mean that nobody waits for a turn.
        let _turn = direct.turn.acquire().await;
        direct.publisher.publish(message).await
    }
}

impl Direct {
    fn start(context: &Arc<Context>) -> Self {
        let link = Link::start_apart(context, REPLYING);
        Self {
            publisher: Publisher::start(context, &link, "direct replies", Confirms::Yes),
            turn: Semaphore::new(1),
            link,
        }
    }
}
