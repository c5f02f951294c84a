//! The worker, as one request's flow sees it: what it waits for, and what it tells others.

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;
use sparkferry_ports::queue::{NotPublished, Outgoing};
use sparkferry_shared::event::EventDetails;
use sparkferry_shared::{
    Attempt, ErrorClass, Event, EventType, Names, Outcome, RunError, RunResult,
};

use super::driver::Drive;
use super::fit;
use crate::flow::{Ending, Host};
use crate::observe::metrics;

/// One request's place in the worker.
pub(super) struct LaneHost<'a> {
    pub(super) drive: &'a Drive,
    pub(super) names: Names,
}

impl LaneHost<'_> {
    /// The result, as of now.
    pub(super) fn result(
        &self,
        outcome: Outcome,
        attempts: Vec<Attempt>,
        output: Option<Value>,
        error: Option<RunError>,
    ) -> RunResult {
        let Drive { shared, lane, .. } = self.drive;
        let driver = &self.drive.driver;
        RunResult {
            id: driver.id.clone(),
            outcome,
            connection: lane.name.clone(),
            kind: self.drive.kind,
            labels: driver.labels(),
            attempts,
            output,
            error,
            received_at: driver.received_at,
            finished_at: Timestamp::now(),
            worker: shared.worker.clone(),
            redelivered: driver.redelivered(),
            truncated: false,
        }
    }

    /// The result as a message: at most as large as we publish, and as its queue takes (`max`).
    pub(super) fn outgoing(&self, result: &RunResult, max: Option<usize>) -> Outgoing {
        let own_limit = fit::own_limit(self.drive.shared.max_output_bytes);
        let body = fit::fit(result, max.unwrap_or(own_limit).min(own_limit));
        if let Some(max) = max {
            tracing::warn!(id = %result.id, connection = result.connection, "the result is larger than its queue takes, which is {max} bytes: a smaller one is published");
        }
        Outgoing {
            message_id: self.names.result(),
            id: result.id.clone(),
            connection: result.connection.clone(),
            outcome: result.outcome,
            body: body.into(),
        }
    }

    /// Publishes a result and keeps the request.
    async fn publish_early(&self, result: RunResult) {
        let mut outgoing = self.outgoing(&result, None);
        let (slot, queue) = (&self.drive.driver.slot, &self.drive.shared.queue);
        loop {
            slot.held().await;
            let answers = slot.answers();
            match queue.announce(&answers, &outgoing).await {
                Ok(()) => {
                    slot.announced(&answers);
                    break;
                }
                // They are somebody else's.
                Err(NotPublished::LeaseLost) => drop(slot.settled(&answers, false)),
                Err(NotPublished::TooLarge { max }) => {
                    outgoing = self.outgoing(&result, Some(max));
                }
            }
        }
        self.tell_finished(result);
    }

    /// The result is published, and whatever else happens is no news.
    pub(super) fn tell_finished(&self, result: RunResult) {
        let took = result.received_at.duration_until(Timestamp::now());
        metrics::result_settled(
            &result.connection,
            result.outcome.as_str(),
            took.try_into().unwrap_or_default(),
        );
        let number = result.attempts.last().map(|attempt| attempt.number);
        let details = EventDetails {
            outcome: Some(result.outcome),
            error: result.error,
            ..EventDetails::default()
        };
        self.tell(EventType::Finished, number, details);
    }
}

#[async_trait]
impl Host for LaneHost<'_> {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn held(&self) {
        self.drive.driver.slot.held().await;
    }

    fn announce<'a>(&'a self, ending: &Ending) -> BoxFuture<'a, ()> {
        let (attempts, error) = (ending.attempts.clone(), ending.error.clone());
        let result = self.result(ending.outcome, attempts, ending.output.clone(), error);
        Box::pin(self.publish_early(result))
    }

    async fn cancelled(&self) -> String {
        self.drive.driver.cancelled().await
    }

    fn tell(&self, event_type: EventType, attempt: Option<u32>, mut details: EventDetails) {
        let Drive {
            shared,
            lane,
            driver,
            ..
        } = self.drive;
        let attempt = driver.note(attempt, &mut details);
        shared.queue.tell(Event {
            event_type,
            id: driver.id.clone(),
            connection: lane.name.clone(),
            at: self.now(),
            worker: shared.worker.clone(),
            labels: driver.labels(),
            attempt,
            details,
        });
    }

    fn attempt_ended(&self, class: Option<ErrorClass>) {
        metrics::attempt_ended(&self.drive.lane.name, class.map(ErrorClass::as_str));
    }
}
