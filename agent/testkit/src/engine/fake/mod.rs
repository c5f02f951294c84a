//! An engine in memory: the shortest answer to what an engine has to do.
//!
//! Tests of the flow and the benchmark run on it. Several [`FakeEngine`]s can share one [`World`], as
//! workers share a workspace. A run follows the [`Plan`] in the field `fake` of its run-now body:
//!
//! ```json
//! {"job_id": 1, "fake": {"duration_ms": 500, "endings": ["infrastructure", "success"]}}
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use sparkferry_shared::{ErrorClass, Key, RunError, Work};
use tokio::sync::Notify;
use tokio::time::Instant;

use sparkferry_ports::engine::{
    Attached, Change, Ended, Engine, Facts, Failure, Fault, Run, Start, State, Unknown,
};

/// What becomes of a run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// How long it takes, in milliseconds.
    pub duration_ms: u64,
    /// How each attempt ends: `success`, `success_with_failures`, `skipped`, `timed_out`, or a class
    /// of error; the last one for all further attempts. Empty: success.
    pub endings: Vec<String>,
    /// What it says when it fails; else that the plan says so.
    pub message: Option<String>,
    /// What it produces.
    pub output: Option<Value>,
    /// Its tasks, of which each takes as long as the others; 0 is one.
    pub tasks: u32,
    /// It goes on although it is cancelled.
    pub ignores_cancel: bool,
}

/// All runs, and the faults to come. Cheap to clone; clones are the same world.
#[derive(Debug, Clone, Default)]
pub struct World(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Where this world's clock began: it runs with tokio's, so that tests may pause it.
    epoch: (Timestamp, Instant),
    runs: Mutex<HashMap<Key, Arc<FakeRun>>>,
    faults: Mutex<VecDeque<(Call, Trouble)>>,
    needs_attendance: AtomicBool,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            epoch: (Timestamp::now(), Instant::now()),
            runs: Mutex::default(),
            faults: Mutex::default(),
            needs_attendance: AtomicBool::default(),
        }
    }
}

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// [`Engine::attach_or_start`].
    AttachOrStart,
    /// [`Run::output`].
    Output,
    /// [`Run::cancel`].
    Cancel,
}

/// What happens to a call.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// It fails before it does anything.
    Fails(Fault),
    /// It does its work, and the answer is lost.
    ReplyLost,
    /// It panics.
    Panics,
}

#[derive(Debug)]
struct FakeRun {
    run_id: i64,
    started: Instant,
    ends: Instant,
    ending: Ended,
    output: Option<Value>,
    tasks: u32,
    ignores_cancel: bool,
    cancelled: Mutex<Option<Instant>>,
    cancel: Notify,
    forgotten: Mutex<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// This world's time.
    pub fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    fn at(&self, instant: Instant) -> Timestamp {
        let (timestamp, epoch) = self.0.epoch;
        timestamp + (instant - epoch)
    }

    /// The next call of this kind runs into trouble. Calls take their trouble in order.
    pub fn expect_trouble(&self, call: Call, trouble: Trouble) {
        lock(&self.0.faults).push_back((call, trouble));
    }

    /// How many runs were started.
    pub fn runs_started(&self) -> usize {
        lock(&self.0.runs).len()
    }

    /// When the run of this name started.
    pub fn started_at(&self, key: &Key) -> Option<Timestamp> {
        let runs = lock(&self.0.runs);
        runs.get(key).map(|run| self.at(run.started))
    }

    /// Whether there is a run of this name.
    pub fn knows(&self, key: &Key) -> bool {
        lock(&self.0.runs).contains_key(key)
    }

    /// Whether the run of this name was asked to stop.
    pub fn was_cancelled(&self, key: &Key) -> bool {
        let runs = lock(&self.0.runs);
        runs.get(key)
            .is_some_and(|run| lock(&run.cancelled).is_some())
    }

    /// The engine forgets the run of this name, as one that was deleted.
    pub fn forget(&self, key: &Key) {
        if let Some(run) = lock(&self.0.runs).get(key) {
            *lock(&run.forgotten) = true;
            run.cancel.notify_waiters();
        }
    }

    /// Its engines say from now on that runs need somebody who attends them.
    pub fn wants_attendance(&self) {
        self.0.needs_attendance.store(true, Ordering::Relaxed);
    }

    fn trouble(&self, call: Call) -> Option<Trouble> {
        let mut faults = lock(&self.0.faults);
        let next = faults.iter().position(|(kind, _)| *kind == call)?;
        faults.remove(next).map(|(_, trouble)| trouble)
    }

    /// Does `work` unless the call is to fail before it; loses its answer if it is to be lost.
    fn call<T>(&self, call: Call, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        match self.trouble(call) {
            None => work(),
            Some(Trouble::Fails(fault)) => Err(fault),
            Some(Trouble::Panics) => panic!("a call was told to panic"),
            Some(Trouble::ReplyLost) => {
                work()?;
                Err(Fault::Passing {
                    message: "the reply was lost".into(),
                    class: ErrorClass::Infrastructure,
                    retry_after: None,
                    perhaps_done: true,
                })
            }
        }
    }
}

/// The engine. See the [module](self).
#[derive(Debug, Clone, Default)]
pub struct FakeEngine {
    world: World,
}

impl FakeEngine {
    /// An engine in a world, which others may share.
    pub fn new(world: World) -> Self {
        Self { world }
    }
}

#[async_trait]
impl Engine for FakeEngine {
    async fn permit(&self) {}

    async fn attach_or_start(&self, start: &Start<'_>) -> Result<Attached, Fault> {
        let (run, adopted) = self.world.call(Call::AttachOrStart, || {
            let key = start.names.key(start.attempt);
            let mut runs = lock(&self.world.0.runs);
            if let Some(run) = runs.get(&key) {
                if *lock(&run.forgotten) {
                    return Err(Fault::Lost(Box::new(RunError::new(
                        ErrorClass::Lost,
                        "the run was deleted",
                    ))));
                }
                return Ok((run.clone(), true));
            }
            if start.unknown == Unknown::Lost {
                return Err(Fault::Lost(Box::new(RunError::new(
                    ErrorClass::Lost,
                    "the engine knows no such run, and it may have been there",
                ))));
            }
            let plan = plan(start.work)?;
            let run_id = i64::try_from(runs.len()).unwrap_or(i64::MAX - 1) + 1;
            let run = Arc::new(FakeRun::new(run_id, start.attempt, plan));
            runs.insert(key, run.clone());
            Ok((run, false))
        })?;
        Ok(Attached {
            run: Box::new(Following {
                world: self.world.clone(),
                run,
                told: None,
                adopted,
            }),
            adopted,
        })
    }

    async fn check(&self) -> Result<String, Fault> {
        Ok("an engine in memory".to_owned())
    }

    fn needs_attendance(&self) -> bool {
        self.world.0.needs_attendance.load(Ordering::Relaxed)
    }

    fn trouble(&self) -> Option<String> {
        None
    }
}

fn plan(work: &Work) -> Result<Plan, Fault> {
    let Work::RunNow(body) = work else {
        return Err(Fault::Refused(Box::new(RunError::new(
            ErrorClass::Request,
            "the fake engine takes run_now only",
        ))));
    };
    match body.read("fake") {
        Ok(plan) => Ok(plan.unwrap_or_default()),
        Err(e) => Err(Fault::Refused(Box::new(RunError::new(
            ErrorClass::Request,
            format!("run_now.fake: {e}"),
        )))),
    }
}

impl FakeRun {
    fn new(run_id: i64, attempt: u32, plan: Plan) -> Self {
        let nth = usize::try_from(attempt).unwrap_or(usize::MAX) - 1;
        let word = plan.endings.get(nth).or(plan.endings.last());
        let started = Instant::now();
        Self {
            run_id,
            started,
            ends: started + Duration::from_millis(plan.duration_ms),
            ending: ending(word.map_or("success", String::as_str), plan.message),
            output: plan.output,
            tasks: plan.tasks.max(1),
            ignores_cancel: plan.ignores_cancel,
            cancelled: Mutex::new(None),
            cancel: Notify::new(),
            forgotten: Mutex::new(false),
        }
    }

    /// When so many of its tasks are done.
    fn done_at(&self, tasks: u32) -> Instant {
        self.started + (self.ends - self.started) * tasks / self.tasks
    }

    /// How many of its tasks are done now.
    fn done(&self) -> u32 {
        let now = Instant::now();
        let open = (1..=self.tasks).find(|&nth| self.done_at(nth) > now);
        open.map_or(self.tasks, |nth| nth - 1)
    }

    /// How and when it ended, if it has.
    fn ended(&self) -> Option<(Ended, Instant)> {
        if *lock(&self.forgotten) {
            let failure = Failure::new(ErrorClass::Lost, "the run was deleted");
            return Some((Ended::Lost(failure), Instant::now()));
        }
        if let Some(at) = *lock(&self.cancelled)
            && !self.ignores_cancel
            && at < self.ends
        {
            let failure = Failure::new(ErrorClass::Canceled, "the run was cancelled");
            return Some((Ended::Canceled(failure), at));
        }
        (Instant::now() >= self.ends).then(|| (self.ending.clone(), self.ends))
    }
}

fn ending(word: &str, message: Option<String>) -> Ended {
    let message = message.unwrap_or_else(|| format!("the plan says {word}"));
    let failed = |class| Failure::new(class, message);
    match word {
        "success" => Ended::Success,
        "success_with_failures" => Ended::SuccessWithFailures(failed(ErrorClass::User)),
        "skipped" => Ended::Skipped(failed(ErrorClass::Throttled)),
        "timed_out" => Ended::TimedOut(failed(ErrorClass::Timeout)),
        "infrastructure" => Ended::Failed(failed(ErrorClass::Infrastructure)),
        "throttled" => Ended::Failed(failed(ErrorClass::Throttled)),
        "lost" => Ended::Lost(failed(ErrorClass::Lost)),
        _ => Ended::Failed(failed(ErrorClass::User)),
    }
}

/// As much of a text as fits into so many bytes of JSON.
fn cut(text: &str, limit: usize) -> Value {
    let mut end = text.len().min(limit);
    loop {
        let part = &text[..text.floor_char_boundary(end)];
        let value = json!({ "text": part, "truncated": true });
        let over = value.to_string().len().saturating_sub(limit);
        if over == 0 || end == 0 {
            return value;
        }
        end = end.saturating_sub(over);
    }
}

struct Following {
    world: World,
    run: Arc<FakeRun>,
    /// The tasks that were done when it was last told.
    told: Option<u32>,
    adopted: bool,
}

#[async_trait]
impl Run for Following {
    fn facts(&self) -> Facts {
        Facts {
            run_id: Some(self.run.run_id),
            started_at: Some(self.world.at(self.run.started)),
            ended_at: self.run.ended().map(|(_, at)| self.world.at(at)),
            adopted: self.adopted,
            ..Facts::default()
        }
    }

    async fn next(&mut self) -> Change {
        loop {
            let run = &self.run;
            let stirred = run.cancel.notified();
            if let Some((ended, _)) = run.ended() {
                return Change::Ended(ended);
            }
            let done = run.done();
            if self.told.replace(done) != Some(done) {
                return Change::State(State {
                    word: "RUNNING".into(),
                    done: done.into(),
                    total: run.tasks.into(),
                    stages: None,
                });
            }
            tokio::select! {
                () = tokio::time::sleep_until(run.done_at(done + 1)) => {}
                () = stirred => {}
            }
        }
    }

    async fn output(&mut self, limit: usize) -> Result<Option<Value>, Fault> {
        self.world.call(Call::Output, || {
            let whole = self.run.output.as_ref();
            Ok(whole.map(|value| match value.to_string() {
                text if text.len() > limit => cut(&text, limit),
                _ => value.clone(),
            }))
        })
    }

    async fn cancel(&mut self) -> Result<(), Fault> {
        self.world.call(Call::Cancel, || {
            lock(&self.run.cancelled).get_or_insert_with(Instant::now);
            self.run.cancel.notify_waiters();
            Ok(())
        })
    }

    async fn release(&mut self) {}
}

#[cfg(test)]
mod tests;
