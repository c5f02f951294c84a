//! How fast calls may follow each other.
//!
//! A [`Pace`] is a token bucket for one kind of call; all paces of a connection share one [`Brake`],
//! so that a server which says "too many" to one kind of call is spared all of them.
//!
//! Guarantees: callers get their turns in the order in which they asked; a caller that is dropped
//! while it waits uses nothing up; after a pause nobody catches up on what was missed beyond the
//! bucket's small burst.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

/// A bucket holds what a quarter of a second brings (at least one call): a few requests that
/// arrive together start together, while no second sees more than 1.25 times the rate.
const BURST: Duration = Duration::from_millis(250);

/// The slowest that a brake makes its paces: a 64th of their rate.
const SLOWEST: f64 = 1.0 / 64.0;
/// From a pause on, the brake lets go by so much of the full rate a second: from half the rate to
/// all of it in 30 s.
const RECOVERY_PER_SECOND: f64 = 1.0 / 60.0;
/// Pause after "too many" without a `Retry-After`, at the full rate; it grows as the rate shrinks:
/// 1 s after the first, 2 s after the second, at most 32 s.
const PAUSE: Duration = Duration::from_millis(500);
/// Pauses while the server can't be reached: from a quarter of a second, doubled each time, to 16 s.
const UNREACHABLE: Duration = Duration::from_millis(250);
const UNREACHABLE_DOUBLINGS: u32 = 6;

/// What slows all calls of a connection down.
#[derive(Debug)]
pub struct Brake(Mutex<Braking>);

#[derive(Debug)]
struct Braking {
    /// Nothing is sent before.
    paused_until: Instant,
    /// The share of the full rate, as of the end of the pause.
    share: f64,
    /// When the share was last halved: calls sent before tell nothing new.
    slowed_at: Option<Instant>,
    /// Pauses in a row because the server could not be reached, and when the last one began.
    unreachable: u32,
    unreachable_at: Option<Instant>,
}

impl Brake {
    /// A brake that is off.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Braking {
            paused_until: Instant::now(),
            share: 1.0,
            slowed_at: None,
            unreachable: 0,
            unreachable_at: None,
        })))
    }

    /// The server said "too many" to a call sent at `sent_at`: nothing is sent for as long as it
    /// asks (or for a growing pause where it asks nothing), and then at half the rate, which
    /// recovers. Replies to calls that were under way together count once.
    pub fn throttled(&self, sent_at: Instant, retry_after: Option<Duration>) {
        let now = Instant::now();
        let mut braking = self.lock();
        if braking.slowed_at.is_none_or(|slowed| sent_at > slowed) {
            braking.share = (braking.share_at(now) / 2.0).max(SLOWEST);
            braking.slowed_at = Some(now);
            let pause = retry_after.unwrap_or_else(|| PAUSE.div_f64(braking.share));
            braking.paused_until = braking.paused_until.max(now + pause);
        } else if let Some(pause) = retry_after {
            braking.paused_until = braking.paused_until.max(now + pause);
        }
    }

    /// The server asks to be left alone for so long, for another reason than too many calls.
    pub fn pause(&self, pause: Duration) {
        let mut braking = self.lock();
        let share = braking.share_at(Instant::now());
        braking.share = share;
        braking.paused_until = braking.paused_until.max(Instant::now() + pause);
    }

    /// A call sent at `sent_at` never reached the server: nothing is sent for a pause that grows
    /// until [`Brake::reached`].
    pub fn unreachable(&self, sent_at: Instant) {
        let now = Instant::now();
        let mut braking = self.lock();
        if braking.unreachable_at.is_none_or(|at| sent_at > at) {
            let pause = UNREACHABLE * 2_u32.pow(braking.unreachable.min(UNREACHABLE_DOUBLINGS));
            braking.unreachable = braking.unreachable.saturating_add(1);
            braking.unreachable_at = Some(now);
            braking.paused_until = braking.paused_until.max(now + pause);
        }
    }

    /// The server answered something.
    pub fn reached(&self) {
        self.lock().unreachable = 0;
    }

    fn state(&self) -> (Instant, f64) {
        let braking = self.lock();
        (braking.paused_until, braking.share_at(Instant::now()))
    }

    fn lock(&self) -> MutexGuard<'_, Braking> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Braking {
    fn share_at(&self, now: Instant) -> f64 {
        let free = now.saturating_duration_since(self.paused_until);
        (self.share + free.as_secs_f64() * RECOVERY_PER_SECOND).min(1.0)
    }
}

/// The pace of one kind of call.
#[derive(Debug)]
pub struct Pace {
    brake: Arc<Brake>,
    /// Between two calls at the full rate.
    interval: Duration,
    /// The place at the front of the queue. Whoever holds it waits for the moment; the rest queue
    /// behind it, in order.
    front: Semaphore,
    /// When the bucket would be full again, had nobody asked since (the virtual schedule of a
    /// generic cell rate algorithm).
    full_at: Mutex<Instant>,
}

impl Pace {
    /// So many calls a second (more than 0), slowed down by `brake`.
    pub fn new(per_second: f64, brake: Arc<Brake>) -> Self {
        Self {
            brake,
            interval: Duration::from_secs_f64(1.0 / per_second),
            front: Semaphore::new(1),
            full_at: Mutex::new(Instant::now()),
        }
    }

    /// Waits for its turn to call. Cancel safe: a caller that is dropped has used nothing up.
    pub async fn turn(&self) {
        // The semaphore is never closed, so this can't fail.
        let _front = self.front.acquire().await;
        while let Err(until) = self.take() {
            sleep_until(until).await;
        }
    }

    /// Takes a call's worth out of the bucket, or says when to try again.
    fn take(&self) -> Result<(), Instant> {
        let now = Instant::now();
        let (paused_until, share) = self.brake.state();
        if now < paused_until {
            return Err(paused_until);
        }
        let interval = self.interval.div_f64(share);
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let next = (*full_at).max(now) + interval;
        let earliest = next.checked_sub(interval.max(BURST)).unwrap_or(now);
        if now < earliest {
            return Err(earliest);
        }
        *full_at = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::join_all;
    use tokio::time::{advance, timeout};

    use super::*;

    async fn calls_in(pace: &Pace, time: Duration) -> u32 {
        let calls = AtomicU32::new(0);
        let _ = timeout(time, async {
            loop {
                pace.turn().await;
                calls.fetch_add(1, Ordering::Relaxed);
            }
        })
        .await;
        calls.into_inner()
    }

    const SECONDS: fn(u64) -> Duration = Duration::from_secs;

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_with_a_small_burst_and_no_catching_up() {
        let pace = Pace::new(20.0, Brake::new());
        let calls = calls_in(&pace, SECONDS(10)).await;
        assert!((200..=206).contains(&calls), "{calls}");
        advance(SECONDS(1000)).await;
        let calls = calls_in(&pace, SECONDS(1)).await;
        assert!((20..=26).contains(&calls), "{calls}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_pace_lets_the_first_call_go_at_once() {
        let pace = Pace::new(0.1, Brake::new());
        let start = Instant::now();
        pace.turn().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        pace.turn().await;
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_order_and_the_dropped_use_nothing_up() {
        let pace = Arc::new(Pace::new(1.0, Brake::new()));
        pace.turn().await;
        let start = Instant::now();
        let waiting: Vec<_> = (0..100)
            .map(|_| {
                let pace = Arc::clone(&pace);
                tokio::spawn(async move { pace.turn().await })
            })
            .collect();
        tokio::task::yield_now().await;
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
        join_all(waiting).await;
        let order = Mutex::new(Vec::new());
        join_all((0..3).map(|n| {
            let (pace, order) = (&pace, &order);
            async move {
                pace.turn().await;
                order.lock().unwrap().push((n, start.elapsed().as_secs()));
            }
        }))
        .await;
        assert_eq!(*order.lock().unwrap(), [(0, 1), (1, 2), (2, 3)]);
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_stops_all_paces_then_halves_them_and_they_recover() {
        let brake = Brake::new();
        let start = Pace::new(10.0, Arc::clone(&brake));
        let poll = Pace::new(20.0, Arc::clone(&brake));
        poll.turn().await;
        let sent = Instant::now();
        // Twenty calls were under way: the first one slows us down, the others tell nothing new.
        for _ in 0..20 {
            brake.throttled(sent, Some(SECONDS(5)));
            advance(Duration::from_millis(1)).await;
        }
        assert_eq!(calls_in(&start, SECONDS(4)).await, 0);
        assert_eq!(calls_in(&poll, Duration::from_millis(900)).await, 0);
        advance(Duration::from_millis(200)).await;
        let calls = calls_in(&poll, SECONDS(3)).await;
        assert!((28..=40).contains(&calls), "{calls}");
        advance(SECONDS(30)).await;
        let calls = calls_in(&poll, SECONDS(10)).await;
        assert!(calls >= 200, "{calls}");
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_where_the_server_asks_for_none() {
        let brake = Brake::new();
        let pace = Pace::new(1000.0, Arc::clone(&brake));
        let mut pauses = Vec::new();
        for _ in 0..8 {
            brake.throttled(Instant::now(), None);
            let before = Instant::now();
            pace.turn().await;
            pauses.push(before.elapsed().as_secs());
        }
        assert_eq!(pauses[..3], [1, 2, 4]);
        assert!(
            pauses.is_sorted() && *pauses.last().unwrap() <= 33,
            "{pauses:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreachable_server_is_left_alone_for_longer_and_longer_until_it_answers() {
        let brake = Brake::new();
        let pace = Pace::new(1000.0, Arc::clone(&brake));
        let mut pauses = Vec::new();
        for _ in 0..9 {
            brake.unreachable(Instant::now());
            let before = Instant::now();
            pace.turn().await;
            pauses.push(before.elapsed().as_millis());
        }
        assert_eq!(pauses[..4], [250, 500, 1000, 2000]);
        assert_eq!(pauses[7..], [16_000, 16_000]);
        brake.reached();
        brake.unreachable(Instant::now());
        let before = Instant::now();
        pace.turn().await;
        assert_eq!(before.elapsed().as_millis(), 250);
    }
}
