//! When everything in a run happens. The schedule is a pure function of the run: its rounds (the
//! first, and one for each repair), its tasks' plans and dependencies, what cut it short, and what
//! its real processes (if any) have done so far. It doesn't depend on the present; a reader holds it
//! against the clock. It is computed again only when the run is changed.

use super::{
    ending::Ending,
    run::{Process, Round, Run},
};

/// The times of one attempt of a task, epoch milliseconds; what is unknown depends on something
/// that hasn't happened yet (a queue, a process).
#[derive(Debug, Clone, Default)]
pub(super) struct Times {
    /// All its dependencies have ended: PENDING from here.
    pub(super) ready: Option<i64>,
    /// RUNNING from here.
    pub(super) running: Option<i64>,
    /// Cut short: TERMINATING from here.
    pub(super) cut: Option<i64>,
    /// When and how it ended, or will.
    pub(super) ended: Option<(i64, Ending)>,
}

/// When a round began to end, and how.
pub(super) type Ended = Option<(i64, Ending)>;

/// The schedule of a run.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// By attempt, in the order of [`Run::attempts`].
    pub(super) attempts: Vec<Times>,
    /// By round.
    pub(super) rounds: Vec<Ended>,
}

impl Schedule {
    /// Computes the schedule of a run.
    pub(super) fn of(run: &Run) -> Self {
        let mut schedule = Self {
            attempts: vec![Times::default(); run.attempts.len()],
            rounds: Vec::with_capacity(run.rounds.len()),
        };
        // The first attempts are the first round's, one for each task.
        let mut latest: Vec<usize> = (0..run.work.tasks.len()).collect();
        for (number, round) in run.rounds.iter().enumerate() {
            for (index, attempt) in run.attempts.iter().enumerate() {
                if attempt.round == number {
                    latest[attempt.task] = index;
                }
            }
            for &task in &run.work.order {
                let index = latest[task];
                if run.attempts[index].round == number {
                    schedule.attempts[index] = schedule.times(run, round, index, &latest);
                }
            }
            let ended = schedule.round_end(run, round, &latest);
            schedule.rounds.push(ended);
        }
        schedule
    }

    fn times(&self, run: &Run, round: &Round, index: usize, latest: &[usize]) -> Times {
        let attempt = &run.attempts[index];
        let task = &run.work.tasks[attempt.task];
        let mut times = Times::default();
        if round.refused.is_some() {
            times.ended.clone_from(&round.refused);
            return times;
        }
        let upstream: Option<Vec<&(i64, Ending)>> = task
            .depends_on
            .iter()
            .map(|&task| self.attempts[latest[task]].ended.as_ref())
            .collect();
        if let (Some(start), Some(upstream)) = (round.start, upstream) {
            let ready = upstream.iter().map(|(end, _)| *end).fold(start, i64::max);
            times.ready = Some(ready);
            if let Some(ending) = refused_by(&task.run_if, &upstream) {
                times.ended = Some((ready, ending));
            } else if let Some(process) = &attempt.process {
                match process {
                    Process::Waiting => {}
                    Process::Running { since } => times.running = Some(*since),
                    Process::Ended { since, at, ending } => {
                        times.running = Some(*since);
                        times.ended = Some((*at, ending.clone()));
                    }
                }
            } else {
                let running = ready + attempt.plan.setup_ms;
                times.running = Some(running);
                times.ended = Some((
                    running + attempt.plan.duration_ms,
                    attempt.plan.ending.clone(),
                ));
            }
            // A process that waits for its turn is not yet held to the limit.
            let counted_from = if attempt.process.is_some() {
                times.running
            } else {
                times.ready
            };
            if let Some(limit) = counted_from
                .zip(task.timeout_ms)
                .map(|(from, timeout)| from + timeout)
                && times.ended.as_ref().is_none_or(|(end, _)| *end > limit)
            {
                times.running = times.running.filter(|running| *running < limit);
                times.ended = Some((limit, Ending::timed_out()));
            }
        }
        if let Some((cut, timed_out)) = round.cut(run.timeout_ms)
            && times.ended.as_ref().is_none_or(|(end, _)| *end > cut)
        {
            times.ready = times.ready.filter(|ready| *ready <= cut);
            times.running = times.running.filter(|running| *running <= cut);
            times.cut = Some(cut);
            times.ended = Some(if timed_out {
                (cut, Ending::timed_out())
            } else {
                (cut + attempt.plan.cancel_ms, Ending::canceled())
            });
        }
        times
    }

    fn round_end(&self, run: &Run, round: &Round, latest: &[usize]) -> Ended {
        if let Some((at, ending)) = &round.refused {
            return Some((*at, ending.clone()));
        }
        let endings: Option<Vec<(usize, i64, &Ending)>> = latest
            .iter()
            .enumerate()
            .map(|(task, &index)| {
                self.attempts[index]
                    .ended
                    .as_ref()
                    .map(|(end, ending)| (task, *end, ending))
            })
            .collect();
        let endings = endings?;
        let end = endings.iter().map(|(_, end, _)| *end).max()?;
        if latest.iter().any(|&index| {
            self.attempts[index].cut.is_some() && run.attempts[index].round == self.rounds.len()
        }) {
            let timed_out = round
                .cut(run.timeout_ms)
                .is_some_and(|(_, timed_out)| timed_out);
            return Some((
                end,
                if timed_out {
                    Ending::timed_out()
                } else {
                    Ending::canceled()
                },
            ));
        }
        let tasks = endings.iter().map(|&(task, end, ending)| {
            (
                run.work.tasks[task].task_key.as_str(),
                run.work.tasks[task].leaf,
                end,
                ending,
            )
        });
        Some((end, Ending::of_run(tasks)))
    }
}

/// The ending of a task whose `run_if` isn't met by what its dependencies came to.
fn refused_by(run_if: &str, upstream: &[&(i64, Ending)]) -> Option<Ending> {
    if upstream.is_empty() {
        return None;
    }
    let well = |(_, ending): &&&(i64, Ending)| ending.succeeded();
    let failed = |(_, ending): &&&(i64, Ending)| !ending.harmless();
    let met = match run_if {
        "ALL_DONE" => true,
        "ALL_FAILED" => upstream.iter().all(|one| failed(&one)),
        "AT_LEAST_ONE_FAILED" => upstream.iter().any(|one| failed(&one)),
        "AT_LEAST_ONE_SUCCESS" => upstream.iter().any(|one| well(&one)),
        "NONE_FAILED" => !upstream.iter().any(|one| failed(&one)),
        _ => upstream.iter().all(|one| well(&one)),
    };
    if met {
        return None;
    }
    let any_failed = upstream
        .iter()
        .any(|(_, ending)| !ending.harmless() && !ending.was_canceled());
    let any_canceled = upstream.iter().any(|(_, ending)| ending.was_canceled());
    Some(Ending::not_run(match run_if {
        "ALL_FAILED" | "AT_LEAST_ONE_FAILED" => "EXCLUDED",
        _ if any_failed => "UPSTREAM_FAILED",
        _ if any_canceled => "UPSTREAM_CANCELED",
        _ => "EXCLUDED",
    }))
}
