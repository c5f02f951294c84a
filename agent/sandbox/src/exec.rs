//! Real processes: with `exec`, a `spark_python_task` is run by `python3`. Each attempt has one
//! keeper, a task of its own that waits for its turn, starts the program, collects what it prints,
//! and kills it when the run is cancelled or out of time.

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{process::Command, sync::Notify};

use super::{
    Shared,
    choices::program_arguments,
    ending::Ending,
    printed::Output,
    run::Process,
    state::{State, now_ms},
};

/// How often a queued run looks whether its job has room, where nobody else asks.
const QUEUE_LOOK_MS: i64 = 100;
/// How long the output of children that outlive their program is waited for.
const DRAIN: Duration = Duration::from_millis(500);

/// What a keeper does next.
enum Step {
    /// The attempt is over before it began.
    Leave,
    /// Wait until then (epoch milliseconds), or until something changes.
    Wait(Option<i64>),
    /// Its turn has come.
    Start,
}

/// The program of an attempt.
struct Program {
    file: String,
    arguments: Vec<String>,
}

/// What a process has come to.
struct Finished {
    ending: Ending,
    logs: String,
    truncated: bool,
    killed: bool,
}

impl State {
    fn step(&mut self, run: usize, attempt: usize, now: i64) -> Step {
        self.settle(now);
        let run = &self.runs[run];
        let times = run.times(attempt);
        let over = times.ended.as_ref().map(|(end, _)| *end);
        if over.is_some_and(|end| end <= now) || times.cut.is_some_and(|cut| cut <= now) {
            return Step::Leave;
        }
        let start = times
            .ready
            .map(|ready| ready + run.attempts[attempt].plan.setup_ms);
        match start {
            Some(start) if start <= now => Step::Start,
            // An end that is known beforehand: not to be run at all, or out of time by then.
            Some(start) => Step::Wait(Some(over.map_or(start, |end| end.min(start)))),
            None if run.queued() => Step::Wait(Some(now + QUEUE_LOOK_MS)),
            None => Step::Wait(over),
        }
    }

    /// Books the start of a process if its turn has come.
    fn begin(&mut self, run: usize, attempt: usize, now: i64) -> Option<Program> {
        if !matches!(self.step(run, attempt, now), Step::Start) {
            return None;
        }
        let run = &mut self.runs[run];
        let task = &run.work.tasks[run.attempts[attempt].task].definition;
        let python = task.get("spark_python_task")?;
        let program = Program {
            file: python
                .get("python_file")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            arguments: program_arguments(
                run.python_params
                    .as_ref()
                    .or_else(|| python.get("parameters")),
            ),
        };
        run.attempts[attempt].process = Some(Process::Running { since: now });
        run.replan();
        Some(program)
    }

    fn finish(&mut self, run: usize, attempt: usize, finished: Finished, now: i64) {
        let run = &mut self.runs[run];
        let own = &mut run.attempts[attempt];
        let since = match own.process {
            Some(Process::Running { since }) => since,
            _ => now,
        };
        // A killed process must not seem to have ended by itself in the millisecond of the cut.
        let at = now + i64::from(finished.killed);
        own.process = Some(Process::Ended {
            since,
            at,
            ending: finished.ending,
        });
        own.logs = Some((finished.logs, finished.truncated));
        run.replan();
    }
}

/// Keeps one attempt from its turn to its end.
pub(super) async fn keep(shared: Arc<Shared>, run: usize, attempt: usize) {
    let changed = Arc::clone(&shared.lock().runs[run].changed);
    loop {
        let notified = changed.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        let step = shared.lock().step(run, attempt, now_ms());
        match step {
            Step::Leave => return,
            Step::Wait(until) => {
                tokio::select! {
                    () = notified => {}
                    () = sleep_until(until) => {}
                    () = shared.stop.cancelled() => return,
                }
            }
            Step::Start => {
                let permit = tokio::select! {
                    permit = shared.slots.acquire() => permit,
                    () = shared.stop.cancelled() => return,
                };
                let Ok(_permit) = permit else { return };
                let program = shared.lock().begin(run, attempt, now_ms());
                if let Some(program) = program {
                    let finished = execute(&shared, run, attempt, &changed, program).await;
                    shared.lock().finish(run, attempt, finished, now_ms());
                    return;
                }
            }
        }
    }
}

/// Sleeps until a moment, or for ever.
async fn sleep_until(at: Option<i64>) {
    match at {
        // One more, because the clock is cut down to milliseconds.
        Some(at) => {
            let millis = u64::try_from(at - now_ms() + 1).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        None => std::future::pending().await,
    }
}

/// Returns when the process of an attempt must die.
async fn doom(shared: &Shared, run: usize, attempt: usize, changed: &Notify) {
    loop {
        let notified = changed.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        let at = shared.lock().runs[run].kill_at(attempt);
        if at.is_some_and(|at| at <= now_ms()) {
            return;
        }
        tokio::select! {
            () = notified => {}
            () = sleep_until(at) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

/// The path of a `python_file`, or what is wrong with it.
async fn local_file(python_file: &str) -> Result<PathBuf, String> {
    let path = python_file.strip_prefix("file:").unwrap_or(python_file);
    let path = path
        .strip_prefix("//")
        .map_or_else(|| path.to_owned(), str::to_owned);
    if tokio::fs::metadata(&path)
        .await
        .is_ok_and(|found| found.is_file())
    {
        return Ok(path.into());
    }
    Err(format!(
        "The Python file '{python_file}' does not exist on this machine. The sandbox runs local files \
         only (a path or a file: URI); dbfs:/ and workspace paths serve where such a file exists."
    ))
}

async fn execute(
    shared: &Shared,
    run: usize,
    attempt: usize,
    changed: &Notify,
    program: Program,
) -> Finished {
    let failed = |code: &str, message: String| {
        let ending = Ending::failed_platform(code, "CLIENT_ERROR");
        Finished {
            ending: Ending {
                message: message.clone(),
                error: Some(message),
                ..ending
            },
            logs: String::new(),
            truncated: false,
            killed: false,
        }
    };
    let file = match local_file(&program.file).await {
        Ok(file) => file,
        Err(message) => return failed("RESOURCE_NOT_FOUND", message),
    };
    let spawned = Command::new("python3")
        .arg(file)
        .args(program.arguments)
        // What is printed to both streams stays in order.
        .env("PYTHONUNBUFFERED", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            return failed(
                "DRIVER_ERROR",
                format!("python3 could not be started: {error}"),
            );
        }
    };
    let mut output = Output::new(child.stdout.take(), child.stderr.take());
    let doom = doom(shared, run, attempt, changed);
    tokio::pin!(doom);
    let mut killed = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            () = output.more(), if output.open() => {}
            () = &mut doom, if !killed => {
                killed = true;
                // It can only fail because the process is gone already.
                let _ = child.start_kill();
            }
        }
    };
    let rest = async {
        while output.open() {
            output.more().await;
        }
    };
    let drained = tokio::time::timeout(DRAIN, rest).await;
    if drained.is_err() {
        tracing::debug!(file = %program.file, "sandbox: a child of the program still holds its output");
    }
    let ending = match status {
        Ok(status) if status.success() => Ending::of_word("SUCCESS"),
        Ok(status) => output.failure(&status.to_string()),
        Err(error) => output.failure(&error.to_string()),
    };
    let (logs, truncated) = output.logs();
    Finished {
        ending,
        logs,
        truncated,
        killed,
    }
}
