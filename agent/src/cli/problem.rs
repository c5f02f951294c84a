//! Why a command can't go on.

use std::io;

use sparkferry_ports::queue::QueueError;

use super::exit::Exit;
use crate::config::ConfigError;

/// Why a command can't go on.
#[derive(Debug)]
pub(crate) enum Problem {
    /// A person is told, and the exit code follows.
    Told {
        /// What the shell sees.
        exit: Exit,
        /// What went wrong, where, and what to do.
        text: String,
    },
    /// Nobody reads the output any more (`sparkferry watch | head`): nobody need be told.
    OutputClosed,
}

impl Problem {
    /// The command line is wrong.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::told(Exit::Usage, text)
    }

    /// The configuration is wrong.
    pub(crate) fn configuration(text: impl Into<String>) -> Self {
        Self::told(Exit::Configuration, text)
    }

    /// Anything else.
    pub(crate) fn told(exit: Exit, text: impl Into<String>) -> Self {
        let text = text.into();
        Self::Told { exit, text }
    }
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        Self::configuration(error.to_string())
    }
}

impl From<QueueError> for Problem {
    fn from(error: QueueError) -> Self {
        let exit = match error {
            QueueError::Unreachable { .. } | QueueError::Refused { .. } => Exit::Unreachable,
            QueueError::TooLarge { .. } => Exit::Rejected,
            QueueError::Setting { .. } => Exit::Configuration,
        };
        Self::told(exit, error.to_string())
    }
}

impl From<io::Error> for Problem {
    /// Of writing to stdout.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::told(
                Exit::NotSucceeded,
                format!("stdout can't be written: {error}"),
            )
        }
    }
}
