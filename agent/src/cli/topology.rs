//! `sparkferry topology`: the broker's definitions.

use clap::Args;

use super::exit::Exit;
use super::print;
use super::problem::Problem;
use super::setup::Loaded;
use crate::queue::amqp;

/// Prints the definitions of exchanges, queues and bindings, with a queue for each configured
/// connection.
///
/// For a broker where the worker may configure nothing: import them, and set `declare = false`
/// under [queue].
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sparkferry topology > definitions.json
  rabbitmqctl import_definitions definitions.json")]
pub(crate) struct TopologyArgs {}

pub(crate) fn run(_: &TopologyArgs, loaded: &Loaded) -> Result<Exit, Problem> {
    let connections = loaded.connections()?;
    print::document(&amqp::definitions(&loaded.settings.topology, &connections))?;
    Ok(Exit::Success)
}
