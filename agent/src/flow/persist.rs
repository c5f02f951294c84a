//! How long to wait before a call that failed is made again. The one place that decides it.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use sparkferry_ports::engine::Fault;

/// The longest wait between two tries of a call.
const LONGEST: Duration = Duration::from_secs(30);

/// Waits from 0.2 s on, doubling to 30 s, with jitter, without an end.
pub(super) fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(LONGEST)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

/// The next wait: never shorter than the engine asked for.
pub(super) fn pause(backoff: &mut ExponentialBackoff, fault: &Fault) -> Duration {
    let ours = backoff.next().unwrap_or(LONGEST).min(LONGEST);
    match fault {
        Fault::Passing {
            retry_after: Some(asked),
            ..
        }
        | Fault::Waiting {
            retry_after: asked, ..
        } => ours.max(*asked),
        _ => ours,
    }
}
