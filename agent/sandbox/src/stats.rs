//! The books: every call counted under the lock that guards its effect, so that a test can rely on
//! them to the unit.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::run::Run;

/// Counters since the start or the last reset.
#[derive(Debug, Default)]
pub(super) struct Stats {
    calls: BTreeMap<String, Calls>,
    /// Runs really created.
    pub(super) runs_started: u64,
    /// Runs created for each idempotency token.
    pub(super) runs_by_token: HashMap<String, u64>,
    /// Runs taken away by runs/delete.
    pub(super) deleted: u64,
    /// Repairs begun.
    pub(super) repairs: u64,
    /// Runs before this place in the list were created before the last reset.
    first_run: usize,
}

#[derive(Debug, Default)]
struct Calls {
    total: u64,
    by_status: BTreeMap<u16, u64>,
    cut: u64,
}

impl Stats {
    /// Everything at zero; the runs that are there already count no more.
    pub(super) fn reset(&mut self, runs: &[Run]) {
        *self = Self {
            first_run: runs.len(),
            ..Self::default()
        };
    }

    /// A call that is answered.
    pub(super) fn answered(&mut self, call: &str, status: u16) {
        let calls = self.calls_of(call);
        calls.total += 1;
        *calls.by_status.entry(status).or_default() += 1;
    }

    /// A call whose connection is cut in place of a whole reply.
    pub(super) fn cut(&mut self, call: &str) {
        let calls = self.calls_of(call);
        calls.total += 1;
        calls.cut += 1;
    }

    fn calls_of(&mut self, call: &str) -> &mut Calls {
        if !self.calls.contains_key(call) {
            self.calls.insert(call.to_owned(), Calls::default());
        }
        self.calls.get_mut(call).expect("inserted above")
    }

    /// A run that was really created.
    pub(super) fn started(&mut self, token: Option<&str>) {
        self.runs_started += 1;
        if let Some(token) = token {
            *self.runs_by_token.entry(token.to_owned()).or_default() += 1;
        }
    }

    /// The page `/sandbox/stats`. `runs` are all runs of the workspace in the order of creation.
    pub(super) fn show(&self, runs: &[Run], now: i64) -> Value {
        let calls: Map<String, Value> = self
            .calls
            .iter()
            .map(|(call, calls)| {
                let by_status: Map<String, Value> = calls
                    .by_status
                    .iter()
                    .map(|(status, count)| (status.to_string(), (*count).into()))
                    .collect();
                (
                    call.clone(),
                    json!({"total": calls.total, "by_status": by_status, "cut": calls.cut}),
                )
            })
            .collect();
        let runs = &runs[self.first_run.min(runs.len())..];
        let mut by_outcome: BTreeMap<&str, u64> = BTreeMap::new();
        for run in runs {
            let outcome = run.ended(now).map_or("ACTIVE", |(_, ending)| ending.word());
            *by_outcome.entry(outcome).or_default() += 1;
        }
        json!({
            "calls": calls,
            "runs_started": self.runs_started,
            "runs_by_outcome": by_outcome,
            "runs_by_token": self.runs_by_token,
            "runs_active": by_outcome.get("ACTIVE").copied().unwrap_or(0),
            "max_concurrent_runs": most_at_once(runs, now),
            "deleted": self.deleted,
            "repairs": self.repairs,
        })
    }
}

/// The largest number of runs that were under way (not queued, not ended) at the same moment.
fn most_at_once(runs: &[Run], now: i64) -> i64 {
    let mut changes: Vec<(i64, i64)> = Vec::new();
    for run in runs {
        for (round, ended) in run.rounds.iter().zip(&run.schedule.rounds) {
            let Some(start) = round.start else { continue };
            changes.push((start, 1));
            if let Some((end, _)) = ended.as_ref().filter(|(end, _)| *end <= now) {
                changes.push((*end, -1));
            }
        }
    }
    // At the same millisecond an ending comes before a start.
    changes.sort_unstable();
    let mut most = 0;
    let mut count = 0;
    for (_, change) in changes {
        count += change;
        most = most.max(count);
    }
    most
}
