//! One run, as the flow sees it.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use sparkferry_ports::engine::{Change, Ended, Facts, Failure, Fault, Run, State};
use sparkferry_shared::ErrorClass;
use tracing::debug;

use super::Workspace;
use super::book::{Following, Seen};
use super::call::Call;
use super::client::Client;
use super::error::CallError;
use super::explain::Explanation;
use super::known::Known;
use super::output::{Outputs, TaskPages};
use super::state::Phase;
use super::watch::get;
use super::wire::Done;

/// A fresh run may have begun so much before our call, milliseconds, by a clock that differs.
const CLOCKS_MS: i64 = 5_000;

/// What tells whether a run was there before we asked for it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// This is known.
    Adopted(bool),
    /// It follows from the run's start.
    Asked {
        /// When we asked, by the workspace's clock, epoch milliseconds.
        at_ms: i64,
        /// The request had been delivered before.
        seen_before: bool,
    },
}

impl Origin {
    /// Whether a run that began then (0: nobody knows) was adopted.
    pub(super) fn adopted(self, start_time: i64) -> bool {
        match self {
            Self::Adopted(adopted) => adopted,
            Self::Asked { seen_before, .. } if start_time == 0 => seen_before,
            Self::Asked {
                at_ms,
                seen_before: true,
            } => start_time < at_ms,
            Self::Asked { at_ms, .. } => start_time < at_ms - CLOCKS_MS,
        }
    }
}

/// One run that is followed.
pub(super) struct DatabricksRun {
    workspace: Arc<Workspace>,
    run_id: i64,
    /// The attempt's place in a run whose further attempts are repairs.
    round: Option<u32>,
    origin: Origin,
    following: Following,
    /// The state that was told last.
    told: Option<State>,
    /// What is read for the ending; nothing before it.
    ending: Option<Box<Ending>>,
}

struct Ending {
    pages: TaskPages,
    explanation: Explanation,
    outputs: Outputs,
}

impl DatabricksRun {
    pub(super) fn new(
        workspace: Arc<Workspace>,
        run_id: i64,
        round: Option<u32>,
        origin: Origin,
        known: Option<Known>,
    ) -> Self {
        let now_ms = workspace.client.clock.now_ms();
        let following = workspace.book.follow(run_id, round, known, now_ms);
        Self {
            workspace,
            run_id,
            round,
            origin,
            following,
            told: None,
            ending: None,
        }
    }

    /// What is read for the ending, in the place where it is kept.
    fn ending(&mut self) -> (&Client, &mut Ending) {
        let known = self.known();
        let ending = self.ending.get_or_insert_with(|| {
            Box::new(Ending {
                pages: TaskPages::new(known),
                explanation: Explanation::new(),
                outputs: Outputs::default(),
            })
        });
        (&self.workspace.client, ending)
    }

    fn known(&self) -> Option<Arc<Known>> {
        match &*self.following.seen.borrow() {
            Seen::Run(known) => Some(Arc::clone(known)),
            _ => None,
        }
    }

    /// Nothing can change about this attempt any more.
    fn over(&self) -> bool {
        self.known().is_some_and(|known| known.over(self.round))
    }

    /// Adds what the failed tasks say.
    async fn explained(&mut self, mut ended: Ended) -> Ended {
        // The tasks of an earlier round are gone under those of the later ones.
        if self.known().is_some_and(|known| known.past(self.round)) {
            return ended;
        }
        let (Ended::Failed(failure)
        | Ended::SuccessWithFailures(failure)
        | Ended::TimedOut(failure)) = &mut ended
        else {
            return ended;
        };
        let run_id = self.run_id;
        let (client, ending) = self.ending();
        let Ending {
            pages, explanation, ..
        } = ending;
        explanation.read(client, run_id, pages).await;
        explanation.put_into(&mut failure.error);
        ended
    }
}

#[async_trait]
impl Run for DatabricksRun {
    fn facts(&self) -> Facts {
        let known = self.known();
        let start_time = known.as_ref().map_or(0, |known| known.start_time);
        Facts {
            run_id: Some(self.run_id),
            adopted: self.origin.adopted(start_time),
            ..known.map_or_else(Facts::default, |known| known.facts(self.round))
        }
    }

    async fn next(&mut self) -> Change {
        loop {
            let seen = self.following.seen.borrow_and_update().clone();
            match seen {
                Seen::Gone(text) => {
                    return Change::Ended(Ended::Lost(Failure::new(ErrorClass::Lost, &*text)));
                }
                Seen::Run(known) => match known.phase(self.round) {
                    Some(Phase::Going(word)) if !word.is_empty() => {
                        let state = known.progress(word);
                        if self.told.as_ref() != Some(&state) {
                            self.told = Some(state.clone());
                            return Change::State(state);
                        }
                    }
                    Some(Phase::Ended(ended)) => {
                        // Boxed: thousands wait here for one that ends.
                        return Change::Ended(Box::pin(self.explained(ended)).await);
                    }
                    _ => {}
                },
                Seen::Nothing => {}
            }
            if self.following.seen.changed().await.is_err() {
                // The watch gave the run up for a follower of an earlier round; it is asked again.
                let now_ms = self.workspace.client.clock.now_ms();
                let book = &self.workspace.book;
                self.following = book.follow(self.run_id, self.round, None, now_ms);
            }
        }
    }

    async fn output(&mut self, limit: usize) -> Result<Option<Value>, Fault> {
        let run_id = self.run_id;
        let (client, ending) = self.ending();
        let Ending { pages, outputs, .. } = ending;
        let tasks = pages.read(client, run_id).await?;
        outputs.read(client, run_id, tasks, limit).await?;
        Ok(outputs.bounded(limit))
    }

    async fn cancel(&mut self) -> Result<(), Fault> {
        if self.over() {
            return Ok(());
        }
        let client = &self.workspace.client;
        let body = json!({"run_id": self.run_id}).to_string();
        match client.post::<Done>(Call::Cancel, body.into()).await {
            Ok(Done {}) => {}
            // It is gone, or has ended: the ending arrives by the watch.
            Err(CallError::Refused(refusal)) if refusal.run_gone() => {}
            Err(CallError::Refused(refusal)) => {
                let run = get(client, self.run_id, self.round.is_some()).await?;
                if !Known::new(run).over(self.round) {
                    return Err(refusal.into());
                }
                debug!(run_id = self.run_id, "the run had ended before the cancel");
            }
            Err(error) => return Err(error.into()),
        }
        self.workspace.book.hurry(self.run_id);
        Ok(())
    }

    /// Nothing to do: Databricks keeps runs for 60 days and forgets them by itself, and until then
    /// people look at them.
    async fn release(&mut self) {}
}
