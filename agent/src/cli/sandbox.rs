//! `sparkferry sandbox`: the stand-in workspace as a program.

use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::pin;

use clap::Args;
use sparkferry_sandbox::{Sandbox, SandboxError, SandboxOptions};
use tokio_util::sync::CancellationToken;

use super::exit::Exit;
use super::problem::Problem;
use super::{print, setup};
use crate::config::{LogFormat, LogSettings};
use crate::observe::log;

/// A workspace on this machine that stands in for Databricks, until Ctrl-C.
///
/// Jobs, runs, clusters and their faults are pretended; with --exec, a `spark_python_task` is
/// really run by python3. Nothing is kept on disk.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sparkferry sandbox
  sparkferry sandbox --listen 127.0.0.1:0 --exec      # port 0 takes a free one
  curl 127.0.0.1:8765/sandbox/stats                   # what it was asked, and what it ran
  curl 127.0.0.1:8765/sandbox/rules -d '{\"call\": \"runs/get\", \"status\": 503, \"times\": 3}'")]
pub(crate) struct SandboxArgs {
    /// Where it listens
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8765", value_parser = address)]
    listen: SocketAddr,
    /// The one bearer token that serves; without it any does
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Really run `spark_python_task` with python3
    #[arg(long)]
    exec: bool,
    /// Allow an address that other machines can reach
    #[arg(long)]
    allow_remote: bool,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let wrong = |why: String| format!("{why}; expected HOST:PORT, such as 127.0.0.1:8765");
    text.to_socket_addrs()
        .map_err(|e| wrong(e.to_string()))?
        .next()
        .ok_or_else(|| wrong("the host has no address".to_owned()))
}

pub(crate) async fn run(args: SandboxArgs) -> Result<Exit, Problem> {
    log::start(&LogSettings {
        level: "info".to_owned(),
        format: LogFormat::Auto,
    })?;
    let named_token = args.token.is_some();
    let options = SandboxOptions {
        listen: args.listen,
        token: args.token.map(Into::into),
        exec: args.exec,
        allow_remote: args.allow_remote,
    };
    let sandbox = Sandbox::bind(options).await.map_err(|error| {
        Problem::usage(match &error {
            SandboxError::NotLoopback(_) => format!("{error} with --allow-remote"),
            SandboxError::RemoteExec(_) => format!("{error} with --token"),
            SandboxError::Bind { .. } => {
                format!("{error}; choose another address with --listen (port 0 takes a free one)")
            }
        })
    })?;
    // Before anybody is told where it is: a signal from then on is an orderly end.
    let told_to_stop = setup::told_to_stop();
    print::line(&how_to_use(&sandbox.host(), named_token))?;
    let stop = CancellationToken::new();
    let mut serving = pin!(sandbox.serve(stop.clone()));
    let served = tokio::select! {
        served = &mut serving => served,
        () = told_to_stop => {
            stop.cancel();
            serving.await
        }
    };
    served.map_err(|e| {
        Problem::told(
            Exit::NotSucceeded,
            format!("the sandbox stopped serving: {e}"),
        )
    })?;
    Ok(Exit::Success)
}

/// Where it is, and what to put into a configuration.
fn how_to_use(host: &str, named_token: bool) -> String {
    let token = if named_token {
        "the token given with --token"
    } else {
        "any"
    };
    format!(
        "A workspace that stands in for Databricks serves on {host}\n\n\
         A connection to it, for config/agent.toml:\n\n\
         [connections.sandbox]\n\
         type = \"databricks\"\n\
         host = \"{host}\"\n\
         auth = {{ type = \"pat\", token = \"{token}\" }}\n\n\
         What it was asked and what it ran: curl {host}/sandbox/stats\n\
         Ctrl-C ends it."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        assert_eq!(address("127.0.0.1:0").unwrap().port(), 0);
        assert!(address("localhost:8765").unwrap().ip().is_loopback());
        assert!(address("127.0.0.1").unwrap_err().contains("HOST:PORT"));
    }
}
