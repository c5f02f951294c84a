//! Every metric, in one place.
//!
//! | name | kind | labels | meaning |
//! |---|---|---|---|
//! | `sparkferry_in_flight` | gauge | connection | requests that this worker holds |
//! | `sparkferry_requests_total` | counter | connection | deliveries received |
//! | `sparkferry_redeliveries_total` | counter | connection | of these, delivered before |
//! | `sparkferry_adoptions_total` | counter | connection | redeliveries that reached the driver already at work |
//! | `sparkferry_results_total` | counter | connection, outcome | results published and acknowledged |
//! | `sparkferry_buried_total` | counter | connection, reason | messages that could not be read |
//! | `sparkferry_handed_back_total` | counter | connection | deliveries given back before the hold limit or at a drain |
//! | `sparkferry_attempts_total` | counter | connection, class | attempts ended; `class` is `none` where nothing went wrong |
//! | `sparkferry_engine_calls_total` | counter | connection, call, status | calls to the engine, and, as `token/KIND`, to the endpoints that issue tokens for it; `status` is the HTTP status or `fault` |
//! | `sparkferry_unknown_states_total` | counter | connection | states that this version has no word for; such runs are waited for |
//! | `sparkferry_request_duration_seconds` | histogram | connection | from receipt to acknowledgement |
//! | `sparkferry_publish_confirm_seconds` | histogram | | from publishing a result to its confirm |
//! | `sparkferry_events_dropped_total` | counter | | events that could not be sent at once |
//! | `sparkferry_queue_reconnects_total` | counter | | connections to the queue made again |

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Seconds: from what a local engine needs to a run of a day.
const DURATION_BUCKETS: [f64; 12] = [
    0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 43_200.0, 86_400.0,
];
/// Seconds: from a broker beside us to one in trouble.
const CONFIRM_BUCKETS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0];

/// Begins to count, once for the process. The handle renders what was counted, as Prometheus reads
/// it. To be called within a tokio runtime.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let duration = Matcher::Full("sparkferry_request_duration_seconds".to_owned());
    let confirm = Matcher::Full("sparkferry_publish_confirm_seconds".to_owned());
    PrometheusBuilder::new()
        .set_buckets_for_metric(duration, &DURATION_BUCKETS)?
        .set_buckets_for_metric(confirm, &CONFIRM_BUCKETS)?
        .install_recorder()
}

/// A delivery arrived.
pub fn request_received(connection: &str, seen_before: bool) {
    counter!("sparkferry_requests_total", "connection" => connection.to_owned()).increment(1);
    if seen_before {
        counter!("sparkferry_redeliveries_total", "connection" => connection.to_owned())
            .increment(1);
    }
}

/// A redelivery reached the driver that is already at work.
pub fn delivery_adopted(connection: &str) {
    counter!("sparkferry_adoptions_total", "connection" => connection.to_owned()).increment(1);
}

/// So many more (or fewer) requests are held.
pub fn in_flight(connection: &str, change: i32) {
    gauge!("sparkferry_in_flight", "connection" => connection.to_owned())
        .increment(f64::from(change));
}

/// A result is published and its request acknowledged.
pub fn result_settled(connection: &str, outcome: &'static str, took: Duration) {
    counter!(
        "sparkferry_results_total",
        "connection" => connection.to_owned(), "outcome" => outcome
    )
    .increment(1);
    histogram!("sparkferry_request_duration_seconds", "connection" => connection.to_owned())
        .record(took);
}

/// A message could not be read.
pub fn buried(connection: &str, reason: &'static str) {
    counter!(
        "sparkferry_buried_total",
        "connection" => connection.to_owned(), "reason" => reason
    )
    .increment(1);
}

/// A delivery was given back.
pub fn handed_back(connection: &str) {
    counter!("sparkferry_handed_back_total", "connection" => connection.to_owned()).increment(1);
}

/// An attempt ended.
pub fn attempt_ended(connection: &str, class: Option<&'static str>) {
    counter!(
        "sparkferry_attempts_total",
        "connection" => connection.to_owned(), "class" => class.unwrap_or("none")
    )
    .increment(1);
}

/// A call to the engine was answered (`status`) or not (`None`).
pub fn engine_call(connection: &str, call: &'static str, status: Option<u16>) {
    let status = status.map_or_else(|| "fault".to_owned(), |status| status.to_string());
    counter!(
        "sparkferry_engine_calls_total",
        "connection" => connection.to_owned(), "call" => call, "status" => status
    )
    .increment(1);
}

/// The engine told a state that this version has no word for.
pub fn unknown_state(connection: &str) {
    counter!("sparkferry_unknown_states_total", "connection" => connection.to_owned()).increment(1);
}

/// A published result was confirmed.
pub fn publish_confirmed(took: Duration) {
    histogram!("sparkferry_publish_confirm_seconds").record(took);
}

/// An event was dropped.
pub fn event_dropped() {
    counter!("sparkferry_events_dropped_total").increment(1);
}

/// The connection to the queue was made again.
pub fn queue_reconnected() {
    counter!("sparkferry_queue_reconnects_total").increment(1);
}
