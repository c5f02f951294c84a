//! A value that is had anew before it goes stale: a token, a client that is made of files.
//!
//! Guarantees: one renewal at a time; while the value serves, only the caller that renews it waits,
//! and the others take the old one; a renewal that fails leaves the old value where it is, and is not
//! repeated for a moment, however many ask. Whoever is dropped while it renews leaves the turn to the
//! next. Times are counted on this machine's own steady clock, from before the renewal was asked for.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

/// After a renewal that failed, the next one comes no sooner.
const PAUSE: Duration = Duration::from_secs(2);

/// For so long a failed renewal is told though the value is fresh.
const TOLD: Duration = Duration::from_mins(1);

/// A value, and for how long.
#[derive(Debug)]
pub struct Lasting<T> {
    /// The value.
    pub value: T,
    /// It need not be renewed before.
    pub fresh_for: Duration,
    /// It is of no use after; `None` is never.
    pub serves_for: Option<Duration>,
}

/// See the module's page. Errors are texts for people.
#[derive(Debug)]
pub struct Renewed<T> {
    kept: Mutex<Kept<T>>,
    /// Whoever renews holds it.
    turn: Semaphore,
    /// Renewals on demand ([`Renewed::other_than`]) come no sooner after each other.
    demands: Duration,
}

#[derive(Debug)]
struct Kept<T> {
    value: Option<(Instant, Lasting<T>)>,
    failed: Option<(Instant, String)>,
    demanded_at: Option<Instant>,
}

enum Look<T> {
    Fresh(T),
    Stale(T),
    Failed(String),
    Nothing,
}

impl<T: Clone> Renewed<T> {
    /// Holds nothing yet. `demands` is the least time between two renewals on demand.
    pub fn new(demands: Duration) -> Self {
        Self {
            kept: Mutex::new(Kept {
                value: None,
                failed: None,
                demanded_at: None,
            }),
            turn: Semaphore::new(1),
            demands,
        }
    }

    /// The same with a value in it.
    #[must_use]
    pub fn holding(self, value: Lasting<T>) -> Self {
        self.lock().value = Some((Instant::now(), value));
        self
    }

    /// The value, renewed where that is due.
    pub async fn get<F>(&self, renew: impl FnOnce() -> F) -> Result<T, String>
    where
        F: Future<Output = Result<Lasting<T>, String>>,
    {
        match self.look() {
            Look::Fresh(value) => Ok(value),
            Look::Stale(value) => match self.turn.try_acquire() {
                Ok(_turn) => Ok(self.renew(renew()).await.unwrap_or(value)),
                // Somebody is at it.
                Err(_) => Ok(value),
            },
            Look::Failed(why) => Err(why),
            Look::Nothing => {
                // The semaphore is never closed, so this can't fail.
                let _turn = self.turn.acquire().await;
                match self.look() {
                    Look::Fresh(value) | Look::Stale(value) => Ok(value),
                    Look::Failed(why) => Err(why),
                    Look::Nothing => self.renew(renew()).await,
                }
            }
        }
    }

    /// Another value than the one that was refused, if there is one by now or can be had.
    pub async fn other_than<F>(&self, refused: &T, renew: impl FnOnce() -> F) -> Option<T>
    where
        T: PartialEq,
        F: Future<Output = Result<Lasting<T>, String>>,
    {
        let other = |look| match look {
            Look::Fresh(value) | Look::Stale(value) if value != *refused => Some(value),
            _ => None,
        };
        if let Some(value) = other(self.look()) {
            return Some(value);
        }
        let _turn = self.turn.acquire().await;
        if let Some(value) = other(self.look()) {
            return Some(value);
        }
        {
            let mut kept = self.lock();
            let recent = |at: Instant| at.elapsed() < self.demands;
            if kept.demanded_at.is_some_and(recent) {
                return None;
            }
            kept.demanded_at = Some(Instant::now());
        }
        let renewed = self.renew(renew()).await.ok();
        renewed.filter(|value| value != refused)
    }

    /// What is held, however old.
    pub fn kept(&self) -> Option<T> {
        let kept = self.lock();
        kept.value.as_ref().map(|(_, held)| held.value.clone())
    }

    /// Why the last renewal failed, if it did: as long as one is due, or for a minute where it was
    /// done on demand.
    pub fn trouble(&self) -> Option<String> {
        let kept = self.lock();
        let fresh = kept
            .value
            .as_ref()
            .is_some_and(|(at, held)| at.elapsed() < held.fresh_for);
        let (at, why) = kept.failed.as_ref()?;
        (!fresh || at.elapsed() < TOLD).then(|| why.clone())
    }

    async fn renew(
        &self,
        renewal: impl Future<Output = Result<Lasting<T>, String>>,
    ) -> Result<T, String> {
        let asked_at = Instant::now();
        let renewed = renewal.await;
        let mut kept = self.lock();
        match renewed {
            Ok(held) => {
                let value = held.value.clone();
                kept.value = Some((asked_at, held));
                kept.failed = None;
                Ok(value)
            }
            Err(why) => {
                kept.failed = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    fn look(&self) -> Look<T> {
        let kept = self.lock();
        let failed = kept.failed.as_ref().filter(|(at, _)| at.elapsed() < PAUSE);
        match (&kept.value, failed) {
            (Some((at, held)), failed)
                if held.serves_for.is_none_or(|time| at.elapsed() < time) =>
            {
                let value = held.value.clone();
                if failed.is_some() || at.elapsed() < held.fresh_for {
                    Look::Fresh(value)
                } else {
                    Look::Stale(value)
                }
            }
            (_, Some((_, why))) => Look::Failed(why.clone()),
            (_, None) => Look::Nothing,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept<T>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use tokio::sync::Notify;
    use tokio::time::advance;

    use super::*;

    /// Counts renewals; each takes a second, lasts a minute and is fresh for half of it.
    #[derive(Default)]
    struct Source {
        asked: AtomicU32,
        broken: std::sync::atomic::AtomicBool,
    }

    impl Source {
        async fn renew(&self) -> Result<Lasting<u32>, String> {
            let value = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
            if self.broken.load(Ordering::Relaxed) {
                return Err("no more".to_owned());
            }
            Ok(Lasting {
                value,
                fresh_for: Duration::from_secs(30),
                serves_for: Some(Duration::from_mins(1)),
            })
        }
    }

    fn renewed() -> Renewed<u32> {
        Renewed::new(Duration::from_secs(10))
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_ask_together_make_one_renewal() {
        let (source, renewed) = (Source::default(), renewed());
        let all = join_all((0..100).map(|_| renewed.get(|| source.renew()))).await;
        assert!(all.iter().all(|value| *value == Ok(1)));
        assert_eq!(source.asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn while_one_renews_ahead_of_time_the_others_take_the_old_one_at_once() {
        let (source, renewed) = (Source::default(), renewed());
        renewed.get(|| source.renew()).await.unwrap();
        advance(Duration::from_secs(30)).await;
        let mut first = Box::pin(renewed.get(|| source.renew()));
        assert!(first.as_mut().now_or_never().is_none());
        for _ in 0..10 {
            let other = renewed.get(|| source.renew()).now_or_never();
            assert_eq!(other, Some(Ok(1)));
        }
        assert_eq!(first.await, Ok(2));
        assert_eq!(renewed.get(|| source.renew()).await, Ok(2));
        assert_eq!(source.asked.load(Ordering::Relaxed), 2);
    }

    /// As a run of three days has it: somebody asks every few seconds, the source fails for ten
    /// minutes now and then, and a value lasts an hour.
    #[tokio::test(start_paused = true)]
    async fn over_three_days_nobody_is_without_a_value_that_serves() {
        let (renewed, asked) = (Renewed::new(Duration::from_secs(10)), AtomicU32::new(0));
        let began = Instant::now();
        let days = Duration::from_hours(72);
        while began.elapsed() < days {
            let minute = began.elapsed().as_secs() / 60;
            let renew = async || {
                asked.fetch_add(1, Ordering::Relaxed);
                if minute % 360 >= 350 {
                    return Err("down".to_owned());
                }
                Ok(Lasting {
                    value: Instant::now(),
                    fresh_for: Duration::from_mins(45),
                    serves_for: Some(Duration::from_hours(1)),
                })
            };
            let value = renewed.get(renew).await.expect("an outage is shorter");
            assert!(value.elapsed() < Duration::from_hours(1));
            advance(Duration::from_secs(7)).await;
        }
        // 96 renewals, and those that failed.
        let asked = asked.load(Ordering::Relaxed);
        assert!((90..1200).contains(&asked), "{asked}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_leaves_the_old_one_until_it_expires_and_is_told() {
        let (source, renewed) = (Source::default(), renewed());
        renewed.get(|| source.renew()).await.unwrap();
        source.broken.store(true, Ordering::Relaxed);
        advance(Duration::from_secs(30)).await;
        assert_eq!(renewed.get(|| source.renew()).await, Ok(1));
        assert_eq!(renewed.trouble().as_deref(), Some("no more"));
        // Not again for a moment, however many ask.
        for _ in 0..100 {
            assert_eq!(renewed.get(|| source.renew()).await, Ok(1));
        }
        assert_eq!(source.asked.load(Ordering::Relaxed), 2);

        advance(Duration::from_secs(30)).await;
        assert_eq!(
            renewed.get(|| source.renew()).await,
            Err("no more".to_owned())
        );
        for _ in 0..100 {
            assert!(renewed.get(|| source.renew()).await.is_err());
        }
        assert_eq!(source.asked.load(Ordering::Relaxed), 3);

        source.broken.store(false, Ordering::Relaxed);
        advance(PAUSE).await;
        assert_eq!(renewed.get(|| source.renew()).await, Ok(4));
        assert_eq!(renewed.trouble(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_dropped_while_it_renews_leaves_the_turn_to_the_next() {
        let (source, renewed) = (Source::default(), renewed());
        let never = Notify::new();
        let hanging = renewed.get(|| async {
            never.notified().await;
            Err("never".to_owned())
        });
        assert!(hanging.now_or_never().is_none());
        assert_eq!(renewed.get(|| source.renew()).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_value_is_renewed_on_demand_once_in_a_while() {
        let (source, renewed) = (Source::default(), renewed());
        renewed.get(|| source.renew()).await.unwrap();
        let refused = join_all((0..10).map(|_| renewed.other_than(&1, || source.renew()))).await;
        assert!(refused.iter().all(|value| *value == Some(2)));
        assert_eq!(renewed.other_than(&2, || source.renew()).await, None);
        assert_eq!(source.asked.load(Ordering::Relaxed), 2);
        advance(Duration::from_secs(10)).await;
        assert_eq!(renewed.other_than(&2, || source.renew()).await, Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_demand_that_failed_is_not_told_for_ever_while_the_value_is_fresh() {
        let renewed = renewed();
        let long = || async {
            Ok(Lasting {
                value: 1,
                fresh_for: Duration::from_hours(1),
                serves_for: None,
            })
        };
        renewed.get(long).await.unwrap();
        let refused = renewed.other_than(&1, || async { Err("not now".to_owned()) });
        assert_eq!(refused.await, None);
        assert_eq!(renewed.trouble().as_deref(), Some("not now"));
        advance(TOLD).await;
        assert_eq!(renewed.trouble(), None);
        advance(Duration::from_hours(1)).await;
        assert_eq!(renewed.trouble().as_deref(), Some("not now"));
    }
}
