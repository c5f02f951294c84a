//! What became of an operation whose answers can't be had.

use std::time::Duration;

use sparkferry_ports::engine::CLOSED;
use sparkferry_shared::{ErrorClass, RunError};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::error::{self, Said};
use super::operation::{Fate, Hint, Operation};
use super::server::Call;
use super::session::{OperationState, Session};

/// Between two questions about the state of an operation.
const ASKED: Duration = Duration::from_secs(5);

/// An operation that another worker reads is asked for again after this long: should that worker be
/// dead by now, the server would cancel what nobody attends for five minutes.
const ATTENDED: Duration = Duration::from_mins(1);

/// What became of it.
pub(super) enum Resolved {
    Fate(Fate),
    /// Not known yet: ask for its answers again after this long.
    Again(Duration),
}

/// Asks the server for the operation's state, where the answers can't be had and `said` is why.
pub(super) async fn resolve(operation: &Operation<'_>, said: &Said) -> Resolved {
    let fate = match said {
        Said::SessionClosed => closed(
            operation.lost("the server has closed its session (released, or idle for too long)"),
        ),
        Said::SessionNotFound => {
            operation.lost("the server knows no such session: it was restarted, or never had it")
        }
        Said::SessionChanged => operation.lost("the server was restarted meanwhile"),
        _ => return by_state(operation, said).await,
    };
    Resolved::Fate(hinted(operation).unwrap_or(fate))
}

async fn by_state(operation: &Operation<'_>, said: &Said) -> Resolved {
    if let Some(fate) = hinted(operation) {
        return Resolved::Fate(fate);
    }
    let rows_gone = matches!(said, Said::PositionGone);
    let abandoned = matches!(said, Said::OperationAbandoned);
    let state = match operation.session.status(operation.id).await {
        Ok(state) => state,
        Err(status) => {
            let place = operation.session.server.place(Call::Status);
            return match error::read(&status, &place) {
                Said::SessionClosed => {
                    Resolved::Fate(closed(operation.lost("the server has closed its session")))
                }
                Said::SessionNotFound | Said::SessionChanged => {
                    Resolved::Fate(operation.lost("the server no longer has its session"))
                }
                _ => Resolved::Again(ASKED),
            };
        }
    };
    let known = operation.board.known();
    Resolved::Fate(match state {
        // It may have ended before it was interrupted.
        None if rows_gone => operation.lost("its answers were read before, and are gone"),
        // Servers without states forget an operation that was interrupted. (One that was only to be
        // interrupted may have been forgotten otherwise.)
        None if known.interrupted => Fate::Canceled(interrupted()),
        None if abandoned => operation.lost("the server gave it up, for nobody attended it"),
        Some(OperationState::Cancelled) if known.canceled => Fate::Canceled(interrupted()),
        None | Some(OperationState::Unknown | OperationState::Unspecified) => Fate::Unknown,
        Some(OperationState::Running) => return Resolved::Again(ASKED),
        // It has ended, and how is told once it is released. Nothing is lost by that: its answers
        // can't be had any more, and its state outlives them.
        Some(OperationState::Terminating) if rows_gone => {
            let released = operation.session.release_operation(operation.id).await;
            return match released {
                Ok(()) => Resolved::Again(Duration::ZERO),
                Err(_) => Resolved::Again(ASKED),
            };
        }
        Some(OperationState::Terminating) => return Resolved::Again(Duration::from_secs(1)),
        Some(OperationState::Succeeded) => Fate::Succeeded,
        Some(OperationState::Failed) => Fate::Failed(RunError::new(
            ErrorClass::User,
            "the operation failed; the server no longer keeps what it said",
        )),
        Some(OperationState::Cancelled) => {
            operation.lost("the server cancelled it unasked, as it does with what nobody attends")
        }
    })
}

/// Released means done, by another worker: that is never run again.
fn closed(fate: Fate) -> Fate {
    match fate {
        Fate::Lost(error) => Fate::Lost(error.with_code(CLOSED)),
        other => other,
    }
}

/// What an earlier worker saw and wrote down.
pub(super) fn hinted(operation: &Operation<'_>) -> Option<Fate> {
    match &operation.hint {
        Hint::None => None,
        Hint::Succeeded => Some(Fate::Succeeded),
        Hint::Failed(error) if error.class == ErrorClass::Canceled => {
            Some(Fate::Canceled(error.clone()))
        }
        Hint::Failed(error) if error.class == ErrorClass::Lost => Some(Fate::Lost(error.clone())),
        Hint::Failed(error) => Some(Fate::Failed(error.clone())),
    }
}

fn interrupted() -> RunError {
    RunError::new(ErrorClass::Canceled, "the operation was interrupted")
}

/// Waits while another worker reads the operation's answers: until it has ended, or for as long as
/// it is safe not to attend it.
pub(super) async fn elsewhere(session: &Session, id: Uuid) {
    let until = Instant::now() + ATTENDED;
    // Two that want the same answers don't ask in step.
    sleep(Duration::from_millis(200 + fastrand::u64(..800))).await;
    while Instant::now() < until {
        match session.status(id).await {
            Ok(Some(OperationState::Running)) => {}
            Ok(Some(_)) => return,
            Ok(None) | Err(_) => {
                // There is nothing to ask, or nobody.
                sleep(ASKED).await;
                return;
            }
        }
        sleep(ASKED).await;
    }
}
