//! Runs as runs/get and runs/list show them at a moment: both the older `state` and the newer
//! `status`, the attempts of the tasks, and the history of repairs.

use serde_json::{Map, Value, json};

use super::{auth::USER, ending::Ending, run::Run, schedule::Times};

/// Where something is on its way, at a moment.
#[derive(Debug, Clone, Copy)]
enum Phase<'a> {
    Queued,
    Blocked,
    Pending,
    Running,
    Terminating,
    Ended(&'a Ending),
}

impl Phase<'_> {
    fn word(&self) -> &'static str {
        match self {
            Phase::Queued => "QUEUED",
            Phase::Blocked => "BLOCKED",
            Phase::Pending => "PENDING",
            Phase::Running => "RUNNING",
            Phase::Terminating => "TERMINATING",
            Phase::Ended(_) => "TERMINATED",
        }
    }

    fn life_cycle(&self) -> &str {
        match self {
            Phase::Ended(ending) => &ending.life_cycle,
            _ => self.word(),
        }
    }

    /// `state` and `status`.
    fn put(&self, into: &mut Map<String, Value>) {
        let mut state = json!({
            "life_cycle_state": self.life_cycle(),
            "state_message": "",
            "user_cancelled_or_timedout": false,
        });
        let mut status = json!({"state": self.word()});
        match self {
            Phase::Ended(ending) => {
                if let Some(result) = &ending.result {
                    state["result_state"] = result.as_ref().into();
                }
                state["state_message"] = ending.message.as_str().into();
                state["user_cancelled_or_timedout"] = ending.cut_short.into();
                status["termination_details"] =
                    json!({"code": ending.code, "type": ending.kind, "message": ending.message});
            }
            Phase::Queued => {
                let message = "Queued due to reaching maximum concurrent runs of the job.";
                state["queue_reason"] = message.into();
                status["queue_details"] =
                    json!({"code": "MAX_CONCURRENT_RUNS_REACHED", "message": message});
            }
            Phase::Pending => state["state_message"] = "Waiting for cluster".into(),
            Phase::Running => state["state_message"] = "In run".into(),
            Phase::Blocked | Phase::Terminating => {}
        }
        into.insert("state".into(), state);
        into.insert("status".into(), status);
    }
}

fn phase(times: &Times, queued: bool, now: i64) -> Phase<'_> {
    let reached = |at: Option<i64>| at.is_some_and(|at| at <= now);
    match &times.ended {
        Some((end, ending)) if *end <= now => Phase::Ended(ending),
        _ if reached(times.cut) => Phase::Terminating,
        _ if reached(times.running) => Phase::Running,
        _ if reached(times.ready) => Phase::Pending,
        _ if queued => Phase::Queued,
        _ => Phase::Blocked,
    }
}

impl Run {
    fn round_phase(&self, round: usize, now: i64) -> Phase<'_> {
        let reached = |at: Option<i64>| at.is_some_and(|at| at <= now);
        if let Some((_, ending)) = self.schedule.rounds[round]
            .as_ref()
            .filter(|(end, _)| *end <= now)
        {
            return Phase::Ended(ending);
        }
        if reached(self.rounds[round].cut(self.timeout_ms).map(|(at, _)| at)) {
            return Phase::Terminating;
        }
        if self.rounds[round].start.is_none() {
            return Phase::Queued;
        }
        let mut attempts = self.attempts.iter().zip(&self.schedule.attempts);
        if attempts.any(|(attempt, times)| attempt.round == round && reached(times.running)) {
            return Phase::Running;
        }
        Phase::Pending
    }

    /// The life-cycle state, and the word of the outcome once there is one.
    pub(super) fn life_cycle(&self, now: i64) -> (String, Option<&str>) {
        let phase = self.round_phase(self.rounds.len() - 1, now);
        (
            phase.life_cycle().to_owned(),
            self.ended(now).map(|(_, ending)| ending.word()),
        )
    }

    fn page_url(&self, host: &str, run_id: i64) -> String {
        format!("{host}/#job/{}/run/{run_id}", self.job_id)
    }

    /// The run without its tasks.
    pub(super) fn show(&self, host: &str, now: i64) -> Map<String, Value> {
        let first = self.rounds.first().and_then(|round| round.start);
        let ended = self.ended(now).map(|(end, _)| *end);
        let queue = first.map_or(ended.unwrap_or(now), |start| start.min(now)) - self.created;
        let only = (self.work.tasks.len() == 1).then(|| &self.schedule.attempts[self.latest()[0]]);
        let (setup, execution) = only.map_or((0, 0), |times| durations(times, now));
        let Value::Object(mut shown) = json!({
            "job_id": self.job_id,
            "run_id": self.run_id,
            "number_in_job": self.run_id,
            "original_attempt_run_id": self.run_id,
            "attempt_number": 0,
            "creator_user_name": USER,
            "run_name": self.run_name,
            "run_type": self.run_type,
            "format": if self.work.single { "SINGLE_TASK" } else { "MULTI_TASK" },
            "trigger": "ONE_TIME",
            "run_page_url": self.page_url(host, self.run_id),
            "start_time": self.created,
            "end_time": ended.unwrap_or(0),
            "setup_duration": setup,
            "execution_duration": execution,
            "cleanup_duration": 0,
            "queue_duration": queue,
            "run_duration": ended.map_or(0, |end| end - self.created),
        }) else {
            unreachable!("the literal above is an object")
        };
        self.round_phase(self.rounds.len() - 1, now).put(&mut shown);
        for (name, value) in [
            ("overriding_parameters", &self.overriding),
            ("job_parameters", &self.job_parameters),
            ("job_clusters", &self.job_clusters),
        ] {
            if let Some(value) = value {
                shown.insert(name.into(), value.clone());
            }
        }
        shown
    }

    /// One attempt of a task, as in `tasks[]`.
    pub(super) fn show_attempt(&self, attempt: usize, host: &str, now: i64) -> Map<String, Value> {
        let own = &self.attempts[attempt];
        let times = &self.schedule.attempts[attempt];
        let task = &self.work.tasks[own.task];
        let ended = times
            .ended
            .as_ref()
            .map(|(end, _)| *end)
            .filter(|end| *end <= now);
        let (setup, execution) = durations(times, now);
        let mut shown = task.definition.clone();
        let cluster = task
            .definition
            .get("existing_cluster_id")
            .and_then(Value::as_str);
        let cluster = cluster.map_or_else(|| format!("sandbox-{}", own.run_id), str::to_owned);
        for (name, value) in [
            ("run_id", own.run_id.into()),
            ("attempt_number", own.number.into()),
            ("run_if", task.run_if.as_str().into()),
            ("run_page_url", self.page_url(host, own.run_id).into()),
            (
                "start_time",
                times
                    .ready
                    .filter(|ready| *ready <= now)
                    .unwrap_or(0)
                    .into(),
            ),
            ("end_time", ended.unwrap_or(0).into()),
            ("setup_duration", setup.into()),
            ("execution_duration", execution.into()),
            ("cleanup_duration", 0.into()),
            ("cluster_instance", json!({"cluster_id": cluster})),
        ] {
            shown.insert(name.into(), value);
        }
        let queued = self.rounds[own.round].start.is_none();
        phase(times, queued, now).put(&mut shown);
        shown
    }

    /// A task run asked for by its own id: the run's fields with the task's over them.
    pub(super) fn show_task_run(&self, attempt: usize, host: &str, now: i64) -> Map<String, Value> {
        let mut shown = self.show(host, now);
        let mut task = self.show_attempt(attempt, host, now);
        shown.insert("job_run_id".into(), self.run_id.into());
        shown.insert("number_in_job".into(), task["run_id"].clone());
        shown.insert("original_attempt_run_id".into(), task["run_id"].clone());
        shown.insert("run_name".into(), task["task_key"].clone());
        for name in ["depends_on", "run_if", "libraries"] {
            task.remove(name);
        }
        shown.extend(task);
        shown
    }

    /// `repair_history`: the first round and every repair; only a repair has an id.
    pub(super) fn history(&self, now: i64) -> Value {
        let items = self.rounds.iter().enumerate().map(|(number, round)| {
            let ended = self.schedule.rounds[number]
                .as_ref()
                .map(|(end, _)| *end)
                .filter(|end| *end <= now);
            let mut item = Map::new();
            if number > 0 {
                item.insert("id".into(), round.id.into());
            }
            item.insert(
                "type".into(),
                if number == 0 { "ORIGINAL" } else { "REPAIR" }.into(),
            );
            item.insert(
                "start_time".into(),
                round.start.unwrap_or(self.created).into(),
            );
            item.insert("end_time".into(), ended.unwrap_or(0).into());
            let task_run_ids = self
                .attempts
                .iter()
                .filter(|attempt| attempt.round == number);
            item.insert(
                "task_run_ids".into(),
                task_run_ids.map(|attempt| attempt.run_id).collect(),
            );
            self.round_phase(number, now).put(&mut item);
            item
        });
        items.collect()
    }
}

/// Setup and execution of an attempt so far, milliseconds.
fn durations(times: &Times, now: i64) -> (i64, i64) {
    let end = times.ended.as_ref().map_or(now, |(end, _)| (*end).min(now));
    let Some(ready) = times.ready.filter(|ready| *ready <= now) else {
        return (0, 0);
    };
    let running = times.running.map_or(end, |running| running.min(end));
    (running - ready, end - running)
}
