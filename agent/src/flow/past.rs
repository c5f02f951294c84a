//! The attempts of a request so far, and what they make of its ending.
//!
//! A request may ask for as many attempts as it likes. What is kept of them is bounded: a result must
//! fit into a message, and a worker drives a thousand requests.

use serde_json::Value;
use sparkferry_ports::engine::{Facts, Fault, Run};
use sparkferry_shared::{Attempt, Names, Outcome, RunError};

use super::Ending;
use super::follow::Stop;

/// Attempts that stand in a result. Of more, those after the first [`FIRST`] are left out, the oldest
/// before the others, which the numbers show.
const KEPT: usize = 100;
const FIRST: usize = 10;
/// The latest of them tell their failure with traces and by tasks; of older ones the message stays.
const WITH_TRACES: usize = 3;

/// The attempts so far.
#[derive(Default)]
pub(super) struct Past {
    attempts: Vec<Attempt>,
}

impl Past {
    /// Those that are kept.
    pub(super) fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// An attempt has ended.
    pub(super) fn attempt(
        &mut self,
        number: u32,
        names: &Names,
        facts: Facts,
        error: Option<RunError>,
    ) {
        if let Some(older) = self.attempts.len().checked_sub(WITH_TRACES)
            && let Some(error) = self.attempts.get_mut(older).and_then(|a| a.error.as_mut())
        {
            error.trace = None;
            error.tasks = Vec::new();
        }
        if self.attempts.len() == KEPT {
            self.attempts.remove(FIRST);
        }
        self.attempts.push(Attempt {
            number,
            key: names.key(number),
            run_id: facts.run_id,
            operation_ids: facts.operation_ids,
            run_page_url: facts.run_page_url,
            state: facts.state,
            status: facts.status,
            started_at: facts.started_at,
            ended_at: facts.ended_at,
            setup_duration_ms: facts.setup_duration_ms,
            execution_duration_ms: facts.execution_duration_ms,
            queue_duration_ms: facts.queue_duration_ms,
            adopted: facts.adopted,
            error,
        });
    }

    /// This is the end, without a run to be released.
    pub(super) fn ending(self, outcome: Outcome, error: Option<RunError>) -> Ending {
        Ending {
            outcome,
            attempts: self.attempts,
            output: None,
            error,
            run: None,
            announced: false,
        }
    }

    /// This is the end, with the last run.
    pub(super) fn with_run(
        self,
        outcome: Outcome,
        output: Option<Value>,
        error: Option<RunError>,
        run: Box<dyn Run>,
    ) -> Ending {
        Ending {
            output,
            run: Some(run),
            ..self.ending(outcome, error)
        }
    }

    /// The engine refused to start an attempt.
    pub(super) fn refused(self, error: RunError) -> Ending {
        let outcome = if self.attempts.is_empty() {
            Outcome::Rejected
        } else {
            Outcome::Failed
        };
        self.ending(outcome, Some(error))
    }

    /// Stopped after a failed attempt, before the next one.
    pub(super) fn stopped(self, stop: &Stop, last: RunError) -> Ending {
        let mut error = stop.to_error();
        error.message = format!("{}; the last attempt: {}", error.message, last.message);
        error.trace = last.trace;
        error.tasks = last.tasks;
        self.ending(stop.outcome(), Some(error))
    }

    /// Stopped while an attempt was to be started.
    pub(super) fn unstarted(self, stop: &Stop, fault: Option<&Fault>) -> Ending {
        let mut error = stop.to_error();
        if let Some(fault) = fault {
            error.message = format!("{}; the engine: {fault}", error.message);
        }
        let outcome = match stop {
            Stop::Deadline(_) if self.attempts.is_empty() => Outcome::Expired,
            _ => stop.outcome(),
        };
        self.ending(outcome, Some(error))
    }
}

#[cfg(test)]
mod tests {
    use sparkferry_shared::{ErrorClass, TaskError};

    use super::*;

    #[test]
    fn however_many_attempts_there_were_what_is_kept_is_bounded() {
        let names = Names::new("sparkferry", "prod", "x");
        let task = TaskError {
            task_key: "main".to_owned(),
            run_id: None,
            error: None,
            trace: Some("t".repeat(8 << 10)),
        };
        let error = RunError {
            trace: task.trace.clone(),
            tasks: vec![task; 50],
            ..RunError::new(ErrorClass::Infrastructure, "m".repeat(2 << 10))
        };
        let mut past = Past::default();
        for number in 1..=5000 {
            past.attempt(number, &names, Facts::default(), Some(error.clone()));
        }
        let attempts = past.ending(Outcome::Failed, None).attempts;
        let numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.number).collect();
        let expected: Vec<u32> = (1..=10).chain(4911..=5000).collect();
        assert_eq!(numbers, expected);
        let told = |attempt: &Attempt| attempt.error.as_ref().unwrap().tasks.len() == 50;
        assert_eq!(attempts.iter().filter(|attempt| told(attempt)).count(), 3);
        assert!(attempts[97..].iter().all(told));
        assert!(serde_json::to_vec(&attempts).unwrap().len() < 2 << 20);
    }
}
