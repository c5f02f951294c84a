//! How tasks and runs end: each ending in the words of the older `state` and of the newer `status`,
//! and how the endings of tasks make the ending of their run.

use std::borrow::Cow;

type Word = Cow<'static, str>;

/// The message of a task whose program raised an exception.
const WORKLOAD_FAILED: &str = "Workload failed, see run output for details.";

/// The ending of a task's attempt or of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    /// `state.life_cycle_state`.
    pub(super) life_cycle: Word,
    /// `state.result_state`; a skipped run has none.
    pub(super) result: Option<Word>,
    /// `status.termination_details.code`.
    pub(super) code: Word,
    /// `status.termination_details.type`.
    pub(super) kind: &'static str,
    /// `state.state_message` and `status.termination_details.message`.
    pub(super) message: String,
    /// `state.user_cancelled_or_timedout`.
    pub(super) cut_short: bool,
    /// `error` of the task's output.
    pub(super) error: Option<String>,
    /// `error_trace` of the task's output.
    pub(super) trace: Option<String>,
}

impl Ending {
    fn new(
        life_cycle: &'static str,
        result: impl Into<Word>,
        code: impl Into<Word>,
        kind: &'static str,
    ) -> Self {
        Self {
            life_cycle: life_cycle.into(),
            result: Some(result.into()),
            code: code.into(),
            kind,
            message: String::new(),
            cut_short: false,
            error: None,
            trace: None,
        }
    }

    fn saying(self, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            ..self
        }
    }

    /// The ending of a task for a word: a result state, a termination code, or any other word,
    /// which then stands for both.
    pub(super) fn of_word(word: &str) -> Self {
        match word {
            "SUCCESS" => Self::new("TERMINATED", "SUCCESS", "SUCCESS", "SUCCESS"),
            "SUCCESS_WITH_FAILURES" => Self::new(
                "TERMINATED",
                "SUCCESS_WITH_FAILURES",
                "SUCCESS_WITH_FAILURES",
                "SUCCESS",
            ),
            "FAILED" | "RUN_EXECUTION_ERROR" => Self::failed_program(None, None),
            "TIMEDOUT" => Self::timed_out(),
            "CANCELED" => Self {
                cut_short: true,
                ..Self::new("TERMINATED", "CANCELED", "CANCELED", "CLIENT_ERROR")
                    .saying("Run cancelled.")
            },
            "USER_CANCELED" => Self::canceled(),
            "SKIPPED" => Self {
                result: None,
                ..Self::new("SKIPPED", "", "SKIPPED", "CLIENT_ERROR").saying("The run was skipped.")
            },
            "MAXIMUM_CONCURRENT_RUNS_REACHED" | "MAX_CONCURRENT_RUNS_EXCEEDED" => {
                Self::too_many_runs()
            }
            "EXCLUDED" | "UPSTREAM_FAILED" | "UPSTREAM_CANCELED" => Self::not_run(word),
            "DISABLED" => Self::new("TERMINATED", "DISABLED", "DISABLED", "CLIENT_ERROR"),
            "CLOUD_FAILURE" | "CLUSTER_ERROR" => Self::failed_platform(word, "CLOUD_FAILURE"),
            "INTERNAL_ERROR" | "DRIVER_ERROR" | "BREAKING_CHANGE" => {
                Self::failed_platform(word, "INTERNAL_ERROR")
            }
            "BUDGET_POLICY_LIMIT_EXCEEDED"
            | "CLUSTER_REQUEST_LIMIT_EXCEEDED"
            | "FEATURE_DISABLED"
            | "INVALID_CLUSTER_REQUEST"
            | "INVALID_RUN_CONFIGURATION"
            | "LIBRARY_INSTALLATION_ERROR"
            | "MAX_JOB_QUEUE_SIZE_EXCEEDED"
            | "MAX_SPARK_CONTEXTS_EXCEEDED"
            | "REPOSITORY_CHECKOUT_FAILED"
            | "RESOURCE_NOT_FOUND"
            | "STORAGE_ACCESS_ERROR"
            | "UNAUTHORIZED_ERROR"
            | "WORKSPACE_RUN_LIMIT_EXCEEDED" => Self::failed_platform(word, "CLIENT_ERROR"),
            other => Self::new(
                "TERMINATED",
                other.to_owned(),
                other.to_owned(),
                "INTERNAL_ERROR",
            )
            .saying(format!("The run ended as {other}.")),
        }
    }

    /// A program that raised: the task is TERMINATED / FAILED; what its run shows is another matter
    /// (see [`Ending::of_run`]).
    pub(super) fn failed_program(error: Option<String>, trace: Option<String>) -> Self {
        Self {
            error: Some(error.unwrap_or_else(|| "Exception: the sandbox was told to fail".into())),
            trace,
            ..Self::new(
                "TERMINATED",
                "FAILED",
                "RUN_EXECUTION_ERROR",
                "CLIENT_ERROR",
            )
            .saying(WORKLOAD_FAILED)
        }
    }

    /// A failure around the program, named by its termination code.
    pub(super) fn failed_platform(code: &str, kind: &'static str) -> Self {
        let message = match code {
            "CLUSTER_ERROR" => {
                "Cluster was terminated unexpectedly while the run was using it.".into()
            }
            "CLOUD_FAILURE" => "The cloud provider could not launch the cluster.".into(),
            "DRIVER_ERROR" => "The Spark driver stopped unexpectedly and is restarting.".into(),
            "INTERNAL_ERROR" => "The run failed with an unexpected internal error.".into(),
            other => format!("The run could not be executed: {other}."),
        };
        Self {
            error: Some(message.clone()),
            ..Self::new("INTERNAL_ERROR", "FAILED", code.to_owned(), kind).saying(message)
        }
    }

    /// Cancelled by a user.
    pub(super) fn canceled() -> Self {
        Self {
            cut_short: true,
            ..Self::new("TERMINATED", "CANCELED", "USER_CANCELED", "CLIENT_ERROR")
                .saying("Run cancelled.")
        }
    }

    /// Cut by `timeout_seconds`; Databricks' code for it is CANCELED (cancelled by the platform).
    pub(super) fn timed_out() -> Self {
        Self {
            cut_short: true,
            ..Self::new("TERMINATED", "TIMEDOUT", "CANCELED", "CLIENT_ERROR")
                .saying("Run timed out.")
        }
    }

    /// Refused a start because `max_concurrent_runs` were under way and the job has no queue.
    pub(super) fn too_many_runs() -> Self {
        Self::new(
            "SKIPPED",
            "MAXIMUM_CONCURRENT_RUNS_REACHED",
            "MAX_CONCURRENT_RUNS_EXCEEDED",
            "CLIENT_ERROR",
        )
        .saying("Skipping this run because the limit of maximum concurrent runs has been reached.")
    }

    /// A task that its dependencies kept from running: EXCLUDED, `UPSTREAM_FAILED` or
    /// `UPSTREAM_CANCELED`.
    pub(super) fn not_run(result: &str) -> Self {
        let message = match result {
            "EXCLUDED" => "The run condition of the task was not met.",
            "UPSTREAM_CANCELED" => "An upstream task was cancelled.",
            _ => "An upstream task failed.",
        };
        Self::new("TERMINATED", result.to_owned(), "SKIPPED", "CLIENT_ERROR").saying(message)
    }

    fn is(&self, results: &[&str]) -> bool {
        self.result
            .as_deref()
            .is_some_and(|result| results.contains(&result))
    }

    /// Success in full.
    pub(super) fn succeeded(&self) -> bool {
        self.is(&["SUCCESS"])
    }

    /// What `run_if` and a run's own ending count as no failure.
    pub(super) fn harmless(&self) -> bool {
        self.is(&["SUCCESS", "EXCLUDED", "DISABLED"])
    }

    /// Cancelled, itself or upstream.
    pub(super) fn was_canceled(&self) -> bool {
        self.is(&["CANCELED", "UPSTREAM_CANCELED"])
    }

    /// Whether a repair of all failed tasks takes this one up.
    pub(super) fn repairable(&self) -> bool {
        !self.is(&["SUCCESS", "SUCCESS_WITH_FAILURES", "EXCLUDED", "DISABLED"])
    }

    /// Kept from running by another task, so never the first cause.
    fn follows(&self) -> bool {
        self.is(&["UPSTREAM_FAILED", "UPSTREAM_CANCELED"])
    }

    /// The word of the result, or of the life cycle where there is no result.
    pub(super) fn word(&self) -> &str {
        self.result.as_deref().unwrap_or(&self.life_cycle)
    }

    /// The ending of a run from those of its tasks: `(task_key, whether nothing depends on it, end,
    /// ending)`. Leaves decide: if all of them are well the run succeeded, perhaps with failures;
    /// else the first failure is the run's.
    pub(super) fn of_run<'a>(
        tasks: impl Iterator<Item = (&'a str, bool, i64, &'a Ending)> + Clone,
    ) -> Self {
        let leaves_well = tasks
            .clone()
            .all(|(_, leaf, _, ending)| !leaf || ending.harmless());
        let cause = tasks
            .clone()
            .filter(|(_, _, _, ending)| !ending.harmless())
            .min_by_key(|(_, _, end, ending)| (ending.follows(), *end));
        let Some((task_key, _, _, cause)) = cause else {
            // All well. Where nothing ran at all, the run is what its first task is.
            let idle = tasks.clone().all(|(_, _, _, ending)| !ending.succeeded());
            let first = tasks.map(|(_, _, _, ending)| ending).next();
            return first
                .filter(|_| idle)
                .cloned()
                .unwrap_or_else(|| Self::of_word("SUCCESS"));
        };
        if leaves_well {
            return Self::of_word("SUCCESS_WITH_FAILURES");
        }
        let mut ending = Self {
            error: None,
            trace: None,
            ..cause.clone()
        };
        if cause.is(&["FAILED"]) {
            // The trap: a plain exception in a task makes the *run* an INTERNAL_ERROR.
            ending.life_cycle = "INTERNAL_ERROR".into();
            ending.message = format!("Task {task_key} failed with message: {}", cause.message);
        }
        ending
    }
}
