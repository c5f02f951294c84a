//! Reaching a broker: one attempt to connect, errors in words, the pace of attempts.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_util::{AsyncRead, AsyncWrite};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::runtime::default_runtime;
use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream, RustlsConnector};
use lapin::types::ShortString;
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, Error, ErrorKind};
use sparkferry_ports::queue::QueueError;
use tokio::time::{Instant, timeout};

use super::door::{Door, place};
use super::inspect::{self, Inspected};
use super::tls;
use crate::config::{BrokerUrl, ConfigError};

const URL_FILE: &str = "queue.url_file";

/// One attempt to connect: a frozen broker accepts the socket and then says nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The first and the longest wait between attempts, each before up to as much again of jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// What held for so long was a success: the waits begin anew.
const STEADY: Duration = Duration::from_secs(1);

/// A broker: where it is, and as whom to go there now.
pub(super) struct Broker {
    url: BrokerUrl,
    /// By the URL as it was read last.
    door: Mutex<Arc<Door>>,
    place: String,
    version: Mutex<Option<String>>,
}

impl Broker {
    /// Takes the URL as it is. Where it stands in a file, it is read again for each connection.
    pub(super) fn new(url: &BrokerUrl) -> Result<Self, QueueError> {
        let door = Door::new(url.first())?;
        Ok(Self {
            door: Mutex::new(Arc::new(door)),
            place: place(url.first()),
            version: Mutex::default(),
            url: url.clone(),
        })
    }

    /// The URL without its password, as it was at first.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The user that the broker sees.
    pub(super) fn user(&self) -> String {
        self.door().user().to_owned()
    }

    fn door(&self) -> Arc<Door> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Door>> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the URL says now. Who logs in may change, and by what; where to may not: requests and
    /// their results would be on two brokers.
    async fn door_now(&self) -> Result<Arc<Door>, QueueError> {
        let url = match self.url.now().await {
            Ok(Some(url)) => url,
            Ok(None) => return Ok(self.door()),
            Err(ConfigError::Value { setting, why }) => {
                return Err(QueueError::Setting { setting, why });
            }
            Err(other) => {
                return Err(QueueError::Setting {
                    setting: URL_FILE.into(),
                    why: other.to_string(),
                });
            }
        };
        let door = Arc::new(Door::new(&url)?);
        let mut kept = self.lock();
        if !door.leads_to_the_place_of(&kept) {
            return Err(QueueError::Setting {
                setting: URL_FILE.into(),
                why: format!(
                    "its URL leads elsewhere than {} now, which takes a restart; another user or \
                     password would do without",
                    self.place
                ),
            });
        }
        *kept = Arc::clone(&door);
        Ok(door)
    }

    /// Connects once, under a name that the broker's operator sees.
    pub(super) async fn connect(&self, name: &str) -> Result<Connection, QueueError> {
        let properties = ConnectionProperties::default()
            .with_connection_name(name.into())
            .with_client_property("product".into(), "Sparkferry".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
        let door = self.door_now().await?;
        let (tls, bare, frame_max) = (door.tls().await?, door.bare(), door.frame_max());
        let tokio = default_runtime().map_err(|error| self.error(&error))?;
        let version = Arc::new(OnceLock::new());
        let seen = Arc::clone(&version);
        let open = async move |uri: AMQPUri, _| {
            let socket = bare.connect_async(&tokio).await?;
            let socket = secured(socket, tls.as_ref(), &uri.authority.host).await?;
            let inspected = Inspected::new(socket, frame_max, Arc::clone(&seen));
            Ok(AsyncTcpStream::Plain(inspected))
        };
        let connecting =
            Connection::connector(door.uri.clone(), inspect::runtime(), open, properties);
        let connected = match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error| self.error(&error))?,
            Err(_) => {
                return Err(self.unreachable(format!(
                    "no answer within {} s: the broker hangs, or this is no AMQP port",
                    CONNECT_TIMEOUT.as_secs()
                )));
            }
        };
        let mut known = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone_from(&version.get().cloned());
        drop(known);
        Ok(connected)
    }

    /// The broker's version, by its greeting when it was connected to last.
    pub(super) fn version(&self) -> Option<String> {
        let known = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone()
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
                        self.door().uri.vhost
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

#[cfg(test)]
mod tests {
    use super::*;

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
