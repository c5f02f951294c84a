//! Publishing for as long as a lease is held: what must not be lost.

use sparkferry_ports::queue::{Lease, NotPublished, SMALLEST_LIMIT};
use tokio::time::sleep;

use super::confirm::Published;
use super::connect::Pace;
use super::link::Context;
use super::publish::{Message, Publisher};

/// Publishes until the broker has it, for as long as one of the leases is held. `purpose` is what
/// the messages are, for the log and the health.
///
/// # Errors
/// No lease is held any more, or the broker takes no message of this size.
pub(super) async fn publish<'a>(
    context: &Context,
    publisher: &Publisher,
    purpose: &str,
    leases: impl Iterator<Item = &'a Lease>,
    message: impl Fn() -> Message,
) -> Result<(), NotPublished> {
    let mut troubled = None;
    let ended = tokio::select! {
        biased;
        () = all_lost(leases) => Err(NotPublished::LeaseLost),
        taken = until_taken(context, publisher, purpose, message, &mut troubled) => taken,
    };
    if let Some(source) = troubled
        && context.board.set(&source, None)
        && ended.is_ok()
    {
        tracing::info!("{source}: taken again");
    }
    ended
}

/// `troubled` becomes the source of the trouble that this has put on the board, if any.
async fn until_taken(
    context: &Context,
    publisher: &Publisher,
    purpose: &str,
    message: impl Fn() -> Message,
    troubled: &mut Option<String>,
) -> Result<(), NotPublished> {
    let mut pace = Pace::new();
    loop {
        pace.begin();
        let next = message();
        let key = next.routing_key.clone();
        let trouble = match publisher.publish(next).await {
            Published::Confirmed => return Ok(()),
            Published::Returned => {
                "route nowhere: no queue is bound to their exchange for this key".to_owned()
            }
            Published::Refused => {
                "are refused: a queue that is bound for this key is full or has failed".to_owned()
            }
            Published::TooLarge { max } if max >= SMALLEST_LIMIT => {
                return Err(NotPublished::TooLarge { max });
            }
            Published::TooLarge { max } => format!(
                "are refused: the broker takes messages of {max} bytes at most (max_message_size), \
                 and it takes {SMALLEST_LIMIT} to tell how a request ended"
            ),
            Published::Unknown(why) | Published::Forbidden(why) => {
                // The publisher itself tells people.
                tracing::debug!("{purpose} published again: {why}");
                sleep(pace.next_wait()).await;
                continue;
            }
        };
        let source = format!("{purpose} ({key})");
        let trouble = format!("{source} {trouble}");
        if context.board.set(&source, Some(trouble.clone())) {
            tracing::warn!("{trouble}; trying again");
        }
        *troubled = Some(source);
        sleep(pace.next_wait()).await;
    }
}

/// Returns when none of the leases is held any more.
async fn all_lost<'a>(leases: impl Iterator<Item = &'a Lease>) {
    for lease in leases {
        lease.lost.cancelled().await;
    }
}
