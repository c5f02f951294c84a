//! What is known of a run: the small part of Databricks' description that is kept while it is
//! followed.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use sparkferry_ports::engine::{self, Ended, Facts, Failure};
use sparkferry_shared::ErrorClass;

use super::state::{Meaning, Phase, State, Status};
use super::wire::{Repair, Run, Task, meaning_of};

/// The largest `state` or `status` that is kept as it is, in bytes: several times what Databricks
/// writes. Thousands of runs are followed.
const DESCRIPTION_BYTES: usize = 16 * 1024;
/// The longest address of a run's page that is told, in bytes.
const PAGE_BYTES: usize = 2048;

/// What was last seen of a run. Well below a KiB while it runs; its tasks are kept only once it
/// has ended, because its output and its errors are theirs.
#[derive(Debug)]
pub(super) struct Known {
    /// When the run began, epoch milliseconds; 0 before.
    pub(super) start_time: i64,
    end_time: i64,
    setup_duration: Option<u64>,
    execution_duration: Option<u64>,
    queue_duration: Option<u64>,
    run_page_url: Option<Box<str>>,
    state: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
    done: u64,
    total: u64,
    history: Vec<Repair>,
    /// Neither description says that the run is still on its way.
    pub(super) ended: bool,
    /// A word in it is unknown to this version.
    pub(super) unknown: bool,
    /// The latest attempt of every task of an ended run, where one page held them all.
    pub(super) tasks: Option<Vec<Task>>,
}

impl Known {
    pub(super) fn new(run: Run) -> Self {
        let Meaning { phase, unknown } = meaning_of(run.state.as_deref(), run.status.as_deref());
        let ended = matches!(phase, Phase::Ended(_));
        let complete = run.next_page_token.is_none_or(|token| token.is_empty()) && !run.has_more;
        let tasks = latest(run.tasks);
        let over = |task: &&Task| matches!(task.meaning().phase, Phase::Ended(_));
        // Of more tasks than a page holds, the page tells too little.
        let (done, total) = if complete {
            (tasks.iter().filter(over).count(), tasks.len())
        } else {
            (0, 0)
        };
        Self {
            start_time: run.start_time,
            end_time: run.end_time,
            setup_duration: run.setup_duration,
            execution_duration: run.execution_duration,
            queue_duration: run.queue_duration,
            run_page_url: run.run_page_url.filter(|url| url.len() <= PAGE_BYTES),
            state: bounded(run.state, State::in_short),
            status: bounded(run.status, Status::in_short),
            done: done as u64,
            total: total as u64,
            history: run.repair_history.into_iter().map(bounded_repair).collect(),
            ended,
            unknown,
            tasks: (ended && complete).then_some(tasks),
        }
    }

    /// Whether a follower would notice the difference.
    pub(super) fn differs_from(&self, other: &Self) -> bool {
        let raw = |raw: &Option<Box<RawValue>>| raw.as_ref().map(|raw| raw.get().to_owned());
        let of = |known: &Self| {
            (
                raw(&known.state),
                raw(&known.status),
                known.done,
                known.total,
                known.history.len(),
                known.start_time,
            )
        };
        of(self) != of(other)
    }

    /// How often the run was repaired.
    pub(super) fn repairs(&self) -> u32 {
        u32::try_from(self.repair_items().count()).unwrap_or(u32::MAX)
    }

    /// The latest repair's id, which the next repair must name.
    pub(super) fn latest_repair_id(&self) -> Option<i64> {
        self.repair_items().last().and_then(|item| item.id)
    }

    /// When the run's present round began: its latest repair, or the run itself.
    pub(super) fn round_began(&self) -> i64 {
        self.repair_items()
            .last()
            .map_or(self.start_time, |item| item.start_time)
    }

    fn repair_items(&self) -> impl Iterator<Item = &Repair> {
        let mut items: Vec<&Repair> = self.of_kind("REPAIR").collect();
        items.sort_by_key(|item| item.start_time);
        items.into_iter()
    }

    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Repair> {
        self.history
            .iter()
            .filter(move |item| item.kind.as_deref() == Some(kind))
    }

    /// Whether nothing more can come of this round (of the run as a whole without a round).
    pub(super) fn over(&self, round: Option<u32>) -> bool {
        match round {
            None => self.ended,
            Some(round) => self.repairs() > round || (self.ended && self.repairs() == round),
        }
    }

    /// How far this round is: `None` where it is not to be seen yet.
    ///
    /// A round is an attempt of a request whose further attempts are repairs: 0 is the run as it
    /// was started, n its nth repair. The latest round is as the run is; an earlier one ended as
    /// the run's history tells. Without a round the run as a whole is meant, whoever repaired it.
    pub(super) fn phase(&self, round: Option<u32>) -> Option<Phase> {
        let whole = || meaning_of(self.state.as_deref(), self.status.as_deref()).phase;
        let Some(round) = round else {
            return Some(whole());
        };
        match self.repairs().cmp(&round) {
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Equal => Some(whole()),
            std::cmp::Ordering::Greater => {
                let past = self
                    .item(round)
                    .map(|item| meaning_of(item.state.as_deref(), item.status.as_deref()).phase);
                Some(match past {
                    Some(Phase::Ended(ended)) => Phase::Ended(ended),
                    // It was repaired, so it failed; how, nobody tells.
                    _ => Phase::Ended(Ended::Failed(Failure::new(
                        ErrorClass::Infrastructure,
                        "the run was repaired, and its history does not tell how it had failed",
                    ))),
                })
            }
        }
    }

    fn item(&self, round: u32) -> Option<&Repair> {
        match round {
            0 => self.of_kind("ORIGINAL").next(),
            round => self.repair_items().nth(round as usize - 1),
        }
    }

    /// Whether a round is an earlier one, which later ones have followed.
    pub(super) fn past(&self, round: Option<u32>) -> bool {
        round.is_some_and(|round| self.repairs() > round)
    }

    /// The state on the way, for events.
    pub(super) fn progress(&self, word: String) -> engine::State {
        engine::State {
            word,
            done: self.done,
            total: self.total,
            stages: None,
        }
    }

    /// The facts of a round, as they stand in a result. Of one that is not to be seen yet, only
    /// where to look: the run's own times are another round's.
    pub(super) fn facts(&self, round: Option<u32>) -> Facts {
        let page = Facts {
            run_page_url: self.run_page_url.as_deref().map(str::to_owned),
            ..Facts::default()
        };
        if round.is_some_and(|round| round > self.repairs()) {
            return page;
        }
        let item = round.and_then(|round| self.item(round));
        let started_at = time(item.map_or(self.start_time, |item| item.start_time));
        if self.past(round) {
            return Facts {
                state: item.and_then(|item| parsed(item.state.as_deref())),
                status: item.and_then(|item| parsed(item.status.as_deref())),
                started_at,
                ended_at: item.and_then(|item| time(item.end_time)),
                ..page
            };
        }
        Facts {
            state: parsed(self.state.as_deref()),
            status: parsed(self.status.as_deref()),
            started_at,
            ended_at: time(self.end_time),
            setup_duration_ms: self.setup_duration,
            execution_duration_ms: self.execution_duration,
            queue_duration_ms: self.queue_duration,
            ..page
        }
    }
}

/// A description as it is, or, where it is too large to be kept by thousands, in short: what it means
/// stays the same. One that is not of the known shape says nothing, and goes on saying nothing.
fn bounded<T: for<'a> Deserialize<'a>>(
    raw: Option<Box<RawValue>>,
    in_short: fn(&T) -> Value,
) -> Option<Box<RawValue>> {
    let raw = raw?;
    if raw.get().len() <= DESCRIPTION_BYTES {
        return Some(raw);
    }
    let short = match serde_json::from_str::<T>(raw.get()) {
        Ok(known) => in_short(&known),
        Err(_) => json!({"truncated": true}),
    };
    to_raw_value(&short).ok()
}

fn bounded_repair(item: Repair) -> Repair {
    Repair {
        state: bounded(item.state, State::in_short),
        status: bounded(item.status, Status::in_short),
        ..item
    }
}

fn parsed(raw: Option<&RawValue>) -> Option<Value> {
    let value = serde_json::from_str(raw?.get()).ok();
    value.filter(|value| *value != Value::Null)
}

/// Epoch milliseconds as Databricks gives them: 0 is "not yet".
fn time(ms: i64) -> Option<Timestamp> {
    (ms > 0)
        .then(|| Timestamp::from_millisecond(ms).ok())
        .flatten()
}

/// The latest attempt of each task, in the order in which the tasks first appear.
pub(super) fn latest(attempts: Vec<Task>) -> Vec<Task> {
    let mut places: HashMap<Box<str>, usize> = HashMap::new();
    let mut latest: Vec<Task> = Vec::with_capacity(attempts.len());
    for attempt in attempts {
        match places.get(&attempt.task_key) {
            Some(&place) if latest[place].attempt_number <= attempt.attempt_number => {
                latest[place] = attempt;
            }
            Some(_) => {}
            None => {
                places.insert(attempt.task_key.clone(), latest.len());
                latest.push(attempt);
            }
        }
    }
    latest
}

#[cfg(test)]
mod tests;
