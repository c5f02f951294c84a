//! `sparkferry run`: the worker.

use std::sync::Arc;

use clap::Args;
use futures_util::StreamExt;
use metrics_exporter_prometheus::PrometheusHandle;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_tokio::Signals;
use sparkferry_ports::queue::Queue;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::exit::Exit;
use super::problem::Problem;
use super::reload;
use super::setup::Loaded;
use crate::config::Settings;
use crate::observe::runs::{Overview, Readiness};
use crate::observe::serve::Source;
use crate::observe::{log, metrics, notify, serve};
use crate::queue::table;
use crate::worker::{Parts, Worker};

/// Takes requests off the queue, has them run, and carries the results back.
///
/// SIGTERM and SIGINT hand everything back and end it within 10 seconds; the runs go on, and the next
/// worker finds them. A second signal ends it at once. SIGHUP reads the configuration again:
/// connections and the log's level change at once, without dropping a run; a wrong configuration is
/// refused and the old one stays. Under systemd it tells when it is ready, and that it lives.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sparkferry run
  sparkferry run --config /etc/sparkferry/agent.toml

While it runs, http.listen serves the status page at /, its data at /api/runs, and
/healthz, /readyz and /metrics.")]
pub(crate) struct RunArgs {}

/// `load` reads the configuration.
pub(crate) async fn run(
    _: &RunArgs,
    load: impl FnOnce() -> Result<Loaded, Problem> + Send + 'static,
) -> Result<Exit, Problem> {
    // Before all else: who is told to go while it reads files has nothing to give back.
    let stop = CancellationToken::new();
    let (again, asked_again) = mpsc::channel(1);
    let signals = heed_signals(again, stop.clone())?;
    let Some(begun) = stop.run_until_cancelled(begin(load)).await else {
        return Ok(Exit::Success);
    };
    let Begun {
        loaded,
        level,
        queue,
    } = begun?;
    let connections = loaded.connections()?;
    let settings = &loaded.settings;
    let metrics = metrics::install()
        .map_err(|e| Problem::told(Exit::NotSucceeded, format!("no metrics: {e}")))?;
    let worker = Arc::new(Worker::new(Parts {
        topology: settings.topology.clone(),
        worker: settings.worker.name.clone(),
        max_message_bytes: settings.queue.max_message_bytes,
        max_output_bytes: settings.worker.max_output_bytes,
        queue,
        engines: reload::engines(settings)?,
    }));
    tracing::info!(
        worker = settings.worker.name,
        namespace = settings.topology.namespace(),
        connections = connections.join(", "),
        version = env!("BUILD_VERSION"),
        "working"
    );
    let refused = watch::Sender::new(None);
    let told = Told {
        worker: worker.clone(),
        refused: refused.subscribe(),
    };
    let upkeep = tokio::spawn(upkeep(metrics.clone()));
    let page = serve_http(settings, told.clone(), metrics).await;
    let notices = tokio::spawn({
        let (told, turns, stop) = (told.clone(), worker.turns(), stop.clone());
        async move { notify::attend(turns, || told.status(), stop).await }
    });
    let reloads = tokio::spawn(reload::again_and_again(
        asked_again,
        loaded,
        worker.clone(),
        level,
        refused,
        move || told.status(),
    ));
    let ended = worker.run(&stop).await;
    signals.abort();
    upkeep.abort();
    notices.abort();
    reloads.abort();
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

/// What a worker needs before it is one.
struct Begun {
    loaded: Loaded,
    level: log::Level,
    queue: Arc<dyn Queue>,
}

/// Reads the configuration, starts the log and opens the queue. Either may take its time: files may
/// be on a disk that is far away, a database locked.
async fn begin(
    load: impl FnOnce() -> Result<Loaded, Problem> + Send + 'static,
) -> Result<Begun, Problem> {
    let loading = tokio::task::spawn_blocking(load).await;
    let loaded = loading.map_err(|e| Problem::told(Exit::NotSucceeded, e.to_string()))??;
    loaded.connections()?;
    let level = log::start(&loaded.settings.log)?;
    let queue = table::open(&loaded.settings).await?;
    Ok(Begun {
        loaded,
        level,
        queue,
    })
}

/// Folds what was measured into buckets now and then; else it would pile up until somebody asks.
async fn upkeep(metrics: PrometheusHandle) {
    let mut now_and_then = tokio::time::interval(std::time::Duration::from_secs(5));
    loop {
        now_and_then.tick().await;
        metrics.run_upkeep();
    }
}

/// The first signal stops the worker gently, the second at once. SIGHUP has the configuration read
/// again; several in a row count as one.
fn heed_signals(
    again: mpsc::Sender<()>,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, Problem> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|e| Problem::told(Exit::NotSucceeded, format!("no signal handlers: {e}")))?;
    Ok(tokio::spawn(async move {
        while let Some(signal) = signals.next().await {
            if signal == SIGHUP {
                // Where one waits already, that one will read what is there now.
                let _ = again.try_send(());
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

/// Serves the worker's page. A port that is taken (a second worker on this machine, say) is no
/// reason not to work: it is said, and there is no page.
async fn serve_http(
    settings: &Settings,
    told: Told,
    metrics: PrometheusHandle,
) -> Option<JoinHandle<()>> {
    let listen = settings.http_listen?;
    match serve::bind(listen).await {
        Ok((listener, address)) => {
            tracing::info!(%address, "serving the status page, /healthz, /readyz, /metrics and /api/runs");
            // Until the worker has drained: readiness tells that too.
            let forever = CancellationToken::new();
            Some(tokio::spawn(async move {
                let source = Arc::new(told);
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

/// What the page, the probes and systemd are told.
#[derive(Clone)]
struct Told {
    worker: Arc<Worker>,
    /// Why the configuration in use is an older one.
    refused: watch::Receiver<Option<String>>,
}

impl Told {
    fn status(&self) -> String {
        notify::status(self.worker.in_flight(), &self.readiness())
    }
}

impl Source for Told {
    fn overview(&self, limit: usize) -> Overview {
        Overview {
            readiness: self.readiness(),
            ..self.worker.overview(limit)
        }
    }

    fn readiness(&self) -> Readiness {
        let mut readiness = self.worker.readiness();
        readiness.configuration.clone_from(&self.refused.borrow());
        readiness
    }
}
