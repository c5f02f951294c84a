//! What a call that went wrong means.
//!
//! Spark tells all errors of an application as gRPC's INTERNAL; what happened is in the error class
//! that travels in the status' details. A failure of the work is of class `user`, unless its
//! SQLSTATE says that the engine or its surroundings are at fault:
//!
//! | SQLSTATE | class |
//! |---|---|
//! | 08 connection, 53 resources, 58 system, XX internal | `infrastructure` |
//! | HY008 | cancelled |
//! | anything else: syntax, a missing table, a division by zero, a Python exception | `user` |
//!
//! `request` is what the server refuses before it is work: arguments, a plan that is too large.

mod details;
mod explain;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use sparkferry_shared::{ErrorClass, RunError};
use tonic::{Code, ConnectError, Status};

use self::details::Details;
use crate::engine::text;
use crate::http::fault;

pub(super) use self::explain::explain;

/// The longest message of a failure, in bytes. Plans in a message can be megabytes.
const MESSAGE_BYTES: usize = 4 * 1024;
/// The longest text of a fault, in bytes.
const FAULT_BYTES: usize = 1024;

/// What a status says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// The work failed, or the server refuses it (class `request`).
    Failed(RunError),
    /// The work was cancelled.
    Canceled(RunError),
    /// The server says UNKNOWN in words of its own: what a JVM does that has no memory or stack
    /// left, but also what answers in its place. A failure of the work only if it comes again
    /// when the operation is attached to once more.
    Unclear(RunError),
    /// It may well work later; it says nothing about the run.
    Passing {
        /// What went wrong, with the place.
        message: String,
        /// `infrastructure` or `throttled`.
        class: ErrorClass,
        /// The server asked to be left alone for so long.
        retry_after: Option<Duration>,
        /// The call may have taken effect.
        perhaps_done: bool,
    },
    /// The server does not let us in.
    Auth(String),
    /// Another client attached to the operation: it has the stream now.
    Disconnected,
    /// The session was released, or was idle too long; its id can't be used again.
    SessionClosed,
    /// The server knows no such session: never begun, or forgotten, perhaps by a restart.
    SessionNotFound,
    /// The session is another one than before, of the same id: the server was restarted.
    SessionChanged,
    /// The session has no such operation.
    OperationNotFound,
    /// The operation was released, or nobody attended it for too long.
    OperationAbandoned,
    /// There is an operation of this id with another plan, or one that can't be attached to.
    OperationExists,
    /// The operation is there, and what was sent of it is no longer kept: its rows are gone.
    PositionGone,
    /// The server doesn't have this call.
    Unimplemented(String),
}

/// What a status says. `place` is the call and the host, for texts.
pub(super) fn read(status: &Status, place: &str) -> Said {
    if status.source().is_some() || broken_off(status) {
        return transport(status, place);
    }
    let details = Details::read(status);
    let class = details.error_class();
    if let Some(said) = class
        .and_then(by_class)
        .or_else(|| by_text(status.message()))
    {
        return said;
    }
    // Ours, not the server's: an answer is larger than we take. Its state tells the rest.
    if status.code() == Code::OutOfRange && status.message().contains("message length too large") {
        return Said::PositionGone;
    }
    let passing = |class| passing(status, place, class, details.retry_after());
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => Said::Auth(text_at(place, status)),
        Code::Unimplemented => Said::Unimplemented(text_at(place, status)),
        Code::ResourceExhausted if too_large(status) => {
            Said::Failed(RunError::new(ErrorClass::Request, text_at(place, status)))
        }
        Code::ResourceExhausted => passing(ErrorClass::Throttled),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => {
            passing(ErrorClass::Infrastructure)
        }
        // What Spark Connect says of itself, such as of an operation that is about to begin.
        _ if class.is_some_and(|class| class.starts_with("SPARK_CONNECT_ILLEGAL_STATE")) => {
            passing(ErrorClass::Infrastructure)
        }
        _ if stopping(status.message()) || details.retry_after().is_some() => {
            passing(ErrorClass::Infrastructure)
        }
        Code::Unknown => Said::Unclear(failure(status, &details, ErrorClass::Infrastructure)),
        Code::Internal | Code::DataLoss => {
            let sql_state = details.sql_state();
            let error = failure(status, &details, class_of(sql_state));
            let canceled =
                sql_state == Some("HY008") || error.code.as_deref() == Some("OPERATION_CANCELED");
            if canceled {
                Said::Canceled(RunError {
                    class: ErrorClass::Canceled,
                    ..error
                })
            } else {
                Said::Failed(error)
            }
        }
        _ => Said::Failed(failure(status, &details, ErrorClass::Request)),
    }
}

/// The id by which the server tells more of an error, once.
pub(super) fn error_id(status: &Status) -> Option<String> {
    Details::read(status).get("errorId").map(str::to_owned)
}

/// What the error class alone decides.
fn by_class(class: &str) -> Option<Said> {
    Some(match class {
        "INVALID_CURSOR.DISCONNECTED" => Said::Disconnected,
        "INVALID_CURSOR.POSITION_NOT_AVAILABLE" | "INVALID_CURSOR.POSITION_NOT_FOUND" => {
            Said::PositionGone
        }
        "INVALID_HANDLE.SESSION_CLOSED" => Said::SessionClosed,
        "INVALID_HANDLE.SESSION_NOT_FOUND" => Said::SessionNotFound,
        "INVALID_HANDLE.SESSION_CHANGED" => Said::SessionChanged,
        "INVALID_HANDLE.OPERATION_NOT_FOUND" => Said::OperationNotFound,
        "INVALID_HANDLE.OPERATION_ABANDONED" => Said::OperationAbandoned,
        "INVALID_HANDLE.OPERATION_ALREADY_EXISTS" | "INVALID_CURSOR.NOT_REATTACHABLE" => {
            Said::OperationExists
        }
        _ => return None,
    })
}

/// Sail has no error classes; these are its words.
fn by_text(message: &str) -> Option<Said> {
    let message = ["invalid argument: ", "internal error: "]
        .into_iter()
        .find_map(|kind| message.strip_prefix(kind))
        .unwrap_or(message);
    if message.starts_with("operation not found: ") {
        Some(Said::OperationNotFound)
    } else if message.starts_with("task context not found for operation") {
        Some(Said::PositionGone)
    } else if message.starts_with("session ") && message.ends_with(" is not running") {
        Some(Said::SessionClosed)
    } else {
        None
    }
}

/// The connection failed, or the answer broke off: told by our own side.
fn transport(status: &Status, place: &str) -> Said {
    let tls = of_tls(status).map(|why| format!("{place}: {why}"));
    let mut message = text_at(place, status);
    let mut connecting = false;
    let mut source = status.source();
    while let Some(cause) = source {
        connecting |= cause.is::<ConnectError>();
        let cause_text = cause.to_string();
        if !message.contains(&cause_text) {
            // Writing to a String never fails.
            let _ = write!(message, ": {cause_text}");
        }
        source = cause.source();
    }
    Said::Passing {
        message: text::head(&tls.unwrap_or(message), FAULT_BYTES).to_owned(),
        class: ErrorClass::Infrastructure,
        retry_after: None,
        perhaps_done: !connecting,
    }
}

/// What TLS has against the connection, if that is why it failed.
pub(super) fn of_tls(status: &Status) -> Option<String> {
    status.source().and_then(fault::tls)
}

/// Answers without an end, and those of something that speaks no gRPC: tonic's words.
fn broken_off(status: &Status) -> bool {
    let message = status.message();
    let mapped = message.starts_with("grpc-status header missing")
        && matches!(
            status.code(),
            Code::Unknown | Code::Internal | Code::Unimplemented
        );
    mapped
        || message.starts_with("protocol error: ")
        || message.starts_with("Unexpected EOF decoding stream")
        || message.starts_with("Missing response message")
}

fn passing(status: &Status, place: &str, class: ErrorClass, retry_after: Option<Duration>) -> Said {
    Said::Passing {
        message: text_at(place, status),
        class,
        retry_after: retry_after.filter(|wait| !wait.is_zero()),
        perhaps_done: class != ErrorClass::Throttled,
    }
}

/// `ExecutePlan at 127.0.0.1:15002: the service is currently unavailable`.
fn text_at(place: &str, status: &Status) -> String {
    let message = match status.message().trim() {
        "" => status.code().description(),
        message => message,
    };
    text::head(&format!("{place}: {message}"), FAULT_BYTES).to_owned()
}

/// What stays too large however often it is sent.
fn too_large(status: &Status) -> bool {
    let message = status.message().to_lowercase();
    [
        "exceeds maximum",
        "larger than max",
        "too large",
        "size limit",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// The server ends: what it ran is lost with it, and whoever asks the next one will hear so.
fn stopping(message: &str) -> bool {
    message.contains("stopped SparkContext") || message.contains("SparkContext was shut down")
}

fn failure(status: &Status, details: &Details, class: ErrorClass) -> RunError {
    let message = match status.message().trim() {
        "" => status.code().description(),
        message => message,
    };
    let mut message = text::head(message, MESSAGE_BYTES).to_owned();
    if let Some(state) = details.sql_state()
        && !message.contains("SQLSTATE")
    {
        let _ = write!(message, " SQLSTATE: {state}");
    }
    let class = if class == ErrorClass::User && message.contains("ExecutorLostFailure") {
        ErrorClass::Infrastructure
    } else {
        class
    };
    let code = details.error_class().map(str::to_owned);
    let code = code
        .or_else(|| code_in(&message))
        .or_else(|| details.exception());
    RunError {
        code,
        ..RunError::new(class, message)
    }
}

/// Whose fault a failure is, by its SQLSTATE's class.
fn class_of(sql_state: Option<&str>) -> ErrorClass {
    match sql_state.and_then(|state| state.get(..2)) {
        Some("08" | "53" | "58" | "XX") => ErrorClass::Infrastructure,
        _ => ErrorClass::User,
    }
}

/// An error class in a message, where the details have none: what is large leaves it out
/// (`[PYTHON_EXCEPTION] ...`), and Sail writes some (`Table not found: [TABLE_OR_VIEW_NOT_FOUND]`).
fn code_in(message: &str) -> Option<String> {
    let line = message.lines().next()?;
    let words = line
        .split('[')
        .skip(1)
        .filter_map(|rest| rest.split_once(']'));
    let mut codes = words.map(|(word, _)| word).filter(|word| {
        let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_' || c == '.';
        word.contains('_')
            && word.starts_with(|c: char| c.is_ascii_uppercase())
            && word.chars().all(upper)
    });
    codes.next().map(str::to_owned)
}
