//! Settling deliveries: few frames for many acknowledgements.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use sparkferry_ports::queue::Lease;

/// How long a settled delivery waits for company before it is told to the broker.
const GATHER: Duration = Duration::from_millis(2);

/// The deliveries of one channel that are not settled on the wire. Tags grow with each delivery.
#[derive(Debug, Default)]
struct Window {
    held: BTreeSet<u64>,
    done: Vec<u64>,
    returned: Vec<u64>,
    /// Something was taken to be told and is still on its way.
    telling: bool,
}

/// What goes over the wire in one flush, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Flush {
    /// Each negatively acknowledged, to be delivered again.
    returned: Vec<u64>,
    /// Acknowledged together with all before it.
    up_to: Option<u64>,
    /// Each acknowledged alone: something before it is still held.
    single: Vec<u64>,
}

impl Window {
    fn deliver(&mut self, tag: u64) {
        self.held.insert(tag);
    }

    /// False where it is not held (any more).
    fn ack(&mut self, tag: u64) -> bool {
        let held = self.held.remove(&tag);
        if held {
            self.done.push(tag);
        }
        held
    }

    fn hand_back(&mut self, tag: u64) -> bool {
        let held = self.held.remove(&tag);
        if held {
            self.returned.push(tag);
        }
        held
    }

    /// Nothing is held, and nothing left to tell.
    fn is_settled(&self) -> bool {
        let told = self.done.is_empty() && self.returned.is_empty() && !self.telling;
        self.held.is_empty() && told
    }

    /// Takes what is to be told. The acknowledged tags below the oldest held one are told with
    /// one frame: every tag up to the greatest of them is settled then, and it has itself never
    /// been told before, so that the broker knows it.
    fn flush(&mut self) -> Flush {
        let mut done = std::mem::take(&mut self.done);
        done.sort_unstable();
        let oldest_held = self.held.first().copied().unwrap_or(u64::MAX);
        let single = done.split_off(done.partition_point(|&tag| tag < oldest_held));
        self.telling = true;
        Flush {
            returned: std::mem::take(&mut self.returned),
            up_to: done.last().copied(),
            single,
        }
    }
}

/// One channel that consumes, from its opening to its end: a lease's `slot`.
pub(super) struct Slot {
    number: u64,
    connection: String,
    channel: Channel,
    window: Mutex<Window>,
    settled: Notify,
    told: Notify,
    lost: CancellationToken,
}

impl Slot {
    /// A delivery has arrived.
    pub(super) fn lend(&self, tag: u64) -> Lease {
        self.window().deliver(tag);
        Lease {
            slot: self.number,
            number: tag,
            lost: self.lost.clone(),
        }
    }

    /// To be acknowledged within a few milliseconds. False where it is not held.
    fn ack(&self, tag: u64) -> bool {
        let held = self.window().ack(tag);
        self.settled.notify_one();
        held
    }

    /// To be given back within a few milliseconds.
    pub(super) fn hand_back(&self, tag: u64) -> bool {
        let held = self.window().hand_back(tag);
        self.settled.notify_one();
        held
    }

    /// Tells the broker what is settled, again and again. Returns when the channel is dead.
    pub(super) async fn tell(&self) -> lapin::Error {
        loop {
            self.settled.notified().await;
            // While something is held, more may soon be settled.
            if !self.window().held.is_empty() {
                sleep(GATHER).await;
            }
            if let Err(error) = self.flush().await {
                return error;
            }
        }
    }

    async fn flush(&self) -> lapin::Result<()> {
        let flush = self.window().flush();
        for tag in flush.returned {
            self.channel.basic_nack(tag, requeue(false)).await?;
        }
        if let Some(tag) = flush.up_to {
            let multiple = BasicAckOptions { multiple: true };
            self.channel.basic_ack(tag, multiple).await?;
        }
        for tag in flush.single {
            let alone = BasicAckOptions { multiple: false };
            self.channel.basic_ack(tag, alone).await?;
        }
        self.window().telling = false;
        self.told.notify_waiters();
        Ok(())
    }

    /// Nothing is held, and the broker was told so.
    pub(super) fn is_settled(&self) -> bool {
        self.window().is_settled()
    }

    /// Waits until nothing is held, and the broker was told so. Somebody must [`Slot::tell`].
    pub(super) async fn settled(&self) {
        loop {
            let told = self.told.notified();
            if self.is_settled() {
                return;
            }
            told.await;
        }
    }

    /// Tells what is settled, then gives everything else back with one frame.
    pub(super) async fn give_everything_back(&self) -> lapin::Result<()> {
        self.flush().await?;
        // Tag 0 means all that are out on this channel, those that nobody has looked at included.
        self.channel.basic_nack(0, requeue(true)).await?;
        self.window().held.clear();
        Ok(())
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn requeue(multiple: bool) -> BasicNackOptions {
    BasicNackOptions {
        multiple,
        requeue: true,
    }
}

/// The channels that consume, by number.
#[derive(Default)]
pub(super) struct Slots(RwLock<HashMap<u64, Arc<Slot>>>);

impl Slots {
    /// A channel begins to consume. Its leases are lost when the guard is dropped.
    pub(super) fn open(
        self: &Arc<Self>,
        number: u64,
        connection: &str,
        channel: Channel,
    ) -> OpenSlot {
        let slot = Arc::new(Slot {
            number,
            connection: connection.to_owned(),
            channel,
            window: Mutex::default(),
            settled: Notify::new(),
            told: Notify::new(),
            lost: CancellationToken::new(),
        });
        let mut slots = self.0.write().unwrap_or_else(PoisonError::into_inner);
        slots.insert(number, Arc::clone(&slot));
        drop(slots);
        OpenSlot {
            slots: Arc::clone(self),
            slot,
        }
    }

    /// Has a delivery acknowledged. False where it is not held any more.
    pub(super) fn ack(&self, lease: &Lease) -> bool {
        self.get(lease).is_some_and(|slot| slot.ack(lease.number))
    }

    /// Has a delivery given back.
    pub(super) fn hand_back(&self, lease: &Lease) -> bool {
        self.get(lease)
            .is_some_and(|slot| slot.hand_back(lease.number))
    }

    /// The connection whose queue a delivery came from, while its channel is open.
    pub(super) fn connection(&self, lease: &Lease) -> Option<String> {
        self.get(lease).map(|slot| slot.connection.clone())
    }

    fn get(&self, lease: &Lease) -> Option<Arc<Slot>> {
        let slots = self.0.read().unwrap_or_else(PoisonError::into_inner);
        slots.get(&lease.slot).cloned()
    }
}

/// Keeps a slot open.
pub(super) struct OpenSlot {
    slots: Arc<Slots>,
    /// The slot.
    pub(super) slot: Arc<Slot>,
}

impl Drop for OpenSlot {
    fn drop(&mut self) {
        let mut slots = self.slots.0.write().unwrap_or_else(PoisonError::into_inner);
        slots.remove(&self.slot.number);
        drop(slots);
        self.slot.lost.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_prefix_goes_as_one_frame_and_the_rest_alone() {
        let mut window = Window::default();
        (1..=6).for_each(|tag| window.deliver(tag));
        for tag in [2, 1, 5] {
            assert!(window.ack(tag));
        }
        assert!(!window.ack(5), "acknowledged twice");
        let flush = window.flush();
        assert_eq!((flush.up_to, flush.single), (Some(2), vec![5]));
        assert!(window.ack(3) && window.hand_back(4));
        let flush = window.flush();
        assert_eq!((flush.up_to, &*flush.returned), (Some(3), &[4][..]));
        assert!(window.ack(6));
        assert_eq!(window.flush().up_to, Some(6));
        assert_eq!(window.flush(), Flush::default());
    }

    proptest! {
        /// Against a broker of a few lines: each tag is told once, none that is held, and one
        /// acknowledged with all before it is itself still open.
        #[test]
        fn the_broker_would_agree(steps in prop::collection::vec((0_u8..10, any::<u16>()), 0..400)) {
            let mut window = Window::default();
            let mut open = BTreeSet::new();
            let mut held = BTreeSet::new();
            let mut next = 1;
            for (step, pick) in steps {
                let chosen = held.iter().nth(usize::from(pick) % held.len().max(1)).copied();
                match (step, chosen) {
                    (0..=3, _) => {
                        window.deliver(next);
                        open.insert(next);
                        held.insert(next);
                        next += 1;
                    }
                    (4..=7, Some(tag)) => {
                        prop_assert!(window.ack(tag));
                        held.remove(&tag);
                    }
                    (8, Some(tag)) => {
                        prop_assert!(window.hand_back(tag));
                        held.remove(&tag);
                    }
                    _ => {
                        let flush = window.flush();
                        for tag in flush.returned {
                            prop_assert!(open.remove(&tag));
                        }
                        if let Some(up_to) = flush.up_to {
                            prop_assert!(open.contains(&up_to));
                            open.retain(|&tag| tag > up_to);
                        }
                        for tag in flush.single {
                            prop_assert!(open.remove(&tag));
                        }
                        prop_assert_eq!(&open, &held);
                    }
                }
            }
        }
    }
}
