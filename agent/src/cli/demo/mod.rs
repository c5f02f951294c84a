//! `sparkferry demo`: everything in one process, in under a minute.
//!
//! `stage` is what it plays on, `cases` are the requests and what has to come of them, `spark` is a
//! Spark Connect server, if there is to be one.

mod cases;
mod spark;
mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use comfy_table::{Cell, Color};
use sparkferry_ports::queue::{Listen, News, Producer};
use sparkferry_shared::{Cancel, Event, EventType, Id, RunResult};
use tokio::time::Instant;

use self::cases::Case;
use self::spark::Spark;
use self::stage::{Stage, Stats, failed};
use super::exit::Exit;
use super::problem::Problem;
use super::{print, setup, story};

/// How long it may take until every result is there.
const LIMIT: Duration = Duration::from_secs(55);
/// How long the next event may take once every result is there.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// Shows it all in under a minute: a queue, a worker, a stand-in for Databricks, a few requests.
///
/// Needs no configuration, no RabbitMQ and no workspace, and leaves nothing behind. Python files are
/// really run where there is a python3. The exit code is 0 if every request came out as it has to:
/// its outcome, its attempts, and the runs that were really started.
///
/// With a Spark Connect server there are statements too: one that runs, named by the variable
/// `SPARK_REMOTE` (`sc://127.0.0.1:15002`), or with --spark one that is started for the demo.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Start a Spark Connect server too: `sail` or `spark-submit`
    ///
    /// Looked for in `VIRTUAL_ENV`, `SPARK_HOME` and PATH. Nothing is installed: `pip install pysail`
    /// brings the smaller one.
    #[arg(long)]
    spark: bool,
    /// The Python environment in which --spark looks, and nowhere else
    #[arg(long, value_name = "FOLDER", requires = "spark")]
    venv: Option<PathBuf>,
}

pub(crate) async fn run(args: &DemoArgs) -> Result<Exit, Problem> {
    let folder = std::env::temp_dir().join(format!("sparkferry-demo-{}", std::process::id()));
    tokio::fs::create_dir(&folder)
        .await
        .map_err(|e| failed(format!("{}: {e}", folder.display())))?;
    let played = tokio::select! {
        played = in_folder(args, &folder) => played,
        () = setup::told_to_stop() => Ok(Exit::Interrupted),
    };
    if let Err(error) = tokio::fs::remove_dir_all(&folder).await {
        print::note(&format!("{} stays behind: {error}", folder.display()));
    }
    played
}

async fn in_folder(args: &DemoArgs, folder: &Path) -> Result<Exit, Problem> {
    for (name, text) in cases::files() {
        tokio::fs::write(folder.join(name), text)
            .await
            .map_err(failed)?;
    }
    let python = python_is_there().await;
    let namespace = stage::namespace();
    let spark = match Spark::of_variable(&namespace).await? {
        None if args.spark => Some(Spark::start(args.venv.clone(), &namespace, folder).await?),
        named => named,
    };
    let mut cases = cases::all(folder, python);
    if let Some(spark) = &spark {
        print::line(&format!("A Spark Connect server: {}", spark.told))?;
        cases.extend(cases::on_spark());
    }
    let engine = spark.as_ref().map(|spark| spark.engine.clone());
    let stage = Stage::set(folder, python, namespace, engine).await?;
    let played = play(&stage, &cases, python).await;
    stage.clear().await;
    played
}

async fn play(stage: &Stage, cases: &[Case], python: bool) -> Result<Exit, Problem> {
    print::line(&format!(
        "A stand-in for Databricks on {}, a queue in a file, one worker, {} requests:",
        stage.host,
        cases.len()
    ))?;
    for case in cases {
        print::line(&format!("  {:<16} {}", case.id.as_str(), case.shows))?;
    }
    if !python {
        print::line("There is no python3 here: the runs of Python files are pretended too.")?;
    }
    print::line("")?;
    stage.prepare().await?;
    let results = see_through(&stage.producer, cases).await?;
    let stats = stage.stats().await?;
    tell(cases, &results, &stats)
}

async fn python_is_there() -> bool {
    let asked = tokio::process::Command::new("python3")
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.await.is_ok_and(|status| status.success())
}

/// Submits all requests and tells what happens, until every result is there or [`LIMIT`] is over.
async fn see_through(
    producer: &dyn Producer,
    cases: &[Case],
) -> Result<BTreeMap<Id, RunResult>, Problem> {
    let coloured = colours();
    let deadline = Instant::now() + LIMIT;
    let ids = cases.iter().map(|case| case.id.clone()).collect();
    let mut news = producer.listen(Listen::Mine(ids)).await?;
    for case in cases {
        let body = serde_json::to_vec(&case.body).map_err(failed)?;
        let sent = producer.submit(case.connection, &case.id, body.into());
        sent.await?;
    }
    let mut results = BTreeMap::new();
    let mut asked_to_cancel = false;
    let mut finished = BTreeSet::new();
    while results.len() < cases.len() || finished.len() < cases.len() {
        // Results come for certain and events at best: with all results there, the last events
        // are not waited for long.
        let until = if results.len() < cases.len() {
            deadline
        } else {
            deadline.min(Instant::now() + LAST_EVENTS)
        };
        let Ok(next) = tokio::time::timeout_at(until, news.recv()).await else {
            break;
        };
        match next {
            Some(News::Event(event)) => {
                print::line(&shown(&event, coloured))?;
                if event.event_type == EventType::Finished {
                    finished.insert(event.id.clone());
                }
                if event.id.as_str() == cases::CANCELLED
                    && event.event_type == EventType::StateChanged
                    && !asked_to_cancel
                {
                    asked_to_cancel = true;
                    let cancel = Cancel {
                        cancel: event.id,
                        connection: Some(stage::CONNECTION.to_owned()),
                        reason: Some("the demo has seen enough".to_owned()),
                    };
                    producer.cancel(&cancel).await?;
                }
            }
            Some(News::Result(result)) => {
                results.insert(result.id.clone(), *result);
            }
            None => return Err(failed("the queue has nothing more to say")),
        }
    }
    Ok(results)
}

/// Whether stdout is a terminal, and colours are not refused.
fn colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !refused
}

/// An event as a line; on a terminal an ending has the colour of its outcome.
fn shown(event: &Event, coloured: bool) -> String {
    let line = story::line(event);
    let colour = match (event.details.outcome, event.event_type) {
        (Some(outcome), _) if Exit::from(outcome) == Exit::Success => "32",
        (Some(_), _) => "31",
        (None, EventType::Retrying) => "33",
        (None, _) => return line,
    };
    if coloured {
        format!("\u{1b}[{colour}m{line}\u{1b}[0m")
    } else {
        line
    }
}

/// The table, what differs, and what to try next.
fn tell(cases: &[Case], results: &BTreeMap<Id, RunResult>, stats: &Stats) -> Result<Exit, Problem> {
    let mut differences = Vec::new();
    let header = [
        "id",
        "outcome",
        "as expected",
        "attempts",
        "runs started",
        "time",
    ];
    let mut table = print::table(&header);
    for case in cases {
        // Of statements only the result tells.
        let runs = (case.connection == stage::CONNECTION).then(|| stats.runs_of(case.id.as_str()));
        let counted = runs.map_or_else(String::new, |runs| runs.to_string());
        let Some(result) = results.get(&case.id) else {
            differences.push(format!("{}: no result came in time", case.id));
            table.add_row([case.id.as_str(), "none", "no", "", &counted, ""]);
            continue;
        };
        let found = differs(case, result, runs);
        let (answer, colour) = if found.is_empty() {
            ("yes", Color::Green)
        } else {
            ("no", Color::Red)
        };
        let took = result.finished_at.duration_since(result.received_at);
        table.add_row([
            Cell::new(&case.id),
            Cell::new(result.outcome),
            Cell::new(answer).fg(colour),
            Cell::new(result.attempts.len()),
            Cell::new(counted),
            Cell::new(print::duration(took.unsigned_abs())),
        ]);
        differences.extend(found.iter().map(|what| format!("{}: {what}", case.id)));
    }
    if stats.lost_replies() != 1 {
        differences.push(format!(
            "{}: {} replies were lost, not 1",
            cases::LOST_REPLY,
            stats.lost_replies()
        ));
    }
    print::line(&format!("\n{}", table.trim_fmt()))?;
    if !differences.is_empty() {
        print::note(&format!(
            "\nNot as it has to be:\n  {}",
            differences.join("\n  ")
        ));
        return Ok(Exit::NotSucceeded);
    }
    print::line(
        "\nAll as it has to be. What to try next:\n  \
           sparkferry demo --spark   # with statements too (pip install pysail)\n  \
           sparkferry sandbox        # a stand-in that stays; it prints a connection for config/agent.toml\n  \
           sparkferry check          # are the queue and every connection of config/agent.toml there?\n  \
           sparkferry run            # the worker",
    )?;
    Ok(Exit::Success)
}

/// What is not as it has to be.
fn differs(case: &Case, result: &RunResult, runs: Option<u64>) -> Vec<String> {
    let mut found = Vec::new();
    if result.outcome != case.outcome {
        found.push(format!("{}, not {}", result.outcome, case.outcome));
        found.extend(result.error.as_ref().map(story::error));
    }
    let attempts = result.attempts.len();
    if attempts != case.attempts {
        found.push(format!("{attempts} attempts, not {}", case.attempts));
    }
    if let Some(runs) = runs
        && usize::try_from(runs) != Ok(case.attempts)
    {
        found.push(format!("{runs} runs started, not {}", case.attempts));
    }
    if let Some(text) = case.tells {
        let told = serde_json::to_string(&(&result.error, &result.output));
        if !told.is_ok_and(|told| told.contains(text)) {
            found.push(format!("the result does not tell {text:?}"));
        }
    }
    found
}
