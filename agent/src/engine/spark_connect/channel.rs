//! The channel to the server: how it is reached, and whose certificates are believed.
//!
//! Guarantees: TLS 1.2 at least, where it is spoken; the file of authorities is looked at again every
//! 30 s, and a changed one makes a new channel, while what is under way ends on the old one. A file
//! that can't be read, or holds nothing sensible, leaves the old channel at work and is told by
//! [`Channels::trouble`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use url::Url;

use crate::http::authorities::{authorities, no_authorities};
use crate::http::fault::cause;
use crate::http::renewed::{Lasting, Renewed};

/// The file of authorities is looked at again after so long.
const KEPT: Duration = Duration::from_secs(30);
/// How long it may take to reach the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The server is asked after this long a silence whether it lives: shorter makes servers cut the
/// connection.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long its answer may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// What the server may send ahead of the reader: for one stream, and for all together. Larger than
/// HTTP/2's 64 KiB, so that a distant server is not slowed down.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// The channel of the moment.
#[derive(Debug)]
pub(super) struct Channels {
    url: Url,
    ca_file: Option<PathBuf>,
    made: Renewed<Made>,
}

/// A channel, and the authorities that it believes besides the system's.
#[derive(Debug, Clone)]
struct Made {
    channel: Channel,
    authorities: Option<Vec<u8>>,
}

impl Channels {
    /// Reads the file; connects with the first call. To be called within a tokio runtime.
    ///
    /// # Errors
    /// For a person: the file or the address is wrong.
    pub(super) fn new(url: &Url, ca_file: Option<&Path>) -> Result<Self, String> {
        let read = ca_file.map(|file| authorities(file, std::fs::read(file)));
        let made = make(url, read.transpose()?)?;
        Ok(Self {
            url: url.clone(),
            ca_file: ca_file.map(Path::to_owned),
            made: Renewed::new(Duration::ZERO).holding(made),
        })
    }

    /// The channel as the file is now, or as it was when it was last in order.
    pub(super) async fn now(&self) -> Channel {
        let kept = self.made.kept().expect("it holds one since it was made");
        let now = match &self.ca_file {
            Some(file) => self.made.get(|| self.renew(file, kept.clone())).await.ok(),
            None => None,
        };
        now.unwrap_or(kept).channel
    }

    /// What is wrong with the file, if something is.
    pub(super) fn trouble(&self) -> Option<String> {
        self.made.trouble()
    }

    async fn renew(&self, file: &Path, kept: Made) -> Result<Lasting<Made>, String> {
        let found = Some(authorities(file, tokio::fs::read(file).await)?);
        if kept.authorities == found {
            return Ok(lasting(kept));
        }
        let url = self.url.clone();
        // It reads the system's authorities too.
        let making = tokio::task::spawn_blocking(move || make(&url, found));
        making.await.map_err(|panic| panic.to_string())?
    }
}

fn lasting(made: Made) -> Lasting<Made> {
    Lasting {
        value: made,
        fresh_for: KEPT,
        serves_for: None,
    }
}

fn make(url: &Url, authorities: Option<Vec<u8>>) -> Result<Lasting<Made>, String> {
    let why = |error: tonic::transport::Error| cause(&error);
    let mut endpoint = Endpoint::from_shared(url.to_string())
        .and_then(|it| it.user_agent(concat!("sparkferry/", env!("CARGO_PKG_VERSION"))))
        .map_err(why)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .tcp_nodelay(true);
    if url.scheme() == "https" {
        let system = ClientTlsConfig::new().with_enabled_roots();
        let made = match &authorities {
            Some(own) => {
                let own = Certificate::from_pem(own);
                let both = system.ca_certificate(own.clone());
                let alone = ClientTlsConfig::new().ca_certificate(own);
                // Whoever brings an authority may do without the system's.
                let with_both = endpoint.clone().tls_config(both);
                with_both.or_else(|_| endpoint.tls_config(alone))
            }
            None => endpoint.tls_config(system),
        };
        endpoint = made.map_err(|error| match &authorities {
            Some(_) => cause(&error),
            None => no_authorities(&cause(&error)),
        })?;
    }
    Ok(lasting(Made {
        channel: endpoint.connect_lazy(),
        authorities,
    }))
}
