//! What is known of a run while its steps go on: told by the walk, read by the run's holder.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use spark_connect_proto::execute_plan_response::ExecutionProgress;
use spark_connect_proto::execute_plan_response::execution_progress::StageInfo;
use tokio::sync::Notify;
use tokio::time::Instant;

use sparkferry_ports::engine::{Stages, State};

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
    /// The server interrupted an operation for us.
    pub(super) interrupted: bool,
    /// Of the steps that are done, then of the one that goes on.
    past: Counts,
    going: Counts,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    /// Tasks.
    done: u64,
    total: u64,
    stages: Stages,
}

impl Counts {
    /// What is known to have been there is over.
    fn over(self) -> Self {
        let (tasks, stages) = (self.total.max(self.done), self.stages.total);
        Self {
            done: tasks,
            total: tasks,
            stages: Stages {
                done: stages,
                ..self.stages
            },
        }
    }

    fn and(self, other: Self) -> Self {
        let (ours, theirs) = (self.stages, other.stages);
        Self {
            done: self.done.saturating_add(other.done),
            total: self.total.saturating_add(other.total),
            stages: Stages {
                done: ours.done.saturating_add(theirs.done),
                total: ours.total.saturating_add(theirs.total),
                input_bytes: ours.input_bytes.saturating_add(theirs.input_bytes),
            },
        }
    }
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
        known.past = known.past.and(known.going.over());
        known.going = Counts::default();
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
        let sum = |count: fn(&StageInfo) -> i64| {
            let counts = progress.stages.iter().map(|stage| number(count(stage)));
            counts.fold(0, u64::saturating_add)
        };
        let total = sum(|stage| stage.num_tasks);
        let done = sum(|stage| stage.num_completed_tasks);
        let bytes = sum(|stage| stage.input_bytes_read);
        let stages_done = progress.stages.iter().filter(|stage| stage.done).count();
        let mut known = self.lock();
        let before = known.going;
        let total = before.total.max(total);
        let going = Counts {
            done: before.done.max(done.min(total)),
            total,
            stages: Stages {
                done: before.stages.done.max(stages_done as u64),
                total: before.stages.total.max(progress.stages.len() as u64),
                input_bytes: before.stages.input_bytes.max(bytes),
            },
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

    /// The server interrupted an operation for us.
    pub(super) fn interrupted(&self) {
        self.lock().interrupted = true;
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
        let all = self.past.and(self.going);
        Some(State {
            word,
            done: all.done,
            total: all.total,
            stages: (all.stages.total > 0).then(|| Box::new(all.stages)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(counts: &[(i64, i64)]) -> ExecutionProgress {
        let stage = |(done, total): &(i64, i64)| StageInfo {
            num_completed_tasks: *done,
            num_tasks: *total,
            input_bytes_read: done * 100,
            done: done == total,
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
        board.progress(&stages(&[(4, 4), (1, 10)]));
        let so_far = Stages {
            done: 1,
            total: 2,
            input_bytes: 500,
        };
        assert_eq!(
            board.known().state().unwrap().stages.as_deref(),
            Some(&so_far)
        );
        board.progress(&stages(&[(1, 4)]));
        assert_eq!(told(&board), (5, 14), "a replay");
        assert_eq!(
            board.known().state().unwrap().stages.as_deref(),
            Some(&so_far)
        );
        board.begin(2);
        assert_eq!(told(&board), (14, 14), "the step is done");
        board.progress(&stages(&[(1, 2)]));
        assert_eq!(told(&board), (15, 16));
        board.progress(&stages(&[(-1, i64::MIN)]));
        assert_eq!(told(&board), (15, 16));
    }
}
