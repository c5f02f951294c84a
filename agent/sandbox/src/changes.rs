//! What changes runs that are there: cancel, cancel-all, delete, repair.

use serde_json::{Value, json};

use super::{
    args::Args,
    choices::{Choices, Plan},
    plans::Wanted,
    reply::{Answer, Refusal},
    run::Round,
    state::State,
};

impl State {
    /// `jobs/runs/cancel`: asynchronous; of a run that has ended, a 200 without effect.
    pub(super) fn cancel_run(&mut self, args: &Args, now: i64) -> Answer {
        let place = self.place(args.need_int("run_id")?)?;
        self.cancel(place.run, now);
        Ok(json!({}))
    }

    /// `jobs/runs/cancel-all`: the active runs of a job, or the queued runs of all jobs.
    pub(super) fn cancel_all(&mut self, args: &Args, now: i64) -> Answer {
        let queued_only = args.flag("all_queued_runs");
        let job_id = args.int("job_id")?;
        match job_id {
            Some(job_id) if !self.jobs.contains_key(&job_id) => {
                return Err(Refusal::no_job(job_id));
            }
            None if !queued_only => return Err(Refusal::missing("job_id")),
            _ => {}
        }
        for place in 0..self.runs.len() {
            let run = &self.runs[place];
            let meant =
                job_id.is_none_or(|job_id| run.job_id == job_id) && (!queued_only || run.queued());
            if meant && !run.deleted {
                self.cancel(place, now);
            }
        }
        Ok(json!({}))
    }

    /// Cancels a run by its position; without effect on one that has ended.
    pub(super) fn cancel(&mut self, place: usize, now: i64) {
        let run = &mut self.runs[place];
        if run.ended(now).is_some() {
            return;
        }
        run.cancelled = true;
        if let Some(round) = run.rounds.last_mut() {
            round.canceled.get_or_insert(now);
        }
        run.replan();
    }

    /// `jobs/runs/delete`: only of a run that has ended.
    pub(super) fn delete_run(&mut self, args: &Args, now: i64) -> Answer {
        let run_id = args.need_int("run_id")?;
        let place = self.place(run_id)?;
        let run = &mut self.runs[place.run];
        if run.ended(now).is_none() {
            return Err(Refusal::state(format!(
                "Run {run_id} is active and cannot be deleted. Cancel it first, or wait for its end."
            )));
        }
        run.deleted = true;
        self.stats.deleted += 1;
        Ok(json!({}))
    }

    /// `jobs/runs/repair`: the failed tasks, or those named, get a new attempt within the same run.
    pub(super) fn repair_run(&mut self, args: &Args, now: i64) -> Answer {
        let run_id = args.need_int("run_id")?;
        let place = self.place(run_id)?.run;
        let run = &self.runs[place];
        if run.ended(now).is_none() {
            return Err(Refusal::state(format!(
                "Run {run_id} is active and cannot be repaired. Wait for its end, or cancel it first."
            )));
        }
        let latest_id = run
            .rounds
            .last()
            .map(|round| round.id)
            .filter(|&id| id != 0);
        let given_id = args.int("latest_repair_id")?;
        match (latest_id, given_id) {
            (Some(latest), None) => {
                return Err(Refusal::invalid(format!(
                    "latest_repair_id is required: run {run_id} has been repaired before (latest repair {latest})."
                )));
            }
            (latest, Some(given)) if latest != Some(given) => {
                return Err(Refusal::invalid(format!(
                    "latest_repair_id {given} is not the latest repair of run {run_id}."
                )));
            }
            _ => {}
        }
        let tasks = self.tasks_to_repair(place, args)?;
        let repair_id = self.new_id();
        let plans = self.repair_plans(place, args, now)?;
        self.runs[place]
            .rounds
            .push(Round::new(repair_id, Some(now)));
        for task in tasks {
            self.add_attempt(place, task, plans[task].clone());
        }
        self.active.insert(place);
        let run = &mut self.runs[place];
        if let Some(arguments) = args.get("python_params") {
            run.python_params = Some(arguments.clone());
        }
        run.replan();
        let job_id = run.job_id;
        if let Some(job) = self.jobs.get_mut(&job_id)
            && job.limited()
            && !job.active.contains(&place)
        {
            job.active.push(place);
        }
        self.stats.repairs += 1;
        Ok(json!({"repair_id": repair_id}))
    }

    /// The plans of all tasks for a repair; what the repair chooses holds for later ones too.
    fn repair_plans(&mut self, place: usize, args: &Args, now: i64) -> Result<Vec<Plan>, Refusal> {
        let run = &self.runs[place];
        let mut choices = run.choices.clone();
        choices.overlay(&Choices::of_request(args.fields()));
        let declared = self.jobs.get(&run.job_id);
        let declared = declared
            .map(|job| Choices::of_job_parameters(&job.settings))
            .unwrap_or_default();
        let wanted = Wanted::of(run, &choices, "jobs/runs/repair", &declared);
        let plans = self.plans(wanted, now)?;
        self.runs[place].choices = choices;
        Ok(plans)
    }

    /// The positions of the tasks that a repair runs again.
    fn tasks_to_repair(&self, place: usize, args: &Args) -> Result<Vec<usize>, Refusal> {
        let run = &self.runs[place];
        let tasks = &run.work.tasks;
        let mut chosen = vec![false; tasks.len()];
        if args.flag("rerun_all_failed_tasks") {
            for (task, &attempt) in run.latest().iter().enumerate() {
                let ended = run.times(attempt).ended.as_ref();
                chosen[task] = ended.is_some_and(|(_, ending)| ending.repairable());
            }
        }
        for key in args.list("rerun_tasks").unwrap_or_default() {
            let task = key
                .as_str()
                .and_then(|key| run.work.place(key))
                .ok_or_else(|| {
                    Refusal::invalid(format!("Run {} has no task {key} to rerun.", run.run_id))
                })?;
            chosen[task] = true;
        }
        if args.flag("rerun_dependent_tasks") {
            for &task in &run.work.order {
                chosen[task] = chosen[task]
                    || tasks[task]
                        .depends_on
                        .iter()
                        .any(|&upstream| chosen[upstream]);
            }
        }
        let chosen: Vec<usize> = (0..tasks.len()).filter(|&task| chosen[task]).collect();
        if chosen.is_empty() {
            return Err(Refusal::invalid(format!(
                "Run {} has no tasks to repair.",
                run.run_id
            )));
        }
        Ok(chosen)
    }

    /// `/sandbox/runs`: one line for each run, deleted ones included, oldest first.
    pub(super) fn show_runs(&self, now: i64) -> Value {
        self.runs
            .iter()
            .map(|run| {
                let (life_cycle, outcome) = run.life_cycle(now);
                json!({
                    "run_id": run.run_id,
                    "job_id": run.job_id,
                    "run_name": run.run_name,
                    "run_type": run.run_type,
                    "token": run.token,
                    "start_time": run.created,
                    "life_cycle_state": life_cycle,
                    "outcome": outcome,
                    "repairs": run.rounds.len() - 1,
                    "cancelled": run.cancelled,
                    "deleted": run.deleted,
                })
            })
            .collect()
    }
}
