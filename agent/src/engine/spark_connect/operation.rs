//! One operation, from its first answer to its fate, through whatever happens to the stream.
//!
//! The answers of an operation are a stream that the server keeps until it is released. It breaks
//! off every other minute, when a connection does, or when another worker reads it; whoever wants
//! the rest asks for it after the last answer seen. So the end of a stream means nothing: only
//! `ResultComplete`, an error of the operation's own, or the server's word about its state do.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use spark_connect_proto::ExecutePlanResponse;
use spark_connect_proto::execute_plan_response::ResponseType;
use sparkferry_shared::{ErrorClass, RunError};
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use tracing::debug;
use uuid::Uuid;

use super::board::Board;
use super::error::{self, Said};
use super::resolve::{Resolved, elsewhere, hinted, resolve};
use super::server::{Answers, Call};
use super::session::{OperationState, Session};
use super::table::Table;

/// A server tells of its progress every 2 s. A stream that is silent for so long (or a call for
/// answers that gets none) is given up and asked for anew; nothing is lost by it.
const STALLED: Duration = Duration::from_mins(1);

/// The server remembers an operation that was sent to it for at least this long: one that it does
/// not know before never arrived.
const REMEMBERED: Duration = Duration::from_mins(4);

/// The longest wait before the answers are asked for again.
const LONGEST: Duration = Duration::from_secs(15);

/// How an operation ended.
#[derive(Debug)]
pub(super) enum Fate {
    /// The server said so.
    Succeeded,
    /// The operation failed.
    Failed(RunError),
    /// The server said that it was interrupted.
    Canceled(RunError),
    /// The server no longer knows how it ended.
    Lost(RunError),
    /// The server never heard of it, as far as it remembers.
    Unknown,
}

/// How an operation is entered.
pub(super) enum Entry {
    /// It is begun now.
    Execute(Bytes),
    /// It was begun before, perhaps.
    Reattach,
    /// It was begun before, and these are its answers.
    Answers(Box<Answers>),
    /// It was begun before, and asking for its answers brought this.
    Said(Said),
}

/// What of an operation is known from elsewhere, should the server not tell.
#[derive(Debug, Clone)]
pub(super) enum Hint {
    None,
    Succeeded,
    Failed(RunError),
}

/// One operation that is followed.
pub(super) struct Operation<'a> {
    pub(super) session: &'a Session,
    pub(super) board: &'a Board,
    pub(super) id: Uuid,
    pub(super) hint: Hint,
    pub(super) table: &'a mut Table,
    /// The last answer seen.
    last: Option<String>,
    /// The plan, and when it was last sent, as long as nothing was answered.
    unanswered: Option<(Bytes, Option<Instant>)>,
    backoff: ExponentialBackoff,
    /// The server said something unclear, and nothing new since.
    unclear: bool,
}

/// What one round of answers came to.
enum Round {
    Fate(Fate),
    /// The stream ended; something new had come.
    Broken,
    /// Nothing came.
    Silent,
    Said(Said),
}

impl<'a> Operation<'a> {
    pub(super) fn new(
        session: &'a Session,
        board: &'a Board,
        id: Uuid,
        hint: Hint,
        table: &'a mut Table,
    ) -> Self {
        Self {
            session,
            board,
            id,
            hint,
            table,
            last: None,
            unanswered: None,
            backoff: backoff(),
            unclear: false,
        }
    }

    /// Follows the operation to its fate.
    pub(super) async fn follow(mut self, entry: Entry) -> Fate {
        let mut round = match entry {
            Entry::Execute(plan) => {
                self.unanswered = Some((plan, None));
                self.execute().await
            }
            Entry::Reattach => self.reattach().await,
            Entry::Answers(answers) => self.read(*answers).await,
            Entry::Said(said) => Round::Said(said),
        };
        loop {
            round = match round {
                Round::Fate(fate) => return fate,
                // Servers end a stream in passing; asking again at once is what they expect.
                Round::Broken => {
                    self.backoff = backoff();
                    self.reattach().await
                }
                Round::Silent => {
                    self.pause(None).await;
                    self.reattach().await
                }
                Round::Said(said) => self.heed(said).await,
            };
        }
    }

    async fn execute(&mut self) -> Round {
        let Some((plan, sent)) = &mut self.unanswered else {
            return Round::Silent;
        };
        *sent = Some(Instant::now());
        let plan = plan.clone();
        let opening = self.session.execute(self.id, &plan);
        match timeout(STALLED, opening).await {
            Ok(Ok(answers)) => self.read(answers).await,
            Ok(Err(status)) => self.failed(Call::Execute, &status).await,
            Err(_) => self.silent(Call::Execute),
        }
    }

    async fn reattach(&mut self) -> Round {
        let opening = self.session.reattach(self.id, self.last.clone());
        match timeout(STALLED, opening).await {
            Ok(Ok(answers)) => self.read(answers).await,
            Ok(Err(status)) => self.failed(Call::Reattach, &status).await,
            Err(_) => self.silent(Call::Reattach),
        }
    }

    fn silent(&self, call: Call) -> Round {
        let seconds = STALLED.as_secs();
        let status = Status::deadline_exceeded(format!("no answer for {seconds} s"));
        self.session.server.count(call, Some(&status));
        Round::Silent
    }

    /// Reads answers until they end, however they do.
    async fn read(&mut self, mut answers: Answers) -> Round {
        self.board.answered();
        let mut new = false;
        loop {
            match timeout(STALLED, answers.message()).await {
                Ok(Ok(Some(answer))) => {
                    new = true;
                    self.unanswered = None;
                    if self.take(answer) {
                        return Round::Fate(Fate::Succeeded);
                    }
                }
                Ok(Ok(None)) if new => return Round::Broken,
                Ok(Ok(None)) => return Round::Silent,
                Ok(Err(status)) => {
                    if new {
                        self.backoff = backoff();
                        self.unclear = false;
                    }
                    return self.failed(Call::Reattach, &status).await;
                }
                Err(_) => return self.silent(Call::Reattach),
            }
        }
    }

    /// Takes one answer; whether it was the last one, and with it success.
    fn take(&mut self, answer: ExecutePlanResponse) -> bool {
        self.session.observe(&answer.server_side_session_id);
        if !answer.response_id.is_empty() {
            self.last = Some(answer.response_id);
        }
        if let Some(schema) = &answer.schema {
            self.table.schema(schema);
        }
        match answer.response_type {
            Some(ResponseType::ArrowBatch(batch)) => self.table.batch(&batch.data),
            Some(ResponseType::SqlCommandResult(result)) => self.table.command(result.relation),
            Some(ResponseType::ExecutionProgress(progress)) => self.board.progress(&progress),
            Some(ResponseType::ResultComplete(_)) => return true,
            _ => {}
        }
        false
    }

    /// An error instead of answers: the operation's own has its details asked for.
    async fn failed(&mut self, call: Call, status: &Status) -> Round {
        let place = self.session.server.place(call);
        let mut failure = match error::read(status, &place) {
            // Who saw it first was told more: a server tells the details once.
            Said::Failed(failure) => match hinted(self) {
                Some(fate @ (Fate::Failed(_) | Fate::Lost(_))) => return Round::Fate(fate),
                _ => failure,
            },
            // Said twice about the same, it is the operation's own, unless the server says that it
            // goes on or went well: a call that fails says nothing about the run.
            Said::Unclear(failure) if self.unclear => match self.session.status(self.id).await {
                Ok(None | Some(OperationState::Failed | OperationState::Terminating)) => failure,
                _ => return Round::Silent,
            },
            Said::Unclear(failure) => {
                debug!(operation = %self.id, error = failure.message, "an unclear error; asking again");
                self.unclear = true;
                return Round::Silent;
            }
            said => return Round::Said(said),
        };
        self.board.answered();
        if let Some(id) = error::error_id(status)
            && let Ok(details) = self.session.error_details(id).await
        {
            error::explain(&mut failure, &details);
        }
        Round::Fate(Fate::Failed(failure))
    }

    /// What to do about anything else that the server said.
    async fn heed(&mut self, said: Said) -> Round {
        match said {
            Said::Passing { retry_after, .. } => {
                self.pause(retry_after).await;
                self.reattach().await
            }
            Said::Auth(_) | Said::Unimplemented(_) | Said::Unclear(_) => {
                self.pause(None).await;
                self.reattach().await
            }
            // The same id with another plan: the same id is the same work.
            Said::OperationExists => {
                self.unanswered = None;
                self.reattach().await
            }
            // Another worker reads it now. It is not fought for, only looked after.
            Said::Disconnected => {
                elsewhere(self.session, self.id).await;
                self.reattach().await
            }
            Said::OperationNotFound if self.never_arrived() && self.board.known().canceled => {
                let message = "cancelled before the operation was begun";
                let error = RunError::new(ErrorClass::Canceled, message);
                Round::Fate(Fate::Canceled(error))
            }
            Said::OperationNotFound if self.never_arrived() => {
                self.pause(None).await;
                self.execute().await
            }
            Said::Failed(error) => Round::Fate(Fate::Failed(error)),
            Said::Canceled(error) => Round::Fate(Fate::Canceled(error)),
            said => match resolve(self, &said).await {
                Resolved::Fate(fate) => {
                    if matches!(fate, Fate::Succeeded) {
                        self.table.gone("the server no longer keeps the rows");
                    }
                    Round::Fate(fate)
                }
                Resolved::Again(after) => {
                    self.pause(Some(after)).await;
                    self.reattach().await
                }
            },
        }
    }

    /// The plan was sent, nothing was ever answered, and the server would remember it.
    fn never_arrived(&self) -> bool {
        match self.unanswered {
            Some((_, Some(sent))) => sent.elapsed() < REMEMBERED,
            _ => false,
        }
    }

    async fn pause(&mut self, at_least: Option<Duration>) {
        let ours = self.backoff.next().unwrap_or(LONGEST).min(LONGEST);
        sleep(ours.max(at_least.unwrap_or_default())).await;
    }

    /// A fate without what the server said of it.
    pub(super) fn lost(&self, why: &str) -> Fate {
        Fate::Lost(RunError::new(
            ErrorClass::Lost,
            format!(
                "{}: operation {}: {why}; what it did is not known",
                self.session.server.host, self.id
            ),
        ))
    }
}

fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(LONGEST)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}
