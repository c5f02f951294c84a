//! What a call that went wrong means to its caller.

use sparkferry_ports::engine::{CLOSED, Fault};
use sparkferry_shared::{ErrorClass, RunError};
use tonic::Status;

use super::error::{self, Said};
use super::server::{Call, Server};

/// The fault of a call that begins no operation.
pub(super) fn fault(server: &Server, call: Call, status: &Status) -> Fault {
    let place = server.place(call);
    let passing = |message, class, retry_after| Fault::Passing {
        message,
        class,
        retry_after,
        perhaps_done: false,
    };
    match error::read(status, &place) {
        Said::Passing {
            message,
            class,
            retry_after,
            ..
        } => passing(message, class, retry_after),
        Said::Auth(message) => {
            let message = format!("{message}; is the connection's token right?");
            passing(message, ErrorClass::Auth, None)
        }
        // Spark's answer to an unusable value comes as any error of the work does.
        Said::Failed(error) if matches!(error.class, ErrorClass::User | ErrorClass::Request) => {
            Fault::Refused(Box::new(RunError {
                class: ErrorClass::Request,
                message: format!("{place}: {}", error.message),
                ..error
            }))
        }
        Said::Failed(error) | Said::Canceled(error) | Said::Unclear(error) => {
            let message = format!("{place}: {}", error.message);
            passing(message, ErrorClass::Infrastructure, None)
        }
        Said::Unimplemented(message) => Fault::Refused(Box::new(RunError::new(
            ErrorClass::Request,
            format!("{message}; is it a Spark Connect server?"),
        ))),
        Said::SessionClosed => Fault::Lost(Box::new(RunError::new(
            ErrorClass::Lost,
            format!(
                "{place}: the server has closed the run's session (released, or idle for too long); \
                 what the run did is not known"
            ),
        )
        .with_code(CLOSED))),
        Said::Disconnected
        | Said::SessionNotFound
        | Said::SessionChanged
        | Said::OperationNotFound
        | Said::OperationAbandoned
        | Said::OperationExists
        | Said::PositionGone => {
            let message = format!("{place}: {}", status.message());
            passing(message, ErrorClass::Infrastructure, None)
        }
    }
}
