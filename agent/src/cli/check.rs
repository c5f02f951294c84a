//! `sparkferry check`: a checklist before the worker starts.

use clap::Args;
use futures_util::future::join_all;
use serde_json::json;
use sparkferry_ports::engine::Fault;
use sparkferry_ports::queue::QueueError;
use sparkferry_shared::ErrorClass;

use super::exit::Exit;
use super::print;
use super::problem::Problem;
use super::setup::Loaded;
use crate::config::{Connection, PolicySettings, Redelivered, Settings};
use crate::engine::table;
use crate::queue;

/// Reads the configuration, reaches the queue and every connection, and says for each what was
/// found, or what is wrong and what to do. Starts nothing and changes nothing on an engine.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sparkferry check
  sparkferry check --config /etc/sparkferry/agent.toml --json

Exit codes: 0 all is well; 69 the queue or an engine is not reachable, or refuses;
78 the configuration is wrong.")]
pub(crate) struct CheckArgs {
    /// One finding a line, as JSON
    #[arg(long)]
    json: bool,
}

/// One line of the checklist.
struct Finding {
    /// What was looked at.
    what: String,
    /// What was found; else what is wrong and what to do.
    found: Result<String, (Exit, String)>,
}

pub(crate) async fn run(args: &CheckArgs, loaded: &Loaded) -> Result<Exit, Problem> {
    let connections = loaded.connections()?;
    let settings = &loaded.settings;
    let mut worst = Exit::Success;
    let mut tell = |finding: Finding| {
        worst = worst.max(finding.exit());
        finding.print(args.json)
    };
    tell(Finding {
        what: "configuration".to_owned(),
        found: Ok(configuration(loaded)),
    })?;
    for (name, rules) in &settings.policies {
        tell(policy(name, rules))?;
    }
    let queue = async {
        Finding {
            what: "queue".to_owned(),
            found: queue::table::check(settings, &connections)
                .await
                .map_err(|error| {
                    let exit = match error {
                        QueueError::Setting { .. } => Exit::Configuration,
                        QueueError::Unreachable { .. }
                        | QueueError::Refused { .. }
                        | QueueError::TooLarge { .. } => Exit::Unreachable,
                    };
                    (exit, error.to_string())
                }),
        }
    };
    let engines = settings
        .connections
        .iter()
        .map(|(name, connection)| async move {
            Finding {
                what: format!("connection {name}"),
                found: engine(name, connection, settings).await,
            }
        });
    let (queue, engines) = tokio::join!(queue, join_all(engines));
    tell(queue)?;
    engines.into_iter().try_for_each(tell)?;
    Ok(worst)
}

impl Finding {
    fn exit(&self) -> Exit {
        match &self.found {
            Ok(_) => Exit::Success,
            Err((exit, _)) => *exit,
        }
    }

    fn print(&self, json: bool) -> Result<(), Problem> {
        let (ok, text) = match &self.found {
            Ok(text) => (true, text),
            Err((_, text)) => (false, text),
        };
        if json {
            return print::json_line(&json!({ "what": self.what, "ok": ok, "text": text }));
        }
        let mark = if ok { "ok  " } else { "FAIL" };
        // Further lines of a text stand under its first one.
        let text = text.trim().replace('\n', "\n      ");
        print::line(&format!("{mark}  {}: {text}", self.what))
    }
}

fn configuration(loaded: &Loaded) -> String {
    let place = match &loaded.file {
        Some(file) => file.display().to_string(),
        None => "no file, variables only".to_owned(),
    };
    let settings = &loaded.settings;
    format!(
        "{place}; namespace {}, worker {}, {} connection{}",
        settings.topology.namespace(),
        settings.worker.name,
        settings.connections.len(),
        if settings.connections.len() == 1 {
            ""
        } else {
            "s"
        },
    )
}

async fn engine(
    name: &str,
    connection: &Connection,
    settings: &Settings,
) -> Result<String, (Exit, String)> {
    let engine = table::open(name, connection, settings)
        .map_err(|error| (Exit::Configuration, error.to_string()))?;
    engine.check().await.map_err(|fault| advise(&fault))
}

/// Which rules a connection's requests are judged by.
fn policy(name: &str, policy: &PolicySettings) -> Finding {
    let redelivered = match policy.redelivered {
        Redelivered::Reject => "",
        Redelivered::Attend => {
            "; what was delivered before is not judged: redelivered = \"attend\""
        }
    };
    Finding {
        what: format!("policy of {name}"),
        found: Ok(policy.rules().join(", ") + redelivered),
    }
}

/// What went wrong, and what to do about it.
fn advise(fault: &Fault) -> (Exit, String) {
    let error = fault.to_error();
    let advice = match error.class {
        ErrorClass::Auth => "; see to the credentials (`auth`) of this connection",
        ErrorClass::Throttled => "; it has too much to do at the moment, try again",
        _ => "; see to the host of this connection, and whether it can be reached from here",
    };
    (Exit::Unreachable, error.message + advice)
}
