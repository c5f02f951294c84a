//! What `/api/runs` and `/readyz` tell.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use sparkferry_shared::Id;

/// What the status page shows.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// What the worker calls itself.
    pub worker: String,
    /// The worker's clock, by which the other times are to be read.
    pub now: Timestamp,
    /// Whether it can do its work.
    pub readiness: Readiness,
    /// The number of requests under way, by connection.
    pub in_flight: BTreeMap<String, usize>,
    /// The requests under way; of each connection those that have been here longest, that first.
    pub runs: Vec<RunView>,
}

/// A request under way in this worker.
#[derive(Debug, Clone, Serialize)]
pub struct RunView {
    /// The request's id.
    pub id: Id,
    /// Its connection.
    pub connection: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When this worker received it.
    pub received_at: Timestamp,
    /// The attempt under way, from 1; `null` before the first one.
    pub attempt: Option<u32>,
    /// Databricks' run id.
    pub run_id: Option<i64>,
    /// Where a person can look at the run.
    pub run_page_url: Option<String>,
    /// The run's state, in the engine's words.
    pub state: Option<String>,
    /// Tasks that have ended.
    pub done: Option<u64>,
    /// Tasks altogether.
    pub total: Option<u64>,
    /// Somebody asked for it to be cancelled.
    pub cancel_requested: bool,
}

/// Whether the worker can do its work.
#[derive(Debug, Clone, Serialize)]
pub struct Readiness {
    /// It can: the queue and at least one connection are within reach, and it is not draining.
    pub ready: bool,
    /// What is wrong with the queue; `null` while all is well.
    pub queue: Option<String>,
    /// What is wrong with each connection; `null` while all is well.
    pub connections: BTreeMap<String, Option<String>>,
    /// Why the configuration that was read again was refused and an older one is in use; `null`
    /// otherwise. It keeps nobody from being ready.
    pub configuration: Option<String>,
    /// It is handing everything back.
    pub draining: bool,
}

impl Readiness {
    /// Ready if the queue and at least one connection are within reach.
    pub fn new(
        queue: Option<String>,
        connections: BTreeMap<String, Option<String>>,
        draining: bool,
    ) -> Self {
        let reachable = connections.is_empty() || connections.values().any(Option::is_none);
        Self {
            ready: queue.is_none() && reachable && !draining,
            queue,
            connections,
            configuration: None,
            draining,
        }
    }
}
