//! The stand-in workspace.

mod args;
mod auth;
mod changes;
mod choices;
mod clusters;
mod ending;
mod exec;
mod jobs;
mod line;
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
