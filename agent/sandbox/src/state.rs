//! The workspace in memory: one plain struct behind one lock that is held for the time of a call's
//! effect and never across an await.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    args::Args,
    auth::Tokens,
    clusters::Clusters,
    issue::Clients,
    jobs::Job,
    reply::Refusal,
    rules::{Rules, Subject},
    run::Run,
    stats::Stats,
};

/// Where an id of a run leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The run's position in [`State::runs`].
    pub(super) run: usize,
    /// The attempt's position in the run, if the id is a task run's.
    pub(super) attempt: Option<usize>,
}

/// Everything the workspace knows.
#[derive(Debug)]
pub(super) struct State {
    /// `http://127.0.0.1:PORT`.
    pub(super) host: String,
    /// Whether Python tasks are really run.
    pub(super) exec: bool,
    /// Bearer tokens.
    pub(super) tokens: Tokens,
    /// Who may have tokens; without it everybody.
    pub(super) clients: Option<Clients>,
    /// Faults and choices.
    pub(super) rules: Rules,
    /// The books.
    pub(super) stats: Stats,
    /// Jobs by id; ids grow.
    pub(super) jobs: BTreeMap<i64, Job>,
    /// Runs in the order of their creation.
    pub(super) runs: Vec<Run>,
    /// Positions of the runs that are not known to have ended; looked through when asked for.
    pub(super) active: BTreeSet<usize>,
    /// Positions of the runs that are deleted as soon as they have ended.
    pub(super) doomed: Vec<usize>,
    /// Run ids and task run ids.
    pub(super) places: HashMap<i64, Place>,
    /// Idempotency tokens, of run-now and submit alike: the run's position.
    pub(super) runs_by_token: HashMap<String, usize>,
    /// How many runs and repairs each piece of work with `outcomes` has had.
    pub(super) works: HashMap<String, usize>,
    /// Jobs that have runs in their queue.
    pub(super) queues: BTreeSet<i64>,
    /// Attempts (run, attempt) whose real process is to be started once the lock is free.
    pub(super) launch: Vec<(usize, usize)>,
    /// Clusters and their libraries.
    pub(super) clusters: Clusters,
    next_id: i64,
}

impl State {
    /// An empty workspace.
    pub(super) fn new(host: String, token: Option<String>, exec: bool) -> Self {
        Self {
            host,
            exec,
            tokens: Tokens::new(token),
            clients: None,
            rules: Rules::default(),
            stats: Stats::default(),
            jobs: BTreeMap::new(),
            runs: Vec::new(),
            active: BTreeSet::new(),
            doomed: Vec::new(),
            places: HashMap::new(),
            runs_by_token: HashMap::new(),
            works: HashMap::new(),
            queues: BTreeSet::new(),
            launch: Vec::new(),
            clusters: Clusters::default(),
            // Ids of a later sandbox differ from those of an earlier one, need more than 32 bits
            // as real ones do, and fit into a float's 53.
            next_id: now_ms() * 100,
        }
    }

    /// A new id for a job, a run, a task run or a repair.
    pub(super) fn new_id(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id
    }

    /// Where a run id or task run id leads; a deleted run doesn't exist.
    pub(super) fn place(&self, run_id: i64) -> Result<Place, Refusal> {
        self.places
            .get(&run_id)
            .copied()
            .filter(|place| !self.runs[place.run].deleted)
            .ok_or_else(|| Refusal::no_run(run_id))
    }

    /// The names that rules may ask for, of the run or job that a call is about.
    pub(super) fn subject(&self, args: &Args) -> Subject {
        let id = |name: &str| args.int(name).ok().flatten();
        if let Some(place) = id("run_id").and_then(|run_id| self.place(run_id).ok()) {
            let run = &self.runs[place.run];
            let tasks = &run.work.tasks;
            return Subject {
                job_name: run.job_name.clone(),
                run_name: Some(run.run_name.clone()),
                task_keys: match place.attempt {
                    Some(attempt) => vec![tasks[run.attempts[attempt].task].task_key.clone()],
                    None => tasks.iter().map(|task| task.task_key.clone()).collect(),
                },
            };
        }
        if let Some(job) = id("job_id").and_then(|job_id| self.jobs.get(&job_id)) {
            return Subject {
                job_name: Some(job.name.clone()),
                run_name: Some(job.name.clone()),
                task_keys: job
                    .work
                    .tasks
                    .iter()
                    .map(|task| task.task_key.clone())
                    .collect(),
            };
        }
        let tasks = args.list("tasks").unwrap_or_default();
        Subject {
            job_name: args.text("name"),
            run_name: args.text("run_name"),
            task_keys: tasks
                .iter()
                .filter_map(|task| task.get("task_key")?.as_str().map(str::to_owned))
                .collect(),
        }
    }
}

/// The present, epoch milliseconds.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
