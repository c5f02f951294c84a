//! What a broker's URL says: where it is, and as whom to go there.

use lapin::tcp::RustlsConnector;
use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use sparkferry_ports::queue::QueueError;
use url::{Host, Url};

use super::tls::Certificates;
use crate::config::Secret;

/// Seconds between heartbeats where the URL names none. A dead peer is noticed after two of them;
/// with RabbitMQ's own 60 that would be two minutes.
const HEARTBEAT_SECONDS: u16 = 10;
/// The largest frame where the URL names none, in bytes; a larger message takes several. lapin
/// keeps 32 frames' worth for each direction of a connection: with RabbitMQ's own 128 KiB that
/// would be 16 MiB for a worker's two connections.
const FRAME_BYTES: u32 = 32 << 10;

/// What a URL says.
pub(super) struct Door {
    /// Where to, and as whom.
    pub(super) uri: AMQPUri,
    certificates: Certificates,
}

impl Door {
    /// Reads it.
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
        // No limit would mean frames that fit into no buffer.
        let frame_max = uri.query.frame_max.filter(|bytes| *bytes > 0);
        uri.query.frame_max = Some(frame_max.unwrap_or(FRAME_BYTES));
        Ok(Self { uri, certificates })
    }

    /// Whether this is the same broker and the same virtual host.
    pub(super) fn leads_to_the_place_of(&self, other: &Self) -> bool {
        let (one, other) = (&self.uri, &other.uri);
        one.scheme == other.scheme
            && one.authority.host == other.authority.host
            && one.authority.port == other.authority.port
            && one.vhost == other.vhost
    }

    /// The largest frame that is asked for, in bytes.
    pub(super) fn frame_max(&self) -> u32 {
        self.uri.query.frame_max.unwrap_or(FRAME_BYTES)
    }

    /// The user that the broker sees.
    pub(super) fn user(&self) -> &str {
        match self.uri.query.auth_mechanism {
            Some(SASLMechanism::External) => "of our certificate",
            _ => &self.uri.authority.userinfo.username,
        }
    }

    /// What makes TLS of a socket, where the URL asks for it.
    pub(super) async fn tls(&self) -> Result<Option<RustlsConnector>, QueueError> {
        match self.uri.scheme {
            AMQPScheme::AMQP => Ok(None),
            AMQPScheme::AMQPS => Ok(Some(self.certificates.connector().await?)),
        }
    }

    /// The same broker without TLS: what a socket is opened by, before TLS is made of it.
    pub(super) fn bare(&self) -> AMQPUri {
        AMQPUri {
            scheme: AMQPScheme::AMQP,
            ..self.uri.clone()
        }
    }
}

/// The URL without its password, for errors and logs.
pub fn place(url: &Secret) -> String {
    let Ok(mut url) = Url::parse(url.expose()) else {
        return "queue.url".into();
    };
    // A password that is not escaped ends up where it does not belong.
    let strange = url.fragment().is_some() || url.path().contains('@');
    if strange || (url.password().is_some() && url.set_password(None).is_err()) {
        return "queue.url".into();
    }
    url.set_query(None);
    url.to_string()
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
        for url in ["amqp://me:12/hunter2@broker/", "amqp://me:#hunter2@broker/"] {
            assert_eq!(place(&secret(url)), "queue.url");
        }
    }

    #[test]
    fn a_wrong_url_is_told_without_the_password() {
        for url in ["amqp:me:hunter2@x", "http://me:hunter2@x", "hunter2"] {
            let Err(error) = Door::new(&secret(url)) else {
                panic!("{url} was taken");
            };
            assert!(!error.to_string().contains("hunter2"), "{error}");
            assert!(error.to_string().contains("queue.url"), "{error}");
        }
    }

    #[test]
    fn the_url_is_read_with_our_defaults() {
        let door = Door::new(&secret("amqp://[::1]:5673/")).unwrap();
        assert_eq!(door.uri.authority.host, "::1");
        assert_eq!(door.uri.vhost, "/");
        assert_eq!(door.uri.query.heartbeat, Some(10));
        assert_eq!(door.uri.query.frame_max, Some(32_768));
        let door = Door::new(&secret("amqp://a?heartbeat=3&frame_max=9000")).unwrap();
        assert_eq!(door.uri.query.heartbeat, Some(3));
        assert_eq!(door.uri.query.frame_max, Some(9000));
    }
}
