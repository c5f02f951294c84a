//! What commands need before they begin: the settings, a producer, a signal to stop.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};

use sparkferry_ports::queue::Producer;
use tokio::signal::unix::{SignalKind, signal};

use super::problem::Problem;
use crate::config::{self, ConfigError, LogFormat, LogSettings, Settings};
use crate::observe::log;
use crate::queue;

/// The settings and where they stand.
pub(crate) struct Loaded {
    /// All of them, checked.
    pub(crate) settings: Settings,
    /// The file, if there was one.
    pub(crate) file: Option<PathBuf>,
}

/// Reads the settings: the file named by `--config`, else the first default one that is there.
pub(crate) fn load(named: Option<&Path>) -> Result<Loaded, Problem> {
    let file = named.map(Path::to_owned).or_else(config::default_file);
    // Variables that are no text can't be ours.
    let variables: HashMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    match config::load(file.as_deref(), &variables) {
        Ok(settings) => Ok(Loaded { settings, file }),
        // This one names the file itself.
        Err(error @ ConfigError::File { .. }) => Err(error.into()),
        Err(error) => Err(Problem::configuration(format!(
            "{}: {error}",
            sources(file.as_deref(), &variables)
        ))),
    }
}

/// Where a wrong setting may stand: in the file, or in a variable.
fn sources(file: Option<&Path>, variables: &HashMap<String, String>) -> String {
    let place = match file {
        Some(file) => file.display().to_string(),
        None => "no configuration file".to_owned(),
    };
    let mut ours: Vec<&str> = variables
        .keys()
        .map(String::as_str)
        .filter(|name| name.starts_with(config::VARIABLE_PREFIX))
        .collect();
    if ours.is_empty() {
        return place;
    }
    ours.sort_unstable();
    format!("{place} with {}", ours.join(", "))
}

impl Loaded {
    /// The names of the connections.
    ///
    /// # Errors
    /// Where there is none: the command has nothing to work on.
    pub(crate) fn connections(&self) -> Result<Vec<String>, Problem> {
        let names: Vec<String> = self.settings.connections.keys().cloned().collect();
        if !names.is_empty() {
            return Ok(names);
        }
        let place = match &self.file {
            Some(file) => file.display().to_string(),
            None => {
                format!(
                    "no configuration file was found (looked for {})",
                    config::DEFAULT_FILES.join(" and ")
                )
            }
        };
        Err(Problem::configuration(format!(
            "{place}: no connection is configured; add one:\n\n{}\n\n\
             (no workspace at hand? `sparkferry sandbox` prints a connection to a stand-in)",
            "[connections.prod]\n\
             type = \"databricks\"\n\
             host = \"https://adb-1.azuredatabricks.net\"\n\
             auth = { type = \"pat\", token_file = \"/path/to/token\" }"
        )))
    }

    /// Sees to it that a connection named on the command line is there.
    pub(crate) fn check_connection(&self, named: Option<&str>) -> Result<(), Problem> {
        match named {
            Some(name) if !self.settings.connections.contains_key(name) => Err(Problem::usage(
                format!("--connection: {}", no_such_connection(&self.settings, name)),
            )),
            _ => Ok(()),
        }
    }
}

/// That a connection is not there, and which ones are.
pub(crate) fn no_such_connection(settings: &Settings, name: &str) -> String {
    let names: Vec<_> = settings.connections.keys().map(String::as_str).collect();
    if names.is_empty() {
        return format!("there is no connection {name:?}; none is configured");
    }
    format!(
        "there is no connection {name:?}; there are: {}",
        names.join(", ")
    )
}

/// Opens the producer's side of the queue.
pub(crate) async fn producer(settings: &Settings) -> Result<Box<dyn Producer>, Problem> {
    Ok(queue::table::producer(settings).await?)
}

/// Starts the log of a command that a person waits for: what goes wrong, and no more.
pub(crate) fn quiet_log() -> Result<(), Problem> {
    let settings = LogSettings {
        level: "warn".to_owned(),
        format: LogFormat::Text,
    };
    log::start(&settings)?;
    Ok(())
}

/// Waits for SIGINT (Ctrl-C) or SIGTERM. From the call on, they no longer kill the process.
/// Must be called on a runtime.
pub(crate) fn told_to_stop() -> impl Future<Output = ()> {
    let signals = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    async {
        match signals {
            (Ok(mut interrupt), Ok(mut terminate)) => {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            }
            // Without handlers the signals kill the process, as they would without us.
            _ => std::future::pending().await,
        }
    }
}
