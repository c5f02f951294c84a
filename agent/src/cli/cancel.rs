//! `sparkferry cancel`: asks every worker to cancel a request.

use clap::Args;
use sparkferry_shared::cancel::MAX_CANCEL_BYTES;
use sparkferry_shared::{Cancel, Id};

use super::exit::Exit;
use super::print;
use super::problem::Problem;
use super::setup::{self, Loaded};

/// Asks every worker to cancel a request, also one that is still in the queue.
///
/// The run is cancelled on the engine and its true ending published: a run that finished first is
/// SUCCESS. The cancel stays in force for 24 hours.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sparkferry cancel orders-2026-11-21
  sparkferry cancel orders-2026-11-21 --connection prod --reason 'wrong day'")]
pub(crate) struct CancelArgs {
    /// The request's id
    id: Id,
    /// Only on this connection; else on every one that has a request of this id
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
    /// Why, for the people who read the result
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(crate) async fn run(args: CancelArgs, loaded: &Loaded) -> Result<Exit, Problem> {
    loaded.check_connection(args.connection.as_deref())?;
    let cancel = Cancel {
        cancel: args.id,
        connection: args.connection,
        reason: args.reason,
    };
    let size = serde_json::json!(cancel).to_string().len();
    if size > MAX_CANCEL_BYTES {
        return Err(Problem::usage(format!(
            "--reason: the cancel would have {size} bytes, and workers read none of more than \
             {MAX_CANCEL_BYTES}"
        )));
    }
    let producer = setup::producer(&loaded.settings).await?;
    let sent = producer.cancel(&cancel).await;
    producer.close().await;
    sent?;
    print::note(&format!(
        "{}: asked to cancel; its ending comes as its result (`sparkferry watch` shows it)",
        cancel.cancel
    ));
    Ok(Exit::Success)
}
