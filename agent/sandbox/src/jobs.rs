//! Jobs: their settings, and the places for runs that a job with `max_concurrent_runs` has.

use std::{collections::VecDeque, sync::Arc};

use serde_json::{Map, Value, json};

use super::{
    args::{Args, whole},
    auth::USER,
    reply::{Answer, Refusal},
    run::Run,
    state::State,
    work::Work,
};

/// A job.
#[derive(Debug)]
pub(super) struct Job {
    /// Its name; several jobs may share one.
    pub(super) name: String,
    /// As the client gave them.
    pub(super) settings: Map<String, Value>,
    /// Its tasks, read from the settings.
    pub(super) work: Arc<Work>,
    /// Runs that hold a place, by position; ended ones are let go lazily.
    pub(super) active: Vec<usize>,
    /// Runs in the queue, oldest first.
    pub(super) waiting: VecDeque<usize>,
    created: i64,
}

impl Job {
    fn read(settings: Map<String, Value>, created: i64) -> Result<Self, Refusal> {
        Ok(Self {
            name: settings
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or("Untitled")
                .to_owned(),
            work: Arc::new(Work::read(&settings, None)?),
            settings,
            active: Vec::new(),
            waiting: VecDeque::new(),
            created,
        })
    }

    /// How many runs may be under way at once; only where the job says so.
    fn places(&self) -> usize {
        let places = self.settings.get("max_concurrent_runs").and_then(whole);
        places.map_or(usize::MAX, |places| usize::try_from(places).unwrap_or(0))
    }

    /// Whether its places are counted at all.
    pub(super) fn limited(&self) -> bool {
        self.places() < usize::MAX
    }

    /// Whether a new run would find no place; to be asked when the queue has been settled.
    pub(super) fn full(&mut self, runs: &[Run], now: i64) -> bool {
        self.active.retain(|&run| runs[run].ended(now).is_none());
        self.limited() && (!self.waiting.is_empty() || self.active.len() >= self.places())
    }

    /// Gives free places to queued runs; true while some still wait.
    pub(super) fn admit(&mut self, runs: &mut [Run], now: i64) -> bool {
        let mut free_since = 0;
        while let Some(&first) = self.waiting.front() {
            if !runs[first].queued() || runs[first].rounds[0].canceled.is_some() {
                self.waiting.pop_front();
            } else if self.active.len() < self.places() {
                self.waiting.pop_front();
                let run = &mut runs[first];
                run.rounds[0].start = Some(run.created.max(free_since));
                run.replan();
                self.active.push(first);
            } else {
                let ends = self.active.iter().enumerate();
                let ends =
                    ends.filter_map(|(at, &run)| runs[run].ended(now).map(|(end, _)| (*end, at)));
                let Some((end, at)) = ends.min() else {
                    return true;
                };
                free_since = free_since.max(end);
                self.active.swap_remove(at);
            }
        }
        false
    }

    /// As jobs/get and jobs/list show it.
    fn show(&self, job_id: i64, with_tasks: bool) -> Value {
        let mut settings = self.settings.clone();
        settings.insert(
            "format".into(),
            if self.work.single {
                "SINGLE_TASK"
            } else {
                "MULTI_TASK"
            }
            .into(),
        );
        settings.entry("max_concurrent_runs").or_insert(1.into());
        settings.entry("timeout_seconds").or_insert(0.into());
        settings.insert("name".into(), self.name.clone().into());
        if !with_tasks {
            settings.remove("tasks");
        }
        json!({
            "job_id": job_id,
            "creator_user_name": USER,
            "run_as_user_name": USER,
            "created_time": self.created,
            "settings": settings,
        })
    }
}

impl State {
    /// `jobs/create`.
    pub(super) fn create_job(&mut self, args: &Args, now: i64) -> Answer {
        let job = Job::read(args.fields().clone(), now)?;
        let job_id = self.new_id();
        self.jobs.insert(job_id, job);
        Ok(json!({"job_id": job_id}))
    }

    fn job(&self, args: &Args) -> Result<(i64, &Job), Refusal> {
        let job_id = args.need_int("job_id")?;
        let job = self
            .jobs
            .get(&job_id)
            .ok_or_else(|| Refusal::no_job(job_id))?;
        Ok((job_id, job))
    }

    /// `jobs/get`.
    pub(super) fn get_job(&self, args: &Args) -> Answer {
        self.job(args).map(|(job_id, job)| job.show(job_id, true))
    }

    /// `jobs/delete`: what is under way goes on; what is queued is cancelled.
    pub(super) fn delete_job(&mut self, args: &Args, now: i64) -> Answer {
        let (job_id, _) = self.job(args)?;
        let waiting = self.jobs.remove(&job_id).map(|job| job.waiting);
        self.queues.remove(&job_id);
        for place in waiting.into_iter().flatten() {
            self.cancel(place, now);
        }
        Ok(json!({}))
    }

    /// `jobs/update` (new settings over the old ones) and `jobs/reset` (in place of them).
    pub(super) fn change_job(&mut self, args: &Args, reset: bool) -> Answer {
        let (job_id, job) = self.job(args)?;
        let new = args
            .get("new_settings")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        let mut settings = if reset {
            Map::new()
        } else {
            job.settings.clone()
        };
        settings.extend(new);
        for field in args.list("fields_to_remove").unwrap_or_default() {
            if let Some(field) = field.as_str() {
                settings.remove(field);
            }
        }
        let changed = Job::read(settings, job.created)?;
        if let Some(job) = self.jobs.get_mut(&job_id) {
            *job = Job {
                active: std::mem::take(&mut job.active),
                waiting: std::mem::take(&mut job.waiting),
                ..changed
            };
        }
        Ok(json!({}))
    }

    /// `jobs/list`: by exact name in any case, newest first.
    pub(super) fn list_jobs(&self, args: &Args) -> Answer {
        let limit = args.int("limit")?.unwrap_or(20);
        if !(1..=100).contains(&limit) {
            return Err(Refusal::invalid(format!(
                "Invalid limit {limit} - it has to be between 1 and 100."
            )));
        }
        let limit = usize::try_from(limit).unwrap_or(1);
        let before = match args.text("page_token") {
            None => i64::MAX,
            Some(token) => token
                .parse()
                .map_err(|_| Refusal::invalid("Invalid page_token."))?,
        };
        let name = args.text("name").map(|name| name.to_lowercase());
        let with_tasks = args.flag("expand_tasks");
        let mut found = self.jobs.range(..before).rev().filter(|(_, job)| {
            name.as_ref()
                .is_none_or(|name| job.name.to_lowercase() == *name)
        });
        let page: Vec<_> = found.by_ref().take(limit).collect();
        let mut answer = json!({"has_more": false});
        if let (Some((last, _)), Some(_)) = (page.last(), found.next()) {
            answer["next_page_token"] = last.to_string().into();
            answer["has_more"] = true.into();
        }
        answer["jobs"] = page
            .into_iter()
            .map(|(id, job)| job.show(*id, with_tasks))
            .collect();
        Ok(answer)
    }
}
