//! Clusters, whose state follows from when they were started or stopped, and their libraries.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    args::{Args, plain, whole},
    auth::USER,
    reply::{Answer, Refusal},
    state::State,
};

/// How long a cluster is PENDING unless a tag or a rule says otherwise, milliseconds.
const START_MS: i64 = 200;
/// How long a cluster is TERMINATING, milliseconds.
const STOP_MS: i64 = 50;

/// All clusters, and the default start-up time.
#[derive(Debug, Default)]
pub(super) struct Clusters(BTreeMap<String, Cluster>);

#[derive(Debug)]
struct Cluster {
    /// As given to clusters/create.
    spec: Map<String, Value>,
    start_ms: i64,
    /// When it was last started.
    started: i64,
    /// When it was last used; counts for `autotermination_minutes`.
    used: i64,
    /// When it was stopped, if it was after its last start.
    stopped: Option<i64>,
    libraries: Vec<Value>,
}

impl Cluster {
    fn running_from(&self) -> i64 {
        self.started + self.start_ms
    }

    /// When it stops, or stopped, and why.
    fn stop(&self) -> Option<(i64, &'static str)> {
        let idle = self
            .spec
            .get("autotermination_minutes")
            .and_then(whole)
            .filter(|&minutes| minutes > 0);
        let idle = idle.map(|minutes| self.running_from().max(self.used) + minutes * 60_000);
        match (self.stopped, idle) {
            (Some(stopped), Some(idle)) if idle < stopped => Some((idle, "INACTIVITY")),
            (Some(stopped), _) => Some((stopped, "USER_REQUEST")),
            (None, idle) => idle.map(|idle| (idle, "INACTIVITY")),
        }
    }

    fn state(&self, now: i64) -> &'static str {
        match self.stop() {
            Some((stop, _)) if stop + STOP_MS <= now => "TERMINATED",
            Some((stop, _)) if stop <= now => "TERMINATING",
            _ if self.running_from() <= now => "RUNNING",
            _ => "PENDING",
        }
    }

    fn start(&mut self, now: i64) {
        self.started = now;
        self.used = now;
        self.stopped = None;
    }

    fn show(&self, cluster_id: &str, now: i64) -> Map<String, Value> {
        let state = self.state(now);
        let mut shown = self.spec.clone();
        let message = match state {
            "PENDING" => "Starting Spark",
            "TERMINATING" => "Terminating the cluster",
            _ => "",
        };
        for (name, value) in [
            ("cluster_id", cluster_id.into()),
            ("creator_user_name", USER.into()),
            ("cluster_source", "API".into()),
            ("state", state.into()),
            ("state_message", message.into()),
            ("start_time", self.started.into()),
            ("last_activity_time", self.used.into()),
        ] {
            shown.insert(name.into(), value);
        }
        if let Some((stop, why)) = self.stop().filter(|(stop, _)| *stop <= now) {
            shown.insert("terminated_time".into(), stop.into());
            shown.insert(
                "termination_reason".into(),
                json!({"code": why, "type": "SUCCESS", "parameters": {}}),
            );
        }
        if state == "RUNNING" {
            shown.insert("spark_context_id".into(), self.running_from().into());
            shown.insert("jdbc_port".into(), 10000.into());
        }
        shown
    }
}

impl Clusters {
    /// A run uses a cluster: a stopped one is started. How long the run has to wait for it; 0 for a
    /// cluster that the sandbox doesn't know.
    pub(super) fn wake(&mut self, cluster_id: &str, now: i64) -> i64 {
        let Some(cluster) = self.0.get_mut(cluster_id) else {
            return 0;
        };
        if ["TERMINATED", "TERMINATING"].contains(&cluster.state(now)) {
            cluster.start(now);
        }
        cluster.used = cluster.used.max(now);
        (cluster.running_from() - now).max(0)
    }

    fn find(&mut self, args: &Args) -> Result<(String, &mut Cluster), Refusal> {
        let id = args.need_text("cluster_id")?;
        match self.0.get_mut(&id) {
            Some(cluster) => Ok((id, cluster)),
            None => Err(Refusal::invalid(format!("Cluster {id} does not exist"))),
        }
    }
}

impl State {
    /// `clusters/create`. A `cluster_id` in the body is taken (the real API chooses it).
    pub(super) fn create_cluster(&mut self, args: &Args, now: i64) -> Answer {
        args.need_text("spark_version")?;
        let mut spec = args.fields().clone();
        let id = args
            .text("cluster_id")
            .unwrap_or_else(|| format!("1121-{}-sandbox", self.new_id()));
        spec.remove("cluster_id");
        spec.entry("cluster_name").or_insert_with(|| "".into());
        let tag = spec
            .get("custom_tags")
            .and_then(|tags| tags.get("sandbox.start_ms"))
            .and_then(plain);
        let start_ms = match tag {
            Some(text) => text.parse::<u32>().map(i64::from).map_err(|_| {
                Refusal::invalid(format!(
                    "sandbox.start_ms must be a whole number of milliseconds, got '{text}'."
                ))
            })?,
            None => self.rules.start_ms().unwrap_or(START_MS),
        };
        let cluster = Cluster {
            spec,
            start_ms,
            started: now,
            used: now,
            stopped: None,
            libraries: Vec::new(),
        };
        self.clusters.0.insert(id.clone(), cluster);
        Ok(json!({"cluster_id": id}))
    }

    /// `clusters/get`.
    pub(super) fn get_cluster(&mut self, args: &Args, now: i64) -> Answer {
        let (id, cluster) = self.clusters.find(args)?;
        Ok(cluster.show(&id, now).into())
    }

    /// `clusters/list`.
    pub(super) fn list_clusters(&self, now: i64) -> Value {
        let all: Value = self
            .clusters
            .0
            .iter()
            .map(|(id, cluster)| cluster.show(id, now))
            .collect();
        json!({"clusters": all})
    }

    /// `clusters/spark-versions`: the one that the examples name. Airflow's connection test asks.
    pub(super) fn spark_versions() -> Value {
        json!({"versions": [{"key": "15.4.x-scala2.12", "name": "15.4 LTS (Scala 2.12, Apache Spark 3.5.0)"}]})
    }

    /// `clusters/start`: only of a terminated one.
    pub(super) fn start_cluster(&mut self, args: &Args, now: i64) -> Answer {
        let (id, cluster) = self.clusters.find(args)?;
        let state = match cluster.state(now) {
            "TERMINATED" => {
                cluster.start(now);
                return Ok(json!({}));
            }
            "PENDING" => "Pending",
            "RUNNING" => "Running",
            _ => "Terminating",
        };
        Err(Refusal::state(format!(
            "Cluster {id} is in unexpected state {state}."
        )))
    }

    /// `clusters/delete`: stops it; without effect on a stopped one.
    pub(super) fn stop_cluster(&mut self, args: &Args, now: i64) -> Answer {
        let (_, cluster) = self.clusters.find(args)?;
        cluster.stopped.get_or_insert(now);
        Ok(json!({}))
    }

    /// `clusters/permanent-delete`.
    pub(super) fn forget_cluster(&mut self, args: &Args) -> Answer {
        let (id, _) = self.clusters.find(args)?;
        self.clusters.0.remove(&id);
        Ok(json!({}))
    }

    /// `libraries/install`.
    pub(super) fn install_libraries(&mut self, args: &Args) -> Answer {
        let (_, cluster) = self.clusters.find(args)?;
        for library in args.list("libraries").unwrap_or_default() {
            if !cluster.libraries.contains(library) {
                cluster.libraries.push(library.clone());
            }
        }
        Ok(json!({}))
    }

    /// `libraries/cluster-status`: installed as soon as the cluster runs.
    pub(super) fn library_status(&mut self, args: &Args, now: i64) -> Answer {
        let (id, cluster) = self.clusters.find(args)?;
        let status = if cluster.state(now) == "RUNNING" {
            "INSTALLED"
        } else {
            "PENDING"
        };
        let statuses = cluster.libraries.iter().map(|library| {
            json!({"library": library, "status": status, "is_library_for_all_clusters": false})
        });
        Ok(json!({"cluster_id": id, "library_statuses": statuses.collect::<Vec<_>>()}))
    }
}
