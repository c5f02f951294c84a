//! What a call that went wrong means to its caller.

use sparkferry_shared::{ErrorClass, RunError};
use tonic::Status;

use super::error::{self, Said};
use super::server::{Call, Server};
use crate::engine::Fault;

/// The fault of a call that begins no operation.
pub(super) fn fault(server: &Server, call: Call, status: &Status) -> Fault {
    let place = server.place(call);
    let passing = |class, why: &str, retry_after| Fault::Passing {
        message: format!("{place}: {why}"),
        class,
        retry_after,
        perhaps_done: false,
    };
    match error::read(status) {
        Said::Passing {
            message,
            retry_after,
            ..
        } => passing(ErrorClass::Infrastructure, &message, retry_after),
        Said::Auth(message) => passing(ErrorClass::Auth, &message, None),
        // Spark's answer to an unusable value comes as any error of the work does.
        Said::Failed(error) if error.class == ErrorClass::User => {
            Fault::Refused(Box::new(RunError {
                class: ErrorClass::Request,
                message: format!("{place}: {}", error.message),
                ..error
            }))
        }
        Said::Failed(error) => passing(error.class, &error.message, None),
        Said::Unimplemented => Fault::Refused(Box::new(RunError::new(
            ErrorClass::Request,
            format!("{place}: the server does not have this call: is it a Spark Connect server?"),
        ))),
        Said::SessionClosed => Fault::Lost(Box::new(RunError::new(
            ErrorClass::Lost,
            format!(
                "{place}: the server has closed the run's session (released, or idle for too long); what the run did is not known"
            ),
        ))),
        _ => passing(ErrorClass::Infrastructure, status.message(), None),
    }
}
