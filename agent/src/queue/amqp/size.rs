//! The largest message that a broker takes, its `max_message_size`.
//!
//! Clients are not told it: it stands in the refusal of a larger message (406), which closes the
//! channel. So it is learned once and what is published later is measured before it is sent. It holds
//! as long as the connection: another node, or a node that was started again, may have another one.

use std::sync::atomic::{AtomicUsize, Ordering};

use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::{Error, ErrorKind};

/// What is known of the largest message.
pub(super) struct LargestMessage(AtomicUsize);

impl LargestMessage {
    /// Nothing is known yet.
    pub(super) fn unknown() -> Self {
        Self(AtomicUsize::new(usize::MAX))
    }

    /// The largest body in bytes, `usize::MAX` where that is not known.
    pub(super) fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// The largest body in bytes where a message of `size` is known to be larger.
    pub(super) fn exceeded_by(&self, size: usize) -> Option<usize> {
        let max = self.now();
        (size > max).then_some(max)
    }

    /// Remembers what the error tells, if it tells anything.
    pub(super) fn learn(&self, error: &Error) {
        if let Some(max) = told_by(error) {
            self.0.store(max, Ordering::Relaxed);
        }
    }
}

/// The largest body in bytes, where the channel ended because a message was larger.
pub(super) fn told_by(error: &Error) -> Option<usize> {
    let ErrorKind::ProtocolError(amqp) = error.kind() else {
        return None;
    };
    if *amqp.kind() != AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) {
        return None;
    }
    max_in(amqp.get_message().as_str())
}

/// RabbitMQ's words: `PRECONDITION_FAILED - message size 70000 is larger than configured max size
/// 65536`; without `configured` where the limit is the largest that can be configured.
fn max_in(text: &str) -> Option<usize> {
    let text = text.strip_prefix("PRECONDITION_FAILED - message size ")?;
    let (size, max) = text.split_once(" is larger than ")?;
    let max = max.strip_prefix("configured ").unwrap_or(max);
    let max: usize = max.strip_prefix("max size ")?.parse().ok()?;
    (max < size.parse().ok()?).then_some(max)
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

    use super::super::connect::short;
    use super::*;

    fn error(kind: AMQPSoftError, text: &str) -> Error {
        ErrorKind::ProtocolError(AMQPError::new(kind.into(), short(text))).into()
    }

    #[test]
    fn the_limit_is_learned_from_the_words_of_a_refusal() {
        let largest = LargestMessage::unknown();
        assert_eq!(largest.exceeded_by(usize::MAX), None);
        for (kind, text) in [
            (
                AMQPSoftError::PRECONDITIONFAILED,
                "PRECONDITION_FAILED - message size 7 is larger",
            ),
            (
                AMQPSoftError::PRECONDITIONFAILED,
                "PRECONDITION_FAILED - unknown delivery tag 65536",
            ),
            (
                AMQPSoftError::ACCESSREFUSED,
                "PRECONDITION_FAILED - message size 9 is larger than max size 8",
            ),
        ] {
            largest.learn(&error(kind, text));
            assert_eq!(largest.exceeded_by(usize::MAX), None, "{text}");
        }
        for (text, max) in [
            (
                "PRECONDITION_FAILED - message size 70000 is larger than configured max size 65536",
                65_536,
            ),
            (
                "PRECONDITION_FAILED - message size 536870913 is larger than max size 536870912",
                536_870_912,
            ),
        ] {
            largest.learn(&error(AMQPSoftError::PRECONDITIONFAILED, text));
            assert_eq!(largest.exceeded_by(max), None);
            assert_eq!(largest.exceeded_by(max + 1), Some(max));
        }
    }
}
