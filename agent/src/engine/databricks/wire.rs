//! What of Databricks' replies is read. Everything else in them is dropped while reading: a run's
//! full description can be large, and thousands are followed.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::state::{Meaning, State, Status, meaning};

/// Reply of run-now and submit.
#[derive(Debug, Deserialize)]
pub(super) struct Started {
    pub(super) run_id: i64,
}

/// Reply of the calls that answer `{}`, and of those whose reply tells nothing that is needed.
#[derive(Debug, Deserialize)]
pub(super) struct Done {}

/// Reply of jobs/list.
#[derive(Debug, Deserialize)]
pub(super) struct Jobs {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) jobs: Vec<Job>,
    pub(super) next_page_token: Option<String>,
}

/// A job, as far as its name goes.
#[derive(Debug, Deserialize)]
pub(super) struct Job {
    pub(super) job_id: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) settings: JobSettings,
}

/// A job's settings, as far as its name goes.
#[derive(Debug, Default, Deserialize)]
pub(super) struct JobSettings {
    pub(super) name: Option<String>,
}

/// Who we are.
#[derive(Debug, Deserialize)]
pub(super) struct Me {
    #[serde(rename = "userName")]
    pub(super) user_name: Option<String>,
}

/// Reply of runs/list.
#[derive(Debug, Deserialize)]
pub(super) struct Runs {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) runs: Vec<Run>,
    pub(super) next_page_token: Option<String>,
}

/// A run: one page of runs/get, or an entry of runs/list. Times are epoch milliseconds, 0 for what
/// has not happened; durations are milliseconds.
#[derive(Debug, Deserialize)]
#[expect(clippy::struct_field_names, reason = "Databricks' names")]
pub(super) struct Run {
    pub(super) run_id: i64,
    #[serde(default, deserialize_with = "if_known")]
    pub(super) start_time: i64,
    #[serde(default, deserialize_with = "if_known")]
    pub(super) end_time: i64,
    #[serde(default, deserialize_with = "if_known")]
    pub(super) setup_duration: Option<u64>,
    #[serde(default, deserialize_with = "if_known")]
    pub(super) execution_duration: Option<u64>,
    #[serde(default, deserialize_with = "if_known")]
    pub(super) queue_duration: Option<u64>,
    #[serde(default, deserialize_with = "if_known")]
    pub(super) run_page_url: Option<Box<str>>,
    pub(super) state: Option<Box<RawValue>>,
    pub(super) status: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) tasks: Vec<Task>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) repair_history: Vec<Repair>,
    /// More pages of tasks (runs/get).
    pub(super) next_page_token: Option<String>,
    /// More tasks than an entry of runs/list holds.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) has_more: bool,
}

/// One attempt of a task.
#[derive(Debug, Deserialize)]
#[expect(clippy::struct_field_names, reason = "Databricks' names")]
pub(super) struct Task {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) task_key: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) run_id: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) attempt_number: u32,
    #[serde(default, deserialize_with = "if_known")]
    pub(super) end_time: i64,
    #[serde(default, deserialize_with = "if_known")]
    pub(super) state: State,
    #[serde(default, deserialize_with = "if_known")]
    pub(super) status: Status,
}

impl Task {
    pub(super) fn meaning(&self) -> Meaning {
        meaning(&self.state, &self.status)
    }

    /// It did not run, because of another task's ending.
    pub(super) fn follows_another(&self) -> bool {
        let result = self.state.result.as_deref();
        result.is_some_and(|result| result.starts_with("UPSTREAM_"))
    }
}

/// An item of `repair_history`: the first round of a run (`ORIGINAL`) or a repair (`REPAIR`).
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Repair {
    pub(super) id: Option<i64>,
    #[serde(rename = "type")]
    pub(super) kind: Option<Box<str>>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) start_time: i64,
    #[serde(default, deserialize_with = "if_known")]
    pub(super) end_time: i64,
    pub(super) state: Option<Box<RawValue>>,
    pub(super) status: Option<Box<RawValue>>,
}

/// What two raw descriptions mean. One that is not of the known shape says nothing.
pub(super) fn meaning_of(state: Option<&RawValue>, status: Option<&RawValue>) -> Meaning {
    fn read<T: Default + for<'a> Deserialize<'a>>(raw: Option<&RawValue>) -> T {
        raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or_default()
    }
    meaning(&read(state), &read(status))
}

/// Reads what has not the known shape as the default: a run's ending counts, whatever else of its
/// description is told otherwise than today. Not for what tells tasks, attempts and repairs apart.
fn if_known<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Read<T> {
        Known(T),
        Other(IgnoredAny),
    }

    Ok(match Read::deserialize(deserializer)? {
        Read::Known(value) => value,
        Read::Other(_) => T::default(),
    })
}

/// Reads `null` as the default.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use sparkferry_ports::engine::Ended;

    use super::*;
    use crate::engine::databricks::state::Phase;

    #[test]
    fn a_real_reply_is_read() {
        let reply = r#"{"cleanup_duration": 0, "creator_user_name": "service-principal",
            "end_time": 1696021881451, "execution_duration": 591000, "job_id": 298120471834650,
            "number_in_job": 969479553499872, "run_id": 969479553499872, "run_name": "x",
            "run_page_url": "https://x/?o=1#job/2/run/3", "run_type": "SUBMIT_RUN",
            "setup_duration": 338000, "start_time": 1696020951379, "tasks": null,
            "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS",
                      "state_message": "", "user_cancelled_or_timedout": false}}"#;
        let run: Run = serde_json::from_str(reply).unwrap();
        assert_eq!(run.run_id, 969_479_553_499_872);
        assert_eq!(run.setup_duration, Some(338_000));
        let meaning = meaning_of(run.state.as_deref(), run.status.as_deref());
        assert_eq!(meaning.phase, Phase::Ended(Ended::Success));
    }

    #[test]
    fn what_is_told_beside_the_ending_never_hides_it() {
        let reply = r#"{"run_id": 1, "start_time": 1795268643000.5, "end_time": "soon",
            "setup_duration": -5, "execution_duration": 1.5, "queue_duration": "x",
            "run_page_url": 7, "status": {"state": "TERMINATED", "termination_details":
                {"code": "SUCCESS", "type": "SUCCESS"}},
            "tasks": [{"task_key": "a", "end_time": [], "state": "odd"}],
            "repair_history": [{"id": 1, "type": "REPAIR", "end_time": {}}]}"#;
        let run: Run = serde_json::from_str(reply).unwrap();
        let meaning = meaning_of(run.state.as_deref(), run.status.as_deref());
        assert_eq!(meaning.phase, Phase::Ended(Ended::Success));
        assert_eq!((run.start_time, run.setup_duration), (0, None));
        assert_eq!(run.run_page_url, None);
        // What tells one thing from another is not guessed.
        for names in ["{\"task_key\": 1}", "{\"attempt_number\": \"one\"}"] {
            let reply = format!("{{\"run_id\": 1, \"tasks\": [{names}]}}");
            assert!(serde_json::from_str::<Run>(&reply).is_err(), "{reply}");
        }
    }

    #[test]
    fn nulls_and_strange_shapes_say_nothing() {
        let reply = r#"{"run_id": 1, "start_time": null, "state": null, "status": "odd",
            "tasks": [{"task_key": "a", "state": null, "status": null}], "repair_history": null}"#;
        let run: Run = serde_json::from_str(reply).unwrap();
        let meaning = meaning_of(run.state.as_deref(), run.status.as_deref());
        assert_eq!(meaning.phase, Phase::Going(String::new()));
        assert_eq!(run.tasks[0].meaning().phase, Phase::Going(String::new()));
    }
}
