//! What the watch tells of a run, and who hears it.
//!
//! tokio's `watch` does the same and takes 350 bytes for each run, being made for thousands who hear
//! one teller. Here a run among thousands has one who hears, seldom two.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::book::Seen;

/// Tells. Once it is dropped, nothing more can come.
#[derive(Debug)]
pub(super) struct Teller(Arc<Told>);

/// Hears what is told, the latest alone.
#[derive(Debug)]
pub(super) struct Hearer {
    told: Arc<Told>,
    /// How often had been told when it was heard last.
    heard: u32,
}

#[derive(Debug)]
struct Told {
    latest: Mutex<Latest>,
    news: Notify,
}

#[derive(Debug)]
struct Latest {
    seen: Seen,
    /// How often it was told.
    times: u32,
    over: bool,
}

impl Teller {
    pub(super) fn new(seen: Seen) -> Self {
        let latest = Mutex::new(Latest {
            seen,
            times: 0,
            over: false,
        });
        let news = Notify::new();
        Self(Arc::new(Told { latest, news }))
    }

    /// Somebody who hears from here on. What was told before can be seen, and is no news.
    pub(super) fn hearer(&self) -> Hearer {
        Hearer {
            told: Arc::clone(&self.0),
            heard: self.0.lock().times,
        }
    }

    /// Tells this, if those who hear would notice the difference to what they saw.
    pub(super) fn tell_if(&self, seen: Seen, differs: impl FnOnce(&Seen) -> bool) -> bool {
        let mut latest = self.0.lock();
        let differs = differs(&latest.seen);
        if differs {
            latest.seen = seen;
            latest.times = latest.times.wrapping_add(1);
            drop(latest);
            self.0.news.notify_waiters();
        }
        differs
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.news.notify_waiters();
    }
}

impl Hearer {
    /// What was told last.
    pub(super) fn seen(&self) -> Seen {
        self.told.lock().seen.clone()
    }

    /// The same; from here on it is no news.
    pub(super) fn hear(&mut self) -> Seen {
        let latest = self.told.lock();
        self.heard = latest.times;
        latest.seen.clone()
    }

    /// Waits for news; false where none can come any more.
    pub(super) async fn news(&self) -> bool {
        loop {
            // From here on it hears of every telling: what comes after the look wakes it.
            let woken = self.told.news.notified();
            {
                let latest = self.told.lock();
                if latest.times != self.heard {
                    return true;
                }
                if latest.over {
                    return false;
                }
            }
            woken.await;
        }
    }
}

impl Told {
    fn lock(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;

    fn gone(text: &str) -> Seen {
        Seen::Gone(text.into())
    }

    fn text(seen: &Seen) -> &str {
        match seen {
            Seen::Gone(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_latest_is_heard_once_and_then_the_end() {
        let teller = Teller::new(Seen::Nothing);
        let mut hearer = teller.hearer();
        assert!(hearer.news().now_or_never().is_none());
        for word in ["a", "b"] {
            assert!(teller.tell_if(gone(word), |_| true));
        }
        assert!(!teller.tell_if(gone("c"), |seen| text(seen) != "b"));
        assert!(hearer.news().await);
        assert_eq!(text(&hearer.seen()), "b");
        assert!(hearer.news().await, "seen is not heard");
        assert_eq!(text(&hearer.hear()), "b");
        assert!(hearer.news().now_or_never().is_none());
        teller.tell_if(gone("d"), |_| true);
        drop(teller);
        assert!(hearer.news().await, "the last word comes before the end");
        hearer.hear();
        assert!(!hearer.news().await);
        assert_eq!(text(&hearer.seen()), "d");
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_news_and_by_the_end() {
        let teller = Teller::new(Seen::Nothing);
        let mut hearers = [teller.hearer(), teller.hearer()];
        let waiting = join_all(hearers.iter().map(Hearer::news));
        let telling = async {
            // The others wait by now.
            tokio::task::yield_now().await;
            teller.tell_if(gone("a"), |_| true)
        };
        let (heard, _) = tokio::join!(waiting, telling);
        assert_eq!(heard, [true, true]);
        for hearer in &mut hearers {
            assert_eq!(text(&hearer.hear()), "a");
        }
        let waiting = join_all(hearers.iter().map(Hearer::news));
        let ending = async move {
            tokio::task::yield_now().await;
            drop(teller);
        };
        let (heard, ()) = tokio::join!(waiting, ending);
        assert_eq!(heard, [false, false]);
    }
}
