//! The settings as they are written: files and variables, nothing checked but names and types.
//! The comments of `config/agent.toml` tell what each one does.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::queue_tls::QueueTlsFile;
use super::secret::Secret;
use super::shape::{Tagged, decimal, integer};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) namespace: String,
    pub(super) default_connection: Option<String>,
    pub(super) queue: QueueFile,
    pub(super) worker: WorkerFile,
    pub(super) http: HttpFile,
    pub(super) log: LogFile,
    pub(super) connections: BTreeMap<String, Tagged>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            namespace: sparkferry_shared::topology::DEFAULT_NAMESPACE.to_owned(),
            default_connection: None,
            queue: QueueFile::default(),
            worker: WorkerFile::default(),
            http: HttpFile::default(),
            log: LogFile::default(),
            connections: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct QueueFile {
    pub(super) url: Option<Secret>,
    pub(super) url_file: Option<String>,
    pub(super) tls: QueueTlsFile,
    #[serde(deserialize_with = "integer")]
    pub(super) hold_limit_seconds: u64,
    pub(super) declare: bool,
    #[serde(deserialize_with = "integer")]
    pub(super) max_message_bytes: usize,
}

impl Default for QueueFile {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            tls: QueueTlsFile::default(),
            // RabbitMQ's consumer timeout is 1800 s; this leaves a third of it for the check that
            // the broker makes once a minute, and for a slow hand-back.
            hold_limit_seconds: 1200,
            declare: true,
            max_message_bytes: 1024 * 1024,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WorkerFile {
    pub(super) name: Option<String>,
    #[serde(deserialize_with = "integer")]
    pub(super) max_output_bytes: usize,
}

impl Default for WorkerFile {
    fn default() -> Self {
        Self {
            name: None,
            max_output_bytes: 256 * 1024,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HttpFile {
    pub(super) listen: String,
}

impl Default for HttpFile {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8790".to_owned(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogFile {
    pub(super) level: String,
    pub(super) format: String,
}

impl Default for LogFile {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: "auto".to_owned(),
        }
    }
}

/// A connection of the type `databricks`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DatabricksFile {
    pub(super) host: Option<String>,
    pub(super) auth: Option<Tagged>,
    #[serde(default)]
    pub(super) tls: TlsFile,
    pub(super) proxy: Option<Secret>,
    pub(super) proxy_file: Option<String>,
    #[serde(default = "max_active_runs", deserialize_with = "integer")]
    pub(super) max_active_runs: u32,
    #[serde(default = "submit_per_second", deserialize_with = "decimal")]
    pub(super) submit_per_second: f64,
    #[serde(default = "poll_per_second", deserialize_with = "decimal")]
    pub(super) poll_per_second: f64,
    #[serde(default)]
    pub(super) poll_interval_seconds: IntervalFile,
    #[serde(default = "call_timeout_seconds", deserialize_with = "integer")]
    pub(super) call_timeout_seconds: u64,
}

impl DatabricksFile {
    /// Nothing but where it is and how to be let in.
    pub(super) fn only(host: Option<String>, auth: Option<Tagged>) -> Self {
        Self {
            host,
            auth,
            tls: TlsFile::default(),
            proxy: None,
            proxy_file: None,
            max_active_runs: max_active_runs(),
            submit_per_second: submit_per_second(),
            poll_per_second: poll_per_second(),
            poll_interval_seconds: IntervalFile::default(),
            call_timeout_seconds: call_timeout_seconds(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct IntervalFile {
    #[serde(deserialize_with = "decimal")]
    pub(super) min: f64,
    #[serde(deserialize_with = "decimal")]
    pub(super) max: f64,
}

impl Default for IntervalFile {
    fn default() -> Self {
        Self {
            min: 1.0,
            max: 30.0,
        }
    }
}

/// An `auth` of the type `pat`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PatFile {
    pub(super) token: Option<Secret>,
    pub(super) token_file: Option<String>,
}

/// An `auth` of the type `oauth_m2m`.
#[expect(clippy::struct_field_names, reason = "as the settings are called")]
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct M2mFile {
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<Secret>,
    pub(super) client_secret_file: Option<String>,
}

/// An `auth` of the type `azure_service_principal`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PrincipalFile {
    pub(super) tenant_id: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<Secret>,
    pub(super) client_secret_file: Option<String>,
    pub(super) authority_host: Option<String>,
    pub(super) azure_workspace_resource_id: Option<String>,
}

/// An `auth` of the type `azure_managed_identity`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentityFile {
    pub(super) client_id: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) azure_workspace_resource_id: Option<String>,
}

/// An `auth` of the type `federation`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FederationFile {
    pub(super) token_file: Option<String>,
    pub(super) client_id: Option<String>,
}

/// An `auth` of the type `profile`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProfileFile {
    pub(super) profile: String,
    pub(super) config_file: Option<String>,
}

/// The table `tls` of a connection.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsFile {
    pub(super) ca_file: Option<String>,
}

fn max_active_runs() -> u32 {
    1000
}

fn submit_per_second() -> f64 {
    10.0
}

fn poll_per_second() -> f64 {
    30.0
}

fn call_timeout_seconds() -> u64 {
    30
}
