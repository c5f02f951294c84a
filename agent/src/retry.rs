//! Whether a failed attempt earns another one, and when. Pure: no clock, no randomness.
//!
//! The wait before an attempt follows from the attempt's computed name, jitter included: a worker
//! that takes a request over arrives at the same moment as the one before it would have.

use std::time::Duration;

use sparkferry_shared::{ErrorClass, Key, Request};

/// What a request says about further attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first.
    pub max_retries: u32,
    /// The classes of error that earn another attempt.
    pub retry_on: Vec<ErrorClass>,
    /// `lost` earns another attempt only with this.
    pub rerun_if_lost: bool,
    /// The shortest wait, from the failed run's end.
    pub min_interval: Duration,
    /// The longest wait, from the failed run's end.
    pub max_interval: Duration,
}

impl RetryPolicy {
    /// The policy of a request.
    pub fn of(request: &Request) -> Self {
        Self {
            max_retries: request.max_retries,
            retry_on: request.retry_on.clone(),
            rerun_if_lost: request.rerun_if_lost,
            min_interval: Duration::from_millis(request.min_retry_interval_millis),
            max_interval: Duration::from_millis(request.max_retry_interval_millis),
        }
    }

    /// Whether another attempt can follow attempt `number`, should it fail in the right way.
    pub fn may_follow(&self, number: u32) -> bool {
        self.retry_on.iter().any(|class| self.earns(number, *class))
    }

    fn earns(&self, number: u32, class: ErrorClass) -> bool {
        self.retry_on.contains(&class)
            && (class != ErrorClass::Lost || self.rerun_if_lost)
            && number <= self.max_retries
    }

    /// How long after the end of attempt `number` (from 1) the next one starts; `None` if the
    /// failure earns none. `next` is the next attempt's name.
    ///
    /// Doubles from the shortest to the longest wait, with up to half of it added as jitter, never
    /// beyond the longest.
    pub fn wait_after(&self, number: u32, class: ErrorClass, next: &Key) -> Option<Duration> {
        if !self.earns(number, class) {
            return None;
        }
        let doublings = (number - 1).min(31);
        let base = self
            .min_interval
            .saturating_mul(1 << doublings)
            .min(self.max_interval);
        let wait = base + base.mul_f64(fraction(next) / 2.0);
        Some(wait.min(self.max_interval))
    }
}

/// A number from 0 to 1 that follows from a name.
fn fraction(key: &Key) -> f64 {
    let bits = key.as_uuid().as_u128() & u128::from(u32::MAX);
    let bits = u32::try_from(bits).unwrap_or(u32::MAX);
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sparkferry_shared::Names;

    use super::*;

    const CLASSES: [ErrorClass; 8] = [
        ErrorClass::User,
        ErrorClass::Request,
        ErrorClass::Auth,
        ErrorClass::Infrastructure,
        ErrorClass::Throttled,
        ErrorClass::Timeout,
        ErrorClass::Canceled,
        ErrorClass::Lost,
    ];

    fn policy() -> impl Strategy<Value = RetryPolicy> {
        (
            0..5_u32,
            prop::collection::vec(prop::sample::select(&CLASSES[..]), 0..4),
            any::<bool>(),
            0..100_000_u64,
            0..400_000_u64,
        )
            .prop_map(
                |(max_retries, retry_on, rerun_if_lost, min, more)| RetryPolicy {
                    max_retries,
                    retry_on,
                    rerun_if_lost,
                    min_interval: Duration::from_millis(min),
                    max_interval: Duration::from_millis(min + more),
                },
            )
    }

    proptest! {
        #[test]
        fn a_wait_lies_between_its_bounds_and_is_the_same_for_every_worker(
            policy in policy(),
            number in 1..200_u32,
            class in prop::sample::select(&CLASSES[..]),
            id in "[a-z]{1,8}",
        ) {
            let next = Names::new("sparkferry", "prod", &id).key(number + 1);
            let wait = policy.wait_after(number, class, &next);
            prop_assert_eq!(wait, policy.wait_after(number, class, &next));
            if let Some(wait) = wait {
                prop_assert!(wait >= policy.min_interval && wait <= policy.max_interval);
                prop_assert!(policy.retry_on.contains(&class));
                prop_assert!(number <= policy.max_retries);
                prop_assert!(class != ErrorClass::Lost || policy.rerun_if_lost);
            } else {
                prop_assert!(
                    !policy.retry_on.contains(&class)
                        || number > policy.max_retries
                        || (class == ErrorClass::Lost && !policy.rerun_if_lost)
                );
            }
        }

        #[test]
        fn an_attempt_may_follow_exactly_where_some_failure_earns_one(
            policy in policy(),
            number in 1..8_u32,
        ) {
            let next = Names::new("sparkferry", "prod", "x").key(number + 1);
            let earned = CLASSES.iter().any(|class| policy.wait_after(number, *class, &next).is_some());
            prop_assert_eq!(policy.may_follow(number), earned);
        }

        #[test]
        fn attempts_are_never_more_than_allowed(policy in policy(), class in prop::sample::select(&CLASSES[..])) {
            let names = Names::new("sparkferry", "prod", "x");
            let mut number = 1;
            while policy.wait_after(number, class, &names.key(number + 1)).is_some() {
                number += 1;
            }
            prop_assert!(number <= policy.max_retries + 1);
        }
    }
}
