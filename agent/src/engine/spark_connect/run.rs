//! One run, as the flow sees it: the walk through its steps, driven while somebody waits for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, join_all};
use serde_json::Value;
use sparkferry_ports::engine::{Change, Ended, Facts, Fault, Run, State};
use sparkferry_shared::ErrorClass;
use tokio::time::{sleep, sleep_until, timeout};

use super::board::Board;
use super::fault::fault;
use super::rows;
use super::server::Call;
use super::session::Session;
use super::walk::Walked;

/// An operation that was sent counts as begun after so long without an answer. Usually the first
/// one comes within 2 s.
const ANSWERED: Duration = Duration::from_secs(5);

/// An operation is not interrupted earlier after it was begun: Spark, interrupted while it still
/// plans, says that the operation is cancelled and begins its job all the same, which then has no
/// end.
const SETTLED: Duration = Duration::from_secs(1);

/// How long the server may take to forget a run.
const RELEASED: Duration = Duration::from_secs(5);

/// One run that is followed. The walk makes its calls only while [`Run::next`] is waited for; what
/// the server sends meanwhile waits in the channel, and then at the server.
pub(super) struct SparkConnectRun {
    session: Arc<Session>,
    board: Arc<Board>,
    adopted: bool,
    /// Until it has ended. Kept here, it is never dropped half-way by who waits for it.
    walk: Option<BoxFuture<'static, Walked>>,
    /// The ending that was not told yet.
    ended: Option<Ended>,
    steps: Vec<Value>,
    /// The state that was told last.
    told: Option<State>,
}

impl SparkConnectRun {
    pub(super) fn new(
        session: Arc<Session>,
        board: Arc<Board>,
        adopted: bool,
        walk: BoxFuture<'static, Walked>,
    ) -> Self {
        Self {
            session,
            board,
            adopted,
            walk: Some(walk),
            ended: None,
            steps: Vec::new(),
            told: None,
        }
    }

    /// Drives the walk until the server has answered about the first operation.
    pub(super) async fn begin(&mut self) {
        let grace = sleep(ANSWERED);
        tokio::pin!(grace);
        loop {
            let known = self.board.known();
            if known.answered || known.begun > 1 || self.ended.is_some() {
                return;
            }
            tokio::select! {
                () = self.drive() => {}
                () = &mut grace => return,
            }
        }
    }

    /// Drives the walk until something is new: on the board, or its end. Cancel safe.
    async fn drive(&mut self) {
        let Some(walk) = &mut self.walk else { return };
        tokio::select! {
            biased;
            walked = walk => {
                self.walk = None;
                self.steps = walked.steps;
                self.ended = Some(walked.ended);
            }
            () = self.board.changed() => {}
        }
    }
}

#[async_trait]
impl Run for SparkConnectRun {
    /// Spark tells no times of an operation: both are by the clock of the worker that saw it begin
    /// or end, and kept with the session for all workers to come.
    fn facts(&self) -> Facts {
        let known = self.board.known();
        let key = self.session.key;
        Facts {
            operation_ids: (1..=known.begun).map(|step| key.step(step)).collect(),
            started_at: known.began,
            ended_at: known.ended,
            adopted: self.adopted,
            ..Facts::default()
        }
    }

    async fn next(&mut self) -> Change {
        loop {
            let state = self.board.known().state();
            if let Some(state) = state
                && self.told.as_ref() != Some(&state)
            {
                self.told = Some(state.clone());
                return Change::State(state);
            }
            if let Some(ended) = self.ended.take() {
                return Change::Ended(ended);
            }
            if self.walk.is_none() {
                // The ending was told, and nothing follows it.
                return std::future::pending().await;
            }
            self.drive().await;
        }
    }

    async fn output(&mut self, limit: usize) -> Result<Option<Value>, Fault> {
        Ok(rows::output(self.steps.clone(), limit))
    }

    /// Interrupts the operation under way, and lets no further one begin.
    async fn cancel(&mut self) -> Result<(), Fault> {
        if self.walk.is_none() {
            return Ok(());
        }
        self.board.cancel();
        let session = Arc::clone(&self.session);
        let known = self.board.known();
        if let Some(begun) = known.begun_at {
            sleep_until(begun + SETTLED).await;
        }
        // An adopted run may be further than it was read.
        let last = if self.adopted {
            known.steps
        } else {
            known.begun
        };
        let ids = (known.begun..=last).map(|step| session.key.step(step));
        let mut interrupted = false;
        for asked in join_all(ids.map(|id| session.interrupt(id))).await {
            let asked = asked.map_err(|status| fault(&session.server, Call::Interrupt, &status));
            interrupted |= asked?;
        }
        if interrupted {
            self.board.interrupted();
        }
        // Else it has ended; or it has not arrived yet, and is to be interrupted later.
        if interrupted || known.answered {
            return Ok(());
        }
        Err(Fault::Passing {
            message: format!(
                "{}: the operation is not there yet",
                session.server.place(Call::Interrupt)
            ),
            class: ErrorClass::Infrastructure,
            retry_after: None,
            perhaps_done: false,
        })
    }

    /// Has the server forget the operations and the session. A run that has not ended is left as it
    /// is: it would be stopped by it.
    async fn release(&mut self) {
        if self.walk.is_some() {
            return;
        }
        let session = Arc::clone(&self.session);
        let ids = self.facts().operation_ids;
        let releasing = async move {
            let releases = ids.into_iter().map(|id| session.release_operation(id));
            join_all(releases).await;
            session.release().await
        };
        // Whatever it does not hear, the server forgets by itself when the session has been idle.
        timeout(RELEASED, releasing).await.ok();
    }
}
