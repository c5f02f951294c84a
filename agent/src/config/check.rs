//! From settings as they are written to settings as they are used.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use sparkferry_shared::Topology;
use url::Url;

use super::file::{AuthFile, ConnectionFile, DatabricksFile, File, QueueFile};
use super::secret::{Secret, SecretSource};
use super::{
    Auth, ConfigError, Connection, DatabricksSettings, LogSettings, QueuePlace, QueueSettings,
    Settings, WorkerSettings,
};

type Variables = HashMap<String, String>;

const DEFAULT_QUEUE_URL: &str = "sqlite:sparkferry.db";

pub(super) fn check(file: File, variables: &Variables) -> Result<Settings, ConfigError> {
    name("namespace", &file.namespace)?;
    let mut connections = std::collections::BTreeMap::new();
    for (connection, settings) in file.connections {
        let path = format!("connections.{connection}");
        name(&path, &connection)?;
        let checked = match settings {
            ConnectionFile::Databricks(settings) => {
                Connection::Databricks(databricks(&path, *settings, variables)?)
            }
        };
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
        queue: queue(file.queue, variables)?,
        worker: WorkerSettings {
            name: file.worker.name.unwrap_or_else(|| worker_name(variables)),
            max_output_bytes: file.worker.max_output_bytes,
        },
        http_listen,
        log: LogSettings {
            level: file.log.level,
            format: file.log.format,
        },
        connections,
    })
}

fn value(setting: impl Into<String>, why: impl Into<String>) -> ConfigError {
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

fn secret(
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
fn expand(setting: &str, path: &str, variables: &Variables) -> Result<PathBuf, ConfigError> {
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

fn queue(file: QueueFile, variables: &Variables) -> Result<QueueSettings, ConfigError> {
    let url = match secret("queue.url", file.url, file.url_file, variables)? {
        Some(source) => source
            .read_at_start()
            .map_err(|e| value("queue.url_file", e.to_string()))?,
        None => DEFAULT_QUEUE_URL.to_owned().into(),
    };
    if file.hold_limit_seconds == 0 {
        return Err(value("queue.hold_limit_seconds", "must be at least 1"));
    }
    if file.max_message_bytes == 0 {
        return Err(value("queue.max_message_bytes", "must be at least 1"));
    }
    Ok(QueueSettings {
        place: queue_place(&url)?,
        hold_limit: Duration::from_secs(file.hold_limit_seconds),
        declare: file.declare,
        max_message_bytes: file.max_message_bytes,
    })
}

/// The URL itself never stands in an error: it holds a password.
fn queue_place(url: &Secret) -> Result<QueuePlace, ConfigError> {
    let text = url.expose();
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
    match parsed.scheme() {
        "amqp" | "amqps" if parsed.host_str().is_some_and(|host| !host.is_empty()) => {
            Ok(QueuePlace::Amqp(url.clone()))
        }
        "amqp" | "amqps" => Err(value("queue.url", "names no host")),
        other => Err(value(
            "queue.url",
            format!("has the scheme {other:?}; a queue's URL {schemes}"),
        )),
    }
}

fn databricks(
    path: &str,
    file: DatabricksFile,
    variables: &Variables,
) -> Result<DatabricksSettings, ConfigError> {
    let at = |key: &str| format!("{path}.{key}");
    let positive = |key: &str, number: f64| {
        if number > 0.0 && number.is_finite() {
            Ok(number)
        } else {
            Err(value(at(key), format!("{number} is not more than 0")))
        }
    };
    let min = positive("poll_interval_seconds.min", file.poll_interval_seconds.min)?;
    let max = positive("poll_interval_seconds.max", file.poll_interval_seconds.max)?;
    if min > max {
        return Err(value(
            at("poll_interval_seconds"),
            format!("min, {min}, is more than max, {max}"),
        ));
    }
    if file.max_active_runs == 0 {
        return Err(value(at("max_active_runs"), "must be at least 1"));
    }
    if file.call_timeout_seconds == 0 {
        return Err(value(at("call_timeout_seconds"), "must be at least 1"));
    }
    let ambient = Ambient::read(variables)?;
    let host = file.host.or(ambient.host).ok_or_else(|| {
        value(
            at("host"),
            "is needed, such as https://adb-1.azuredatabricks.net (or set DATABRICKS_HOST)",
        )
    })?;
    let auth = match file.auth {
        Some(AuthFile::Pat { token, token_file }) => {
            secret(&at("auth.token"), token, token_file, variables)?
                .or(ambient.token.map(SecretSource::Value))
                .map(Auth::Pat)
        }
        None => ambient
            .token
            .map(|token| Auth::Pat(SecretSource::Value(token))),
    };
    let auth = auth.ok_or_else(|| {
        value(
            at("auth"),
            "is needed, such as { type = \"pat\", token_file = \"...\" } (or set DATABRICKS_TOKEN)",
        )
    })?;
    Ok(DatabricksSettings {
        host: workspace(&at("host"), &host)?,
        auth,
        max_active_runs: file.max_active_runs,
        submit_per_second: positive("submit_per_second", file.submit_per_second)?,
        poll_per_second: positive("poll_per_second", file.poll_per_second)?,
        poll_interval: (Duration::from_secs_f64(min), Duration::from_secs_f64(max)),
        call_timeout: Duration::from_secs(file.call_timeout_seconds),
    })
}

/// A workspace's address. A token is never sent in clear text over a network.
fn workspace(setting: &str, host: &str) -> Result<Url, ConfigError> {
    let text = if host.contains("://") {
        host.to_owned()
    } else {
        format!("https://{host}")
    };
    let url = Url::parse(&text).map_err(|e| value(setting, format!("{host:?} is no URL: {e}")))?;
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => return Err(value(setting, format!("{host:?} names no host"))),
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        "http" => Err(value(
            setting,
            "http:// would send the token in clear text: use https:// (http:// is for 127.0.0.1 only)",
        )),
        other => Err(value(
            setting,
            format!("has the scheme {other:?}, not https"),
        )),
    }
}

/// What Databricks' own tools find in the environment, and the secret of Prefect's old flows.
struct Ambient {
    host: Option<String>,
    token: Option<Secret>,
}

impl Ambient {
    fn read(variables: &Variables) -> Result<Self, ConfigError> {
        const CONNECTION_STRING: &str = "DATABRICKS_CONNECTION_STRING";

        #[derive(Deserialize)]
        struct ConnectionString {
            host: Option<String>,
            token: Option<Secret>,
        }

        let get = |name: &str| variables.get(name).filter(|value| !value.is_empty());
        let old = match get(CONNECTION_STRING) {
            // The parser's own error would quote the text, and with it the token.
            Some(text) => serde_json::from_str::<ConnectionString>(text).map_err(|_| {
                value(
                    CONNECTION_STRING,
                    r#"is not JSON of the form {"host": "...", "token": "..."}"#,
                )
            })?,
            None => ConnectionString {
                host: None,
                token: None,
            },
        };
        Ok(Self {
            host: get("DATABRICKS_HOST").cloned().or(old.host),
            token: get("DATABRICKS_TOKEN")
                .map(|token| token.clone().into())
                .or(old.token),
        })
    }
}
