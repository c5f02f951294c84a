//! A workspace on loopback that stands in for Databricks.
//!
//! Clients of the Jobs API run against it unchanged: databricks-sdk, Airflow's operators,
//! prefect-databricks, Sparkferry itself. Nothing is kept on disk; ids differ from start to start.
//! What a run does is pretended, and told by the request or by rules; with `exec`, a
//! `spark_python_task` is really run. Everything below works with plain curl:
//!
//! ```text
//! curl -H 'Authorization: Bearer t' $HOST/api/2.2/jobs/runs/submit -d '{"run_name": "r", "tasks":
//!   [{"task_key": "main", "notebook_task": {"notebook_path": "/n", "base_parameters":
//!     {"sandbox.duration_ms": "5000", "sandbox.outcomes": "CLUSTER_ERROR,SUCCESS"}}}]}'
//! curl $HOST/sandbox/rules -d '[{"call": "runs/get", "status": 429, "retry_after": 2, "times": 3}]'
//! curl $HOST/sandbox/stats
//! ```
//!
//! # What it serves
//! - `/api/2.0`, `/api/2.1` and `/api/2.2` alike: `jobs/` create, get, list, update, reset, delete,
//!   run-now; `jobs/runs/` submit (`tasks[]`, or the older form of one task's fields at the top
//!   level, whose task is called `main`), get, list, get-output, cancel, cancel-all, delete, repair.
//! - `/api/2.0` and `/api/2.1`: `clusters/` create, get, start, list, delete, permanent-delete,
//!   spark-versions; `libraries/` install, cluster-status; `preview/scim/v2/Me`.
//! - `/.well-known/databricks-config`, `/oidc/.well-known/oauth-authorization-server` and
//!   `/oidc/v1/token` (`client_credentials` with Basic or form fields, and token exchange).
//! - Azure's `/{tenant}/oauth2/token` (Entra ID) and `/metadata/identity/oauth2/token` (a machine's
//!   metadata service), for Databricks and for Azure's management.
//!
//! Arguments are taken from query and body alike, ids as numbers or texts, booleans in any case;
//! nulls are absent. Any bearer token serves unless one is named; then that one, and issued ones
//! until they expire. (An issued token that has expired is refused in either case.) A call that names
//! the workspace in Azure's words must bring a token for Azure's management.
//!
//! Any client has a token issued until some are named: `POST /sandbox/clients` with `clients` (secrets
//! by client id), `subjects` (tokens of other issuers) and `identities` (client ids of the machine;
//! an empty one may go unnamed) names all of them anew, and from then on only they are served, if they
//! ask for the right scope in the right form. `DELETE` takes anybody again.
//!
//! Where it differs from Databricks: `max_concurrent_runs` holds only where a job names it
//! (Databricks' default is 1); over it a run is QUEUED if `queue.enabled` is true in the job or the
//! request, else SKIPPED. `existing_cluster_id` may be unknown. A job may have no tasks; it is
//! then one pretended task. `max_retries` of tasks, schedules and permissions are ignored.
//! A run cut by `timeout_seconds` has the result TIMEDOUT and the termination code CANCELED.
//!
//! # What a request chooses
//! Keys in a map of parameters (`job_parameters`, `notebook_params`, `python_named_params`,
//! `sql_params`; a task's `base_parameters`, `named_parameters`, `parameters`; the defaults that a
//! job declares), in the `custom_tags` of a task or of its new cluster, or as
//! `--sandbox.duration_ms=500` in a list (`python_params`, `parameters`, ...). The request goes over
//! the task, the task over what the job declares, and that over the rules. An unknown `sandbox.` key
//! is refused.
//!
//! | key | |
//! |---|---|
//! | `sandbox.setup_ms` | the task is PENDING for so long; 0 |
//! | `sandbox.duration_ms` | and then RUNNING; 200 |
//! | `sandbox.cancel_ms` | TERMINATING for so long when cancelled; 50 |
//! | `sandbox.outcome` | a result state (`SUCCESS`, `FAILED`, `TIMEDOUT`, `CANCELED`, `SKIPPED`, ...) or a termination code (`CLUSTER_ERROR`, `INTERNAL_ERROR`, ...); any other word stands for both, and with `DELETED` somebody deletes the run as soon as it has ended; `SUCCESS` |
//! | `sandbox.outcomes` | a list with commas: the nth run or repair of the same work takes the nth word, later ones the last. The same work is the same job, or the same `run_name` of one-time runs |
//! | `sandbox.work` | a name for the work, in place of that |
//! | `sandbox.output` | the notebook's result, on success |
//! | `sandbox.logs` | `logs` of tasks that are no notebooks |
//! | `sandbox.error`, `sandbox.trace` | `error` and `error_trace` of the output, on failure |
//!
//! A cluster's `custom_tags` may have `sandbox.start_ms` (PENDING for so long; 200).
//! clusters/create takes a `cluster_id`.
//!
//! # Rules
//! `POST /sandbox/rules` adds a JSON list (or one object), `GET` shows all with how often each was
//! used, `DELETE` clears them. Each field is optional:
//!
//! | field | |
//! |---|---|
//! | `call` | `jobs/runs/get`, or without `jobs/`, or a beginning and `*`; absent and `*` are every call. Paths outside `/api/2.x/` are named whole, without the first slash; what the sandbox doesn't serve is `unknown` |
//! | `job_name`, `run_name`, `task_key` | only for calls about, or runs of, these |
//! | `times` | so often, and no more |
//! | `probability`, `seed` | by chance, from 0 to 1; the same seed gives the same sequence |
//! | `setup_ms`, `duration_ms`, `cancel_ms`, `outcome`, `outcomes`, `output`, `logs`, `error`, `trace` | as above, for runs that don't choose themselves; a later rule goes over an earlier one |
//! | `start_ms`, `expires_in` | of clusters created from now on (milliseconds); of tokens issued from now on (seconds; 3600) |
//! | `status` | this status in place of any effect, with Databricks' usual body for it, |
//! | `retry_after`, `body`, `html` | with `Retry-After: N`, with this body (a text is sent as plain text, or as HTML), with a page of HTML; without a `status` it is 503 |
//! | `outage_seconds` | from now on for so long: 503 (or `status`), or with `reset` a reset |
//! | `reset` | TCP reset in place of any effect |
//! | `lose_reply` | the effect happens, and the connection is closed without a reply |
//! | `half_reply` | the effect happens, and the connection is closed after half of the body |
//! | `delay_ms` | the reply comes late; the effect doesn't |
//! | `strange` | the effect happens, and the reply has fields that nobody knows; runs are in states that nobody knows |
//! | `expire_tokens` | every token issued so far expires, before the call is looked at |
//!
//! The first fault rule that matches, and whose luck holds, strikes; an outage goes over all others.
//! Faults never touch `/sandbox/`.
//!
//! # Books
//! `/sandbox/` needs no token. `GET /sandbox/stats`: `calls` by name (`total` = the sum of
//! `by_status` and `cut`), `runs_started`, `runs_active`, `runs_by_outcome` (`ACTIVE` for those under
//! way), `runs_by_token` (runs really created under each idempotency token), `max_concurrent_runs`
//! (seen at once so far), `deleted`, `repairs`. `DELETE /sandbox/stats` or `POST /sandbox/reset` sets
//! them to zero; runs, jobs and rules stay. `GET /sandbox/runs`: one line for each run, deleted ones
//! included.
//!
//! # Real programs
//! With `exec`, a `spark_python_task` whose chosen outcome is SUCCESS is run as
//! `python3 FILE PARAMETERS`; `python_file` is a local path or a `file:` URI. `logs` holds what it
//! printed to both streams (the last 5 MB), `error` and `error_trace` the last traceback. Eight
//! run at once, more are PENDING; cancellation and timeouts kill.
//!
//! # How it is made
//! One state behind one lock, held for the effect of a call and never across an await. No timers: the
//! schedule of a run is a pure function of its plan and of what happened to it, computed when it is
//! changed and held against the clock when it is read. Only real programs have tasks of their own.

mod args;
mod auth;
mod changes;
mod choices;
mod clusters;
mod ending;
mod exec;
mod issue;
mod jobs;
mod line;
mod plans;
mod printed;
mod reads;
mod reply;
mod routes;
mod rules;
mod run;
mod schedule;
mod starts;
mod state;
mod stats;
mod view;
mod work;

#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::Router;
use secrecy::{ExposeSecret, SecretString};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Real processes at once; further ones are PENDING.
const PROCESSES: usize = 8;
/// How long open connections may take to finish once the sandbox is told to stop.
const GRACE: Duration = Duration::from_secs(1);

/// How a sandbox is set up.
#[derive(Debug)]
pub struct SandboxOptions {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The one token that serves, beside those that the sandbox issues itself. Without it any does.
    pub token: Option<SecretString>,
    /// Really run `spark_python_task` with `python3`.
    pub exec: bool,
    /// Take an address that other machines can reach.
    pub allow_remote: bool,
}

/// Why a sandbox could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The address is not a loopback one, and that was not allowed.
    #[error(
        "the sandbox listens on loopback only, and {0} can be reached by other machines: use \
         127.0.0.1, or allow remote addresses"
    )]
    NotLoopback(SocketAddr),
    /// Anybody who reaches the address could run programs.
    #[error("the sandbox does not run programs for other machines ({0}) without a token: name one")]
    RemoteExec(SocketAddr),
    /// The address could not be bound.
    #[error("the sandbox cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A workspace that listens, and serves once [`Sandbox::serve`] is called.
#[derive(Debug)]
pub struct Sandbox {
    listener: TcpListener,
    address: SocketAddr,
    host: String,
    options: SandboxOptions,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    state: Mutex<state::State>,
    stop: CancellationToken,
    processes: TaskTracker,
    slots: Semaphore,
}

impl Shared {
    /// The workspace. A panic in one call leaves the others a state that is as good as a real
    /// workspace's after a crashed request.
    fn lock(&self) -> MutexGuard<'_, state::State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sandbox {
    /// Binds the address. Connections are accepted from here on, and answered once the sandbox
    /// serves.
    pub async fn bind(options: SandboxOptions) -> Result<Self, SandboxError> {
        let wanted = options.listen;
        if !wanted.ip().is_loopback() {
            if !options.allow_remote {
                return Err(SandboxError::NotLoopback(wanted));
            }
            if options.exec && options.token.is_none() {
                return Err(SandboxError::RemoteExec(wanted));
            }
        }
        let bound = async {
            let listener = TcpListener::bind(wanted).await?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = bound.await.map_err(|source| SandboxError::Bind {
            address: wanted,
            source,
        })?;
        let reachable = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let host = format!("http://{}", SocketAddr::new(reachable, address.port()));
        Ok(Self {
            listener,
            address,
            host,
            options,
        })
    }

    /// The address that it listens on, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients use as the workspace's host: `http://127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.host.clone()
    }

    /// Serves until `stop` is cancelled; then finishes the calls under way (a second at most), kills
    /// the processes that it started, and returns.
    pub async fn serve(self, stop: CancellationToken) -> io::Result<()> {
        // Dropping this future stops everything as well.
        let stop = stop.child_token();
        let _guard = stop.clone().drop_guard();
        let token = self
            .options
            .token
            .as_ref()
            .map(|token| token.expose_secret().to_owned());
        let shared = Arc::new(Shared {
            state: Mutex::new(state::State::new(self.host, token, self.options.exec)),
            stop: stop.clone(),
            processes: TaskTracker::new(),
            slots: Semaphore::new(PROCESSES),
        });
        let router = Router::new()
            .fallback(routes::handle)
            .with_state(Arc::clone(&shared));
        let service = router.into_make_service_with_connect_info::<line::Switch>();
        let serving = axum::serve(line::Lines(self.listener), service)
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        let served = tokio::select! {
            served = serving.into_future() => served,
            () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
        };
        shared.processes.close();
        shared.processes.wait().await;
        served
    }
}
