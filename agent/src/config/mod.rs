//! The settings: read from a file and the environment, checked once, then only read.
//!
//! [`load`] reads; [`Settings`] is what the rest of the program sees: every value in the type that
//! it is used in, every combination checked, every secret in a type that prints nothing.

mod address;
mod ambient;
mod auth;
mod broker_url;
mod check;
mod compute;
mod databricks;
mod file;
mod load;
mod policy;
mod profile;
mod queue_tls;
mod reach;
pub mod secret;
mod shape;
mod spark_connect;
#[cfg(test)]
mod tests;
mod written;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sparkferry_shared::Topology;
use url::Url;

pub use address::is_loopback;
pub use auth::{Auth, AzureWorkspace};
pub use broker_url::BrokerUrl;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use load::parse;
pub use load::{DEFAULT_FILES, VARIABLE_PREFIX, default_file, load};
pub use policy::{Jobs, PolicySettings, Redelivered};
pub use queue_tls::{CA_FILE, CERT_FILE, KEY_FILE};
pub use reach::{Reach, check_proxy};
pub use secret::{Secret, SecretError, SecretSource};
pub use written::Written;

/// All settings, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The names on the broker, and the first part of every computed name.
    pub topology: Topology,
    /// Where `sparkferry submit` sends a request that names no connection.
    pub default_connection: Option<String>,
    /// The queue.
    pub queue: QueueSettings,
    /// This worker.
    pub worker: WorkerSettings,
    /// Where health, metrics and the status page are served; `None` is nowhere.
    pub http_listen: Option<SocketAddr>,
    /// Logging.
    pub log: LogSettings,
    /// The engines, by name.
    pub connections: BTreeMap<String, Connection>,
    /// What requests may ask for, by the connection's name; of one that is absent, anything.
    pub policies: BTreeMap<String, PolicySettings>,
    /// What was written, to tell what another reading changed.
    pub written: Written,
}

/// Settings of the queue.
#[derive(Debug, Clone)]
pub struct QueueSettings {
    /// Which queue, and where.
    pub place: QueuePlace,
    /// A delivery is handed back before it is held for so long.
    pub hold_limit: Duration,
    /// The worker declares exchanges and queues; else it only checks that they are there.
    pub declare: bool,
    /// The largest request, in bytes.
    pub max_message_bytes: usize,
}

/// Which queue, and where.
#[derive(Debug, Clone)]
pub enum QueuePlace {
    /// RabbitMQ.
    Amqp(BrokerUrl),
    /// A SQLite database: its file.
    Sqlite(PathBuf),
}

/// Settings of this worker.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// What it calls itself in results and events.
    pub name: String,
    /// The largest output inside a result, in bytes.
    pub max_output_bytes: usize,
}

/// Settings of the log.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// A level, or directives such as `info,sparkferry_agent::queue=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One line of text.
    Text,
    /// One JSON object a line.
    Json,
}

/// A connection: one engine and one queue.
#[derive(Debug, Clone)]
pub enum Connection {
    /// A Databricks workspace.
    Databricks(Box<DatabricksSettings>),
    /// A Spark Connect server.
    SparkConnect(Box<SparkConnectSettings>),
}

impl Connection {
    /// Runs that may be under way in this worker: the prefetch of the connection's queue.
    pub fn max_active_runs(&self) -> u32 {
        match self {
            Self::Databricks(settings) => settings.max_active_runs,
            Self::SparkConnect(settings) => settings.max_active_runs,
        }
    }
}

/// Settings of a Databricks workspace.
#[derive(Debug, Clone)]
pub struct DatabricksSettings {
    /// The workspace, such as `https://adb-1.azuredatabricks.net/`.
    pub host: Url,
    /// How to be let in.
    pub auth: Auth,
    /// How it is reached.
    pub reach: Reach,
    /// Runs that may be under way in this worker: the prefetch of the connection's queue.
    pub max_active_runs: u32,
    /// Calls a second that start runs.
    pub submit_per_second: f64,
    /// Calls a second that ask for the state of runs.
    pub poll_per_second: f64,
    /// The shortest and the longest interval between two looks at the same run.
    pub poll_interval: (Duration, Duration),
    /// How long one call may take before it counts as failed.
    pub call_timeout: Duration,
}

/// Settings of a Spark Connect server.
#[derive(Debug, Clone)]
pub struct SparkConnectSettings {
    /// The server: `http://` or, where TLS is spoken, `https://`, always with a port.
    pub endpoint: Url,
    /// The user that every worker presents; absent, it follows from the namespace.
    pub user_id: Option<String>,
    /// Headers that go with every call, by their lower-case names.
    pub headers: Vec<(String, Secret)>,
    /// A file with the certificates (PEM) of authorities that are believed besides the system's,
    /// read again when it changes. Only where TLS is spoken.
    pub ca_file: Option<PathBuf>,
    /// The bearer token. Only where TLS is spoken, or on loopback.
    pub token: Option<SecretSource>,
    /// Where the server is compute of a Databricks workspace. The token is then the workspace's.
    pub compute: Option<Box<ComputeSettings>>,
    /// Runs that may be under way in this worker: the prefetch of the connection's queue.
    pub max_active_runs: u32,
}

/// Compute of a Databricks workspace that speaks Spark Connect.
#[derive(Debug, Clone)]
pub struct ComputeSettings {
    /// The workspace: where clusters are looked up and started, and what lets us in.
    pub workspace: DatabricksSettings,
    /// Which compute.
    pub compute: Compute,
}

/// Which compute of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compute {
    /// The cluster of this id. If it is down, it is started.
    Cluster(String),
    /// Serverless compute, which is always there.
    Serverless,
}

/// A setting is wrong. Its text tells which one, what is wrong, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("the configuration file {path} can't be read: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A setting has no such name or no such type.
    #[error("{0}")]
    Shape(String),
    /// A setting's value is wrong.
    #[error("setting `{setting}`: {why}")]
    Value {
        /// The setting's path, such as `connections.prod.host`.
        setting: String,
        /// What is wrong and what to do.
        why: String,
    },
}
