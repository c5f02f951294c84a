//! SQLite's errors in words for a person: what is wrong and what to do.

use std::path::Path;

use rusqlite::{Error, ErrorCode};

use sparkferry_ports::queue::QueueError;

/// Another connection is writing, for longer than we waited.
pub(super) fn is_busy(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// What went wrong and what to do.
pub(super) fn explain(error: &Error) -> String {
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            "the disk is full: make room, nothing is lost and work goes on by itself"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program keeps the database locked: find it (`fuser -v` on the file tells) and \
             end it or wait for it"
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            "the database is damaged: stop everything that uses it and repair it \
             (`sqlite3 FILE .recover`) or restore it"
        }
        Some(ErrorCode::NotADatabase) => {
            "this file is no SQLite database: is `queue.url` the right path?"
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            "it can't be opened for writing: the file, the files `-wal` and `-shm` beside it and \
             the directory must be writable for this user"
        }
        Some(ErrorCode::SystemIoFailure) => {
            "the disk or file system fails: see the system's log (a network file system can't hold \
             this database)"
        }
        _ => return error.to_string(),
    };
    format!("{advice} ({error})")
}

/// The same as an error of the queue: one that may pass, or one that a person must see to.
pub(super) fn queue_error(path: &Path, error: &Error) -> QueueError {
    let passes = is_busy(error)
        || matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure)
        );
    let (place, why) = (place(path), explain(error));
    if passes {
        QueueError::Unreachable { place, why }
    } else {
        QueueError::Refused { place, why }
    }
}

/// A refusal in our own words.
pub(super) fn refused(path: &Path, why: impl Into<String>) -> QueueError {
    QueueError::Refused {
        place: place(path),
        why: why.into(),
    }
}

/// The database as it stands in `queue.url`.
pub(super) fn place(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

/// Why a thread could not do its work, in words for a person. It tries again.
#[derive(Debug)]
pub(super) struct Trouble(pub(super) String);

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self(explain(&error))
    }
}

impl From<QueueError> for Trouble {
    fn from(error: QueueError) -> Self {
        Self(error.to_string())
    }
}
