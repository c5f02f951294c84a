//! PLACEHOLDER until the real one is merged.
use sparkferry_shared::{ErrorClass, RunError};
use spark_connect_proto::FetchErrorDetailsResponse;
use std::time::Duration;
use tonic::{Code, Status};

#[derive(Debug)]
pub(super) enum Said {
    Failed(RunError),
    Passing { message: String, retry_after: Option<Duration> },
    Disconnected,
    SessionClosed,
    SessionNotFound,
    SessionChanged,
    OperationNotFound,
    OperationAbandoned,
    OperationExists,
    PositionGone,
    Canceled(RunError),
    Unimplemented,
    Auth(String),
}

pub(super) fn read(status: &Status) -> Said {
    let m = status.message();
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => return Said::Auth(m.to_owned()),
        Code::Unimplemented => return Said::Unimplemented,
        Code::Internal => {}
        _ => return Said::Passing { message: m.to_owned(), retry_after: None },
    }
    for (w, said) in [
        ("INVALID_CURSOR.DISCONNECTED", Said::Disconnected),
        ("POSITION_NOT_AVAILABLE", Said::PositionGone),
        ("task context not found", Said::PositionGone),
        ("SESSION_CLOSED", Said::SessionClosed),
        ("is not running", Said::SessionClosed),
        ("SESSION_NOT_FOUND", Said::SessionNotFound),
        ("SESSION_CHANGED", Said::SessionChanged),
        ("OPERATION_NOT_FOUND", Said::OperationNotFound),
        ("operation not found", Said::OperationNotFound),
        ("OPERATION_ABANDONED", Said::OperationAbandoned),
        ("OPERATION_ALREADY_EXISTS", Said::OperationExists),
        ("OPERATION_CANCELED", Said::Canceled(RunError::new(ErrorClass::Canceled, m))),
        ("h2 protocol", Said::Passing { message: m.to_owned(), retry_after: None }),
    ] {
        if m.contains(w) {
            return said;
        }
    }
    Said::Failed(RunError::new(ErrorClass::User, m))
}

pub(super) fn error_id(_: &Status) -> Option<String> { None }
pub(super) fn details(_: &FetchErrorDetailsResponse) -> Option<String> { None }
