//! `sparkferry submit`: a producer.
//!
//! `input` parts what was given, or makes a request of statements, `set` changes it, `batch` checks it, `wait` sees it through
//! with `progress`, and `table` sums up.

mod batch;
mod input;
mod progress;
mod set;
mod table;
mod wait;

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::json;
use sparkferry_ports::queue::{Producer, QueueError};
use sparkferry_shared::Id;

use self::batch::{Ready, Wishes};
use self::set::Assignment;
use super::exit::Exit;
use super::print;
use super::problem::Problem;
use super::setup::{self, Loaded};

/// Requests that are on their way to the queue at once: enough to hide a broker's round trip.
const UNDER_WAY: usize = 64;

/// Puts requests into the queue; with --wait, sees them through and prints their results.
///
/// FILE holds one request, an array of requests, or one after another (JSON lines); `sparkferry
/// schema` tells what they look like. All of them are checked first: if one is wrong, what is wrong
/// is told and nothing is submitted.
///
/// The id says what a request is: submitting it again runs nothing twice, and returns its result if
/// it is done. A request without an id gets a new one, which is printed.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sparkferry submit nightly.json --wait
  sparkferry submit year.json --set id=year-2001 --set run_now.job_parameters.year='\"2001\"'
  jq -c '.[]' many.json | sparkferry submit - --wait --json | jq .outcome
  sparkferry submit --connection lake --sql 'CREATE TABLE t AS SELECT 1 AS n' --sql 'SELECT * FROM t' --wait

  # One request, with the work in Databricks' own words:
  {\"id\": \"orders-2026-11-21\", \"run_now\": {\"job_name\": \"nightly\"}, \"max_retries\": 2}

--set KEY=VALUE:
  KEY is the way to the value: names parted by dots, numbers for the elements of a list
  (submit_run.tasks.0.timeout_seconds); `\\.` is a dot inside a name. What is missing on the way is
  made. VALUE is taken as JSON if it is JSON, else as a string: 5 is a number, '\"5\"' a string.

Exit codes, with --wait (of several results the worst decides, and the list begins with the worst):
  65  a result is REJECTED (also without --wait, where a request is wrong)
   1  a result is FAILED, CANCELED, TIMEDOUT, SKIPPED or SUCCESS_WITH_FAILURES (a run that succeeded
      but for tasks that may fail is not called a success here), or --timeout has passed
  75  a result is LOST or EXPIRED: look at what was done, then submit the rest under a new id
   0  every result is SUCCESS, or SUBMITTED where the request has `\"wait\": false`
 130  ended by Ctrl-C or SIGTERM; the runs go on")]
pub(crate) struct SubmitArgs {
    /// The requests; - is stdin
    #[arg(value_name = "FILE|-", required_unless_present = "sql")]
    file: Option<PathBuf>,
    /// A statement for a Spark Connect connection, in place of FILE; several are steps of one request
    #[arg(long, value_name = "STATEMENT", conflicts_with = "file")]
    sql: Vec<String>,
    /// The id of the request made of --sql; absent, it gets a new one
    #[arg(long, value_name = "ID", requires = "sql", conflicts_with = "file")]
    id: Option<Id>,
    /// Wait for the results, showing progress; a table of them is printed
    #[arg(long)]
    wait: bool,
    /// JSON on stdout: one result a line, as it arrives (without --wait: one id and connection)
    #[arg(long)]
    json: bool,
    /// Set a value in every request, such as run_now.job_parameters.day=2026-11-21
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Assignment>,
    /// Where requests go that name no connection themselves
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
    /// Wait for so long and no longer; the runs go on
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<u64>,
}

pub(crate) async fn run(args: &SubmitArgs, loaded: &Loaded) -> Result<Exit, Problem> {
    loaded.connections()?;
    loaded.check_connection(args.connection.as_deref())?;
    let (source, input) = read(args).await?;
    let wishes = Wishes {
        set: &args.set,
        connection: args.connection.as_deref(),
    };
    let batch = batch::read(&source, &input, &wishes, &loaded.settings)?;
    let producer = setup::producer(&loaded.settings).await?;
    let done = if args.wait {
        let options = wait::Options {
            json: args.json,
            bars: std::io::stderr().is_terminal(),
            timeout: args.timeout.map(Duration::from_secs),
        };
        wait::see_through(&*producer, &batch, &options, setup::told_to_stop()).await
    } else {
        send_all(&*producer, &batch, args.json).await
    };
    producer.close().await;
    done
}

/// The input and its name.
async fn read(args: &SubmitArgs) -> Result<(String, Vec<u8>), Problem> {
    let Some(file) = args.file.clone() else {
        let request = input::of_statements(args.id.as_ref(), &args.sql);
        return Ok(("--sql".to_owned(), request.to_string().into_bytes()));
    };
    let source = if file.as_os_str() == "-" {
        "stdin".to_owned()
    } else {
        file.display().to_string()
    };
    let reading = tokio::task::spawn_blocking(move || {
        if file.as_os_str() != "-" {
            return std::fs::read(file);
        }
        let mut stdin = std::io::stdin().lock();
        if stdin.is_terminal() {
            print::note("reading requests from the terminal; Ctrl-D ends them");
        }
        let mut input = Vec::new();
        stdin.read_to_end(&mut input).map(|_| input)
    });
    match reading.await.unwrap_or_else(|e| Err(e.into())) {
        Ok(input) => Ok((source, input)),
        Err(e) => Err(Problem::usage(format!("{source} can't be read: {e}"))),
    }
}

/// Sends the requests, and tells of each once it is confirmed, in their order.
fn sending<'a>(
    producer: &'a dyn Producer,
    batch: &'a [Ready],
) -> impl Stream<Item = Result<&'a Ready, QueueError>> + 'a {
    stream::iter(batch)
        .map(move |ready| async move {
            let body = ready.body.clone();
            producer.submit(&ready.connection, &ready.id, body).await?;
            Ok(ready)
        })
        .buffered(UNDER_WAY)
}

async fn send_all(producer: &dyn Producer, batch: &[Ready], json: bool) -> Result<Exit, Problem> {
    let mut sending = std::pin::pin!(sending(producer, batch));
    let mut sent = 0;
    // A reader that goes away (`| head -1`) does not keep the rest from being sent.
    let mut printed = Ok(());
    while let Some(result) = sending.next().await {
        let ready = result.map_err(|error| stopped_short(error, sent, batch))?;
        sent += 1;
        if printed.is_ok() {
            printed = if json {
                print::json_line(&json!({ "id": ready.id, "connection": ready.connection }))
            } else {
                print::line(ready.id.as_str())
            };
        }
    }
    printed.map(|()| Exit::Success)
}

/// What to do where the queue went away in the middle of a batch.
fn stopped_short(error: QueueError, sent: usize, batch: &[Ready]) -> Problem {
    let advice = if batch.iter().any(|ready| ready.fresh) {
        "requests without an id of their own would be run again if they were submitted again: \
         give them ids, or submit only those whose ids were not printed"
    } else {
        "submit the same again: nothing is run twice"
    };
    match Problem::from(error) {
        Problem::Told { exit, text } => Problem::told(
            exit,
            format!(
                "{text}\n{sent} of {} requests are confirmed; {advice}",
                batch.len()
            ),
        ),
        other @ Problem::OutputClosed => other,
    }
}
