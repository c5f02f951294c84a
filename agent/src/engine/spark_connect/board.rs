//! What is known of a run while its steps go on: told by the walk, read by the run's holder.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use spark_connect_proto::execute_plan_response::ExecutionProgress;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::engine::State;

/// The run as it is known now.
#[derive(Debug)]
pub(super) struct Board {
    known: Mutex<Known>,
    changed: Notify,
}

/// What is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// Steps whose operations were begun, or sent to be.
    pub(super) begun: u32,
    /// The server has answered about the newest of them.
    pub(super) answered: bool,
    /// When the newest of them was.
    pub(super) begun_at: Option<Instant>,
    /// Steps altogether.
    pub(super) steps: u32,
    pub(super) began: Option<Timestamp>,
    pub(super) ended: Option<Timestamp>,
    /// Somebody asked for the run to stop: no further step is begun.
    pub(super) canceled: bool,
    /// Tasks of the steps that are done, then of the one that goes on.
    past: Tasks,
    going: Tasks,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tasks {
    done: u64,
    total: u64,
}

impl Board {
    pub(super) fn new(steps: u32, began: Timestamp) -> Self {
        Self {
            known: Mutex::new(Known {
                steps,
                began: Some(began),
                ..Known::default()
            }),
            changed: Notify::new(),
        }
    }

    /// Something was told since. Cancel safe; may return without anything new.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn known(&self) -> Known {
        self.lock().clone()
    }

    /// The operation of a step is sent to be begun, or looked for.
    pub(super) fn begin(&self, step: u32) {
        let mut known = self.lock();
        known.begun = step;
        known.begun_at = Some(Instant::now());
        known.answered = false;
        known.past.done += known.going.total.max(known.going.done);
        known.past.total += known.going.total.max(known.going.done);
        known.going = Tasks::default();
        self.tell(known);
    }

    /// It turned out that the step was never begun.
    pub(super) fn unbegun(&self, step: u32) {
        let mut known = self.lock();
        known.begun = step.saturating_sub(1);
        self.tell(known);
    }

    /// The server answers about the newest operation.
    pub(super) fn answered(&self) {
        let mut known = self.lock();
        if !known.answered {
            known.answered = true;
            self.tell(known);
        }
    }

    /// Spark counts tasks by stages, which it finds as it goes: totals grow, and a replay of old
    /// answers repeats smaller counts. What is told never shrinks.
    pub(super) fn progress(&self, progress: &ExecutionProgress) {
        let number = |n: i64| u64::try_from(n).unwrap_or(0);
        let total: u64 = progress.stages.iter().map(|s| number(s.num_tasks)).sum();
        let done: u64 = progress
            .stages
            .iter()
            .map(|stage| number(stage.num_completed_tasks))
            .sum();
        let mut known = self.lock();
        let total = known.going.total.max(total);
        let going = Tasks {
            done: known.going.done.max(done.min(total)),
            total,
        };
        if going != known.going {
            known.going = going;
            self.tell(known);
        }
    }

    /// Somebody asked for the run to stop.
    pub(super) fn cancel(&self) {
        self.lock().canceled = true;
    }

    pub(super) fn end(&self, at: Timestamp) {
        self.lock().ended = Some(at);
    }

    fn tell(&self, known: MutexGuard<'_, Known>) {
        drop(known);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// As it is told; `None` before the server answered anything.
    pub(super) fn state(&self) -> Option<State> {
        if self.begun == 0 || self.begun == 1 && !self.answered {
            return None;
        }
        let word = if self.steps == 1 {
            "RUNNING".to_owned()
        } else {
            format!("RUNNING step {} of {}", self.begun, self.steps)
        };
        Some(State {
            word,
            done: self.past.done + self.going.done,
            total: self.past.total + self.going.total,
        })
    }
}

#[cfg(test)]
mod tests {
    use spark_connect_proto::execute_plan_response::execution_progress::StageInfo;

    use super::*;

    fn stages(counts: &[(i64, i64)]) -> ExecutionProgress {
        let stage = |(done, total): &(i64, i64)| StageInfo {
            num_completed_tasks: *done,
            num_tasks: *total,
            ..StageInfo::default()
        };
        ExecutionProgress {
            stages: counts.iter().map(stage).collect(),
            ..ExecutionProgress::default()
        }
    }

    fn told(board: &Board) -> (u64, u64) {
        let state = board.known().state().unwrap();
        (state.done, state.total)
    }

    #[test]
    fn what_is_told_never_shrinks() {
        let board = Board::new(2, Timestamp::now());
        board.begin(1);
        assert_eq!(board.known().state(), None, "nothing was answered");
        board.answered();
        assert_eq!(board.known().state().unwrap().word, "RUNNING step 1 of 2");
        board.progress(&stages(&[(3, 4), (0, 10)]));
        assert_eq!(told(&board), (3, 14));
        board.progress(&stages(&[(1, 4)]));
        assert_eq!(told(&board), (3, 14), "a replay");
        board.begin(2);
        assert_eq!(told(&board), (14, 14), "the step is done");
        board.progress(&stages(&[(1, 2)]));
        assert_eq!(told(&board), (15, 16));
        board.progress(&stages(&[(-1, i64::MIN)]));
        assert_eq!(told(&board), (15, 16));
    }
}
