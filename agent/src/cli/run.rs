//! `sparkferry run`: the worker.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use futures_util::StreamExt;
use metrics_exporter_prometheus::PrometheusHandle;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_tokio::Signals;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::exit::Exit;
use super::problem::Problem;
use super::setup::{self, Loaded};
use crate::config::{QueuePlace, Settings};
use crate::engine::table;
use crate::observe::runs::{Readiness, RunView};
use crate::observe::{log, metrics, serve};
use crate::queue::Queue;
use crate::queue::amqp::AmqpQueue;
use crate::queue::sqlite::SqliteQueue;
use crate::worker::{Parts, Worker};

/// Takes requests off the queue, has them run, and carries the results back.
///
/// SIGTERM and SIGINT hand everything back and end it within 10 seconds; the runs go on, and the next
/// worker finds them. A second signal ends it at once. SIGHUP reads the configuration again and says
/// whether it is right; a changed one takes effect with the next start.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sparkferry run
  sparkferry run --config /etc/sparkferry/agent.toml

While it runs, http.listen serves /healthz, /readyz, /metrics and /api/runs.")]
pub(crate) struct RunArgs {}

pub(crate) async fn run(_: &RunArgs, loaded: Loaded) -> Result<Exit, Problem> {
    let connections = loaded.connections()?;
    let settings = &loaded.settings;
    log::start(&settings.log)?;
    let metrics = metrics::install()
        .map_err(|e| Problem::told(Exit::NotSucceeded, format!("no metrics: {e}")))?;

    let stop = CancellationToken::new();
    let signals = heed_signals(&loaded, stop.clone())?;
    let queue = open_queue(settings, &connections).await?;
    let mut engines = BTreeMap::new();
    for (name, connection) in &settings.connections {
        let engine = table::open(name, connection, settings)
            .map_err(|e| Problem::configuration(format!("connections.{name}: {e}")))?;
        engines.insert(name.clone(), (connection.max_active_runs(), engine));
    }
    let worker = Arc::new(Worker::new(Parts {
        topology: settings.topology.clone(),
        worker: settings.worker.name.clone(),
        max_message_bytes: settings.queue.max_message_bytes,
        max_output_bytes: settings.worker.max_output_bytes,
        queue,
        engines,
    }));
    let upkeep = tokio::spawn(upkeep(metrics.clone()));
    let page = serve_http(settings, worker.clone(), metrics).await;
    tracing::info!(
        worker = settings.worker.name,
        namespace = settings.topology.namespace(),
        connections = connections.join(", "),
        version = env!("CARGO_PKG_VERSION"),
        "working"
    );
    let ended = worker.run(&stop).await;
    signals.abort();
    upkeep.abort();
    if let Some(page) = page {
        page.abort();
    }
    match ended {
        Ok(()) => Ok(Exit::Success),
        Err(panic) => Err(Problem::told(
            Exit::NotSucceeded,
            format!("a part of the worker panicked, which is a bug of Sparkferry's: {panic}"),
        )),
    }
}

/// Folds what was measured into buckets now and then; else it would pile up until somebody asks.
async fn upkeep(metrics: PrometheusHandle) {
    let mut now_and_then = tokio::time::interval(std::time::Duration::from_secs(5));
    loop {
        now_and_then.tick().await;
        metrics.run_upkeep();
    }
}

/// The first signal stops the worker gently, the second at once.
fn heed_signals(loaded: &Loaded, stop: CancellationToken) -> Result<JoinHandle<()>, Problem> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|e| Problem::told(Exit::NotSucceeded, format!("no signal handlers: {e}")))?;
    let file = loaded.file.clone();
    Ok(tokio::spawn(async move {
        while let Some(signal) = signals.next().await {
            if signal == SIGHUP {
                read_again(file.clone()).await;
            } else if stop.is_cancelled() {
                tracing::warn!(
                    "a second signal: ending at once; the queue takes back what is held"
                );
                std::process::exit(128 + signal);
            } else {
                stop.cancel();
            }
        }
    }))
}

async fn read_again(file: Option<std::path::PathBuf>) {
    let read = tokio::task::spawn_blocking(move || setup::load(file.as_deref())).await;
    match read {
        Ok(Ok(_)) => tracing::info!(
            "the configuration was read again and is right; what changed takes effect with the next start"
        ),
        Ok(Err(Problem::Told { text, .. })) => {
            tracing::error!("the configuration is wrong, the old one stays: {text}");
        }
        Ok(Err(Problem::OutputClosed)) => {}
        Err(panic) => tracing::error!("the configuration could not be read again: {panic}"),
    }
}

async fn open_queue(
    settings: &Settings,
    connections: &[String],
) -> Result<Arc<dyn Queue>, Problem> {
    let topology = settings.topology.clone();
    match &settings.queue.place {
        QueuePlace::Amqp(url) => {
            let queue = AmqpQueue::open(url, &settings.queue, &topology, connections)?;
            Ok(queue)
        }
        QueuePlace::Sqlite(path) => {
            let (path, worker) = (path.clone(), settings.worker.name.clone());
            // A database on a slow disk may take its time.
            let opening =
                tokio::task::spawn_blocking(move || SqliteQueue::open(&path, &topology, &worker));
            match opening.await {
                Ok(opened) => Ok(opened?),
                Err(e) => Err(Problem::told(Exit::Unreachable, e.to_string())),
            }
        }
    }
}

/// Serves the worker's page. A port that is taken (a second worker on this machine, say) is no
/// reason not to work: it is said, and there is no page.
async fn serve_http(
    settings: &Settings,
    worker: Arc<Worker>,
    metrics: PrometheusHandle,
) -> Option<JoinHandle<()>> {
    let listen = settings.http_listen?;
    match serve::bind(listen).await {
        Ok((listener, address)) => {
            tracing::info!(%address, "serving /healthz, /readyz, /metrics and /api/runs");
            // Until the worker has drained: readiness tells that too.
            let forever = CancellationToken::new();
            Some(tokio::spawn(async move {
                let source = Arc::new(Page(worker));
                if let Err(error) = serve::serve(listener, source, metrics, forever).await {
                    tracing::error!(%error, "http.listen: no longer served");
                }
            }))
        }
        Err(error) => {
            tracing::warn!(%listen, %error, "http.listen: can't listen here; working without health, metrics and page");
            None
        }
    }
}

struct Page(Arc<Worker>);

impl serve::Source for Page {
    fn runs(&self, limit: usize) -> Vec<RunView> {
        self.0.runs(limit)
    }

    fn readiness(&self) -> Readiness {
        self.0.readiness()
    }
}
