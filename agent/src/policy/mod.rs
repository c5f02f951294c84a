//! What a connection's requests may ask for: spending and power, judged before anything starts.
//!
//! Pure: a request and a policy go in, a verdict comes out. Bodies are read, never changed.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the verdict; `run_now`, Spark Connect, the timeout |
//! | `submit` | `submit_run`: its tasks in every nesting, environments, git sources, identities |
//! | `cluster` | a new cluster |
//! | `json` | bodies read so that nothing in them has two meanings |
//! | `known` | the fields that the policy knows |
//!
//! Guarantees: what a rule forbids does not pass, wherever in a request it stands. What the policy
//! can't look at or doesn't know does not pass either.
//!
//! Deliberately absent: what *code* does once it runs (it can set Spark confs, install packages,
//! call Databricks), what a stored job or pipeline holds, what a pool or a cluster policy brings.
//! The engine's own permissions are the place for those.

mod cluster;
mod json;
mod known;
mod submit;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;

use sparkferry_shared::request::{OnTimeout, SparkConnect};
use sparkferry_shared::{Body, ErrorClass, Request, RunError, Work};

use crate::config::{Jobs, PolicySettings, Redelivered};
use json::{Node, Object, shown};

/// The `code` of the error in the result of a request outside its connection's policy.
pub const CODE: &str = "POLICY";

/// How a request is outside a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// The rule, as it stands in the settings; `None` where the request can't be judged at all.
    pub rule: Option<&'static str>,
    /// The field's path, such as `submit_run.tasks[0].new_cluster.num_workers`.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

impl Breach {
    fn of(rule: &'static str, field: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            rule: Some(rule),
            field: field.into(),
            why: why.into(),
        }
    }

    fn unreadable(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            rule: None,
            field: field.into(),
            why: why.into(),
        }
    }

    /// The breach as it stands in a result. Of a request that was `seen_before` an earlier worker may
    /// have started a run, if its policy was wider.
    pub fn to_error(&self, seen_before: bool) -> RunError {
        let mut message = self.to_string();
        if seen_before {
            message += "; the request was delivered before: should a worker with a wider policy have started it, its run goes on unattended";
        }
        RunError::new(ErrorClass::Request, message).with_code(CODE)
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, field, why } = self;
        match rule {
            Some(rule) => write!(
                f,
                "{field}: outside the connection's policy, rule `{rule}`: {why}"
            ),
            None => write!(
                f,
                "{field}: can't be judged by the connection's policy: {why}"
            ),
        }
    }
}

/// Judges a request that was just delivered.
///
/// # Errors
/// Where it is outside the policy. Nothing of it may reach the engine then.
pub fn judge(policy: &PolicySettings, request: &Request, seen_before: bool) -> Result<(), Breach> {
    if seen_before && policy.redelivered == Redelivered::Attend {
        return Ok(());
    }
    let bounded = match &request.work {
        Work::RunNow(body) => run_now(policy, body).map(|()| None)?,
        Work::SubmitRun(body) => submit::submit_run(policy, body)?,
        Work::SparkConnect(work) => spark_connect(policy, work).map(|()| None)?,
    };
    timeout(policy, request, bounded)
}

fn run_now(policy: &PolicySettings, body: &Body) -> Result<(), Breach> {
    let value = json::read("run_now", body)?;
    let fields = Node::new("run_now", &value).object(|name| known::RUN_NOW.contains(&name))?;
    no_submit_params(policy, &fields)?;
    job(policy, &fields)
}

/// Judges which job is run, by `run_now` or by a `run_job_task`.
fn job(policy: &PolicySettings, fields: &Object<'_>) -> Result<(), Breach> {
    let Some(Jobs { ids, names }) = &policy.jobs else {
        return Ok(());
    };
    let rule = "jobs";
    if let Some(id) = fields.get("job_id") {
        let number = id.whole()?;
        if !ids.contains(&number) {
            return Err(Breach::of(
                rule,
                id.path,
                format!("{number} is not in the list"),
            ));
        }
    }
    if let Some(name) = fields.get("job_name") {
        let text = name.text()?;
        if !names.contains(text) {
            let why = format!("{} is not in the list", shown(text));
            return Err(Breach::of(rule, name.path, why));
        }
    }
    if fields.get("job_id").is_none() && fields.get("job_name").is_none() {
        return Err(Breach::of(rule, fields.at("job_id"), "is missing"));
    }
    Ok(())
}

/// Parameters of spark-submit are command-line options: `--conf` is one of them.
fn no_submit_params(policy: &PolicySettings, fields: &Object<'_>) -> Result<(), Breach> {
    match fields.get("spark_submit_params") {
        Some(params) if policy.spark_confs.is_some() => Err(Breach::of(
            "spark_confs",
            params.path,
            "spark-submit's parameters can set any conf",
        )),
        _ => Ok(()),
    }
}

fn spark_connect(policy: &PolicySettings, work: &SparkConnect) -> Result<(), Breach> {
    match &policy.spark_confs {
        Some(allowed) => work
            .conf
            .keys()
            .try_for_each(|name| conf(allowed, "spark_connect.conf", name)),
        None => Ok(()),
    }
}

/// Judges the name of one Spark conf. Its value is none of the policy's business, and may be a
/// secret.
fn conf(allowed: &BTreeSet<String>, path: &str, name: &str) -> Result<(), Breach> {
    let fits = |entry: &String| match entry.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == entry,
    };
    if allowed.iter().any(fits) {
        return Ok(());
    }
    let why = format!("{} is not in the list", shown(name));
    Err(Breach::of("spark_confs", path, why))
}

/// Judges whether an attempt is bounded in time. `own` is the limit that the engine itself was
/// given: it holds whoever attends the run; the request's holds only where the run is awaited and
/// cancelled.
fn timeout(policy: &PolicySettings, request: &Request, own: Option<i64>) -> Result<(), Breach> {
    let Some(most) = policy.max_timeout_seconds else {
        return Ok(());
    };
    let ours = i64::try_from(request.timeout_seconds).unwrap_or(i64::MAX);
    let ours_holds = request.wait && request.on_timeout == OnTimeout::Cancel;
    let within = |seconds: i64| (1..=most).contains(&seconds);
    if own.is_some_and(within) || ours_holds && within(ours) {
        return Ok(());
    }
    let why = match (ours, ours_holds) {
        (0, _) => format!("is needed, at most {most}"),
        (_, true) => format!("{ours} is more than {most}"),
        (_, false) => format!(
            "does not bound a run that is not awaited (wait) or not cancelled (on_timeout); at most {most} must"
        ),
    };
    Err(Breach::of("max_timeout_seconds", "timeout_seconds", why))
}
