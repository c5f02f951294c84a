//! From settings as they are written to settings as they are used.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use sparkferry_shared::Topology;
use url::Url;

use super::broker_url::BrokerUrl;
use super::databricks::databricks;
use super::file::{File, QueueFile};
use super::policy::policy;
use super::queue_tls::with_certificates;
use super::secret::{Secret, SecretSource};
use super::shape::read;
use super::spark_connect::spark_connect;
use super::{
    ConfigError, Connection, LogFormat, LogSettings, QueuePlace, QueueSettings, Settings,
    WorkerSettings, Written,
};

pub(super) type Variables = HashMap<String, String>;

const DEFAULT_QUEUE_URL: &str = "sqlite:sparkferry.db";

pub(super) fn check(
    file: File,
    mut written: Written,
    variables: &Variables,
) -> Result<Settings, ConfigError> {
    name("namespace", &file.namespace)?;
    let mut connections = std::collections::BTreeMap::new();
    let mut policies = std::collections::BTreeMap::new();
    for (connection, mut settings) in file.connections {
        let path = format!("connections.{connection}");
        name(&path, &connection)?;
        let rules = settings.take("policy");
        let (kind, rest) = settings.split(&path)?;
        if let Some(rules) = rules {
            let path = format!("{path}.policy");
            let checked = policy(&path, &kind, read(&path, rules)?)?;
            policies.insert(connection.clone(), checked);
        }
        let checked = match kind.as_str() {
            "databricks" => {
                Connection::Databricks(Box::new(databricks(&path, read(&path, rest)?, variables)?))
            }
            "spark_connect" => Connection::SparkConnect(Box::new(spark_connect(
                &path,
                read(&path, rest)?,
                variables,
            )?)),
            other => return Err(unknown_type(&path, other, "databricks, spark_connect")),
        };
        written.came_to(&connection, &checked);
        connections.insert(connection, checked);
    }
    if let Some(default) = &file.default_connection
        && !connections.contains_key(default)
    {
        return Err(value(
            "default_connection",
            format!(
                "there is no connection {default:?}; there are: {}",
                connections.keys().cloned().collect::<Vec<_>>().join(", ")
            ),
        ));
    }
    let http_listen = match file.http.listen.as_str() {
        "" => None,
        listen => Some(listen.parse().map_err(|_| {
            value(
                "http.listen",
                format!("{listen:?} is no ADDRESS:PORT, such as 127.0.0.1:8790"),
            )
        })?),
    };
    if file.worker.max_output_bytes < 1024 {
        return Err(value("worker.max_output_bytes", "must be at least 1024"));
    }
    Ok(Settings {
        topology: Topology::new(file.namespace),
        default_connection: file.default_connection,
        queue: queue(file.queue, &mut written, variables)?,
        worker: WorkerSettings {
            name: file.worker.name.unwrap_or_else(|| worker_name(variables)),
            max_output_bytes: file.worker.max_output_bytes,
        },
        http_listen,
        log: LogSettings {
            level: file.log.level,
            format: log_format(&file.log.format)?,
        },
        connections,
        written,
        policies,
    })
}

pub(super) fn value(setting: impl Into<String>, why: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        setting: setting.into(),
        why: why.into(),
    }
}

/// Namespaces and connections are parts of queue names and routing keys: a dot would part them,
/// and RabbitMQ takes at most 255 bytes altogether.
fn name(setting: &str, name: &str) -> Result<(), ConfigError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(value(
            setting,
            format!("{name:?} is no name: 1 to 64 of A-Z a-z 0-9 - _ are allowed"),
        ));
    }
    Ok(())
}

fn log_format(format: &str) -> Result<LogFormat, ConfigError> {
    match format {
        "auto" => Ok(LogFormat::Auto),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(value(
            "log.format",
            format!("there is no format {other:?}; there are: auto, text, json"),
        )),
    }
}

fn worker_name(variables: &Variables) -> String {
    let host = variables
        .get("HOSTNAME")
        .cloned()
        .or_else(|| {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
            Some(name.trim().to_owned())
        })
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "worker".to_owned());
    format!("{host}-{}", std::process::id())
}

pub(super) fn secret(
    setting: &str,
    direct: Option<Secret>,
    file: Option<String>,
    variables: &Variables,
) -> Result<Option<SecretSource>, ConfigError> {
    match (direct, file) {
        (Some(_), Some(_)) => Err(value(
            setting,
            format!("only one of {setting} and {setting}_file may be set"),
        )),
        (Some(secret), None) if secret.expose().is_empty() => {
            Err(value(setting, "must not be empty"))
        }
        (Some(secret), None) => Ok(Some(SecretSource::Value(secret))),
        (None, Some(path)) => {
            let path = expand(&format!("{setting}_file"), &path, variables)?;
            Ok(Some(SecretSource::File(path)))
        }
        (None, None) => Ok(None),
    }
}

/// Puts the value of `${CREDENTIALS_DIRECTORY}` (systemd's) in its place.
pub(super) fn expand(
    setting: &str,
    path: &str,
    variables: &Variables,
) -> Result<PathBuf, ConfigError> {
    const CREDENTIALS: &str = "${CREDENTIALS_DIRECTORY}";
    if !path.contains(CREDENTIALS) {
        return Ok(path.into());
    }
    match variables.get("CREDENTIALS_DIRECTORY") {
        Some(directory) => Ok(path.replace(CREDENTIALS, directory).into()),
        None => Err(value(
            setting,
            "speaks of ${CREDENTIALS_DIRECTORY}, which is not set: start it by systemd with LoadCredential=",
        )),
    }
}

fn queue(
    file: QueueFile,
    written: &mut Written,
    variables: &Variables,
) -> Result<QueueSettings, ConfigError> {
    let source = secret("queue.url", file.url, file.url_file, variables)?
        .unwrap_or_else(|| SecretSource::Value(DEFAULT_QUEUE_URL.to_owned().into()));
    let url = source
        .read_at_start()
        .map_err(|e| value("queue.url_file", e.to_string()))?;
    let tls = file.tls.expanded(variables)?;
    let url = with_certificates(url, &tls)?;
    if let SecretSource::File(_) = source {
        written.leads_to(&url);
    }
    if file.hold_limit_seconds == 0 {
        return Err(value("queue.hold_limit_seconds", "must be at least 1"));
    }
    if file.max_message_bytes == 0 {
        return Err(value("queue.max_message_bytes", "must be at least 1"));
    }
    Ok(QueueSettings {
        place: queue_place(BrokerUrl::new(&source, url, tls))?,
        hold_limit: Duration::from_secs(file.hold_limit_seconds),
        declare: file.declare,
        max_message_bytes: file.max_message_bytes,
    })
}

/// The URL itself never stands in an error: it holds a password.
fn queue_place(url: BrokerUrl) -> Result<QueuePlace, ConfigError> {
    let text = url.first().expose();
    if let Some(path) = text.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.contains(":memory:") {
            return Err(value(
                "queue.url",
                "sqlite: needs a file, such as sqlite:sparkferry.db: several processes share it",
            ));
        }
        return Ok(QueuePlace::Sqlite(path.into()));
    }
    let schemes = "begins with amqp://, amqps:// or sqlite:";
    let parsed = Url::parse(text).map_err(|e| {
        value(
            "queue.url",
            format!("is no URL ({e}); a queue's URL {schemes}"),
        )
    })?;
    if parsed.fragment().is_some() || parsed.path().contains('@') {
        return Err(value(
            "queue.url",
            "has a # or an @ where none belongs: in a password write / as %2f, # as %23 and @ as %40",
        ));
    }
    match parsed.scheme() {
        "amqp" | "amqps" if parsed.host_str().is_some_and(|host| !host.is_empty()) => {
            Ok(QueuePlace::Amqp(url))
        }
        "amqp" | "amqps" => Err(value("queue.url", "names no host")),
        other => Err(value(
            "queue.url",
            format!("has the scheme {other:?}; a queue's URL {schemes}"),
        )),
    }
}

pub(super) fn unknown_type(path: &str, found: &str, known: &str) -> ConfigError {
    value(
        format!("{path}.type"),
        format!("there is no type {found:?}; there is: {known}"),
    )
}
