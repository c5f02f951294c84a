//! Progress of a batch on stderr: bars that move on a terminal, lines elsewhere.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use sparkferry_shared::{Event, EventType, RunResult};

use super::batch::Ready;
use super::table;
use crate::cli::exit::Exit;
use crate::cli::{print, story};

/// Requests that have a bar each; more of them share one.
const BARS: usize = 16;
/// How often spinners turn and clocks advance.
const TICK: Duration = Duration::from_millis(200);

/// A request of which no tasks are known.
const SPINNER: &str = "{spinner} {prefix:.bold} {elapsed:>4}  {wide_msg}";
/// A request with tasks.
const TASKS: &str = "{spinner} {prefix:.bold} {elapsed:>4}  [{bar:20}] {pos}/{len}  {wide_msg}";
/// A request with a result.
const DONE: &str = "{prefix:.bold} {elapsed:>4}  {wide_msg}";
/// All requests.
const TOGETHER: &str = "{spinner} [{bar:30}] {pos}/{len} results, {elapsed}  {wide_msg}";

/// What is shown while a batch is under way.
#[derive(Debug)]
pub(super) enum Progress {
    /// A line for whatever happens.
    Lines,
    /// A bar for each request, in their order.
    Each {
        /// Draws them.
        all: MultiProgress,
        /// One a request.
        bars: Vec<ProgressBar>,
    },
    /// One bar for all.
    Together {
        /// It counts results.
        bar: ProgressBar,
        /// Results that are no success.
        bad: usize,
    },
}

impl Progress {
    /// Shows a batch of which nothing has happened yet.
    pub(super) fn new(batch: &[Ready], bars: bool) -> Self {
        if !bars {
            return Self::Lines;
        }
        if batch.len() > BARS {
            let bar = ProgressBar::new(batch.len() as u64);
            bar.set_style(style(TOGETHER));
            bar.enable_steady_tick(TICK);
            return Self::Together { bar, bad: 0 };
        }
        let all = MultiProgress::new();
        let bars = batch
            .iter()
            .map(|ready| {
                let bar = all.add(ProgressBar::no_length());
                bar.set_style(style(SPINNER));
                bar.set_prefix(ready.id.to_string());
                bar.set_message("submitted");
                bar.enable_steady_tick(TICK);
                bar
            })
            .collect();
        Self::Each { all, bars }
    }

    /// Something happened to a request.
    pub(super) fn event(&mut self, index: usize, event: &Event) {
        // The result itself follows, and says more.
        if event.event_type == EventType::Finished {
            return;
        }
        match self {
            // In a log, what changes often only makes it long.
            Self::Lines if event.event_type == EventType::Progress => {}
            Self::Lines => print::note(&story::line(event)),
            Self::Each { bars, .. } => {
                let bar = &bars[index];
                if bar.is_finished() {
                    return;
                }
                if let Some(total) = event.details.total.filter(|&total| total > 0) {
                    if bar.length().is_none() {
                        bar.set_style(style(TASKS));
                    }
                    bar.set_length(total);
                    bar.set_position(event.details.done.unwrap_or_default());
                }
                let details = story::details(event);
                bar.set_message(format!("{}: {details}", event.event_type));
            }
            Self::Together { bar, .. } => {
                bar.set_message(format!("{} {}", event.id, event.event_type));
            }
        }
    }

    /// A request's result is here.
    pub(super) fn result(&mut self, index: usize, result: &RunResult) {
        let summary = table::summary(result);
        match self {
            Self::Lines => print::note(&format!(
                "{} {} [{}] {summary}",
                story::clock(result.finished_at),
                result.id,
                result.connection
            )),
            Self::Each { bars, .. } => {
                let bar = &bars[index];
                bar.set_style(style(DONE));
                bar.finish_with_message(summary);
            }
            Self::Together { bar, bad } => {
                if Exit::from(result.outcome) != Exit::Success {
                    *bad += 1;
                    bar.suspend(|| print::note(&format!("{} {summary}", result.id)));
                }
                bar.inc(1);
                bar.set_message(match *bad {
                    0 => String::new(),
                    bad => format!("{bad} without success"),
                });
            }
        }
    }

    /// Takes the bars away: what follows on the terminal says it all.
    pub(super) fn close(&mut self) {
        match self {
            Self::Lines => {}
            Self::Each { all, bars } => {
                for bar in bars {
                    bar.finish_and_clear();
                }
                // It only fails where the terminal is gone.
                let _ = all.clear();
            }
            Self::Together { bar, .. } => bar.finish_and_clear(),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_templates() {
        for template in [SPINNER, TASKS, DONE, TOGETHER] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
