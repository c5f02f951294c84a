//! `sparkferry dead`: the dead letters.

use clap::{Args, Subcommand};
use serde_json::json;
use sparkferry_ports::queue::{DeadLetter, Producer, SettleDead};

use super::exit::Exit;
use super::print;
use super::problem::Problem;
use super::setup::{self, Loaded};

/// Characters of a body and of an error that the table shows.
const CELL: usize = 60;

/// The dead letters: messages that could not be read.
///
/// They are no JSON, too large, or have no usable id, so that nobody could be told by a result. They
/// stay until somebody requeues or drops them.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sparkferry dead list
  sparkferry dead list --json | jq -r .body
  sparkferry dead requeue --limit 10    # after the cause is mended, oldest first
  sparkferry dead drop --limit 1        # the oldest one")]
pub(crate) struct DeadArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show them, oldest first; they stay where they are
    List(Portion),
    /// Put them back into the queues they came from
    Requeue(Portion),
    /// Throw them away
    Drop(Portion),
}

/// How many, and how to say it.
#[derive(Debug, Args)]
struct Portion {
    /// At most so many, oldest first
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    limit: usize,
    /// JSON on stdout: one letter a line, or how many were settled
    #[arg(long)]
    json: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(limit) => Ok(limit),
        Err(e) => Err(e.to_string()),
    }
}

pub(crate) async fn run(args: &DeadArgs, loaded: &Loaded) -> Result<Exit, Problem> {
    let producer = setup::producer(&loaded.settings).await?;
    let done = match &args.action {
        Action::List(portion) => match producer.dead_letters(portion.limit).await {
            Ok(letters) => list(&letters, portion),
            Err(error) => Err(error.into()),
        },
        Action::Requeue(portion) => settle(&*producer, SettleDead::Requeue, portion).await,
        Action::Drop(portion) => settle(&*producer, SettleDead::Drop, portion).await,
    };
    producer.close().await;
    done.map(|()| Exit::Success)
}

fn list(letters: &[DeadLetter], portion: &Portion) -> Result<(), Problem> {
    if portion.json {
        return letters.iter().try_for_each(|letter| {
            print::json_line(&json!({
                "reason": letter.reason,
                "error": letter.error,
                "connection": letter.connection,
                "message_id": letter.message_id,
                // What is no text can't stand in JSON; its bytes stay on the queue.
                "body": String::from_utf8_lossy(&letter.body),
            }))
        });
    }
    if letters.is_empty() {
        print::note("there are no dead letters");
        return Ok(());
    }
    let mut table = print::table(&["reason", "error", "connection", "message_id", "body"]);
    for letter in letters {
        table.add_row([
            print::one_line(&letter.reason, CELL),
            print::one_line(&letter.error, CELL),
            print::one_line(letter.connection.as_deref().unwrap_or_default(), CELL),
            print::one_line(letter.message_id.as_deref().unwrap_or_default(), CELL),
            print::one_line(&String::from_utf8_lossy(&letter.body), CELL),
        ]);
    }
    print::line(&table.trim_fmt())?;
    if letters.len() == portion.limit {
        print::note(&format!(
            "these are the oldest {}; --limit shows more",
            portion.limit
        ));
    }
    Ok(())
}

async fn settle(
    producer: &dyn Producer,
    how: SettleDead,
    portion: &Portion,
) -> Result<(), Problem> {
    let number = producer.settle_dead(how, portion.limit).await?;
    let what = match how {
        SettleDead::Requeue => "requeued",
        SettleDead::Drop => "dropped",
    };
    if portion.json {
        print::json_line(&json!({ what: number }))?;
    } else {
        print::line(&format!("{number} {what}"))?;
    }
    if number == portion.limit {
        print::note("there may be more: run it again, or with a larger --limit");
    }
    Ok(())
}
