//! RabbitMQ's URL, which may stand in a file that somebody writes anew.

use super::ConfigError;
use super::check::value;
use super::queue_tls::{QueueTls, with_certificates};
use super::secret::{Secret, SecretSource};

/// Where RabbitMQ is, and as whom to go there: an `amqp://` or `amqps://` URL, which holds a
/// password, with the files of certificates as parameters ([`CA_FILE`](super::CA_FILE),
/// [`CERT_FILE`](super::CERT_FILE), [`KEY_FILE`](super::KEY_FILE)).
#[derive(Debug, Clone)]
pub struct BrokerUrl {
    first: Secret,
    /// Where it stands, if that is a file, and what is added to it.
    file: Option<(SecretSource, QueueTls)>,
}

impl BrokerUrl {
    /// `first` is the URL as it was read just now, with what `tls` adds.
    pub(super) fn new(source: &SecretSource, first: Secret, tls: QueueTls) -> Self {
        Self {
            first,
            file: matches!(source, SecretSource::File(_)).then(|| (source.clone(), tls)),
        }
    }

    /// The URL when the settings were read.
    pub fn first(&self) -> &Secret {
        &self.first
    }

    /// The URL as its file has it now; `None` where it stands in no file.
    ///
    /// # Errors
    /// Where the file can't be read, or its URL does not go with `queue.tls`.
    pub async fn now(&self) -> Result<Option<Secret>, ConfigError> {
        let Some((source, tls)) = &self.file else {
            return Ok(None);
        };
        let read = source.read().await;
        let url = read.map_err(|error| value("queue.url_file", error.to_string()))?;
        with_certificates(url, tls).map(Some)
    }
}

/// One that stands in no file.
impl From<String> for BrokerUrl {
    fn from(first: String) -> Self {
        Self {
            first: first.into(),
            file: None,
        }
    }
}
