//! What makes runs: run-now and submit, their idempotency tokens, and the queue of a job.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::{
    args::{Args, plain, truthy},
    choices::{Choices, Plan},
    ending::Ending,
    jobs::Job,
    plans::Wanted,
    reply::{Answer, Refusal},
    run::{Attempt, Process, Round, Run},
    schedule::Schedule,
    state::{Place, State},
    work::{Work, timeout_ms},
};

/// The outcome of a run that is deleted as soon as it has ended.
const DELETED: &str = "DELETED";
/// The longest idempotency token that Databricks takes.
const TOKEN_LENGTH: usize = 64;

/// The parameters of run-now that runs/get shows again as `overriding_parameters`.
const OVERRIDING: [&str; 8] = [
    "dbt_commands",
    "jar_params",
    "notebook_params",
    "pipeline_params",
    "python_named_params",
    "python_params",
    "spark_submit_params",
    "sql_params",
];

impl State {
    /// `jobs/run-now`.
    pub(super) fn run_now(&mut self, args: &Args, now: i64) -> Answer {
        let token = idempotency_token(args)?;
        if let Some(run_id) = self.run_under(token.as_deref())? {
            return Ok(json!({"run_id": run_id, "number_in_job": run_id}));
        }
        let job_id = args.need_int("job_id")?;
        let job = self
            .jobs
            .get_mut(&job_id)
            .ok_or_else(|| Refusal::no_job(job_id))?;
        let full = job.full(&self.runs, now);
        let work = match args.list("only").filter(|only| !only.is_empty()) {
            Some(only) => Arc::new(Work::read(&job.settings, Some(only))?),
            None => Arc::clone(&job.work),
        };
        let mut run = new_run(job_id, job.name.clone(), "JOB_RUN", token, work, now);
        run.job_name = Some(job.name.clone());
        run.timeout_ms = timeout_ms(&job.settings);
        run.job_clusters = job.settings.get("job_clusters").cloned();
        run.choices = Choices::of_request(args.fields());
        run.python_params = args.get("python_params").cloned();
        let overriding: Map<String, Value> = OVERRIDING
            .iter()
            .filter_map(|&name| Some((name.to_owned(), args.get(name)?.clone())))
            .collect();
        run.overriding = (!overriding.is_empty()).then(|| overriding.into());
        run.job_parameters = job_parameters(job, args.get("job_parameters"));
        let declared = Choices::of_job_parameters(&job.settings);
        let queue = args.get("queue").or_else(|| job.settings.get("queue"));
        let queue = queue
            .and_then(|queue| queue.get("enabled"))
            .is_some_and(truthy);
        let plans = self.plans(
            Wanted::of(&run, &run.choices, "jobs/run-now", &declared),
            now,
        )?;
        let round = match (full, queue) {
            (false, _) => Round::new(0, Some(now)),
            (true, true) => Round::new(0, None),
            (true, false) => Round {
                refused: Some((now, Ending::too_many_runs())),
                ..Round::new(0, None)
            },
        };
        let run_id = self.add(run, round, plans);
        Ok(json!({"run_id": run_id, "number_in_job": run_id}))
    }

    /// `jobs/runs/submit`.
    pub(super) fn submit(&mut self, args: &Args, now: i64) -> Answer {
        let token = idempotency_token(args)?;
        if let Some(run_id) = self.run_under(token.as_deref())? {
            return Ok(json!({"run_id": run_id}));
        }
        let work = Work::read(args.fields(), None)?;
        if let Some(task) = work
            .tasks
            .iter()
            .find(|task| !task.definition.keys().any(|name| name.ends_with("_task")))
        {
            return Err(Refusal::invalid(format!(
                "Task '{}' has no work: one of notebook_task, spark_python_task, spark_jar_task, \
                 python_wheel_task, ... is required.",
                task.task_key
            )));
        }
        let job_id = self.new_id();
        let name = args.text("run_name").unwrap_or_else(|| "Untitled".into());
        let mut run = new_run(job_id, name, "SUBMIT_RUN", token, Arc::new(work), now);
        run.timeout_ms = timeout_ms(args.fields());
        run.job_clusters = args.get("job_clusters").cloned();
        run.choices = Choices::of_request(args.fields());
        let plans = self.plans(
            Wanted::of(&run, &run.choices, "jobs/runs/submit", &Choices::default()),
            now,
        )?;
        let run_id = self.add(run, Round::new(0, Some(now)), plans);
        Ok(json!({"run_id": run_id}))
    }

    /// The run that was created under a token, if any.
    fn run_under(&self, token: Option<&str>) -> Result<Option<i64>, Refusal> {
        let Some(run) = token.and_then(|token| self.runs_by_token.get(token)) else {
            return Ok(None);
        };
        let run = &self.runs[*run];
        if run.deleted {
            return Err(Refusal::invalid(format!(
                "The run {} created under this idempotency token has been deleted.",
                run.run_id
            )));
        }
        Ok(Some(run.run_id))
    }

    /// Books a new run.
    fn add(&mut self, mut run: Run, round: Round, plans: Vec<Plan>) -> i64 {
        let place = self.runs.len();
        let run_id = self.new_id();
        run.run_id = run_id;
        run.rounds.push(round);
        self.places.insert(
            run_id,
            Place {
                run: place,
                attempt: None,
            },
        );
        if let Some(token) = &run.token {
            self.runs_by_token.insert(token.clone(), place);
        }
        self.active.insert(place);
        if plans.iter().any(|plan| plan.ending.word() == DELETED) {
            self.doomed.push(place);
        }
        self.stats.started(run.token.as_deref());
        self.runs.push(run);
        for (task, plan) in plans.into_iter().enumerate() {
            self.add_attempt(place, task, plan);
        }
        let run = &mut self.runs[place];
        run.replan();
        if let Some(job) = self.jobs.get_mut(&run.job_id) {
            if run.queued() {
                job.waiting.push_back(place);
                self.queues.insert(run.job_id);
            } else if run.rounds[0].start.is_some() && job.limited() {
                job.active.push(place);
            }
        }
        run_id
    }

    /// Adds an attempt of a task to the run's latest round, and has its process started if there is
    /// to be a real one.
    pub(super) fn add_attempt(&mut self, place: usize, task: usize, mut plan: Plan) {
        let run_id = self.new_id();
        let run = &mut self.runs[place];
        let definition = &run.work.tasks[task].definition;
        let real =
            self.exec && plan.ending.succeeded() && definition.contains_key("spark_python_task");
        let round = run.rounds.len() - 1;
        let cluster = definition
            .get("existing_cluster_id")
            .and_then(Value::as_str);
        if let (Some(cluster), Some(start)) = (cluster, run.rounds[round].start)
            && run.work.tasks[task].depends_on.is_empty()
        {
            plan.setup_ms = plan.setup_ms.max(self.clusters.wake(cluster, start));
        }
        let number = run
            .attempts
            .iter()
            .filter(|attempt| attempt.task == task)
            .count();
        let attempt = run.attempts.len();
        self.places.insert(
            run_id,
            Place {
                run: place,
                attempt: Some(attempt),
            },
        );
        run.attempts.push(Attempt {
            run_id,
            task,
            round,
            number: u32::try_from(number).unwrap_or(u32::MAX),
            plan,
            process: real.then_some(Process::Waiting),
            logs: None,
        });
        if real && run.rounds[round].refused.is_none() {
            self.launch.push((place, attempt));
        }
    }

    /// Lets queued runs in whose job had room by now, each from the moment the room was there; and
    /// deletes those that were to be deleted at their end.
    pub(super) fn settle(&mut self, now: i64) {
        let Self {
            queues,
            jobs,
            runs,
            doomed,
            stats,
            ..
        } = self;
        queues.retain(|job_id| jobs.get_mut(job_id).is_some_and(|job| job.admit(runs, now)));
        doomed.retain(|&place| {
            let over = runs[place].ended(now).is_some();
            if over {
                runs[place].deleted = true;
                stats.deleted += 1;
            }
            !over
        });
    }
}

/// The token of a request; more than 64 characters are refused.
fn idempotency_token(args: &Args) -> Result<Option<String>, Refusal> {
    let token = args.text("idempotency_token");
    if token
        .as_ref()
        .is_some_and(|token| token.chars().count() > TOKEN_LENGTH)
    {
        return Err(Refusal::invalid(format!(
            "The idempotency_token must be at most {TOKEN_LENGTH} characters long."
        )));
    }
    Ok(token)
}

fn new_run(
    job_id: i64,
    run_name: String,
    run_type: &'static str,
    token: Option<String>,
    work: Arc<Work>,
    created: i64,
) -> Run {
    Run {
        run_id: 0,
        job_id,
        run_name,
        job_name: None,
        run_type,
        token,
        work,
        created,
        timeout_ms: None,
        overriding: None,
        job_parameters: None,
        job_clusters: None,
        python_params: None,
        choices: Choices::default(),
        rounds: Vec::with_capacity(1),
        attempts: Vec::new(),
        schedule: Schedule::default(),
        deleted: false,
        cancelled: false,
        changed: Arc::new(Notify::new()),
    }
}

/// Job parameters as runs/get lists them: those that the job declares with the request's values, and
/// those that only the request has.
fn job_parameters(job: &Job, given: Option<&Value>) -> Option<Value> {
    let mut given = given
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let mut all = Vec::new();
    for declared in job
        .settings
        .get("parameters")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let Some(name) = declared.get("name").and_then(Value::as_str) else {
            continue;
        };
        let default = declared.get("default").cloned().unwrap_or_default();
        let value = given
            .remove(name)
            .and_then(|value| plain(&value))
            .map_or_else(|| default.clone(), Value::from);
        all.push(json!({"name": name, "default": default, "value": value}));
    }
    all.extend(
        given
            .iter()
            .map(|(name, value)| json!({"name": name, "value": plain(value)})),
    );
    (!all.is_empty()).then(|| all.into())
}
