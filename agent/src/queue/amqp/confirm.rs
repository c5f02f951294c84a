//! What became of a published message, by what the broker answered.
//!
//! lapin hands a returned (unroutable) message to whichever confirm comes next, so a confirm is
//! believed only after all that arrived before it have been looked at. And where the channel ended,
//! all that were under way see the same error: only its text tells whose it is.

use std::collections::HashSet;
use std::pin::Pin;
use std::task::Poll;

use futures_util::Stream;
use futures_util::stream::FuturesUnordered;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::ShortString;
use lapin::{Confirmation, ErrorKind};
use tokio::sync::oneshot;

use super::{message, size};

/// How publishing ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Published {
    /// The broker has it.
    Confirmed,
    /// No queue is bound for it.
    Returned,
    /// A queue refuses it, because it is full or has failed.
    Refused,
    /// The user may not publish to this exchange, or not under this key.
    Forbidden(String),
    /// It is larger than the broker takes. Nothing was sent, or the broker refused it.
    TooLarge {
        /// The largest body, in bytes.
        max: usize,
    },
    /// The channel ended before the broker said anything: it may have it or not.
    Unknown(String),
}

/// What came of one message, and who asks.
pub(super) struct Outcome {
    /// What tells it from the others.
    pub(super) mark: Option<ShortString>,
    /// Where to it was published.
    pub(super) exchange: ShortString,
    /// Under which key.
    pub(super) routing_key: ShortString,
    /// Its body in bytes.
    pub(super) size: usize,
    /// The broker's answer.
    pub(super) confirmed: lapin::Result<Confirmation>,
    /// Who waits for it.
    pub(super) done: Option<oneshot::Sender<Published>>,
}

/// What became of a message, `returned` being the marks of all that came back so far.
pub(super) fn judge(outcome: &Outcome, returned: &mut HashSet<ShortString>) -> Published {
    let mark = outcome.mark.as_ref();
    match &outcome.confirmed {
        Ok(_) if mark.is_some_and(|mark| returned.remove(mark)) => Published::Returned,
        Ok(Confirmation::Ack(_) | Confirmation::NotRequested) => Published::Confirmed,
        Ok(Confirmation::Nack(_)) => Published::Refused,
        Err(error) if forbids(error, outcome) => Published::Forbidden(error.to_string()),
        Err(error) => match size::told_by(error) {
            Some(max) if outcome.size > max => Published::TooLarge { max },
            _ => Published::Unknown(error.to_string()),
        },
    }
}

/// Whether the channel ended because of this very message. All that were under way with it see the
/// same error, and only its text tells whose it is.
fn forbids(error: &lapin::Error, outcome: &Outcome) -> bool {
    let ErrorKind::ProtocolError(amqp) = error.kind() else {
        return false;
    };
    let text = amqp.get_message().as_str();
    let key = format!("topic '{}'", outcome.routing_key);
    let exchange = match outcome.exchange.as_str() {
        "" => "amq.default",
        named => named,
    };
    *amqp.kind() == AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
        && text.contains(&format!("exchange '{exchange}'"))
        && (text.contains(&key) || !text.contains("topic '"))
}

/// The mark of the message that came back with a confirm, which need not be the confirmed one.
pub(super) fn returned_mark(outcome: &Outcome) -> Option<ShortString> {
    match outcome.confirmed.as_ref().ok()? {
        Confirmation::Ack(message) | Confirmation::Nack(message) => {
            message::mark(&message.as_ref()?.properties)
        }
        Confirmation::NotRequested => None,
    }
}

/// Waits until something is ready, then takes all that is: a message whose return was mistaken for
/// another one's is so always in the same batch as that other one, or in a later one.
pub(super) async fn all_ready<F: Future>(under_way: &mut FuturesUnordered<F>) -> Vec<F::Output> {
    let mut outcomes = Vec::new();
    std::future::poll_fn(|cx| {
        loop {
            match Pin::new(&mut *under_way).poll_next(cx) {
                Poll::Ready(Some(outcome)) => outcomes.push(outcome),
                Poll::Pending if outcomes.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => return Poll::Ready(()),
            }
        }
    })
    .await;
    outcomes
}

#[cfg(test)]
mod tests {
    use lapin::message::{BasicReturnMessage, Delivery};
    use lapin::protocol::AMQPError;
    use lapin::{BasicProperties, Error};

    use super::super::connect::short;
    use super::*;

    fn outcome(mark: &str, came_with: Option<&str>) -> Outcome {
        let returned = came_with.map(|mark| {
            let mut delivery = Delivery::mock(0, short(""), short(""), false, Vec::new());
            delivery.properties = BasicProperties::default().with_message_id(short(mark));
            BasicReturnMessage {
                delivery,
                reply_code: 312,
                reply_text: short("NO_ROUTE"),
            }
        });
        Outcome {
            mark: Some(short(mark)),
            exchange: short("requests"),
            routing_key: short("prod"),
            size: 2,
            confirmed: Ok(Confirmation::Ack(returned)),
            done: None,
        }
    }

    #[test]
    fn a_return_counts_for_the_message_that_came_back() {
        let mut returned = HashSet::new();
        let mut judged = |outcomes: &[Outcome]| -> Vec<Published> {
            returned.extend(outcomes.iter().filter_map(returned_mark));
            let judged = outcomes.iter().map(|one| judge(one, &mut returned));
            judged.collect()
        };
        // The confirm of `a` brought what came back of `b`, in whichever order they are looked at.
        let (a, b) = (outcome("a", Some("b")), outcome("b", None));
        let (came, went) = (Published::Confirmed, Published::Returned);
        assert_eq!(judged(&[b, a]), [went.clone(), came.clone()]);
        // Or a batch later.
        let mut judged_alone = |one| judged(&[one]).remove(0);
        assert_eq!(judged_alone(outcome("a", Some("b"))), came);
        assert_eq!(judged_alone(outcome("b", None)), went);
        // Published again, and taken.
        assert_eq!(judged_alone(outcome("b", None)), came);
    }

    #[test]
    fn of_all_that_end_with_a_channel_those_that_are_too_large_are_told_apart() {
        let text = "PRECONDITION_FAILED - message size 900 is larger than configured max size 800";
        let amqp = AMQPError::new(AMQPSoftError::PRECONDITIONFAILED.into(), short(text));
        let error: Error = ErrorKind::ProtocolError(amqp).into();
        let judged = [2, 800, 801, 900].map(|size| {
            let outcome = Outcome {
                size,
                confirmed: Err(error.clone()),
                ..outcome("a", None)
            };
            judge(&outcome, &mut HashSet::new())
        });
        let unknown = || Published::Unknown(error.to_string());
        let too_large = || Published::TooLarge { max: 800 };
        assert_eq!(judged, [unknown(), unknown(), too_large(), too_large()]);
    }
}
