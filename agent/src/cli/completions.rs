//! `sparkferry completions`: for a shell.

use std::io::{self, Write as _};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::exit::Exit;
use super::problem::Problem;

/// Prints completions for a shell.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sparkferry completions bash > ~/.local/share/bash-completion/completions/sparkferry
  sparkferry completions zsh > ~/.zfunc/_sparkferry
  sparkferry completions fish > ~/.config/fish/completions/sparkferry.fish")]
pub(crate) struct CompletionsArgs {
    /// Which one
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs) -> Result<Exit, Problem> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sparkferry", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(Exit::Success)
}
