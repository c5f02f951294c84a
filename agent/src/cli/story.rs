//! An event as a line for people.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sparkferry_shared::{Event, RunError};

use super::print;

/// Characters of an error that a line shows; the result has it whole.
const ERROR_LIMIT: usize = 200;

/// Time (of this machine's zone), id, connection, type, and what belongs to it:
/// `03:40:19 orders-1 [prod] progress: attempt 1, RUNNING, 1/3 tasks`.
pub(crate) fn line(event: &Event) -> String {
    let mut line = format!(
        "{} {} [{}] {}",
        clock(event.at),
        event.id,
        print::one_line(&event.connection, 64),
        event.event_type
    );
    let details = details(event);
    if !details.is_empty() {
        line.push_str(": ");
        line.push_str(&details);
    }
    line
}

/// What belongs to an event: attempt, run, state, tasks, delay, ending, error.
pub(crate) fn details(event: &Event) -> String {
    let details = &event.details;
    let mut parts = Vec::new();
    if let Some(attempt) = event.attempt {
        parts.push(format!("attempt {attempt}"));
    }
    if let Some(run) = details.run_id {
        parts.push(format!("run {run}"));
    }
    if let Some(state) = &details.state {
        parts.push(print::one_line(state, 64));
    }
    match (details.done, details.total) {
        (Some(done), Some(total)) if total > 0 => parts.push(format!("{done}/{total} tasks")),
        _ => {}
    }
    if let Some(delay) = details.delay_ms {
        let delay = print::duration(Duration::from_millis(delay));
        parts.push(format!("next attempt in {delay}"));
    }
    if let Some(outcome) = details.outcome {
        parts.push(outcome.to_string());
    }
    if let Some(error) = &details.error {
        parts.push(self::error(error));
    }
    if let Some(page) = &details.run_page_url {
        parts.push(print::one_line(page, 400));
    }
    parts.join(", ")
}

/// An error on one line: class, the engine's code, message.
pub(crate) fn error(error: &RunError) -> String {
    let mut text = error.class.to_string();
    if let Some(code) = &error.code {
        // Writing to a String never fails.
        let _ = write!(text, " {code}");
    }
    let _ = write!(text, ": {}", error.message);
    print::one_line(&text, ERROR_LIMIT)
}

/// The time of day, in this machine's zone.
pub(crate) fn clock(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system())
        .strftime("%H:%M:%S")
        .to_string()
}

#[cfg(test)]
mod tests {
    use sparkferry_shared::event::EventDetails;
    use sparkferry_shared::{ErrorClass, EventType};

    use super::*;

    fn event(event_type: EventType, details: EventDetails) -> Event {
        Event {
            event_type,
            id: "orders-1".parse().unwrap(),
            connection: "prod".to_owned(),
            at: "2026-11-21T03:40:19Z".parse().unwrap(),
            worker: "w".to_owned(),
            labels: std::collections::BTreeMap::default(),
            attempt: Some(1),
            details,
        }
    }

    #[test]
    fn a_line_tells_what_belongs_to_the_event() {
        let progress = event(
            EventType::Progress,
            EventDetails {
                state: Some("RUNNING".to_owned()),
                done: Some(1),
                total: Some(3),
                ..EventDetails::default()
            },
        );
        let line = line(&progress);
        assert!(
            line.ends_with(" orders-1 [prod] progress: attempt 1, RUNNING, 1/3 tasks"),
            "{line}"
        );
    }

    #[test]
    fn an_error_is_one_line() {
        let retrying = event(
            EventType::Retrying,
            EventDetails {
                delay_ms: Some(10_000),
                error: Some(
                    RunError::new(ErrorClass::Infrastructure, "no\nnodes\u{1b}[2J")
                        .with_code("CLOUD_FAILURE"),
                ),
                ..EventDetails::default()
            },
        );
        assert_eq!(
            details(&retrying),
            "attempt 1, next attempt in 10 s, infrastructure CLOUD_FAILURE: no nodes [2J"
        );
    }
}
