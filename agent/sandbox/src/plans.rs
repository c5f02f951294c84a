//! From choices to plans: which rules, parameters and earlier runs of the same work decide what
//! becomes of a new run or repair.

use super::{
    choices::{Choices, Plan},
    reply::Refusal,
    rules::Subject,
    run::Run,
    state::State,
};

/// What a new round of a run asks for.
#[derive(Debug)]
pub(super) struct Wanted {
    call: &'static str,
    subject: Subject,
    /// By task: what the job declares, then the task itself, then the request.
    tasks: Vec<Choices>,
    /// What counts as the same work for `outcomes`: the same job, or the same name of a one-time run.
    work: String,
}

impl Wanted {
    /// For a run, or a repair of it, whose request chose `request`.
    pub(super) fn of(run: &Run, request: &Choices, call: &'static str, declared: &Choices) -> Self {
        let tasks = &run.work.tasks;
        Self {
            call,
            subject: Subject {
                job_name: run.job_name.clone(),
                run_name: Some(run.run_name.clone()),
                task_keys: tasks.iter().map(|task| task.task_key.clone()).collect(),
            },
            tasks: tasks
                .iter()
                .map(|task| {
                    let mut choices = declared.clone();
                    choices.overlay(&task.choices);
                    choices.overlay(request);
                    choices
                })
                .collect(),
            work: match run.run_type {
                "JOB_RUN" => format!("job:{}", run.job_id),
                _ => format!("name:{}", run.run_name),
            },
        }
    }
}

impl State {
    /// The plan of each task for a new round of a run.
    pub(super) fn plans(&mut self, wanted: Wanted, now: i64) -> Result<Vec<Plan>, Refusal> {
        let mut chosen = self.rules.choices(wanted.call, &wanted.subject, now);
        for (choices, own) in chosen.iter_mut().zip(&wanted.tasks) {
            choices.overlay(own);
        }
        if !chosen
            .iter()
            .any(|choices| choices.get("outcomes").is_some())
        {
            return chosen.iter().map(|choices| choices.plan(0)).collect();
        }
        let named = chosen.iter().find_map(|choices| choices.get("work"));
        let key = named.map_or(wanted.work, |work| format!("work:{work}"));
        let nth = self.works.get(&key).copied().unwrap_or(0);
        let plans = chosen
            .iter()
            .map(|choices| choices.plan(nth))
            .collect::<Result<_, _>>()?;
        self.works.insert(key, nth + 1);
        Ok(plans)
    }
}
