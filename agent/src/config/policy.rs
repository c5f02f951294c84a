//! `[connections.X.policy]`: what a connection's requests may ask for. The comments of
//! `config/agent.toml` tell what each rule does; `crate::policy` judges requests by them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::ConfigError;
use super::check::value;

/// What the requests of a connection may ask for. Each rule that is absent restricts nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicySettings {
    /// The jobs that may be run, by `run_now` or by a task.
    pub jobs: Option<Jobs>,
    /// The kinds of tasks in `submit_run`, such as `notebook_task`.
    pub task_kinds: Option<BTreeSet<String>>,
    /// Whom a run may act as, besides the worker's own identity.
    pub run_as: Option<BTreeSet<String>>,
    /// The clusters that are there already and may be used.
    pub existing_clusters: Option<BTreeSet<String>>,
    /// Whether tasks may run without a cluster of their own.
    pub serverless: Option<bool>,
    /// The node types of new clusters.
    pub node_types: Option<BTreeSet<String>>,
    /// The most workers that a new cluster may have.
    pub max_workers: Option<i64>,
    /// New clusters must end by themselves after at most so many idle minutes.
    pub max_autotermination_minutes: Option<i64>,
    /// The tags that new clusters must have, with their values; `*` is any value.
    pub tags: Option<BTreeMap<String, String>>,
    /// The workers of new clusters must be spot instances.
    pub spot_only: bool,
    /// An attempt must be bounded, by at most so many seconds.
    pub max_timeout_seconds: Option<i64>,
    /// The hosts that code may come from by git, in lower case.
    pub git_hosts: Option<BTreeSet<String>>,
    /// The Spark confs that sessions and new clusters may set; one that ends in `*` is a beginning.
    pub spark_confs: Option<BTreeSet<String>>,
    /// What becomes of a request outside the policy that was delivered before.
    pub redelivered: Redelivered,
}

/// Jobs by their ids and by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Jobs {
    /// What a `job_id` may be.
    pub ids: BTreeSet<i64>,
    /// What a `job_name` may be, to the letter.
    pub names: BTreeSet<String>,
}

/// What becomes of a request outside the policy that was delivered before: an earlier worker may
/// have started it, if its policy was wider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Redelivered {
    /// It is rejected like any other.
    #[default]
    Reject,
    /// It is carried on: the policy was tightened while requests were under way.
    Attend,
}

impl PolicySettings {
    /// The names of the rules that are on, as they stand in the settings.
    pub fn rules(&self) -> Vec<&'static str> {
        let mut rules = self.databricks_rules();
        rules.extend(
            [
                ("max_timeout_seconds", self.max_timeout_seconds.is_some()),
                ("spark_confs", self.spark_confs.is_some()),
            ]
            .into_iter()
            .filter_map(|(name, on)| on.then_some(name)),
        );
        rules
    }

    /// The rules that speak of Databricks alone.
    fn databricks_rules(&self) -> Vec<&'static str> {
        let mut rules = self.cluster_rules();
        rules.extend(
            [
                ("jobs", self.jobs.is_some()),
                ("task_kinds", self.task_kinds.is_some()),
                ("run_as", self.run_as.is_some()),
                ("existing_clusters", self.existing_clusters.is_some()),
                ("serverless", self.serverless.is_some()),
                ("git_hosts", self.git_hosts.is_some()),
            ]
            .into_iter()
            .filter_map(|(name, on)| on.then_some(name)),
        );
        rules
    }

    /// The rules that say what a new cluster must be like. While one is on, compute that can't be
    /// looked at (an existing cluster, serverless) must be allowed by its own rule.
    pub fn cluster_rules(&self) -> Vec<&'static str> {
        let autotermination = self.max_autotermination_minutes.is_some();
        [
            ("node_types", self.node_types.is_some()),
            ("max_workers", self.max_workers.is_some()),
            ("max_autotermination_minutes", autotermination),
            ("tags", self.tags.is_some()),
            ("spot_only", self.spot_only),
        ]
        .into_iter()
        .filter_map(|(name, on)| on.then_some(name))
        .collect()
    }
}

/// A policy as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PolicyFile {
    jobs: Option<Vec<JobFile>>,
    task_kinds: Option<Vec<String>>,
    run_as: Option<Vec<String>>,
    existing_clusters: Option<Vec<String>>,
    serverless: Option<bool>,
    node_types: Option<Vec<String>>,
    max_workers: Option<u32>,
    max_autotermination_minutes: Option<u32>,
    tags: Option<BTreeMap<String, String>>,
    spot_only: bool,
    max_timeout_seconds: Option<u32>,
    git_hosts: Option<Vec<String>>,
    spark_confs: Option<Vec<String>>,
    redelivered: Redelivered,
}

/// A job: a number is its id, a text its name.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum JobFile {
    Id(i64),
    Name(String),
}

/// Checks a policy. `kind` is the connection's type.
pub(super) fn policy(
    path: &str,
    kind: &str,
    file: PolicyFile,
) -> Result<PolicySettings, ConfigError> {
    let at = |key: &str| format!("{path}.{key}");
    let list = |key: &str, entries: Option<Vec<String>>| match entries {
        Some(entries)
            if entries
                .iter()
                .any(|entry| entry.trim() != entry || entry.is_empty()) =>
        {
            Err(value(
                at(key),
                "has an entry that is empty or has space around it",
            ))
        }
        entries => Ok(entries.map(BTreeSet::from_iter)),
    };
    let positive = |key: &str, number: Option<u32>| match number {
        Some(0) => Err(value(at(key), "must be at least 1")),
        number => Ok(number.map(i64::from)),
    };
    let task_kinds = list("task_kinds", file.task_kinds)?;
    if let Some(kind) = task_kinds
        .iter()
        .flatten()
        .find(|kind| !kind.ends_with("_task"))
    {
        return Err(value(
            at("task_kinds"),
            format!("{kind:?} is no kind of task, such as notebook_task or spark_python_task"),
        ));
    }
    let git_hosts = list("git_hosts", file.git_hosts)?;
    if let Some(host) = git_hosts
        .iter()
        .flatten()
        .find(|host| host.contains(['/', '@']))
    {
        return Err(value(
            at("git_hosts"),
            format!("{host:?} is no host, such as github.com"),
        ));
    }
    let spark_confs = list("spark_confs", file.spark_confs)?;
    let star_within = |name: &&String| name.trim_end_matches('*').contains('*');
    if let Some(name) = spark_confs.iter().flatten().find(star_within) {
        return Err(value(
            at("spark_confs"),
            format!("{name:?}: a * may stand at the end only, as in spark.sql.*"),
        ));
    }
    let policy = PolicySettings {
        jobs: file
            .jobs
            .map(|jobs| jobs_of(&at("jobs"), jobs))
            .transpose()?,
        task_kinds,
        run_as: list("run_as", file.run_as)?,
        existing_clusters: list("existing_clusters", file.existing_clusters)?,
        serverless: file.serverless,
        node_types: list("node_types", file.node_types)?,
        max_workers: file.max_workers.map(i64::from),
        max_autotermination_minutes: positive(
            "max_autotermination_minutes",
            file.max_autotermination_minutes,
        )?,
        tags: file
            .tags
            .map(|tags| tags_of(&at("tags"), tags))
            .transpose()?,
        spot_only: file.spot_only,
        max_timeout_seconds: positive("max_timeout_seconds", file.max_timeout_seconds)?,
        git_hosts: git_hosts.map(|hosts| hosts.iter().map(|h| h.to_ascii_lowercase()).collect()),
        spark_confs,
        redelivered: file.redelivered,
    };
    if policy.rules().is_empty() {
        return Err(value(
            path,
            "holds no rule: set one, or leave the policy out",
        ));
    }
    let foreign = policy.databricks_rules();
    if kind != "databricks"
        && let Some(rule) = foreign.first()
    {
        return Err(value(
            at(rule),
            format!("speaks of Databricks and means nothing to a connection of the type {kind}"),
        ));
    }
    Ok(policy)
}

fn jobs_of(setting: &str, entries: Vec<JobFile>) -> Result<Jobs, ConfigError> {
    let mut jobs = Jobs::default();
    for entry in entries {
        match entry {
            JobFile::Id(id) => {
                jobs.ids.insert(id);
            }
            JobFile::Name(name) if name.is_empty() => {
                return Err(value(setting, "has an empty name"));
            }
            JobFile::Name(name) => {
                jobs.names.insert(name);
            }
        }
    }
    Ok(jobs)
}

fn tags_of(
    setting: &str,
    tags: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    if tags.is_empty() {
        return Err(value(setting, "names no tag"));
    }
    match tags.iter().find(|(_, wanted)| wanted.is_empty()) {
        Some((name, _)) => Err(value(
            format!("{setting}.{name}"),
            "must be the value wanted, or \"*\" for any",
        )),
        None => Ok(tags),
    }
}
