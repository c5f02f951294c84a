//! `sparkferry schema`: what messages look like.

use clap::{Args, ValueEnum};
use sparkferry_shared::{asyncapi, schema};

use super::exit::Exit;
use super::print;
use super::problem::Problem;
use super::setup::Loaded;

/// Prints the JSON Schema of a message, or the AsyncAPI document.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sparkferry schema > request.schema.json
  sparkferry schema asyncapi > asyncapi.json    # with the configured namespace")]
pub(crate) struct SchemaArgs {
    /// Of what
    #[arg(value_enum, default_value_t = Message::Request)]
    message: Message,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Message {
    /// What a producer publishes
    Request,
    /// What comes back
    Result,
    /// What is told on the way
    Event,
    /// How to stop a run
    Cancel,
    /// Which message travels over which exchange or queue
    Asyncapi,
}

/// Only the AsyncAPI document needs the settings: it names exchanges and queues.
pub(crate) fn run(
    args: &SchemaArgs,
    load: impl FnOnce() -> Result<Loaded, Problem>,
) -> Result<Exit, Problem> {
    match args.message {
        Message::Request => print::document(&schema::request())?,
        Message::Result => print::document(&schema::result())?,
        Message::Event => print::document(&schema::event())?,
        Message::Cancel => print::document(&schema::cancel())?,
        Message::Asyncapi => print::document(&asyncapi::document(&load()?.settings.topology))?,
    }
    Ok(Exit::Success)
}
