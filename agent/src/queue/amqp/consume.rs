//! Taking deliveries: one task for each channel, which sets the channel up again whenever it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};
use sparkferry_ports::queue::{Delivery, Lease, QueueError};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::ack::{Slot, Slots};
use super::connect::{Pace, short};
use super::declare::{LEFT_DELETED, soft};
use super::link::{Context, Link, Live};
use super::message;
use super::version::Version;

/// The most deliveries that one channel holds: what a channel that the broker closes takes down.
const PER_CHANNEL: u32 = 2000;
/// How long a channel has nothing to do before it subscribes anew.
const IDLE: Duration = Duration::from_secs(30);
/// The argument of a subscription that says how long a delivery may be held, in milliseconds.
const CONSUMER_TIMEOUT: &str = "x-consumer-timeout";

/// How long the broker is to wait for what it delivered, where it lets us say so (RabbitMQ 4.3 and later):
/// hand-backs at the hold limit come first, and a worker that is stuck loses its requests all the same.
/// At most a year: what Erlang's timers can't hold ends the queue's process, again and again.
pub(super) fn consumer_timeout(hold_limit: Duration) -> Duration {
    const A_YEAR: Duration = Duration::from_hours(24 * 365);
    hold_limit.saturating_add(hold_limit / 2).min(A_YEAR)
}

/// Spreads a prefetch evenly over channels.
pub(super) fn shares(max_active_runs: u32) -> impl Iterator<Item = u16> {
    let all = max_active_runs.max(1);
    let channels = all.div_ceil(PER_CHANNEL);
    (0..channels).map(move |n| {
        let share = all / channels + u32::from(n < all % channels);
        // At most PER_CHANNEL, which a u16 holds.
        u16::try_from(share).unwrap_or(u16::MAX)
    })
}

/// One channel that takes deliveries.
pub(super) struct Taker {
    /// What all tasks share.
    pub(super) context: Arc<Context>,
    /// The connection that consumes.
    pub(super) receiving: Link,
    /// The connection that publishes: while it is blocked, nothing new is taken.
    pub(super) publishing: Link,
    /// Where leases are found again.
    pub(super) slots: Arc<Slots>,
    /// Take nothing more, hold what is held.
    pub(super) stopping: CancellationToken,
    /// Give everything back.
    pub(super) closing: CancellationToken,
    /// The connection whose queue it is.
    pub(super) connection: String,
    /// How many deliveries it holds at most.
    pub(super) prefetch: u16,
    /// How long a delivery is held before it is handed back.
    pub(super) hold_limit: Duration,
    /// The queue is none that takes a consumer timeout: an operator's classic one.
    pub(super) untimed: AtomicBool,
}

/// Where deliveries go, while any may come.
pub(super) struct Outlet {
    /// To the worker.
    pub(super) deliveries: mpsc::Sender<Delivery>,
    /// Shows that it is open.
    pub(super) _open: TaskTrackerToken,
}

/// Why a channel is no longer used.
enum End {
    /// It, or its subscription, ended: set it up again.
    Lost(String),
    /// It had nothing to do for a while.
    Idle,
    /// It is set up no more.
    Closed,
}

impl Taker {
    /// Takes deliveries until told to stop, through all that happens to the broker.
    pub(super) async fn run(self, deliveries: Outlet) {
        let mut pace = Pace::new();
        let mut deliveries = Some(deliveries);
        let source = format!("queue of {}", self.connection);
        while let Some(outlet) = &deliveries {
            let live = tokio::select! {
                () = self.stopping.cancelled() => return,
                () = self.context.shutdown.cancelled() => return,
                () = outlet.deliveries.closed() => break,
                live = self.receiving.live() => live,
            };
            pace.begin();
            let why = match self.open(&live).await {
                Ok((channel, consumer)) => {
                    self.context.board.set(&source, None);
                    match self.serve(&live, &channel, consumer, &mut deliveries).await {
                        End::Closed => return,
                        End::Idle => continue,
                        End::Lost(why) => why,
                    }
                }
                Err(error) => {
                    let why = error.to_string();
                    if !live.is_over() {
                        self.context.board.set(&source, Some(why.clone()));
                    }
                    why
                }
            };
            if live.is_over() {
                self.context.board.set(&source, None);
                continue;
            }
            let Some(outlet) = &deliveries else { break };
            let (connection, wait) = (&self.connection, pace.next_wait());
            tracing::warn!(connection, ?wait, "no deliveries, subscribing again: {why}");
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = self.context.shutdown.cancelled() => return,
                () = outlet.deliveries.closed() => break,
                () = sleep(wait) => {}
            }
        }
        // Nobody takes from this queue any more, so nothing is wrong with it.
        self.context.board.set(&source, None);
    }

    async fn open(&self, live: &Live) -> Result<(Channel, Consumer), QueueError> {
        let context = &self.context;
        let (broker, declarer) = (&context.broker, &context.declarer);
        declarer
            .ensure_requests(broker, &live.connection, &self.connection)
            .await?;
        let mut opened = self.channel(live).await;
        if let Err(error) = &opened
            && self.refuses_consumer_timeout(error)
        {
            opened = self.channel(live).await;
        }
        opened.map_err(|error| broker.error(&error))
    }

    async fn channel(&self, live: &Live) -> lapin::Result<(Channel, Consumer)> {
        let channel = live.connection.create_channel().await?;
        let qos = BasicQosOptions { global: false };
        channel.basic_qos(self.prefetch, qos).await?;
        let consumer = self.subscribe(&channel).await?;
        Ok((channel, consumer))
    }

    async fn subscribe(&self, channel: &Channel) -> lapin::Result<Consumer> {
        let topology = self.context.declarer.topology();
        let mut arguments = FieldTable::default();
        let version = self.receiving.now().and_then(|live| live.version);
        let takes_it = version.is_some_and(Version::takes_consumer_timeout);
        if takes_it && !self.untimed.load(Ordering::Relaxed) {
            let timeout = consumer_timeout(self.hold_limit).as_millis();
            if let Ok(timeout) = i64::try_from(timeout) {
                arguments.insert(short(CONSUMER_TIMEOUT), AMQPValue::LongLongInt(timeout));
            }
        }
        let consuming = channel.basic_consume(
            short(&topology.requests_queue(&self.connection)),
            // Empty: the broker names it.
            short(""),
            BasicConsumeOptions::default(),
            arguments,
        );
        consuming.await
    }

    /// Whether a subscription failed for its consumer timeout, which then is not asked for again: only
    /// quorum queues have one.
    fn refuses_consumer_timeout(&self, error: &lapin::Error) -> bool {
        let refuses = soft(error) == Some(&AMQPSoftError::PRECONDITIONFAILED)
            && error.to_string().contains(CONSUMER_TIMEOUT);
        if refuses {
            let connection = &self.connection;
            tracing::debug!(connection, "the queue has no consumer timeout: {error}");
            self.untimed.store(true, Ordering::Relaxed);
        }
        refuses
    }

    /// One channel, from its first delivery to its end. Whatever is still held at the end is lost.
    async fn serve(
        &self,
        live: &Live,
        channel: &Channel,
        consumer: Consumer,
        deliveries: &mut Option<Outlet>,
    ) -> End {
        let number = self.context.next_generation();
        let open = self.slots.open(number, &self.connection, channel.clone());
        let slot = &open.slot;
        tokio::select! {
            () = self.closing.cancelled() => {
                if let Err(error) = slot.give_everything_back().await {
                    tracing::debug!("the broker takes back what was held by itself: {error}");
                }
                End::Closed
            }
            () = live.dead.cancelled() => End::Lost("the connection ended".into()),
            error = slot.tell() => End::Lost(self.context.broker.error(&error).to_string()),
            end = self.pump(channel, slot, consumer, deliveries) => {
                // After a cancel by the broker the channel would stay, and hold what is out.
                let _ = channel.close(200, short("no longer used")).await;
                end
            }
        }
    }

    /// Passes deliveries on. Returns when the subscription has ended otherwise than by us, or when
    /// nobody listens any more and everything that was passed on is settled.
    async fn pump(
        &self,
        channel: &Channel,
        slot: &Slot,
        mut consumer: Consumer,
        deliveries: &mut Option<Outlet>,
    ) -> End {
        if let Some(to) = deliveries {
            let passed = tokio::select! {
                biased;
                () = self.stopping.cancelled() => None,
                end = self.pass_on(channel, slot, &mut consumer, to) => end,
            };
            if let Some(end) = passed {
                return end;
            }
            self.stop(channel, slot, &mut consumer).await;
            *deliveries = None;
        }
        if self.stopping.is_cancelled() {
            std::future::pending::<()>().await;
        }
        slot.settled().await;
        End::Closed
    }

    /// Passes deliveries on until the subscription ends, and tells why it did; `None` when nobody
    /// listens any more.
    async fn pass_on(
        &self,
        channel: &Channel,
        slot: &Slot,
        consumer: &mut Consumer,
        to: &Outlet,
    ) -> Option<End> {
        loop {
            // Room first: what waits at the broker can go to another worker.
            let room = to.deliveries.reserve().await.ok()?;
            let next = async {
                self.publishing.unblocked().await;
                consumer.next().await
            };
            let next = tokio::select! {
                biased;
                () = to.deliveries.closed() => return None,
                next = next => next,
                () = self.idle(slot) => {
                    drop(room);
                    match self.renew(channel, slot, consumer, to).await {
                        Ok(true) => return Some(End::Idle),
                        Ok(false) => continue,
                        Err(error) => return Some(self.lost(&error)),
                    }
                }
            };
            match next {
                Some(Ok(delivered)) => {
                    let lease = slot.lend(delivered.delivery_tag);
                    room.send(self.delivery(delivered, lease));
                }
                Some(Err(error)) => return Some(self.lost(&error)),
                None => {
                    // The queue was deleted, most likely, and other workers are to be told, too.
                    sleep(LEFT_DELETED).await;
                    return Some(End::Lost("the broker ended the subscription".into()));
                }
            }
        }
    }

    /// Ends the subscription of a channel that has nothing to do, so that both are made anew; but what
    /// came at the last moment is passed on, and the channel stays: then it is false.
    ///
    /// Who consumes from a quorum queue is not told when it is deleted and made again at once (RabbitMQ
    /// 3.10.8, 40 times of 40): the broker gives requests to the old subscription and drops them on
    /// the way, as many as it had delivered before, for it takes their numbers for known ones. They
    /// are given to others only when the channel closes.
    async fn renew(
        &self,
        channel: &Channel,
        slot: &Slot,
        consumer: &mut Consumer,
        to: &Outlet,
    ) -> lapin::Result<bool> {
        let options = BasicCancelOptions::default();
        channel.basic_cancel(consumer.tag(), options).await?;
        let mut idle = true;
        while let Some(Some(delivered)) = consumer.next().now_or_never() {
            idle = false;
            let delivered = delivered?;
            let tag = delivered.delivery_tag;
            let delivery = self.delivery(delivered, slot.lend(tag));
            if to.deliveries.send(delivery).await.is_err() {
                slot.hand_back(tag);
            }
        }
        if !idle {
            *consumer = self.subscribe(channel).await?;
        }
        Ok(idle)
    }

    fn delivery(&self, delivered: lapin::message::Delivery, lease: Lease) -> Delivery {
        let topology = self.context.declarer.topology();
        message::delivery(topology, &self.connection, delivered, lease)
    }

    /// Returns when nothing has come for a while and nothing is held. What comes while the broker takes
    /// no messages is left where it is, unseen.
    async fn idle(&self, slot: &Slot) {
        loop {
            self.publishing.unblocked().await;
            sleep(IDLE.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            let unblocked = self.publishing.unblocked().now_or_never().is_some();
            if unblocked && slot.is_settled() {
                return;
            }
        }
    }

    fn lost(&self, error: &lapin::Error) -> End {
        End::Lost(self.context.broker.error(error).to_string())
    }

    /// Ends the subscription; what came in the meantime goes back.
    async fn stop(&self, channel: &Channel, slot: &Slot, consumer: &mut Consumer) {
        let options = BasicCancelOptions::default();
        if let Err(error) = channel.basic_cancel(consumer.tag(), options).await {
            tracing::debug!("the subscription had ended already: {error}");
        }
        while let Some(Some(Ok(delivered))) = consumer.next().now_or_never() {
            slot.lend(delivered.delivery_tag);
            slot.hand_back(delivered.delivery_tag);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_waits_longer_than_a_delivery_is_held_and_no_longer_than_its_timers_can() {
        let of = |seconds| consumer_timeout(Duration::from_secs(seconds)).as_secs();
        assert_eq!(of(1200), 1800);
        assert_eq!(of(u64::MAX), 365 * 24 * 3600);
    }

    #[test]
    fn a_prefetch_is_spread_evenly() {
        let of = |all| shares(all).collect::<Vec<_>>();
        assert_eq!(of(0), [1]);
        assert_eq!(of(1), [1]);
        assert_eq!(of(2000), [2000]);
        assert_eq!(of(2001), [1001, 1000]);
        assert_eq!(of(20_000), [2000; 10]);
    }
}
