//! The command line: one command, one file.
//!
//! | shared by commands | |
//! |---|---|
//! | `exit` | the exit codes, from best to worst |
//! | `problem` | why a command can't go on, with its exit code |
//! | `setup` | settings, a producer, a signal to stop |
//! | `print` | stdout and stderr |
//! | `reload` | the configuration, read again by a running worker |
//! | `story` | an event as a line for people |

mod cancel;
mod check;
mod completions;
mod dead;
#[cfg(feature = "databricks")]
mod demo;
mod exit;
mod print;
mod problem;
mod reload;
mod run;
#[cfg(feature = "databricks")]
mod sandbox;
mod schema;
mod setup;
mod story;
mod submit;
#[cfg(feature = "rabbitmq")]
mod topology;
mod watch;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use exit::Exit;
use problem::Problem;

#[derive(Debug, Parser)]
#[command(
    name = "sparkferry",
    version = env!("BUILD_VERSION"),
    about = "Ferries run requests from RabbitMQ to Databricks and Spark, and carries the results back.",
    after_help = exit::HELP,
    after_long_help = tour(),
    arg_required_else_help = true,
    max_term_width = 100,
)]
struct Cli {
    /// The configuration; else config/agent.toml, then /etc/sparkferry/agent.toml
    ///
    /// Variables `SPARKFERRY__SECTION__KEY` go over it, such as
    /// `SPARKFERRY__QUEUE__URL=amqp://user:password@broker`.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The worker: take requests off the queue, have them run, carry the results back
    Run(run::RunArgs),
    /// Read the configuration, reach the queue and every connection, say what is wrong
    Check(check::CheckArgs),
    /// Put requests into the queue; with --wait, see them through
    Submit(submit::SubmitArgs),
    /// Cancel a request: running, waiting or still in the queue
    Cancel(cancel::CancelArgs),
    /// Follow what happens, live
    Watch(watch::WatchArgs),
    /// The dead letters: messages that could not be read
    Dead(dead::DeadArgs),
    /// The JSON Schema of a message, or the AsyncAPI document
    Schema(schema::SchemaArgs),
    /// The definitions of exchanges and queues, for RabbitMQ's `rabbitmqctl import_definitions`
    #[cfg(feature = "rabbitmq")]
    Topology(topology::TopologyArgs),
    /// See it all in under a minute: queue, worker, a stand-in for Databricks, a few requests
    #[cfg(feature = "databricks")]
    Demo(demo::DemoArgs),
    /// A workspace on this machine that stands in for Databricks
    #[cfg(feature = "databricks")]
    Sandbox(sandbox::SandboxArgs),
    /// Completions for a shell
    Completions(completions::CompletionsArgs),
}

fn tour() -> String {
    format!(
        "A first round, with no Databricks and no RabbitMQ:\n  \
           sparkferry demo               # a few requests become runs and results\n  \
           sparkferry sandbox            # prints a connection for config/agent.toml\n  \
           sparkferry check              # is everything there?\n  \
           echo '{{\"run_now\": {{\"job_name\": \"nightly\"}}}}' | sparkferry submit - --wait\n\n{}",
        exit::HELP
    )
}

/// Runs the program: reads the command line, does what it says, and tells how that went.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Success,
                _ => Exit::Usage,
            };
            // Where nobody reads it, it need not be written.
            let _ = error.print();
            return exit.into();
        }
    };
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(Problem::Told { exit, text }) => {
            print::note(&format!("sparkferry: {text}"));
            exit.into()
        }
        Err(Problem::OutputClosed) => Exit::Success.into(),
    }
}

fn run(cli: Cli) -> Result<Exit, Problem> {
    let named = cli.config.clone();
    let load = move || setup::load(named.as_deref());
    match cli.command {
        Command::Run(args) => on_runtime(run::run(&args, load)),
        Command::Check(args) => waited_for(check::run(&args, &load()?)),
        Command::Submit(args) => waited_for(submit::run(&args, &load()?)),
        Command::Cancel(args) => waited_for(cancel::run(args, &load()?)),
        Command::Watch(args) => waited_for(watch::run(&args, &load()?)),
        Command::Dead(args) => waited_for(dead::run(&args, &load()?)),
        Command::Schema(args) => schema::run(&args, load),
        #[cfg(feature = "rabbitmq")]
        Command::Topology(args) => topology::run(&args, &load()?),
        #[cfg(feature = "databricks")]
        Command::Demo(args) => waited_for(demo::run(&args)),
        #[cfg(feature = "databricks")]
        Command::Sandbox(args) => on_runtime(sandbox::run(args)),
        Command::Completions(args) => completions::run(&args),
    }
}

/// Runs a command that a person waits for.
fn waited_for(command: impl Future<Output = Result<Exit, Problem>>) -> Result<Exit, Problem> {
    setup::quiet_log()?;
    on_runtime(command)
}

fn on_runtime(command: impl Future<Output = Result<Exit, Problem>>) -> Result<Exit, Problem> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| {
            Problem::told(
                Exit::NotSucceeded,
                format!("no threads could be started: {e}"),
            )
        })?;
    let exit = runtime.block_on(command);
    // What still waits for a disk or for a name server is of no use to anybody.
    runtime.shutdown_timeout(Duration::from_secs(1));
    exit
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_configuration_is_named_before_or_after_the_command() {
        for line in [
            ["sparkferry", "--config", "a.toml", "watch"],
            ["sparkferry", "watch", "--config", "a.toml"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.config, Some("a.toml".into()));
        }
    }
}
