//! Sees a batch through: sends it, and waits for every result.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use sparkferry_ports::queue::{Listen, News, Producer};
use sparkferry_shared::{Id, RunResult};
use tokio::time::Instant;

use super::batch::Ready;
use super::progress::Progress;
use super::{sending, stopped_short, table};
use crate::cli::exit::Exit;
use crate::cli::print;
use crate::cli::problem::Problem;

/// How to wait.
#[derive(Debug)]
pub(super) struct Options {
    /// Results on stdout as JSON lines, as they arrive; else a table at the end.
    pub(super) json: bool,
    /// Progress as bars that move; else as lines.
    pub(super) bars: bool,
    /// For how long at most, from the first request on.
    pub(super) timeout: Option<Duration>,
}

/// How far a batch is.
struct Seen {
    /// What is shown of it.
    progress: Progress,
    /// Requests that the queue has confirmed: the first so many of the batch.
    sent: usize,
    /// The results, in the batch's order.
    results: Vec<Option<Box<RunResult>>>,
}

/// Why the waiting ended before all results were there.
enum Short {
    Stopped,
    TimedOut,
    Failed(Problem),
}

/// Sends the batch and waits for its results, until `stop` or the timeout.
pub(super) async fn see_through(
    producer: &dyn Producer,
    batch: &[Ready],
    options: &Options,
    stop: impl Future<Output = ()>,
) -> Result<Exit, Problem> {
    for ready in batch.iter().filter(|ready| ready.fresh) {
        print::note(&format!("{}: has no id, gets {}", ready.place, ready.id));
    }
    let mut seen = Seen {
        progress: Progress::new(batch, options.bars),
        sent: 0,
        results: vec![None; batch.len()],
    };
    let short = collect(producer, batch, options, stop, &mut seen).await;
    seen.progress.close();
    let arrived: Vec<&RunResult> = seen.results.iter().flatten().map(|r| &**r).collect();
    if !options.json && !arrived.is_empty() {
        print::line(&table::table(&arrived))?;
    }
    let worst = arrived
        .iter()
        .map(|result| Exit::from(result.outcome))
        .max()
        .unwrap_or(Exit::Success);
    let missing = || seen.missing(batch);
    match short {
        None => Ok(worst),
        Some(Short::Failed(Problem::Told { exit, text })) => Err(Problem::told(
            exit.max(worst),
            format!("{text}\n{}", missing()),
        )),
        // Nobody was told all results: that is no success.
        Some(Short::Failed(Problem::OutputClosed)) => Ok(worst.max(Exit::NotSucceeded)),
        Some(Short::TimedOut) => {
            print::note(&format!("--timeout has passed; {}", missing()));
            Ok(worst.max(Exit::NotSucceeded))
        }
        Some(Short::Stopped) => {
            print::note(&format!("stopped waiting; {}", missing()));
            Ok(Exit::Interrupted)
        }
    }
}

async fn collect(
    producer: &dyn Producer,
    batch: &[Ready],
    options: &Options,
    stop: impl Future<Output = ()>,
    seen: &mut Seen,
) -> Option<Short> {
    let mut stop = pin!(stop);
    let deadline = options.timeout.map(|timeout| Instant::now() + timeout);
    let ids = batch.iter().map(|ready| ready.id.clone()).collect();
    let listening = tokio::select! {
        () = &mut stop => return Some(Short::Stopped),
        () = sleep_until(deadline) => return Some(Short::TimedOut),
        listening = producer.listen(Listen::Mine(ids)) => listening,
    };
    let mut news = match listening {
        Ok(news) => news,
        Err(error) => return Some(Short::Failed(error.into())),
    };
    let ours: HashMap<(&str, &Id), usize> = batch
        .iter()
        .enumerate()
        .map(|(index, ready)| ((ready.connection.as_str(), &ready.id), index))
        .collect();
    let mut sending = pin!(sending(producer, batch));
    let mut missing = batch.len();
    while missing > 0 {
        let heard = tokio::select! {
            () = &mut stop => return Some(Short::Stopped),
            () = sleep_until(deadline) => return Some(Short::TimedOut),
            Some(result) = sending.next(), if seen.sent < batch.len() => {
                if let Err(error) = result {
                    return Some(Short::Failed(stopped_short(error, seen.sent, batch)));
                }
                seen.sent += 1;
                continue;
            }
            heard = news.recv() => heard,
        };
        match heard {
            Some(News::Event(event)) => {
                if let Some(&index) = ours.get(&(event.connection.as_str(), &event.id)) {
                    seen.progress.event(index, &event);
                }
            }
            Some(News::Result(result)) => {
                let index = ours.get(&(result.connection.as_str(), &result.id)).copied();
                // Results of others, and second copies of ours, are nothing new.
                let Some(index) = index.filter(|&index| seen.results[index].is_none()) else {
                    continue;
                };
                seen.progress.result(index, &result);
                let printed = if options.json {
                    print::json_line(&result)
                } else {
                    Ok(())
                };
                seen.results[index] = Some(result);
                missing -= 1;
                if let Err(problem) = printed {
                    return Some(Short::Failed(problem));
                }
            }
            None => {
                let text = "the connection to the queue has ended";
                return Some(Short::Failed(Problem::told(Exit::Unreachable, text)));
            }
        }
    }
    None
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

impl Seen {
    /// Which results are missing, and how to come back to them.
    fn missing(&self, batch: &[Ready]) -> String {
        const NAMED: usize = 10;
        let waiting: Vec<&Ready> = batch
            .iter()
            .zip(&self.results)
            .filter(|(_, result)| result.is_none())
            .map(|(ready, _)| ready)
            .collect();
        let named: Vec<&str> = waiting
            .iter()
            .take(NAMED)
            .map(|ready| ready.id.as_str())
            .collect();
        let mut text = format!(
            "{} of {} results are missing: {}",
            waiting.len(),
            batch.len(),
            named.join(", ")
        );
        // Writing to a String never fails.
        let _ = match waiting.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(text, " and {more} more"),
        };
        let _ = match batch.len() - self.sent {
            0 => Ok(()),
            unsure => write!(text, " ({unsure} may not have reached the queue)"),
        };
        let back = if waiting.iter().any(|ready| ready.fresh) {
            "to come back to them, submit the same requests with these ids and --wait"
        } else {
            "the same command comes back to them"
        };
        format!(
            "{text}\n\
             the runs go on; {back}: nothing is run twice; `sparkferry cancel ID` stops one"
        )
    }
}

#[cfg(test)]
mod tests;
