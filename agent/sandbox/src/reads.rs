//! What asks about runs: runs/get, runs/list and runs/get-output.

use serde_json::{Map, Value, json};

use super::{
    args::Args,
    reply::{Answer, Refusal},
    run::Run,
    state::State,
};

/// Tasks on a page of runs/get.
const TASKS_A_PAGE: usize = 100;
/// Runs on a page of runs/list at most, and unless asked.
const RUNS_A_PAGE: i64 = 25;
const RUNS_BY_DEFAULT: i64 = 20;
/// What get-output returns of a notebook's result or of logs: 5 MB.
pub(super) const OUTPUT_BYTES: usize = 5 * 1024 * 1024;

impl State {
    /// `jobs/runs/get`.
    pub(super) fn get_run(&self, args: &Args, now: i64) -> Answer {
        let place = self.place(args.need_int("run_id")?)?;
        let run = &self.runs[place.run];
        if let Some(attempt) = place.attempt {
            return Ok(run.show_task_run(attempt, &self.host, now).into());
        }
        let from = match args.text("page_token") {
            None => 0,
            Some(token) => token
                .parse()
                .map_err(|_| Refusal::invalid("Invalid page_token."))?,
        };
        let mut shown = run.show(&self.host, now);
        self.put_tasks(run, from, &mut shown, now);
        if args.flag("include_history") || run.rounds.len() > 1 {
            shown.insert("repair_history".into(), run.history(now));
        }
        Ok(shown.into())
    }

    fn put_tasks(&self, run: &Run, from: usize, shown: &mut Map<String, Value>, now: i64) {
        let to = run.attempts.len().min(from.saturating_add(TASKS_A_PAGE));
        let tasks = (from..to).map(|attempt| run.show_attempt(attempt, &self.host, now));
        shown.insert("tasks".into(), tasks.collect());
        if to < run.attempts.len() {
            shown.insert("next_page_token".into(), to.to_string().into());
        }
    }

    /// `jobs/runs/list`: newest first. A page token is a place in the list, so runs that come
    /// meanwhile move nothing.
    pub(super) fn list_runs(&mut self, args: &Args, now: i64) -> Answer {
        let (active, completed) = (args.flag("active_only"), args.flag("completed_only"));
        if active && completed {
            return Err(Refusal::invalid(
                "active_only and completed_only cannot both be true.",
            ));
        }
        let limit = match args.int("limit")?.unwrap_or(0) {
            0 => RUNS_BY_DEFAULT,
            limit => limit,
        };
        if !(1..=RUNS_A_PAGE).contains(&limit) {
            return Err(Refusal::invalid(format!(
                "Invalid limit {limit} - it has to be no more than {RUNS_A_PAGE}."
            )));
        }
        let limit = usize::try_from(limit).unwrap_or(1);
        let before = match args.text("page_token") {
            None => self.runs.len(),
            Some(token) => token
                .parse::<usize>()
                .map_err(|_| Refusal::invalid("Invalid page_token."))?
                .min(self.runs.len()),
        };
        let job_id = args.int("job_id")?;
        let run_type = args.text("run_type");
        let (from, to) = (args.int("start_time_from")?, args.int("start_time_to")?);
        let wanted = |run: &Run| {
            !run.deleted
                && job_id.is_none_or(|job_id| run.job_id == job_id)
                && run_type
                    .as_ref()
                    .is_none_or(|run_type| run.run_type == run_type)
                && from.is_none_or(|from| run.created >= from)
                && to.is_none_or(|to| run.created <= to)
                && !(completed && run.ended(now).is_none())
        };
        // Newest first; those under way are few beside those that have ended.
        let places: Box<dyn Iterator<Item = usize>> = if active {
            let runs = &self.runs;
            self.active
                .retain(|&place| runs[place].ended(now).is_none());
            Box::new(self.active.range(..before).rev().copied())
        } else {
            Box::new((0..before).rev())
        };
        let runs = places.map(|place| (place, &self.runs[place]));
        let mut found = runs.filter(|(_, run)| wanted(run));
        let with_tasks = args.flag("expand_tasks");
        let page: Vec<(usize, &Run)> = found.by_ref().take(limit).collect();
        let mut answer = json!({"has_more": false});
        if let (Some((last, _)), Some(_)) = (page.last(), found.next()) {
            answer["next_page_token"] = last.to_string().into();
            answer["has_more"] = true.into();
        }
        let runs = page.into_iter().map(|(_, run)| {
            let mut shown = run.show(&self.host, now);
            if with_tasks {
                self.put_tasks(run, 0, &mut shown, now);
                // In the list this would be taken for a page of runs.
                let more = shown.remove("next_page_token").is_some();
                shown.insert("has_more".into(), more.into());
            }
            if run.rounds.len() > 1 {
                shown.insert("repair_history".into(), run.history(now));
            }
            shown
        });
        answer["runs"] = runs.collect();
        Ok(answer)
    }

    /// `jobs/runs/get-output`, of a task run, or of a run of the older form.
    pub(super) fn get_output(&self, args: &Args, now: i64) -> Answer {
        let place = self.place(args.need_int("run_id")?)?;
        let run = &self.runs[place.run];
        let attempt = match place.attempt {
            Some(attempt) => attempt,
            None if run.work.single => run.latest()[0],
            None => {
                return Err(Refusal::invalid(
                    "Retrieving the output of runs with multiple tasks is not supported. Please \
                     retrieve the output of each individual task run instead.",
                ));
            }
        };
        let mut output = Map::new();
        output.insert(
            "metadata".into(),
            run.show_task_run(attempt, &self.host, now).into(),
        );
        let own = &run.attempts[attempt];
        let ended = run
            .times(attempt)
            .ended
            .as_ref()
            .filter(|(end, _)| *end <= now);
        let definition = &run.work.tasks[own.task].definition;
        let finished = ended.is_some_and(|(_, ending)| ending.succeeded());
        if definition.contains_key("notebook_task") {
            let mut notebook = json!({"truncated": false});
            if let Some(result) = own.plan.output.as_deref().filter(|_| finished) {
                let kept = head(result);
                notebook = json!({"result": kept, "truncated": kept.len() < result.len()});
            }
            output.insert("notebook_output".into(), notebook);
        } else {
            let (logs, truncated) = match (&own.logs, &own.plan.logs) {
                (Some((logs, truncated)), _) => (logs.as_str(), *truncated),
                (None, Some(logs)) if ended.is_some() => {
                    (tail(logs), tail(logs).len() < logs.len())
                }
                (None, _) => ("", false),
            };
            output.insert("logs".into(), logs.into());
            output.insert("logs_truncated".into(), truncated.into());
        }
        if definition.contains_key("sql_task") && finished {
            output.insert(
                "sql_output".into(),
                json!({"query_output": {"output_link": run_link(&output)}}),
            );
        }
        if let Some((_, ending)) = ended {
            for (name, value) in [("error", &ending.error), ("error_trace", &ending.trace)] {
                if let Some(value) = value {
                    output.insert(name.into(), value.as_str().into());
                }
            }
        }
        Ok(output.into())
    }
}

fn run_link(output: &Map<String, Value>) -> Value {
    output
        .get("metadata")
        .and_then(|run| run.get("run_page_url"))
        .cloned()
        .unwrap_or_default()
}

/// The first 5 MB of a text.
fn head(text: &str) -> &str {
    &text[..text.floor_char_boundary(OUTPUT_BYTES)]
}

/// The last 5 MB of a text.
fn tail(text: &str) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(OUTPUT_BYTES))..]
}
