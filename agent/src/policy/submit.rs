//! `submit_run`: tasks in every nesting, the older single-task form, and what stands beside them.

use sparkferry_shared::Body;

use super::cluster::new_cluster;
use super::json::{self, Node, Object, shown};
use super::{Breach, job, known, no_submit_params};
use crate::config::PolicySettings;

/// Judges a body; returns the time limit that Databricks was given for the run, if it was.
pub(super) fn submit_run(policy: &PolicySettings, body: &Body) -> Result<Option<i64>, Breach> {
    let value = json::read("submit_run", body)?;
    let root = Node::new("submit_run", &value);
    let fields =
        root.object(|name| known::SUBMIT_RUN.contains(&name) || is_of_task(policy, name))?;
    run_as(policy, &fields)?;
    if let Some(source) = fields.get("git_source") {
        git_source(policy, &source)?;
    }
    if let Some(environments) = fields.get("environments") {
        for environment in environments.items()? {
            environment.object(|name| known::ENVIRONMENT.contains(&name))?;
            packages(policy, &environment)?;
        }
    }
    if let Some(clusters) = fields.get("job_clusters") {
        for cluster in clusters.items()? {
            let entry = cluster.object(|name| known::JOB_CLUSTER.contains(&name))?;
            if let Some(cluster) = entry.get("new_cluster") {
                new_cluster(policy, &cluster)?;
            }
        }
    }
    let tasks = match fields.get("tasks") {
        Some(tasks) => tasks.items()?,
        None => Vec::new(),
    };
    for one in &tasks {
        let fields = one.object(|name| is_of_task(policy, name))?;
        task(policy, &fields, true)?;
    }
    // The older form has one task's fields here. Beside `tasks` they should mean nothing, so they
    // are judged too.
    task(policy, &fields, tasks.is_empty())?;
    fields
        .get("timeout_seconds")
        .map(|node| node.whole())
        .transpose()
}

/// Whether a field belongs to a task: one that every task may have, or a kind that is known here or
/// to the policy's author.
fn is_of_task(policy: &PolicySettings, name: &str) -> bool {
    let listed = policy
        .task_kinds
        .as_ref()
        .is_some_and(|kinds| kinds.contains(name));
    known::TASK.contains(&name) || known::KINDS.contains(&name) || listed
}

/// Judges one task. `whole` is whether these fields must be a task on their own.
fn task(policy: &PolicySettings, fields: &Object<'_>, whole: bool) -> Result<(), Breach> {
    let kinds: Vec<&str> = fields
        .names()
        .filter(|name| name.ends_with("_task"))
        .collect();
    if let Some(allowed) = &policy.task_kinds {
        let rule = "task_kinds";
        if let Some(kind) = kinds.iter().find(|kind| !allowed.contains(**kind)) {
            return Err(Breach::of(rule, fields.at(kind), "is not in the list"));
        }
        if whole && kinds.is_empty() {
            return Err(Breach::of(rule, &fields.path, "names no kind of task"));
        }
    }
    compute(policy, fields, &kinds, whole)?;
    if let Some(libraries) = fields.get("libraries") {
        packages(policy, &libraries)?;
    }
    if let Some(each) = fields.get("for_each_task") {
        let each = each.object(|name| known::FOR_EACH.contains(&name))?;
        if let Some(inner) = each.get("task") {
            let inner = inner.object(|name| is_of_task(policy, name))?;
            task(policy, &inner, true)?;
        }
    }
    if let Some(run_job) = fields.get("run_job_task") {
        let run_job = run_job.object(|name| known::RUN_JOB.contains(&name))?;
        no_submit_params(policy, &run_job)?;
        job(policy, &run_job)?;
    }
    if let Some(submit) = fields.get("spark_submit_task")
        && policy.spark_confs.is_some()
    {
        let why = "spark-submit's parameters can set any conf";
        return Err(Breach::of("spark_confs", submit.path, why));
    }
    Ok(())
}

/// Judges what a task runs on.
fn compute(
    policy: &PolicySettings,
    fields: &Object<'_>,
    kinds: &[&str],
    whole: bool,
) -> Result<(), Breach> {
    let unseen = policy.cluster_rules();
    if let Some(cluster) = fields.get("new_cluster") {
        new_cluster(policy, &cluster)?;
    }
    if let Some(id) = fields.get("existing_cluster_id") {
        let rule = "existing_clusters";
        let text = id.text()?;
        match &policy.existing_clusters {
            Some(allowed) if allowed.contains(text) => {}
            Some(_) => {
                let why = format!("{} is not in the list", shown(text));
                return Err(Breach::of(rule, id.path, why));
            }
            None if unseen.is_empty() => {}
            None => {
                return Err(Breach::of(
                    rule,
                    id.path,
                    not_seen("an existing cluster", &unseen),
                ));
            }
        }
    }
    let on_cluster = ["new_cluster", "existing_cluster_id", "job_cluster_key"]
        .iter()
        .any(|name| fields.get(name).is_some());
    let needs_one = whole
        && kinds
            .iter()
            .any(|kind| !known::WITHOUT_CLUSTER.contains(kind));
    let asked = ["environment_key", "compute"]
        .into_iter()
        .find(|name| fields.get(name).is_some());
    if asked.is_none() && (on_cluster || !needs_one) {
        return Ok(());
    }
    let path = asked.map_or_else(|| fields.path.clone(), |name| fields.at(name));
    match policy.serverless {
        Some(true) => Ok(()),
        Some(false) => Err(Breach::of(
            "serverless",
            path,
            "serverless compute is not allowed",
        )),
        None if unseen.is_empty() => Ok(()),
        None => Err(Breach::of(
            "serverless",
            path,
            not_seen("serverless compute", &unseen),
        )),
    }
}

fn not_seen(what: &str, rules: &[&str]) -> String {
    format!(
        "{what} can't be judged by {}, so it must be allowed by this rule",
        rules.join(", ")
    )
}

fn run_as(policy: &PolicySettings, fields: &Object<'_>) -> Result<(), Breach> {
    let (Some(allowed), Some(run_as)) = (&policy.run_as, fields.get("run_as")) else {
        return Ok(());
    };
    let identity = run_as.object(|name| known::RUN_AS.contains(&name))?;
    for kind in known::RUN_AS {
        let Some(name) = identity.get(kind) else {
            continue;
        };
        let text = name.text()?;
        if !allowed.contains(text) {
            let why = format!("{} is not in the list", shown(text));
            return Err(Breach::of("run_as", name.path, why));
        }
    }
    Ok(())
}

fn git_source(policy: &PolicySettings, source: &Node<'_>) -> Result<(), Breach> {
    if policy.git_hosts.is_none() {
        return Ok(());
    }
    let fields = source.object(|name| known::GIT_SOURCE.contains(&name))?;
    match fields.get("git_url") {
        Some(url) => git_url(policy, &url.path, url.text()?),
        None => Err(Breach::of("git_hosts", fields.at("git_url"), "is missing")),
    }
}

/// Judges the packages that are fetched by git, in libraries and environments.
fn packages(policy: &PolicySettings, node: &Node<'_>) -> Result<(), Breach> {
    if policy.git_hosts.is_none() {
        return Ok(());
    }
    for (path, text) in node.texts() {
        let lower = text.to_ascii_lowercase();
        for (at, mark) in lower.match_indices("git+") {
            git_url(policy, &path, &text[at + mark.len()..])?;
        }
    }
    Ok(())
}

/// Judges an address. Only the plain form `https://HOST/...` passes: of others it is not certain
/// which host a git client makes of them.
fn git_url(policy: &PolicySettings, path: &str, url: &str) -> Result<(), Breach> {
    let rule = "git_hosts";
    let allowed = policy.git_hosts.iter().flatten();
    let host = url.strip_prefix("https://").and_then(|rest| {
        let (host, _) = rest.split_once('/')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
        (!host.is_empty() && host.chars().all(plain)).then_some(host)
    });
    let Some(host) = host else {
        return Err(Breach::of(rule, path, "must begin with https://HOST/"));
    };
    if allowed
        .into_iter()
        .any(|entry| host.eq_ignore_ascii_case(entry))
    {
        return Ok(());
    }
    Err(Breach::of(
        rule,
        path,
        format!("the host {} is not in the list", shown(host)),
    ))
}
