//! How a workspace is reached: whose certificates are believed, and through which proxy.

use std::path::PathBuf;

use url::Url;

use super::ConfigError;
use super::check::{Variables, expand, secret, value};
use super::file::TlsFile;
use super::secret::{Secret, SecretSource};

/// How a host is reached over HTTPS. The default believes the system's authorities and goes by the
/// variables `HTTPS_PROXY` and `NO_PROXY`.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// A file with the certificates (PEM) of authorities that are believed besides the system's,
    /// read again when it changes.
    pub ca_file: Option<PathBuf>,
    /// The proxy, in place of the variables: an `http://` or `https://` URL, which may hold a user
    /// and a password.
    pub proxy: Option<SecretSource>,
}

pub(super) fn reach(
    path: &str,
    tls: TlsFile,
    proxy: Option<Secret>,
    proxy_file: Option<String>,
    variables: &Variables,
) -> Result<Reach, ConfigError> {
    let at = format!("{path}.proxy");
    let proxy = secret(&at, proxy, proxy_file, variables)?;
    if let Some(SecretSource::Value(url)) = &proxy {
        check_proxy(url).map_err(|why| value(at, why))?;
    }
    let ca_file = tls
        .ca_file
        .map(|file| expand(&format!("{path}.tls.ca_file"), &file, variables))
        .transpose()?;
    Ok(Reach { ca_file, proxy })
}

/// What is wrong with a proxy's URL, which is not quoted: it may hold a password.
pub fn check_proxy(url: &Secret) -> Result<Url, String> {
    let url = Url::parse(url.expose())
        .map_err(|error| format!("is no URL ({error}), such as http://proxy.example:3128"))?;
    // A URL with one of these has a host.
    if matches!(url.scheme(), "http" | "https") {
        Ok(url)
    } else {
        Err("has another scheme than http:// and https://".to_owned())
    }
}
