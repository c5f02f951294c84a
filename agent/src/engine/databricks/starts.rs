//! Starting runs: at most one for each key, because the key is the idempotency token.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sparkferry_ports::engine::Fault;
use sparkferry_shared::{Body, ErrorClass, Key, RunError, Work};
use tokio::time::Instant;

use super::call::Call;
use super::client::Client;
use super::error::{CallError, Refusal};
use super::wire::{Jobs, Started};

/// For how long the id that a job's name led to is used again. A job that is renamed is found under
/// its old name for no longer than this.
const NAME_KEPT: Duration = Duration::from_secs(10);
/// Names kept at most.
const NAMES: usize = 1000;

/// The ids of jobs that were named lately.
#[derive(Debug, Default)]
pub(super) struct JobNames(Mutex<HashMap<Box<str>, (i64, Instant)>>);

/// Starts the run of this key, or finds the one that was started.
pub(super) async fn start(
    client: &Client,
    names: &JobNames,
    key: Key,
    work: &Work,
) -> Result<i64, Fault> {
    let started = match work {
        Work::RunNow(body) => match job_name(body)? {
            None => run_now(client, key, body, None).await,
            Some(name) => by_name(client, names, key, body, &name).await,
        },
        Work::SubmitRun(body) => {
            let call = submit_call(body);
            let body = with_token(body.clone(), key)?;
            client.post::<Started>(call, body).await
        }
        Work::SparkConnect(_) => Err(CallError::Refused(Refusal::of_request(
            "spark_connect: this connection is a Databricks workspace's Jobs API; \
             send it to a connection of type \"spark_connect\"",
        ))),
    };
    match started {
        Ok(started) => Ok(started.run_id),
        Err(CallError::Refused(refusal)) if refusal.token_spent() => {
            Err(Fault::Lost(Box::new(RunError {
                class: ErrorClass::Lost,
                ..refusal.to_error()
            })))
        }
        Err(error) => Err(error.into()),
    }
}

async fn by_name(
    client: &Client,
    names: &JobNames,
    key: Key,
    body: &Body,
    name: &str,
) -> Result<Started, CallError> {
    if let Some(job_id) = names.get(name) {
        match run_now(client, key, body, Some(job_id)).await {
            // The name may lead to another job by now.
            Err(CallError::Refused(refusal)) if refusal.job_gone() => names.forget(name),
            result => return result,
        }
    }
    let job_id = look_up(client, name).await?;
    names.keep(name, job_id);
    run_now(client, key, body, Some(job_id)).await
}

async fn run_now(
    client: &Client,
    key: Key,
    body: &Body,
    job_id: Option<i64>,
) -> Result<Started, CallError> {
    let mut body = body.clone();
    if let Some(job_id) = job_id {
        body.remove("job_name");
        body.set("job_id", &job_id).map_err(unwritable)?;
    }
    client.post(Call::RunNow, with_token(body, key)?).await
}

fn submit_call(body: &Body) -> Call {
    if body.get("tasks").is_some_and(|tasks| tasks.get() != "null") {
        Call::Submit
    } else {
        Call::SubmitOneTask
    }
}

/// The name that stands for the job's id, if one does.
fn job_name(body: &Body) -> Result<Option<String>, Fault> {
    match body.read("job_name") {
        Ok(name) => Ok(name.flatten()),
        Err(error) => Err(Refusal::of_request(format!("run_now.job_name: {error}")).into()),
    }
}

/// The body as it is sent: everything as the producer wrote it, and the token.
fn with_token(mut body: Body, key: Key) -> Result<Bytes, CallError> {
    body.set("idempotency_token", &key).map_err(unwritable)?;
    Ok(serde_json::to_vec(&body).map_err(unwritable)?.into())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unwritable(error: serde_json::Error) -> CallError {
    CallError::Refused(Refusal::of_request(format!(
        "the request can't be written as JSON: {error}"
    )))
}

/// The one job of this name. Databricks compares names without regard to case; one that is written
/// just so goes before others.
async fn look_up(client: &Client, name: &str) -> Result<i64, CallError> {
    let (mut same, mut alike) = (Vec::new(), Vec::new());
    let mut token = None;
    loop {
        let mut query = vec![("name", name.to_owned()), ("limit", "100".to_owned())];
        query.extend(token.map(|token| ("page_token", token)));
        let page: Jobs = client.get(Call::JobsList, &query).await?;
        for job in page.jobs {
            let Some(named) = job.settings.name else {
                continue;
            };
            if named == name {
                same.push(job.job_id);
            } else if named.to_lowercase() == name.to_lowercase() {
                alike.push(job.job_id);
            }
        }
        token = page.next_page_token.filter(|token| !token.is_empty());
        if token.is_none() {
            break;
        }
    }
    let found = if same.is_empty() { alike } else { same };
    match found[..] {
        [job_id] => Ok(job_id),
        [] => Err(CallError::Refused(Refusal::of_request(format!(
            "run_now.job_name: no job at {} is named {name:?}, or we may not see it",
            client.host()
        )))),
        _ => Err(CallError::Refused(Refusal::of_request(format!(
            "run_now.job_name: {} jobs at {} are named {name:?}; use job_id",
            found.len(),
            client.host()
        )))),
    }
}

impl JobNames {
    fn get(&self, name: &str) -> Option<i64> {
        let names = self.lock();
        let (job_id, at) = names.get(name)?;
        (at.elapsed() < NAME_KEPT).then_some(*job_id)
    }

    fn keep(&self, name: &str, job_id: i64) {
        let mut names = self.lock();
        if names.len() >= NAMES {
            names.retain(|_, (_, at)| at.elapsed() < NAME_KEPT);
        }
        if names.len() < NAMES {
            names.insert(name.into(), (job_id, Instant::now()));
        }
    }

    fn forget(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, (i64, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_without_tasks_goes_where_that_form_is_known() {
        for (body, path) in [
            (r#"{"tasks": [{}]}"#, "api/2.2/jobs/runs/submit"),
            (r#"{"notebook_task": {}}"#, "api/2.1/jobs/runs/submit"),
            (
                r#"{"notebook_task": {}, "tasks": null}"#,
                "api/2.1/jobs/runs/submit",
            ),
        ] {
            let body: Body = serde_json::from_str(body).unwrap();
            assert_eq!(submit_call(&body).path(), path);
        }
    }
}
