//! `sparkferry run`: the worker.

use clap::Args;

use super::exit::Exit;
use super::problem::Problem;
use super::setup::Loaded;
use crate::observe::log;
use crate::worker;

/// Takes requests off the queue, has them run, and carries the results back.
///
/// SIGTERM and SIGINT hand everything back and end it within 10 seconds; the runs go on, and the next
/// worker finds them. A second signal ends it at once. SIGHUP reads the configuration again.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {}

pub(crate) async fn run(_: &RunArgs, loaded: Loaded) -> Result<Exit, Problem> {
    loaded.connections()?;
    log::start(&loaded.settings.log)?;
    worker::main(loaded.settings).await
}
