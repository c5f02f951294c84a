//! `sparkferry watch`: events, live.

use std::pin::pin;

use clap::Args;
use sparkferry_ports::queue::{Listen, News};

use super::exit::Exit;
use super::problem::Problem;
use super::setup::{self, Loaded};
use super::{print, story};

/// Follows what happens to all requests, live, until Ctrl-C.
///
/// Events are best effort and from now on; what a request came to in the end is its result.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sparkferry watch
  sparkferry watch --json | jq 'select(.type == \"retrying\")'")]
pub(crate) struct WatchArgs {
    /// One event a line, as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: &WatchArgs, loaded: &Loaded) -> Result<Exit, Problem> {
    let producer = setup::producer(&loaded.settings).await?;
    let mut news = producer.listen(Listen::Everything).await?;
    let mut stop = pin!(setup::told_to_stop());
    if !args.json {
        print::note("watching; Ctrl-C ends it");
    }
    let ending = loop {
        let heard = tokio::select! {
            () = &mut stop => break Ok(Exit::Success),
            heard = news.recv() => heard,
        };
        let printed = match heard {
            Some(News::Event(event)) if args.json => print::json_line(&event),
            Some(News::Event(event)) => print::line(&story::line(&event)),
            // What a result says, its event `finished` has said.
            Some(News::Result(_)) => Ok(()),
            None => Err(Problem::told(
                Exit::Unreachable,
                "the connection to the queue has ended",
            )),
        };
        if let Err(problem) = printed {
            break Err(problem);
        }
    };
    producer.close().await;
    ending
}
