//! From an attempt's name to its run: found where it is there, begun where it is not.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use sparkferry_ports::engine::{Attached, Fault, Start, Unknown};
use sparkferry_shared::{Attempt, ErrorClass, RunError};
use tokio::time::{sleep, timeout};
use tonic::Status;
use uuid::Uuid;

use super::board::Board;
use super::error::{self, Said};
use super::fault::fault;
use super::memo::Memo;
use super::operation::Entry;
use super::prepare::{Prepared, prepare};
use super::run::SparkConnectRun;
use super::server::{Call, Server};
use super::session::{OperationState, Session};
use super::walk::Walk;

/// How long the server may take to begin with the answers of an operation that is there.
const ANSWERED: Duration = Duration::from_secs(30);

/// How often a run that others want to begin too is looked for before the flow is asked.
const CLAIMS: u32 = 10;

/// What there is of the first operation.
enum Found {
    /// It is there, to be entered so.
    There(Entry),
    /// The server knows nothing of it.
    Nothing,
}

/// Finds the run of an attempt, or begins it.
pub(super) async fn attach(
    server: &Arc<Server>,
    start: &Start<'_>,
    byte_limit: usize,
) -> Result<Attached, Fault> {
    let prepared = prepare(start.work)?;
    server.entrance.ready(start.since).await?;
    let key = start.names.key(start.attempt);
    let session = Arc::new(Session::new(Arc::clone(server), key));
    for _ in 0..CLAIMS {
        let Some((entry, memo, adopted)) = enter(&session, start, &prepared).await? else {
            // Another worker begins it at this moment: it is there soon.
            sleep(Duration::from_millis(300 + fastrand::u64(..300))).await;
            continue;
        };
        return Ok(follow(session, start, prepared, memo, entry, adopted, byte_limit).await);
    }
    Err(Fault::Passing {
        message: format!(
            "{}: other workers want to begin the same run",
            server.place(Call::Config)
        ),
        class: ErrorClass::Infrastructure,
        retry_after: None,
        perhaps_done: true,
    })
}

/// How the run is entered, and whether it was there already. `None`: another worker begins it.
async fn enter(
    session: &Session,
    start: &Start<'_>,
    prepared: &Prepared,
) -> Result<Option<(Entry, Memo, bool)>, Fault> {
    let memo = session.memo().await;
    let memo = memo.map_err(|status| fault(&session.server, Call::Config, &status))?;
    // Without a memo the run was not begun by anyone, unless the server refuses memos.
    let found = if memo.is_some() || start.seen_before {
        look(session, session.key.step(1)).await?
    } else {
        Found::Nothing
    };
    let now = Timestamp::now();
    match (found, memo) {
        (Found::There(entry), memo) => {
            let memo = memo.unwrap_or_else(|| Memo::new(now));
            Ok(Some((entry, memo, true)))
        }
        // Written down by who saw it go on: the server forgot the operation since.
        (Found::Nothing, Some(memo)) if memo.done > 0 || memo.ended.is_some() => {
            Ok(Some((Entry::Said(Said::OperationNotFound), memo, true)))
        }
        (Found::Nothing, memo) => {
            let fresh = memo.as_ref().is_some_and(|memo| memo.is_fresh(now));
            if start.unknown == Unknown::Lost && !fresh {
                return Err(lost(session));
            }
            let memo = begin(session, prepared, start.past, memo).await?;
            Ok(memo.map(|memo| (Entry::Execute(prepared.plans[0].clone()), memo, false)))
        }
    }
}

/// Follows the run from here on, until the server has answered about it.
async fn follow(
    session: Arc<Session>,
    start: &Start<'_>,
    prepared: Prepared,
    memo: Memo,
    entry: Entry,
    adopted: bool,
    byte_limit: usize,
) -> Attached {
    let steps = u32::try_from(prepared.plans.len()).unwrap_or(u32::MAX);
    let board = Arc::new(Board::new(steps, memo.began));
    let walk = Walk {
        session: Arc::clone(&session),
        board: Arc::clone(&board),
        plans: prepared.plans,
        memo,
        unknown: start.unknown,
        adopted,
        row_limit: prepared.row_limit,
        byte_limit,
    };
    let mut run = SparkConnectRun::new(session, board, adopted, walk.run(entry).boxed());
    run.begin().await;
    Attached {
        run: Box::new(run),
        adopted,
    }
}

/// Looks for the first operation.
async fn look(session: &Session, id: Uuid) -> Result<Found, Fault> {
    let server = &session.server;
    let asking = session.reattach(id, None);
    let answer = timeout(ANSWERED, asking).await.unwrap_or_else(|_| {
        let seconds = ANSWERED.as_secs();
        Err(Status::deadline_exceeded(format!(
            "no answer within {seconds} s"
        )))
    });
    let status = match answer {
        Ok(answers) => return Ok(Found::There(Entry::Answers(Box::new(answers)))),
        Err(status) => status,
    };
    match error::read(&status, &server.place(Call::Reattach)) {
        Said::OperationNotFound | Said::SessionNotFound => {}
        Said::Passing { .. }
        | Said::Auth(_)
        | Said::Unclear(_)
        | Said::Unimplemented(_)
        | Said::SessionChanged => {
            return Err(fault(server, Call::Reattach, &status));
        }
        // What it says of the operation is heeded where it is followed.
        Said::Failed(_) | Said::Canceled(_) => return Ok(Found::There(Entry::Reattach)),
        said => return Ok(Found::There(Entry::Said(said))),
    }
    // A server forgets the answers before it forgets the operation.
    match session.status(id).await {
        Ok(None | Some(OperationState::Unknown | OperationState::Unspecified)) => {
            Ok(Found::Nothing)
        }
        Ok(Some(_)) => Ok(Found::There(Entry::Said(Said::OperationNotFound))),
        Err(status) => match error::read(&status, &server.place(Call::Status)) {
            Said::SessionNotFound => Ok(Found::Nothing),
            _ => Err(fault(server, Call::Status, &status)),
        },
    }
}

/// Makes the session ready for the first operation; all of it may be done again. `None` where
/// another worker came to this later, and so is the one that begins it.
async fn begin(
    session: &Session,
    prepared: &Prepared,
    past: &[Attempt],
    memo: Option<Memo>,
) -> Result<Option<Memo>, Fault> {
    let failed = |call| move |status: Status| fault(&session.server, call, &status);
    if !prepared.conf.is_empty() {
        let set = session.set(prepared.conf.clone()).await;
        set.map_err(failed(Call::Config))?;
    }
    if !prepared.artifacts.is_empty() {
        let add = session.add_artifacts(prepared.artifacts.clone()).await;
        add.map_err(failed(Call::AddArtifacts))?;
    }
    write_down_past(session, past).await?;
    let now = Timestamp::now();
    let memo = Memo {
        began: memo.map_or(now, |memo| memo.began),
        ..Memo::new(now)
    };
    // The last calls before the first operation: while the memo is fresh, an operation that the
    // server does not know was never sent.
    let remember = session.remember(&memo).await;
    remember.map_err(failed(Call::Config))?;
    let read = session.memo().await.map_err(failed(Call::Config))?;
    let ours = read.is_none_or(|read| read.claim == memo.claim);
    Ok(ours.then_some(memo))
}

/// Has the sessions of earlier attempts remember how those ended, where they don't: the attempt never
/// had a run, or the server was restarted since. Else whoever walks again, from the first attempt
/// on, would take them for not begun while this one runs.
async fn write_down_past(session: &Session, past: &[Attempt]) -> Result<(), Fault> {
    let server = &session.server;
    let mut untold = Vec::new();
    // From the latest back to the first that remembers: those before it were told when it began.
    for attempt in past.iter().rev() {
        let session = Session::new(Arc::clone(server), attempt.key);
        let memo = match session.memo().await {
            Ok(memo) => memo,
            Err(status) => match error::read(&status, &server.place(Call::Config)) {
                // Its name is spent: it can't be begun again.
                Said::SessionClosed => continue,
                _ => return Err(fault(server, Call::Config, &status)),
            },
        };
        if memo.as_ref().is_some_and(|memo| memo.ended.is_some()) {
            break;
        }
        untold.push((attempt, session, memo));
    }
    // In their order, so that what was said above holds wherever this ends.
    for (attempt, session, memo) in untold.into_iter().rev() {
        let ended = attempt.ended_at.unwrap_or_else(Timestamp::now);
        let mut memo = memo.unwrap_or_else(|| Memo::new(attempt.started_at.unwrap_or(ended)));
        memo.end(attempt.error.as_ref(), ended);
        let remember = session.remember(&memo).await;
        remember.map_err(|status| fault(server, Call::Config, &status))?;
    }
    Ok(())
}

fn lost(session: &Session) -> Fault {
    Fault::Lost(Box::new(RunError::new(
        ErrorClass::Lost,
        format!(
            "{} knows no session {} with an operation {}: the request was delivered before, so its run may have begun and been forgotten (the server was restarted, say); what it did is not known",
            session.server.host,
            session.key,
            session.key.step(1)
        ),
    )))
}
