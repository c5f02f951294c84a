//! What a run produced: the output of the latest attempt of each of its tasks.
//!
//! A run with many tasks takes many calls, any of which can fail: what was read is kept, and the
//! next try goes on from there.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sparkferry_ports::engine::Ended;

use super::call::Call;
use super::client::Client;
use super::cut::{Entry, bounded, shrink};
use super::error::CallError;
use super::known::{Known, latest};
use super::state::Phase;
use super::text;
use super::watch::get_page;
use super::wire::Task;
use crate::engine::trim::size;

/// The longest text about an output that can't be had, in bytes.
const REASON_BYTES: usize = 512;

/// The pages of a run's tasks, as far as they are read.
#[derive(Debug, Default)]
pub(super) struct TaskPages {
    /// What the watch saw at the end, which may hold all tasks.
    known: Option<Arc<Known>>,
    attempts: Vec<Task>,
    token: Option<String>,
    /// The latest attempt of each task, once all pages are read.
    tasks: Option<Vec<Task>>,
}

impl TaskPages {
    pub(super) fn new(known: Option<Arc<Known>>) -> Self {
        Self {
            known,
            ..Self::default()
        }
    }

    /// The latest attempt of each task of a run.
    pub(super) async fn read(
        &mut self,
        client: &Client,
        run_id: i64,
    ) -> Result<&[Task], CallError> {
        let Self {
            known,
            attempts,
            token,
            tasks,
        } = self;
        if let Some(tasks) = known.as_ref().and_then(|known| known.tasks.as_deref()) {
            return Ok(tasks);
        }
        while tasks.is_none() {
            let mut query = vec![("run_id", run_id.to_string())];
            query.extend(token.clone().map(|token| ("page_token", token)));
            let page = get_page(client, run_id, &query).await?;
            attempts.extend(page.tasks);
            *token = page.next_page_token.filter(|token| !token.is_empty());
            if token.is_none() {
                *tasks = Some(latest(std::mem::take(attempts)));
            }
        }
        Ok(tasks.as_deref().unwrap_or_default())
    }
}

/// The reply of get-output, without its description of the run.
pub(super) async fn get_output(
    client: &Client,
    run_id: i64,
) -> Result<Map<String, Value>, CallError> {
    let query = [("run_id", run_id.to_string())];
    let mut output: Map<String, Value> = client.get(Call::GetOutput, &query).await?;
    output.remove("metadata");
    output.retain(|_, value| !value.is_null());
    Ok(output)
}

/// The output of a run, as far as it is read.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    /// One entry for each task, in the tasks' order.
    read: Vec<Entry>,
    /// Their size as JSON.
    bytes: usize,
}

impl Outputs {
    /// Reads what is not yet read of these tasks, or of the run itself where it has none.
    pub(super) async fn read(
        &mut self,
        client: &Client,
        run_id: i64,
        tasks: &[Task],
        limit: usize,
    ) -> Result<(), CallError> {
        if tasks.is_empty() && self.read.is_empty() {
            let mut entry = Entry::new();
            entry.insert("run_id".into(), run_id.into());
            self.keep(ask(client, run_id, entry).await?, limit);
        }
        while let Some(task) = tasks.get(self.read.len()) {
            let entry = of_task(client, task).await?;
            self.keep(entry, limit);
        }
        Ok(())
    }

    /// Keeps no more than could be used: many large outputs never stand in memory together.
    fn keep(&mut self, mut entry: Entry, limit: usize) {
        shrink(std::slice::from_mut(&mut entry), limit);
        self.bytes += size(&entry);
        self.read.push(entry);
        if self.bytes > limit.saturating_mul(2) {
            shrink(&mut self.read, limit);
            self.bytes = size(&self.read);
        }
    }

    /// All of it, at most `limit` bytes of JSON; `None` where there is nothing.
    pub(super) fn bounded(&self, limit: usize) -> Option<Value> {
        let nothing = |entry: &Entry| !entry.contains_key("task_key") && entry.len() == 1;
        if self.read.iter().all(nothing) {
            return None;
        }
        Some(bounded(self.read.clone(), limit))
    }
}

async fn of_task(client: &Client, task: &Task) -> Result<Entry, CallError> {
    let mut entry = Entry::new();
    entry.insert("task_key".into(), json!(task.task_key));
    entry.insert("run_id".into(), task.run_id.into());
    let details = task.status.termination_details.as_ref();
    let result = task
        .state
        .result
        .as_ref()
        .or(details.and_then(|details| details.code.as_ref()));
    entry.insert("result_state".into(), json!(result));
    let ran = match task.meaning().phase {
        Phase::Ended(Ended::Skipped(_)) => false,
        _ => !task.follows_another(),
    };
    if ran {
        ask(client, task.run_id, entry).await
    } else {
        Ok(entry)
    }
}

/// Adds what get-output tells. An output that Databricks refuses to give (too old, of a kind that
/// has none) is no reason to keep the others from the result: the entry says why it has none.
async fn ask(client: &Client, run_id: i64, mut entry: Entry) -> Result<Entry, CallError> {
    match get_output(client, run_id).await {
        Ok(output) => entry.extend(output),
        Err(CallError::Refused(refusal)) => {
            let reason = refusal.to_error().message;
            let reason = text::head(&reason, REASON_BYTES);
            entry.insert("output_error".into(), reason.into());
        }
        Err(passing) => return Err(passing),
    }
    Ok(entry)
}
