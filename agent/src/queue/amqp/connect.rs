//! Reaching a broker: the URL, one attempt to connect, the broker's version, the pace of attempts.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::runtime::default_runtime;
use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream, RustlsConnector};
use lapin::types::ShortString;
use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use lapin::{Connection, ConnectionProperties, Error, ErrorKind};
use tokio::time::{Instant, timeout};
use url::{Host, Url};

use super::tls::{self, Certificates};
use crate::config::Secret;
use crate::queue::QueueError;

/// Seconds between heartbeats where the URL names none. A dead peer is noticed after two of them;
/// with RabbitMQ's own 60 that would be two minutes.
const HEARTBEAT_SECONDS: u16 = 10;
/// The largest frame where the URL names none, in bytes; a larger message takes several. lapin
/// keeps 32 frames' worth for each direction of a connection: with RabbitMQ's own 128 KiB that
/// would be 16 MiB for a worker's two connections.
const FRAME_BYTES: u32 = 32 << 10;
/// One attempt to connect: a frozen broker accepts the socket and then says nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The first and the longest wait between attempts, each before up to as much again of jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// What held for so long was a success: the waits begin anew.
const STEADY: Duration = Duration::from_secs(1);

/// Where a broker is, and as whom to go there.
#[derive(Clone)]
pub(super) struct Broker {
    uri: AMQPUri,
    certificates: Certificates,
    place: String,
}

impl Broker {
    /// Reads the URL.
    pub(super) fn new(url: &Secret) -> Result<Self, QueueError> {
        let wrong = |why: String| QueueError::Setting {
            setting: "queue.url".into(),
            why: format!(
                "{why}; it looks like amqp://USER:PASSWORD@HOST:5672/VHOST, with / in VHOST as %2f"
            ),
        };
        let mut uri: AMQPUri = url.expose().parse().map_err(|why: String| {
            // The parser's text may quote the URL, and so the password.
            let quotes = why.contains(url.expose());
            let why = if quotes { "it is no URL".into() } else { why };
            wrong(why)
        })?;
        let mut certificates = Certificates::default();
        if let Ok(parsed) = Url::parse(url.expose()) {
            // The parser knows names and IPv4 only and would go to localhost.
            if let Some(Host::Ipv6(address)) = parsed.host() {
                uri.authority.host = address.to_string();
            }
            certificates = Certificates::of(&parsed);
            // Who shows a certificate and names no user is known by the certificate.
            if certificates.show_ours() && parsed.username().is_empty() {
                uri.query
                    .auth_mechanism
                    .get_or_insert(SASLMechanism::External);
            }
        }
        if uri.vhost.is_empty() {
            // `amqp://host/` means the virtual host "" by the letter, which nobody has.
            uri.vhost = "/".into();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        uri.query.frame_max.get_or_insert(FRAME_BYTES);
        Ok(Self {
            uri,
            certificates,
            place: place(url),
        })
    }

    /// The URL without its password.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The user that the broker sees.
    pub(super) fn user(&self) -> &str {
        match self.uri.query.auth_mechanism {
            Some(SASLMechanism::External) => "of our certificate",
            _ => &self.uri.authority.userinfo.username,
        }
    }

    /// What makes TLS of a socket, where the URL asks for it.
    async fn tls(&self) -> Result<Option<RustlsConnector>, QueueError> {
        match self.uri.scheme {
            AMQPScheme::AMQP => Ok(None),
            AMQPScheme::AMQPS => Ok(Some(self.certificates.connector().await?)),
        }
    }

    /// The same broker without TLS: what a socket is opened by, before TLS is made of it.
    fn bare(&self) -> AMQPUri {
        AMQPUri {
            scheme: AMQPScheme::AMQP,
            ..self.uri.clone()
        }
    }

    /// Connects once, under a name that the broker's operator sees.
    pub(super) async fn connect(&self, name: &str) -> Result<Connection, QueueError> {
        let properties = ConnectionProperties::default()
            .with_connection_name(name.into())
            .with_client_property("product".into(), "Sparkferry".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
        let (tls, bare) = (self.tls().await?, self.bare());
        let runtime = default_runtime().map_err(|error| self.error(&error))?;
        let open = async move |uri: AMQPUri, runtime| {
            let socket = bare.connect_async(&runtime).await?;
            Ok(secured(socket, tls.as_ref(), &uri.authority.host).await?)
        };
        let connecting = Connection::connector(self.uri.clone(), runtime, open, properties);
        match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error| self.error(&error)),
            Err(_) => Err(self.unreachable(format!(
                "no answer within {} s: the broker hangs, or this is no AMQP port",
                CONNECT_TIMEOUT.as_secs()
            ))),
        }
    }

    /// The broker's version, by its greeting; `None` where it can't be had.
    ///
    /// lapin keeps the greeting to itself, so it is read from a socket of our own that then hangs
    /// up: the broker logs one warning.
    pub(super) async fn version(&self) -> Option<String> {
        timeout(CONNECT_TIMEOUT, async {
            let runtime = default_runtime().ok()?;
            let tls = self.tls().await.ok()?;
            let socket = self.bare().connect_async(&runtime).await.ok()?;
            let host = &self.uri.authority.host;
            let mut stream = secured(socket, tls.as_ref(), host).await.ok()?;
            stream.write_all(b"AMQP\0\0\x09\x01").await.ok()?;
            stream.flush().await.ok()?;
            // A frame: its type, channel and size (7 bytes), then so many bytes.
            let mut head = [0; 7];
            stream.read_exact(&mut head).await.ok()?;
            let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
            let mut greeting = vec![0; usize::try_from(size.min(64 * 1024)).ok()?];
            stream.read_exact(&mut greeting).await.ok()?;
            version_in(&greeting)
        })
        .await
        .ok()
        .flatten()
    }

    /// An error of lapin in words, with what can be done about it.
    pub(super) fn error(&self, error: &Error) -> QueueError {
        let refused = |why: String| QueueError::Refused {
            place: self.place.clone(),
            why,
        };
        match error.kind() {
            ErrorKind::ProtocolError(amqp) => {
                let text = amqp.get_message().to_string();
                match amqp.kind() {
                    AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
                        if text.contains("Login was refused") =>
                    {
                        refused(format!(
                            "user {:?} or its password is not accepted ({text})",
                            self.user()
                        ))
                    }
                    AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => refused(format!(
                        "user {:?} lacks a permission ({text}); see `rabbitmqctl set_permissions`, \
                         or set queue.declare = false where the operator makes the topology",
                        self.user()
                    )),
                    AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => refused(format!(
                        "something is missing ({text}); `sparkferry topology` prints definitions \
                         to import"
                    )),
                    AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => refused(format!(
                        "user {:?} may not use virtual host {:?}, or it does not exist ({text})",
                        self.user(),
                        self.uri.vhost
                    )),
                    AMQPErrorKind::Soft(_) => refused(text),
                    AMQPErrorKind::Hard(_) => self.unreachable(text),
                }
            }
            ErrorKind::IOError(io) => self.unreachable(match (tls::trouble(io), io.kind()) {
                (Some(trouble), _) => trouble,
                (None, std::io::ErrorKind::ConnectionRefused) => {
                    "connection refused: is RabbitMQ running there, and is the port right?".into()
                }
                (None, _) => io.to_string(),
            }),
            ErrorKind::MissingHeartbeatError => {
                self.unreachable("the broker has gone silent (no heartbeat)".into())
            }
            _ => self.unreachable(error.to_string()),
        }
    }

    fn unreachable(&self, why: String) -> QueueError {
        QueueError::Unreachable {
            place: self.place.clone(),
            why,
        }
    }
}

/// A fresh socket, with TLS where there is a connector for it.
async fn secured<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    socket: AsyncTcpStream<S>,
    tls: Option<&RustlsConnector>,
    host: &str,
) -> std::io::Result<AsyncTcpStream<S>> {
    match tls {
        Some(tls) => socket.into_rustls(tls, host).await,
        None => Ok(socket),
    }
}

/// The URL without its password, for errors and logs.
pub fn place(url: &Secret) -> String {
    let Ok(mut url) = Url::parse(url.expose()) else {
        return "queue.url".into();
    };
    if url.password().is_some() && url.set_password(None).is_err() {
        return "queue.url".into();
    }
    url.set_query(None);
    url.to_string()
}

/// The waits between attempts: from 0.2 s to 10 s, doubling, with jitter, without an end.
pub(super) struct Pace {
    waits: ExponentialBackoff,
    since: Instant,
}

impl Pace {
    /// From the shortest wait.
    pub(super) fn new() -> Self {
        Self {
            waits: waits(),
            since: Instant::now(),
        }
    }

    /// Something begins; if it holds, the waits after it begin anew.
    pub(super) fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// How long to wait before the next attempt.
    pub(super) fn next_wait(&mut self) -> Duration {
        if self.since.elapsed() >= STEADY {
            self.waits = waits();
        }
        self.waits.next().unwrap_or(BACKOFF.1)
    }
}

fn waits() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(BACKOFF.0)
        .with_max_delay(BACKOFF.1)
        .with_factor(2.0)
        .without_max_times()
        .with_jitter()
        .build()
}

/// A text of at most 255 bytes, as AMQP has it for names and ids. What is longer is cut: no queue
/// or exchange can have such a name, and ids of our own are shorter.
pub(super) fn short(text: &str) -> ShortString {
    let end = text.floor_char_boundary(255);
    text[..end].into()
}

/// Finds the string field `version` in a greeting: its name's length and name, `S`, the value's
/// length in four bytes, the value.
fn version_in(greeting: &[u8]) -> Option<String> {
    const FIELD: &[u8] = b"\x07versionS";
    let at = greeting
        .windows(FIELD.len())
        .position(|part| part == FIELD)?
        + FIELD.len();
    let length = greeting.get(at..at + 4)?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    let text = greeting.get(at + 4..at + 4 + usize::try_from(length).ok()?)?;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(url: &str) -> Secret {
        url.to_owned().into()
    }

    #[test]
    fn a_place_has_no_password() {
        let url = secret("amqp://me:hunter2@broker:5673/%2f?heartbeat=5");
        assert_eq!(place(&url), "amqp://me@broker:5673/%2f");
        assert_eq!(place(&secret("hunter2")), "queue.url");
    }

    #[test]
    fn a_wrong_url_is_told_without_the_password() {
        for url in ["amqp:me:hunter2@x", "http://me:hunter2@x", "hunter2"] {
            let Err(error) = Broker::new(&secret(url)) else {
                panic!("{url} was taken");
            };
            assert!(!error.to_string().contains("hunter2"), "{error}");
            assert!(error.to_string().contains("queue.url"), "{error}");
        }
    }

    #[test]
    fn the_url_is_read_with_our_defaults() {
        let broker = Broker::new(&secret("amqp://[::1]:5673/")).unwrap();
        assert_eq!(broker.uri.authority.host, "::1");
        assert_eq!(broker.uri.vhost, "/");
        assert_eq!(broker.uri.query.heartbeat, Some(10));
        assert_eq!(broker.uri.query.frame_max, Some(32_768));
        let broker = Broker::new(&secret("amqp://a?heartbeat=3&frame_max=9000")).unwrap();
        assert_eq!(broker.uri.query.heartbeat, Some(3));
        assert_eq!(broker.uri.query.frame_max, Some(9000));
    }

    #[test]
    fn the_version_stands_in_the_greeting() {
        let greeting = b"..\x07versionS\0\0\0\x063.10.8\0\0";
        assert_eq!(version_in(greeting).as_deref(), Some("3.10.8"));
        assert_eq!(version_in(b"\x07versionS\0\0\0\xff4"), None);
        assert_eq!(version_in(b""), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_waits_grow_and_begin_anew_after_a_steady_time() {
        let mut pace = Pace::new();
        for _ in 0..20 {
            pace.begin();
            assert!(pace.next_wait() <= 2 * BACKOFF.1);
        }
        assert!(pace.next_wait() >= BACKOFF.1);
        pace.begin();
        tokio::time::advance(STEADY).await;
        assert!(pace.next_wait() <= 2 * BACKOFF.0);
    }
}
