//! The settings of a Spark Connect server, also of one on Databricks.

use serde::Deserialize;
use url::Url;

use super::address::is_loopback;
use super::check::{Variables, expand, secret, value};
use super::compute::{ComputeFile, compute};
use super::file::TlsFile;
use super::secret::{Secret, SecretSource};
use super::shape::Tagged;
use super::{ComputeSettings, ConfigError, SparkConnectSettings};

/// The port of a Spark Connect server where the URL names none.
const DEFAULT_PORT: u16 = 15002;

/// A connection of the type `spark_connect`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SparkConnectFile {
    /// Secret, for it may hold a token and headers.
    pub(super) url: Option<Secret>,
    pub(super) url_file: Option<String>,
    pub(super) token: Option<Secret>,
    pub(super) token_file: Option<String>,
    pub(super) host: Option<String>,
    pub(super) auth: Option<Tagged>,
    pub(super) cluster_id: Option<String>,
    pub(super) serverless: Option<bool>,
    #[serde(default)]
    pub(super) tls: TlsFile,
    #[serde(default = "max_active_runs")]
    pub(super) max_active_runs: u32,
}

fn max_active_runs() -> u32 {
    16
}

pub(super) fn spark_connect(
    path: &str,
    file: SparkConnectFile,
    variables: &Variables,
) -> Result<SparkConnectSettings, ConfigError> {
    let at = |key: &str| format!("{path}.{key}");
    if file.max_active_runs == 0 {
        return Err(value(at("max_active_runs"), "must be at least 1"));
    }
    let max_active_runs = file.max_active_runs;
    let source = secret(&at("url"), file.url, file.url_file, variables)?;
    let url = source.as_ref().map(SecretSource::read_at_start).transpose();
    let url = url.map_err(|e| value(at("url_file"), e.to_string()))?;
    let ca_file = file.tls.ca_file;
    let ca_file = ca_file.map(|file| expand(&at("tls.ca_file"), &file, variables));
    let ca_file = ca_file.transpose()?;
    let own = secret(&at("token"), file.token, file.token_file, variables)?;
    let mut address = match &url {
        Some(url) => Some(Address::read(&at("url"), url)?),
        None => None,
    };
    let file = ComputeFile {
        host: file.host,
        auth: file.auth,
        cluster_id: file.cluster_id,
        serverless: file.serverless,
    };
    let mut compute = compute(
        path,
        file,
        address.as_ref().map(|it| &it.endpoint),
        variables,
    )?;
    if let Some(compute) = &mut compute {
        // Workspace and compute are one host.
        compute.workspace.reach.ca_file.clone_from(&ca_file);
        let address = address.get_or_insert_with(|| Address::of_workspace(compute));
        if own.is_some() || address.token.is_some() {
            return Err(value(
                at("token"),
                "stands beside cluster_id or serverless, where the token belongs to `auth`: \
                 auth = { type = \"pat\", token_file = \"...\" }",
            ));
        }
        // Databricks speaks nothing else, and the token goes along.
        if !is_loopback(&address.endpoint) {
            address.speak_tls();
        }
    }
    let address = address.ok_or_else(|| {
        value(
            at("url"),
            "is needed, such as sc://127.0.0.1:15002 (or host and cluster_id)",
        )
    })?;
    if own.is_some() && address.token.is_some() {
        return Err(value(
            at("token"),
            "stands in the url too: only one of them may be set",
        ));
    }
    let in_url = address.token.map(|token| match source {
        Some(SecretSource::File(file)) => SecretSource::Url {
            file,
            server: address.endpoint.clone(),
        },
        _ => SecretSource::Value(token),
    });
    let token = own.or(in_url);
    if token.is_some() && !address.tls && !is_loopback(&address.endpoint) {
        return Err(value(
            at("url"),
            "would send the token in clear text: add ;use_ssl=true (without it a token goes to 127.0.0.1 only)",
        ));
    }
    if ca_file.is_some() && !address.tls {
        return Err(value(
            at("tls.ca_file"),
            "is for a server that speaks TLS: add ;use_ssl=true to the url",
        ));
    }
    Ok(SparkConnectSettings {
        endpoint: address.endpoint,
        user_id: address.user_id,
        headers: address.headers,
        ca_file,
        token,
        compute: compute.map(Box::new),
        max_active_runs,
    })
}

/// The server that a `sc://` URL names, and the token in it.
pub(super) fn server_and_token(url: &Secret) -> Option<(Url, Option<Secret>)> {
    let address = Address::read("url", url).ok()?;
    Some((address.endpoint, address.token))
}

/// What a `sc://HOST:PORT/;KEY=VALUE;...` says.
struct Address {
    endpoint: Url,
    tls: bool,
    token: Option<Secret>,
    user_id: Option<String>,
    headers: Vec<(String, Secret)>,
}

impl Address {
    /// The URL itself, and the values of its parameters, never stand in an error.
    fn read(setting: &str, url: &Secret) -> Result<Self, ConfigError> {
        let wrong = |why: &str| value(setting, why);
        let rest = url
            .expose()
            .strip_prefix("sc://")
            .ok_or_else(|| wrong("is no address: it begins with sc://, as sc://127.0.0.1:15002"))?;
        let (place, parameters) = match rest.split_once('/') {
            Some((place, "")) => (place, ""),
            Some((place, path)) => match path.strip_prefix(';') {
                Some(parameters) => (place, parameters),
                None => {
                    return Err(wrong(
                        "has a path; only parameters may follow the host: sc://HOST:PORT/;KEY=VALUE",
                    ));
                }
            },
            None => (rest, ""),
        };
        if place.contains('@') {
            return Err(wrong(
                "must hold no user and password: a token is a parameter, /;token=...",
            ));
        }
        if place.contains(';') {
            return Err(wrong(
                "lacks the slash before its parameters: sc://HOST:PORT/;KEY=VALUE",
            ));
        }
        let mut address = Self {
            // Replaced below, when it is known whether TLS is spoken.
            endpoint: endpoint(false, place).ok_or_else(|| wrong("names no host and port"))?,
            tls: false,
            token: None,
            user_id: None,
            headers: Vec::new(),
        };
        for parameter in parameters.split(';').filter(|text| !text.is_empty()) {
            let (key, text) = parameter
                .split_once('=')
                .ok_or_else(|| wrong("has a parameter without a value: KEY=VALUE is meant"))?;
            address.parameter(setting, key, decoded(text))?;
        }
        address.endpoint =
            endpoint(address.tls, place).ok_or_else(|| wrong("names no host and port"))?;
        Ok(address)
    }

    /// Where a workspace's compute answers: on the workspace's own host.
    fn of_workspace(compute: &ComputeSettings) -> Self {
        let mut endpoint = compute.workspace.host.clone();
        endpoint.set_path("/");
        Self {
            tls: endpoint.scheme() == "https",
            endpoint,
            token: None,
            user_id: None,
            headers: Vec::new(),
        }
    }

    fn speak_tls(&mut self) {
        self.tls = true;
        let port = self.endpoint.port_or_known_default();
        // From http to https this never fails, and neither does a port where there is a host.
        let _ = self.endpoint.set_scheme("https");
        let _ = self.endpoint.set_port(port);
    }

    fn parameter(&mut self, setting: &str, key: &str, text: String) -> Result<(), ConfigError> {
        let wrong = |why: String| value(setting, why);
        match key {
            "use_ssl" => match text.as_str() {
                "true" => self.tls = true,
                "false" => self.tls = false,
                _ => return Err(wrong("use_ssl is true or false".to_owned())),
            },
            "token" if text.is_empty() => return Err(wrong("its token is empty".to_owned())),
            "token" => self.token = Some(text.into()),
            "user_id" if text.is_empty() => return Err(wrong("its user_id is empty".to_owned())),
            "user_id" => self.user_id = Some(text),
            "session_id" => {
                return Err(wrong(
                    "must name no session_id: sessions have computed names".to_owned(),
                ));
            }
            "user_agent" => {
                return Err(wrong(
                    "must name no user_agent: the worker tells its own".to_owned(),
                ));
            }
            "authorization" => {
                return Err(wrong(
                    "must hold no authorization header: token=... becomes one".to_owned(),
                ));
            }
            header if is_header(header) => self.headers.push((header.to_owned(), text.into())),
            _ => {
                return Err(wrong(format!(
                    "has a parameter {key:?}, which can be no header: a-z 0-9 - _ . are allowed"
                )));
            }
        }
        Ok(())
    }
}

/// Further parameters become headers. gRPC's own and binary ones are none of ours.
fn is_header(name: &str) -> bool {
    let plain =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    !name.is_empty()
        && name.chars().all(plain)
        && !name.starts_with("grpc-")
        && !name.ends_with("-bin")
        && !matches!(name, "te" | "content-type" | "user-agent" | "host")
}

/// `http` or `https` at the place. The port is read by the scheme `sc`, which has no default that
/// would be left out.
fn endpoint(tls: bool, place: &str) -> Option<Url> {
    let port = Url::parse(&format!("sc://{place}")).ok()?.port();
    let scheme = if tls { "https" } else { "http" };
    let mut url = Url::parse(&format!("{scheme}://{place}")).ok()?;
    url.host_str().filter(|host| !host.is_empty())?;
    url.set_port(Some(port.unwrap_or(DEFAULT_PORT))).ok()?;
    Some(url)
}

/// Percent-encoded text as it is meant.
fn decoded(text: &str) -> String {
    let encoded = format!("k={}", text.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(encoded.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}
