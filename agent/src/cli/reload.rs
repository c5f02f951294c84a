//! Reading the configuration again while the worker works.
//!
//! All of it or nothing: what can't be read, is wrong, or takes a restart is refused as a whole, and
//! what was in use stays. Connections that were written otherwise are closed and opened anew: what
//! they held is handed back, comes again and finds its runs. The others are left alone.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::problem::Problem;
use super::setup::{self, Loaded};
use crate::config::Settings;
use crate::engine::table;
use crate::observe::log::Level;
use crate::observe::notify;
use crate::worker::{Change, Engines, Served, Worker};

/// What changes without a restart, and `default_connection`, which a worker does not use. A section
/// that is not named here takes a restart.
const LIVE: [&str; 2] = ["log", "default_connection"];

/// Makes the engines ready.
///
/// # Errors
/// Where one can't be made, with its setting.
pub(super) fn engines(settings: &Settings) -> Result<Engines, Problem> {
    let names = settings.connections.keys();
    names
        .map(|name| Ok((name.clone(), served(settings, name)?)))
        .collect()
}

fn served(settings: &Settings, name: &str) -> Result<Served, Problem> {
    let connection = &settings.connections[name];
    let engine = table::open(name, connection, settings)
        .map_err(|e| Problem::configuration(format!("connections.{name}: {e}")))?;
    Ok(Served {
        max_active_runs: connection.max_active_runs(),
        engine,
        policy: settings.policies.get(name).cloned(),
    })
}

/// Reads the configuration whenever it is asked to. `refused` tells why it was not taken the last
/// time; `status` is the line for systemd.
pub(super) async fn again_and_again(
    mut asked: mpsc::Receiver<()>,
    mut loaded: Loaded,
    worker: Arc<Worker>,
    level: Level,
    refused: watch::Sender<Option<String>>,
    status: impl Fn() -> String,
) {
    while asked.recv().await.is_some() {
        notify::reloading().await;
        let why = match again(&loaded, &worker, &level).await {
            Ok(newer) => {
                loaded = newer;
                None
            }
            Err(problem) => {
                let why = told(problem);
                tracing::error!("the configuration is refused, the old one stays: {why}");
                Some(why)
            }
        };
        refused.send_replace(why);
        notify::reloaded(status()).await;
    }
}

/// What is in use from now on.
async fn again(older: &Loaded, worker: &Worker, level: &Level) -> Result<Loaded, Problem> {
    let file = older.file.clone();
    let reading = tokio::task::spawn_blocking(move || setup::load(file.as_deref())).await;
    let newer = reading.map_err(|panic| {
        Problem::configuration(format!("it could not be read, by a bug: {panic}"))
    })??;
    newer.connections()?;
    takes_no_restart(&older.settings, &newer.settings)?;

    let (before, now) = (&older.settings.connections, &newer.settings.connections);
    let written = &older.settings.written;
    let changed = written.changed_connections(&newer.settings.written);
    let listed =
        |names: &mut dyn Iterator<Item = &String>| names.cloned().collect::<Vec<_>>().join(", ");
    let (opened, closed) = (
        listed(&mut changed.iter().filter(|name| now.contains_key(*name))),
        listed(&mut changed.iter().filter(|name| before.contains_key(*name))),
    );
    let open = changed.iter().filter(|name| now.contains_key(*name));
    let open = open.map(|name| Ok((name.clone(), served(&newer.settings, name)?)));
    let open = open.collect::<Result<Engines, Problem>>()?;
    // Last of what can fail, first of what takes effect.
    level.set(&newer.settings.log)?;
    if !worker
        .change(Change {
            close: changed,
            open,
        })
        .await
    {
        return Err(Problem::configuration("the worker is ending".to_owned()));
    }
    tracing::info!(
        closed,
        opened,
        "the configuration was read again and is in use"
    );
    Ok(newer)
}

/// # Errors
/// Where something changed that was used to build the worker: it names every such section.
fn takes_no_restart(older: &Settings, newer: &Settings) -> Result<(), Problem> {
    let mut fixed = older.written.changed_sections(&newer.written);
    fixed.retain(|section| !LIVE.contains(&section.as_str()));
    if older.log.format != newer.log.format {
        fixed.insert("log.format".to_owned());
    }
    if fixed.is_empty() {
        return Ok(());
    }
    let fixed: Vec<_> = fixed.into_iter().collect();
    Err(Problem::configuration(format!(
        "what changed needs a restart: {}",
        fixed.join(", ")
    )))
}

fn told(problem: Problem) -> String {
    match problem {
        Problem::Told { text, .. } => text,
        Problem::OutputClosed => "stdout was closed".to_owned(),
    }
}
