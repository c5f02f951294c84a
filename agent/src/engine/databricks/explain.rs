//! Why a run failed: the errors and traces of its failed tasks.
//!
//! Best effort. The ending is Databricks' word and stands; calls that fail here leave out details
//! and change nothing else.

use std::time::Duration;

use serde_json::{Map, Value};
use sparkferry_ports::engine::Ended;
use sparkferry_shared::{RunError, TaskError};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use super::client::Client;
use super::error::CallError;
use super::output::{TaskPages, get_output};
use super::state::Phase;
use super::text;
use super::wire::Task;

/// Failed tasks that are told of, at most.
const TASKS: usize = 50;
/// The longest error of a task, in bytes.
const ERROR_BYTES: usize = 2 * 1024;
/// The longest trace of a task, in bytes: its end, where Python names the exception.
const TRACE_BYTES: usize = 8 * 1024;
/// Calls that may fail before the rest is left out.
const FAULTS: u32 = 5;
/// How long the ending may wait for its explanation.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// The explanation of a failure, as far as it is read. What was read is kept should the reader be
/// dropped in between.
#[derive(Debug)]
pub(super) struct Explanation {
    patience: Instant,
    faults: u32,
    /// Tasks that were asked.
    asked: usize,
    tasks: Vec<TaskError>,
    of_several: bool,
}

impl Explanation {
    pub(super) fn new() -> Self {
        Self {
            patience: Instant::now() + PATIENCE,
            faults: 0,
            asked: 0,
            tasks: Vec::new(),
            of_several: false,
        }
    }

    /// Reads what can be read of the failed tasks.
    pub(super) async fn read(&mut self, client: &Client, run_id: i64, pages: &mut TaskPages) {
        let patience = self.patience;
        while self.faults <= FAULTS {
            match timeout_at(patience, self.read_once(client, run_id, pages)).await {
                Ok(Err(CallError::Passing(passing))) => {
                    self.faults += 1;
                    debug!(
                        run_id,
                        error = passing.message,
                        "an error can't be read now"
                    );
                    sleep(PAUSE * self.faults).await;
                }
                Ok(Ok(()) | Err(CallError::Refused(_))) | Err(_) => return,
            }
        }
    }

    async fn read_once(
        &mut self,
        client: &Client,
        run_id: i64,
        pages: &mut TaskPages,
    ) -> Result<(), CallError> {
        let tasks = pages.read(client, run_id).await?;
        if tasks.is_empty() && self.asked == 0 {
            let output = get_output(client, run_id).await?;
            self.asked = 1;
            self.tasks.push(of_output("", run_id, &output, None));
            return Ok(());
        }
        self.of_several = tasks.len() > 1;
        let mut failed: Vec<&Task> = tasks
            .iter()
            .filter(|task| failure(task).is_some())
            .collect();
        failed.sort_by_key(|task| (task.end_time == 0, task.end_time));
        failed.truncate(TASKS);
        while let Some(task) = failed.get(self.asked) {
            let output = match get_output(client, task.run_id).await {
                Ok(output) => output,
                Err(CallError::Refused(_)) => Map::new(),
                Err(passing) => return Err(passing),
            };
            self.asked += 1;
            let error = of_output(&task.task_key, task.run_id, &output, failure(task));
            self.tasks.push(error);
        }
        Ok(())
    }

    /// Puts what was read into the run's error: the first failed task's own words before the
    /// engine's about it.
    pub(super) fn put_into(&mut self, error: &mut RunError) {
        let first = self.tasks.iter().find(|task| task.error.is_some());
        if let Some((first, text)) = first.and_then(|first| Some((first, first.error.as_ref()?))) {
            error.message = if self.of_several {
                format!("task {}: {text}", first.task_key)
            } else {
                text.clone()
            };
            error.trace.clone_from(&first.trace);
        }
        // A run without tasks has said it all.
        error.tasks = std::mem::take(&mut self.tasks);
        error.tasks.retain(|task| !task.task_key.is_empty());
    }
}

/// The engine's words about a task that failed by itself, not because of another one.
fn failure(task: &Task) -> Option<String> {
    if task.follows_another() {
        return None;
    }
    match task.meaning().phase {
        Phase::Ended(Ended::Failed(failure) | Ended::TimedOut(failure)) => {
            Some(failure.error.message)
        }
        _ => None,
    }
}

pub(super) fn of_output(
    task_key: &str,
    run_id: i64,
    output: &Map<String, Value>,
    otherwise: Option<String>,
) -> TaskError {
    let word = |name: &str| {
        let word = output.get(name)?.as_str()?;
        (!word.trim().is_empty()).then_some(word)
    };
    TaskError {
        task_key: task_key.to_owned(),
        run_id: Some(run_id),
        error: word("error")
            .map(|error| text::head(error, ERROR_BYTES).to_owned())
            .or(otherwise),
        trace: word("error_trace").map(|trace| text::tail(trace, TRACE_BYTES).to_owned()),
    }
}
