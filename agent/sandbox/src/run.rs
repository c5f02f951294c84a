//! A run as the workspace keeps it, and what of it can change: rounds (the first and the repairs),
//! attempts, cancellation, and the doings of real processes.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Notify;

use super::{
    choices::{Choices, Plan},
    ending::Ending,
    schedule::{Ended, Schedule, Times},
    work::Work,
};

/// A run.
#[expect(clippy::struct_field_names, reason = "the names of the API")]
#[derive(Debug)]
pub(super) struct Run {
    /// Its id; 0 is never used.
    pub(super) run_id: i64,
    /// The job that it is a run of; a one-time run has an invisible job of its own.
    pub(super) job_id: i64,
    /// What it is called.
    pub(super) run_name: String,
    /// The name of its job, for rules; none for one-time runs.
    pub(super) job_name: Option<String>,
    /// `JOB_RUN` or `SUBMIT_RUN`.
    pub(super) run_type: &'static str,
    /// The idempotency token that it was created under.
    pub(super) token: Option<String>,
    /// Its tasks.
    pub(super) work: Arc<Work>,
    /// When it was created, epoch milliseconds.
    pub(super) created: i64,
    /// The limit on one round, from its start.
    pub(super) timeout_ms: Option<i64>,
    /// `overriding_parameters` as given to run-now.
    pub(super) overriding: Option<Value>,
    /// `job_parameters` in the form of runs/get.
    pub(super) job_parameters: Option<Value>,
    /// `job_clusters` as given.
    pub(super) job_clusters: Option<Value>,
    /// The arguments that run-now puts in place of every Python task's own.
    pub(super) python_params: Option<Value>,
    /// What the request chose for all its tasks.
    pub(super) choices: Choices,
    /// The first round and the repairs.
    pub(super) rounds: Vec<Round>,
    /// Every attempt of every task, oldest first; the first `work.tasks.len()` are the first round's.
    pub(super) attempts: Vec<Attempt>,
    /// When everything happens.
    pub(super) schedule: Schedule,
    /// runs/delete took it away.
    pub(super) deleted: bool,
    /// runs/cancel reached it while it was active.
    pub(super) cancelled: bool,
    /// Told to the keepers of its processes whenever the schedule changes.
    pub(super) changed: Arc<Notify>,
}

/// One walk through the tasks: the first, or a repair.
#[derive(Debug)]
pub(super) struct Round {
    /// The repair's id; 0 for the first round.
    pub(super) id: i64,
    /// When it began; none while it waits in the queue of its job.
    pub(super) start: Option<i64>,
    /// When it was cancelled.
    pub(super) canceled: Option<i64>,
    /// It was never let in.
    pub(super) refused: Ended,
}

impl Round {
    /// A round that begins at `start`, or is queued.
    pub(super) fn new(id: i64, start: Option<i64>) -> Self {
        Self {
            id,
            start,
            canceled: None,
            refused: None,
        }
    }

    /// When the round is cut short, and whether by its time limit.
    pub(super) fn cut(&self, timeout_ms: Option<i64>) -> Option<(i64, bool)> {
        let limit = self
            .start
            .zip(timeout_ms)
            .map(|(start, timeout)| (start + timeout, true));
        match (self.canceled, limit) {
            (Some(canceled), Some((limit, _))) if limit <= canceled => Some((limit, true)),
            (Some(canceled), _) => Some((canceled, false)),
            (None, limit) => limit,
        }
    }
}

/// One attempt of one task: a task run with an id of its own.
#[derive(Debug)]
pub(super) struct Attempt {
    /// The task run's id.
    pub(super) run_id: i64,
    /// The task's position in the run's work.
    pub(super) task: usize,
    /// The round that it belongs to.
    pub(super) round: usize,
    /// `attempt_number`, from 0.
    pub(super) number: u32,
    /// What will become of it.
    pub(super) plan: Plan,
    /// The real process, where there is to be one.
    pub(super) process: Option<Process>,
    /// What the real process wrote, and whether that is only its end.
    pub(super) logs: Option<(String, bool)>,
}

/// What a real process has come to.
#[derive(Debug, Clone)]
pub(super) enum Process {
    /// Not yet started.
    Waiting,
    /// Started.
    Running {
        /// When, epoch milliseconds.
        since: i64,
    },
    /// Over.
    Ended {
        /// When it started.
        since: i64,
        /// When it ended.
        at: i64,
        /// How.
        ending: Ending,
    },
}

impl Run {
    /// Computes the schedule anew; to be called after every change.
    pub(super) fn replan(&mut self) {
        self.schedule = Schedule::of(self);
        self.changed.notify_waiters();
    }

    /// When the whole of it ends, so far as is known, and how.
    pub(super) fn end(&self) -> Option<&(i64, Ending)> {
        self.schedule.rounds.last().and_then(Option::as_ref)
    }

    /// How it has ended; none while it is active.
    pub(super) fn ended(&self, now: i64) -> Option<&(i64, Ending)> {
        self.end().filter(|(end, _)| *end <= now)
    }

    /// Waiting for a place in its job.
    pub(super) fn queued(&self) -> bool {
        self.rounds
            .last()
            .is_some_and(|round| round.start.is_none() && round.refused.is_none())
    }

    /// The latest attempt of each task, by the task's position.
    pub(super) fn latest(&self) -> Vec<usize> {
        let mut latest: Vec<usize> = (0..self.work.tasks.len()).collect();
        for (index, attempt) in self.attempts.iter().enumerate() {
            latest[attempt.task] = index;
        }
        latest
    }

    /// The times of an attempt.
    pub(super) fn times(&self, attempt: usize) -> &Times {
        &self.schedule.attempts[attempt]
    }

    /// When a process of this attempt must be killed, if ever: the run's cancellation, the run's
    /// limit or the task's own.
    pub(super) fn kill_at(&self, attempt: usize) -> Option<i64> {
        let own = &self.attempts[attempt];
        let cut = self.rounds[own.round]
            .cut(self.timeout_ms)
            .map(|(at, _)| at);
        let limit = self.work.tasks[own.task].timeout_ms;
        let limit = self
            .times(attempt)
            .running
            .zip(limit)
            .map(|(running, limit)| running + limit);
        cut.into_iter().chain(limit).min()
    }
}
