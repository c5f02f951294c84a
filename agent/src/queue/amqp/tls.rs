//! TLS to a broker: whose certificates are believed, our own certificate, what went wrong.
//!
//! The files are read for each connection that is made, so that a certificate which was renewed is
//! in use with the next one. TLS is 1.2 or 1.3: rustls knows nothing older.

use std::path::{Path, PathBuf};

use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError};
use sparkferry_ports::queue::QueueError;
use url::Url;

use crate::config::{CA_FILE, CERT_FILE, KEY_FILE};

const CA_SETTING: &str = "queue.tls.ca_file";
const CERT_SETTING: &str = "queue.tls.cert_file";
const KEY_SETTING: &str = "queue.tls.key_file";

/// The files of a broker's connections. Absent ones are: the system's authorities alone, and no
/// certificate of our own.
#[derive(Clone, Default)]
pub(super) struct Certificates {
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Certificates {
    /// Those that the URL names.
    pub(super) fn of(url: &Url) -> Self {
        let file = |parameter: &str| {
            let mut pairs = url.query_pairs();
            let (_, file) = pairs.find(|(name, _)| name == parameter)?;
            Some(PathBuf::from(file.into_owned()))
        };
        Self {
            ca: file(CA_FILE),
            cert: file(CERT_FILE),
            key: file(KEY_FILE),
        }
    }

    /// Whether we show a certificate, by which a broker can know us.
    pub(super) fn show_ours(&self) -> bool {
        self.cert.is_some()
    }

    /// Reads the files.
    ///
    /// # Errors
    /// Where one can't be read or holds something else: the error names its setting.
    pub(super) async fn connector(&self) -> Result<RustlsConnector, QueueError> {
        let system = RustlsConnectorConfig::new_with_native_certs();
        let mut config = match (system, &self.ca) {
            (Ok(config), _) => config,
            // Whoever brings an authority may do without the system's.
            (Err(_), Some(_)) => RustlsConnectorConfig::default(),
            (Err(error), None) => {
                return Err(wrong(
                    CA_SETTING,
                    format!("is needed: this machine has no certificates of authorities ({error})"),
                ));
            }
        };
        if let Some(file) = &self.ca {
            config.add_parsable_certificates(certificates(CA_SETTING, file).await?);
        }
        let made = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let chain = certificates(CERT_SETTING, cert).await?;
                let text = read(KEY_SETTING, key).await?;
                let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
                    wrong(
                        KEY_SETTING,
                        format!("{} holds no private key (PEM)", key.display()),
                    )
                })?;
                config.connector_with_single_cert(chain, key)
            }
            (Some(_), None) => return Err(wrong(KEY_SETTING, "is needed beside cert_file")),
            (None, _) => config.connector_with_no_client_auth(),
        };
        made.map_err(|error| match cause(&error) {
            Some(rustls::Error::InconsistentKeys(_)) => wrong(
                KEY_SETTING,
                "is not the key of the certificate in cert_file: were both renewed?",
            ),
            _ => wrong("queue.tls", error.to_string()),
        })
    }
}

async fn read(setting: &str, file: &Path) -> Result<Vec<u8>, QueueError> {
    let read = tokio::fs::read(file).await;
    read.map_err(|error| {
        wrong(
            setting,
            format!("{} can't be read: {error}", file.display()),
        )
    })
}

async fn certificates(
    setting: &str,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, QueueError> {
    let text = read(setting, file).await?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(wrong(
            setting,
            format!("{} holds no certificate (PEM)", file.display()),
        )),
    }
}

fn wrong(setting: &str, why: impl Into<String>) -> QueueError {
    QueueError::Setting {
        setting: setting.into(),
        why: why.into(),
    }
}

fn cause(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What TLS has against the connection, if that is why it failed, and what to do about it.
pub(super) fn trouble(error: &std::io::Error) -> Option<String> {
    Some(match cause(error)? {
        rustls::Error::InvalidCertificate(wrong) => theirs(wrong),
        rustls::Error::AlertReceived(alert) => ours(*alert),
        rustls::Error::InvalidMessage(_) => {
            "it does not answer in TLS: is the port right, and is it amqps:// there?".to_owned()
        }
        rustls::Error::PeerIncompatible(why) => {
            format!(
                "it speaks no TLS that is still safe, 1.2 or later ({why:?}): see its ssl_options.versions"
            )
        }
        other => format!("TLS failed: {other}"),
    })
}

/// What is wrong with the broker's certificate.
fn theirs(wrong: &CertificateError) -> String {
    match wrong {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired: it must be renewed at the broker (or this machine's clock is wrong)".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: is this machine's clock right?".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is for another host ({wrong}): see the host in queue.url")
        }
        CertificateError::UnknownIssuer => format!(
            "its certificate comes from an authority that is not known here: name the authority's certificate by {CA_SETTING}"
        ),
        other => format!("its certificate is not in order: {other}"),
    }
}

/// What the broker has against us.
fn ours(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            format!("it wants a certificate of ours: see {CERT_SETTING}")
        }
        AlertDescription::CertificateExpired => {
            format!("it refuses our certificate, which has expired: renew {CERT_SETTING}")
        }
        AlertDescription::UnknownCA => format!(
            "it refuses our certificate, whose authority it does not know: see {CERT_SETTING}, and ssl_options.cacertfile of the broker"
        ),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown => {
            format!("it refuses our certificate ({alert:?}): see {CERT_SETTING}")
        }
        // The last is what newer Erlangs say of it.
        AlertDescription::ProtocolVersion
        | AlertDescription::HandshakeFailure
        | AlertDescription::InsufficientSecurity => format!(
            "it speaks no TLS that is still safe, 1.2 or later ({alert:?}), or wants a certificate: see its ssl_options, and {CERT_SETTING}"
        ),
        other => format!("it ended TLS with {other:?}"),
    }
}
