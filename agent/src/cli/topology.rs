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
  sparkferry topology --users --vhost sparkferry > definitions.json
  rabbitmqctl import_definitions definitions.json
  rabbitmqctl change_password sparkferry-worker PASSWORD")]
pub(crate) struct TopologyArgs {
    /// Adds users for workers, producers and the operator that may do no more than they must, and
    /// says by policies what can be changed later. Nobody can log in by password before
    /// `rabbitmqctl change_password`
    #[arg(long)]
    users: bool,
    /// The virtual host, as the worker's URL names it
    #[arg(long, default_value = "/")]
    vhost: String,
}

pub(crate) fn run(args: &TopologyArgs, loaded: &Loaded) -> Result<Exit, Problem> {
    let connections = loaded.connections()?;
    let topology = &loaded.settings.topology;
    let definitions = if args.users {
        amqp::definitions_with_users(topology, &connections, &args.vhost)
    } else {
        amqp::definitions(topology, &connections, &args.vhost)
    };
    print::document(&definitions)?;
    Ok(Exit::Success)
}
