//! The HTTP client of a connection: which authorities it believes, through which proxy it goes.
//!
//! Guarantees: TLS 1.2 at least; no redirection is followed; the files it is made of are looked at
//! again every 30 s, and a changed one makes a new client. One that can't be read, or holds nothing
//! sensible, leaves the old client at work and is told by [`HttpClient::trouble`].

use std::path::PathBuf;
use std::time::Duration;

use reqwest::tls::Version;
use reqwest::{Certificate, Client, Proxy};
use url::Url;

use super::authorities::{authorities, no_authorities};
use super::fault::cause;
use super::renewed::{Lasting, Renewed};
use crate::config::{Reach, Secret, SecretSource, check_proxy, is_loopback};

/// Files are looked at again after so long.
const KEPT: Duration = Duration::from_secs(30);

/// How long it may take to reach a host, if a whole call may take longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// See the module's page.
#[derive(Debug)]
pub struct HttpClient {
    recipe: Recipe,
    made: Renewed<Made>,
}

/// What a client is made of, besides its files.
#[derive(Debug, Clone)]
struct Recipe {
    reach: Reach,
    timeout: Duration,
    /// The workspace is this machine, so no proxy leads there unless it is named.
    loopback: bool,
}

/// The contents of the files.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    authorities: Option<Vec<u8>>,
    proxy: Option<String>,
}

/// A client, and what it was made of.
#[derive(Clone)]
struct Made {
    client: Client,
    files: Files,
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Made").finish_non_exhaustive()
    }
}

impl HttpClient {
    /// A client for a host; reads the files. A whole call may take `timeout`. To be called after a
    /// TLS provider is installed.
    ///
    /// # Errors
    /// For a person: which file or setting is wrong.
    pub fn new(reach: &Reach, host: &Url, timeout: Duration) -> Result<Self, String> {
        // The builder panics without one.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err("no TLS provider is installed".to_owned());
        }
        let recipe = Recipe {
            reach: reach.clone(),
            timeout,
            loopback: is_loopback(host),
        };
        let authorities = reach.ca_file.as_deref().map(std::fs::read);
        let proxy = reach.proxy.as_ref().map(SecretSource::read_at_start);
        let files = recipe.files(authorities, proxy)?;
        let client = recipe.client(&files)?;
        let made = Renewed::new(Duration::ZERO).holding(lasting(Made { client, files }));
        Ok(Self { recipe, made })
    }

    /// The client as its files are now, or as they were when they were last in order.
    pub async fn client(&self) -> Client {
        let kept = self.made.kept();
        let now = if self.recipe.has_files() {
            let renew = || self.renew(kept.clone());
            self.made.get(renew).await.ok().or(kept)
        } else {
            kept
        };
        // It holds one since it was made.
        now.map(|made| made.client).unwrap_or_default()
    }

    /// What is wrong with its files, if something is.
    pub fn trouble(&self) -> Option<String> {
        self.made.trouble()
    }

    async fn renew(&self, kept: Option<Made>) -> Result<Lasting<Made>, String> {
        let Reach { ca_file, proxy } = &self.recipe.reach;
        let authorities = match ca_file {
            Some(file) => Some(tokio::fs::read(file).await),
            None => None,
        };
        let proxy = match proxy {
            Some(source) => Some(source.read().await),
            None => None,
        };
        let files = self.recipe.files(authorities, proxy)?;
        if let Some(made) = kept.filter(|made| made.files == files) {
            return Ok(lasting(made));
        }
        let recipe = self.recipe.clone();
        // It reads the system's authorities too.
        let making = tokio::task::spawn_blocking(move || {
            let client = recipe.client(&files)?;
            Ok(lasting(Made { client, files }))
        });
        match making.await {
            Ok(made) => made,
            Err(panic) => Err(panic.to_string()),
        }
    }
}

fn lasting(made: Made) -> Lasting<Made> {
    Lasting {
        value: made,
        fresh_for: KEPT,
        serves_for: None,
    }
}

impl Recipe {
    fn has_files(&self) -> bool {
        let Reach { ca_file, proxy } = &self.reach;
        ca_file.is_some()
            || matches!(proxy, Some(source) if !matches!(source, SecretSource::Value(_)))
    }

    fn files(
        &self,
        read: Option<std::io::Result<Vec<u8>>>,
        proxy: Option<Result<Secret, crate::config::SecretError>>,
    ) -> Result<Files, String> {
        let proxy = proxy
            .transpose()
            .map_err(|error| format!("proxy_file: {error}"))?;
        Ok(Files {
            authorities: read
                .map(|read| authorities(&self.file(), read))
                .transpose()?,
            proxy: proxy.map(|url| url.expose().to_owned()),
        })
    }

    fn file(&self) -> PathBuf {
        self.reach.ca_file.clone().unwrap_or_default()
    }

    fn client(&self, files: &Files) -> Result<Client, String> {
        let mut builder = Client::builder()
            .user_agent(concat!("sparkferry/", env!("CARGO_PKG_VERSION")))
            .timeout(self.timeout)
            .connect_timeout(self.timeout.min(CONNECT_TIMEOUT))
            .tls_version_min(Version::TLS_1_2)
            // A redirection leads to a login page, or takes the token elsewhere.
            .redirect(reqwest::redirect::Policy::none());
        if self.loopback {
            builder = builder.no_proxy();
        }
        if let Some(proxy) = &files.proxy {
            builder = builder.proxy(through(proxy)?);
        }
        if let Some(authorities) = &files.authorities {
            let found = Certificate::from_pem_bundle(authorities);
            builder = builder.tls_certs_merge(found.map_err(|error| self.unusable(&error))?);
        }
        builder.build().map_err(|error| match files.authorities {
            Some(_) => self.unusable(&error),
            None => no_authorities(&cause(&error)),
        })
    }

    fn unusable(&self, error: &reqwest::Error) -> String {
        format!("tls.ca_file: {}: {}", self.file().display(), cause(error))
    }
}

fn through(proxy: &str) -> Result<Proxy, String> {
    let url = check_proxy(&proxy.to_owned().into()).map_err(|why| format!("proxy: {why}"))?;
    // The error could quote the URL, and with it a password.
    Proxy::all(url).map_err(|_| "proxy: is no URL of a proxy".to_owned())
}
