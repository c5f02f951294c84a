//! The steps of a run, in order, from the first that is not known to be done.
//!
//! | killed | what the next worker finds | and does |
//! |---|---|---|
//! | before the first operation was sent | a fresh memo, or none; no operation | begins it (without a memo, and not allowed to run again: lost) |
//! | while a step runs | its operation | asks for its answers from the first on |
//! | between two steps | the earlier operation, not the later | takes its rows, begins the later |
//! | after the last one, before the acknowledgement | all operations, ended and not released | takes their rows and endings again |
//!
//! Nothing is released before the acknowledgement, or these answers would be gone.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use sparkferry_ports::engine::{Ended, Failure, Unknown};
use sparkferry_shared::{ErrorClass, RunError};
use tracing::debug;

use super::board::Board;
use super::memo::Memo;
use super::operation::{Entry, Fate, Hint, Operation};
use super::rows;
use super::session::Session;
use super::table::Table;

/// All that a walk works with.
pub(super) struct Walk {
    pub(super) session: Arc<Session>,
    pub(super) board: Arc<Board>,
    /// A plan for each step; taken away when it is sent.
    pub(super) plans: Vec<Bytes>,
    pub(super) memo: Memo,
    pub(super) unknown: Unknown,
    /// Earlier workers may have begun any of the steps.
    pub(super) adopted: bool,
    pub(super) row_limit: u64,
    /// The most that a step's rows take, in bytes of JSON.
    pub(super) byte_limit: usize,
}

/// How the walk ended, and what its steps produced.
pub(super) struct Walked {
    pub(super) ended: Ended,
    pub(super) steps: Vec<Value>,
}

impl Walk {
    /// Goes through the steps; the first is entered so.
    pub(super) async fn run(mut self, first: Entry) -> Walked {
        let mut steps = Vec::new();
        let count = u32::try_from(self.plans.len()).unwrap_or(u32::MAX);
        let mut first = Some(first);
        for step in 1..=count {
            let entry = match first.take() {
                Some(entry) => entry,
                None => match self.entry(step) {
                    Ok(entry) => entry,
                    Err(ended) => return self.end(ended, steps).await,
                },
            };
            let mut table = Table::new(self.row_limit, self.byte_limit);
            let fate = self.step(step, entry, &mut table).await;
            let ended = match fate {
                Fate::Succeeded => None,
                Fate::Failed(error) => Some(Ended::Failed(Failure { error })),
                Fate::Canceled(error) => Some(Ended::Canceled(Failure { error })),
                Fate::Lost(error) => Some(Ended::Lost(Failure { error })),
                Fate::Unknown => Some(Ended::Lost(Failure {
                    error: self.forgotten(step),
                })),
            };
            if let Some(ended) = ended {
                return self.end(ended, steps).await;
            }
            steps.push(table.into_value());
            // Steps may be many: what the output could never hold is not kept until then.
            rows::fit(&mut steps, self.byte_limit);
            if step > self.memo.done {
                self.memo.step(step, Timestamp::now());
                if step < count {
                    self.remember().await;
                }
            }
        }
        self.end(Ended::Success, steps).await
    }

    /// How a step after the first is entered, unless the run ends before it.
    fn entry(&mut self, step: u32) -> Result<Entry, Ended> {
        if self.adopted {
            return Ok(Entry::Reattach);
        }
        if self.board.known().canceled {
            return Err(Ended::Canceled(Failure {
                error: canceled_before(step),
            }));
        }
        Ok(Entry::Execute(self.take_plan(step)))
    }

    async fn step(&mut self, step: u32, entry: Entry, table: &mut Table) -> Fate {
        let fate = self.follow(step, entry, table).await;
        if !matches!(fate, Fate::Unknown) || step == 1 || !self.adopted {
            return fate;
        }
        // The step before is known to have ended well, so this one is the next: earlier workers
        // never came to it, or the server forgot it. It forgets operations in their order, so one
        // that still knows the step before, or was asked soon enough, never heard of this one.
        if !self.memo.is_fresh(Timestamp::now())
            && self.unknown == Unknown::Lost
            && !self.knows(step - 1).await
        {
            return fate;
        }
        self.adopted = false;
        self.board.unbegun(step);
        if self.board.known().canceled {
            return Fate::Canceled(canceled_before(step));
        }
        let plan = self.take_plan(step);
        self.follow(step, Entry::Execute(plan), table).await
    }

    async fn follow(&self, step: u32, entry: Entry, table: &mut Table) -> Fate {
        self.board.begin(step);
        let id = self.session.key.step(step);
        let hint = if step <= self.memo.done {
            Hint::Succeeded
        } else {
            match &self.memo.error {
                Some(error) if step == self.memo.done + 1 => Hint::Failed(error.clone()),
                _ => Hint::None,
            }
        };
        Operation::new(&self.session, &self.board, id, hint, table)
            .follow(entry)
            .await
    }

    /// Whether the server still knows a step's operation.
    async fn knows(&self, step: u32) -> bool {
        use super::session::OperationState::{Unknown, Unspecified};
        let id = self.session.key.step(step);
        let state = self.session.status(id).await;
        matches!(state, Ok(Some(state)) if !matches!(state, Unknown | Unspecified))
    }

    fn take_plan(&mut self, step: u32) -> Bytes {
        let index = usize::try_from(step - 1).unwrap_or(usize::MAX);
        self.plans
            .get_mut(index)
            .map(std::mem::take)
            .unwrap_or_default()
    }

    fn forgotten(&self, step: u32) -> RunError {
        RunError::new(
            ErrorClass::Lost,
            format!(
                "{} does not know the operation of step {step} (any more); whether it was begun is not known",
                self.session.server.host
            ),
        )
    }

    /// Writes the ending down for whoever comes next, and is done.
    async fn end(mut self, ended: Ended, steps: Vec<Value>) -> Walked {
        let error = match &ended {
            Ended::Failed(failure) | Ended::Canceled(failure) => Some(&failure.error),
            _ => None,
        };
        if self.memo.ended.is_none() && !matches!(ended, Ended::Lost(_)) {
            self.memo.end(error, Timestamp::now());
            self.remember().await;
        }
        let at = self.memo.ended.unwrap_or_else(Timestamp::now);
        self.board.end(at);
        Walked { ended, steps }
    }

    /// A memo that can't be written is done without.
    async fn remember(&self) {
        if let Err(status) = self.session.remember(&self.memo).await {
            debug!(key = %self.session.key, error = status.message(), "the session's memo was not written");
        }
    }
}

fn canceled_before(step: u32) -> RunError {
    let message = format!("cancelled before step {step} was begun");
    RunError::new(ErrorClass::Canceled, message)
}
