//! The settings of a Databricks workspace.

use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::check::{Variables, secret, unknown_type, value};
use super::file::{DatabricksFile, PatFile};
use super::secret::{Secret, SecretSource};
use super::shape::{Tagged, read};
use super::{Auth, ConfigError, DatabricksSettings};

pub(super) fn databricks(
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
    Ok(DatabricksSettings {
        host: workspace(&at("host"), &host)?,
        auth: auth(&at("auth"), file.auth, ambient.token, variables)?,
        max_active_runs: file.max_active_runs,
        submit_per_second: positive("submit_per_second", file.submit_per_second)?,
        poll_per_second: positive("poll_per_second", file.poll_per_second)?,
        poll_interval: (Duration::from_secs_f64(min), Duration::from_secs_f64(max)),
        call_timeout: Duration::from_secs(file.call_timeout_seconds),
    })
}

/// How to be let in: as the settings say, else by a token of the environment.
fn auth(
    path: &str,
    settings: Option<Tagged>,
    ambient: Option<Secret>,
    variables: &Variables,
) -> Result<Auth, ConfigError> {
    let ours = match settings {
        Some(settings) => {
            let (kind, rest) = settings.split(path)?;
            if kind != "pat" {
                return Err(unknown_type(path, &kind, "pat"));
            }
            let PatFile { token, token_file } = read(path, rest)?;
            secret(&format!("{path}.token"), token, token_file, variables)?
        }
        None => None,
    };
    ours.or(ambient.map(SecretSource::Value))
        .map(Auth::Pat)
        .ok_or_else(|| {
            value(
                path,
                "no token: { type = \"pat\", token_file = \"...\" } is needed (or set DATABRICKS_TOKEN)",
            )
        })
}

/// A workspace's address. A token is never sent in clear text over a network.
fn workspace(setting: &str, host: &str) -> Result<Url, ConfigError> {
    let text = if host.contains("://") {
        host.to_owned()
    } else {
        format!("https://{host}")
    };
    // Before anything quotes it.
    if host.contains('@') {
        return Err(value(
            setting,
            "must hold no user and password: a token belongs to `auth`",
        ));
    }
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
