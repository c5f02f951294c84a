//! `[queue.tls]`: the certificates of RabbitMQ's connections.
//!
//! RabbitMQ's own clients name these files by parameters of the URL. The settings are another way
//! to write the same: they become those parameters, and the URL stays the one place that says
//! where the broker is and as whom to go there.

use std::path::PathBuf;

use serde::Deserialize;
use url::Url;

use super::ConfigError;
use super::check::{Variables, expand, value};
use super::secret::Secret;

/// The URL's parameter for the certificates of authorities.
pub const CA_FILE: &str = "cacertfile";
/// The URL's parameter for our certificate.
pub const CERT_FILE: &str = "certfile";
/// The URL's parameter for our key.
pub const KEY_FILE: &str = "keyfile";

/// The table `tls` of the queue.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_field_names, reason = "as people write them")]
pub(super) struct QueueTlsFile {
    ca_file: Option<String>,
    cert_file: Option<String>,
    key_file: Option<String>,
}

/// The files of [`QueueTlsFile`], their places known.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_field_names, reason = "as people write them")]
pub(super) struct QueueTls {
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

impl QueueTlsFile {
    pub(super) fn expanded(self, variables: &Variables) -> Result<QueueTls, ConfigError> {
        let place = |key: &str, file: Option<String>| {
            file.map(|file| expand(&format!("queue.tls.{key}"), &file, variables))
                .transpose()
        };
        Ok(QueueTls {
            ca_file: place("ca_file", self.ca_file)?,
            cert_file: place("cert_file", self.cert_file)?,
            key_file: place("key_file", self.key_file)?,
        })
    }
}

/// The queue's URL with the files as parameters.
pub(super) fn with_certificates(url: Secret, tls: &QueueTls) -> Result<Secret, ConfigError> {
    let files = [
        ("queue.tls.ca_file", CA_FILE, &tls.ca_file),
        ("queue.tls.cert_file", CERT_FILE, &tls.cert_file),
        ("queue.tls.key_file", KEY_FILE, &tls.key_file),
    ];
    if files.iter().all(|(_, _, file)| file.is_none()) {
        return Ok(url);
    }
    // The URL itself never stands in an error: it holds a password.
    let mut parsed = Url::parse(url.expose())
        .ok()
        .filter(|url| url.scheme() == "amqps")
        .ok_or_else(|| value("queue.tls", "is for a queue.url that begins with amqps://"))?;
    for (setting, parameter, file) in files {
        let Some(file) = file else { continue };
        if parsed.query_pairs().any(|(name, _)| name == parameter) {
            return Err(value(
                setting,
                format!("the parameter {parameter} of queue.url says it already"),
            ));
        }
        let path = file.to_string_lossy();
        parsed.query_pairs_mut().append_pair(parameter, &path);
    }
    let is_there = |wanted: &str| parsed.query_pairs().any(|(name, _)| name == wanted);
    match (is_there(CERT_FILE), is_there(KEY_FILE)) {
        (true, false) => Err(value("queue.tls.key_file", "is needed beside cert_file")),
        (false, true) => Err(value("queue.tls.cert_file", "is needed beside key_file")),
        _ => Ok(String::from(parsed).into()),
    }
}
