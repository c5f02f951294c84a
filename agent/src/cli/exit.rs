//! Exit codes: the contract's, in one place.

use std::process::ExitCode;

use sparkferry_shared::Outcome;

/// How a command ended. Ordered from the best to the worst: of several results, the worst decides.
///
/// The order says what to do next. [`Exit::LostOrExpired`] alone means that submitting again is
/// worth a thought, so it must not hide a failure; a failure must not hide a rejection, which no
/// repetition mends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// All went well.
    Success,
    /// A request is LOST or EXPIRED: try again, perhaps.
    LostOrExpired,
    /// A run did not succeed, or its result did not come in time.
    NotSucceeded,
    /// A request is wrong.
    Rejected,
    /// The queue or an engine can't be reached, or refuses.
    Unreachable,
    /// The configuration is wrong.
    Configuration,
    /// The command line is wrong.
    Usage,
    /// Somebody ended the program before its time.
    Interrupted,
}

impl Exit {
    /// The number that the shell sees. All but the last are `sysexits.h`'s; that one is the
    /// shells' own, 128 + SIGINT.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::NotSucceeded => 1,
            Self::Usage => 64,
            Self::Rejected => 65,
            Self::Unreachable => 69,
            Self::LostOrExpired => 75,
            Self::Configuration => 78,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

impl From<Outcome> for Exit {
    /// Strict: a run whose tolerated tasks failed (`SUCCESS_WITH_FAILURES`) or that was skipped is no
    /// success. A request that asked for no more than its start has got it.
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success | Outcome::Submitted => Self::Success,
            Outcome::SuccessWithFailures
            | Outcome::Skipped
            | Outcome::Canceled
            | Outcome::TimedOut
            | Outcome::Failed => Self::NotSucceeded,
            Outcome::Rejected => Self::Rejected,
            Outcome::Expired | Outcome::Lost => Self::LostOrExpired,
        }
    }
}

/// The end of `--help`: what scripts rely on.
pub(crate) const HELP: &str = "\
Exit codes:
   0  success
   1  a run did not succeed
  64  the command line is wrong
  65  a request is wrong (REJECTED)
  69  the queue or an engine is not reachable
  75  LOST or EXPIRED
  78  the configuration is wrong";

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(outcomes: &[Outcome]) -> u8 {
        outcomes
            .iter()
            .map(|&outcome| Exit::from(outcome))
            .max()
            .unwrap_or(Exit::Success)
            .code()
    }

    #[test]
    fn each_outcome_has_the_contracts_code() {
        for (outcome, code) in [
            (Outcome::Success, 0),
            (Outcome::Submitted, 0),
            (Outcome::SuccessWithFailures, 1),
            (Outcome::Skipped, 1),
            (Outcome::Canceled, 1),
            (Outcome::TimedOut, 1),
            (Outcome::Failed, 1),
            (Outcome::Rejected, 65),
            (Outcome::Expired, 75),
            (Outcome::Lost, 75),
        ] {
            assert_eq!(Exit::from(outcome).code(), code, "{outcome}");
        }
    }

    #[test]
    fn the_worst_of_several_decides() {
        use Outcome::{Expired, Failed, Lost, Rejected, Success};
        assert_eq!(worst(&[]), 0);
        assert_eq!(worst(&[Success, Success]), 0);
        assert_eq!(worst(&[Success, Lost]), 75);
        assert_eq!(worst(&[Expired, Failed, Success]), 1);
        assert_eq!(worst(&[Rejected, Failed, Lost]), 65);
        assert!(Exit::Unreachable > Exit::Rejected);
        assert!(Exit::Configuration > Exit::Unreachable);
    }
}
