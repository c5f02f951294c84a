//! A workspace behind TLS and behind a proxy: whom we believe, and what is said when we don't.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use url::Url;

use super::*;

/// An authority of our own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// For a server of this name; one that has expired, too.
    fn server(&self, name: &str, expired: bool) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 2, 1);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap()
    }
}

/// Ends with its test.
struct Serving(AbortHandle);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Takes the TLS off in front of the sandbox. Returns where.
async fn tls_before(ground: &Ground, config: ServerConfig) -> (Url, Serving) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let behind = ground.host.strip_prefix("http://").unwrap().to_owned();
    let serving = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            connections.spawn(async move {
                // A client that doesn't believe us breaks off.
                let mut stream = acceptor.accept(stream).await.ok()?;
                let mut behind = TcpStream::connect(behind).await.ok()?;
                copy_bidirectional(&mut stream, &mut behind).await.ok()
            });
        }
    });
    (url.parse().unwrap(), Serving(serving.abort_handle()))
}

/// A proxy that asks for `user:pass` and counts the tunnels it made.
async fn proxy() -> (String, Arc<AtomicU32>, Serving) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tunnels = Arc::new(AtomicU32::new(0));
    let made = Arc::clone(&tunnels);
    let serving = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let made = Arc::clone(&made);
            connections.spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.ok()?);
                }
                let head = String::from_utf8(head).ok()?;
                let target = head.strip_prefix("CONNECT ")?.split(' ').next()?;
                // user:pass
                if !head.contains("Basic dXNlcjpwYXNz") {
                    let refusal =
                        b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
                    return stream.write_all(refusal).await.ok();
                }
                let mut there = TcpStream::connect(target).await.ok()?;
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
                made.fetch_add(1, Ordering::Relaxed);
                copy_bidirectional(&mut stream, &mut there).await.ok()?;
                Some(())
            });
        }
    });
    (address, tunnels, Serving(serving.abort_handle()))
}

async fn told(engine: &DatabricksEngine) -> String {
    let Err(Fault::Passing {
        message,
        perhaps_done,
        ..
    }) = engine.check().await
    else {
        panic!("it is let in");
    };
    assert!(!perhaps_done, "{message}");
    assert!(engine.trouble().is_some());
    message
}

#[tokio::test]
async fn a_certificate_that_is_not_believed_says_why() {
    let ground = Ground::new().await;
    let ours = Authority::new("ours");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    // Several may stand in one file.
    fs::write(
        &file,
        format!("{}{}", Authority::new("another").pem, ours.pem),
    )
    .unwrap();
    for (config, words) in [
        (ours.server("127.0.0.1", true), ["has expired", "renewed"]),
        (
            ours.server("adb-1.example", false),
            ["for another name (adb-1.example)", "host in the settings"],
        ),
        (
            Authority::new("other").server("127.0.0.1", false),
            ["not known here", "tls.ca_file"],
        ),
        (
            Authority::new("ours").server("127.0.0.1", false),
            ["by that name", "tls.ca_file"],
        ),
    ] {
        let (url, _serving) = tls_before(&ground, config).await;
        let engine = ground.engine_with(|settings| {
            settings.host = url.clone();
            settings.reach.ca_file = Some(file.clone());
        });
        let told = told(&engine).await;
        let place = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
        for word in words.into_iter().chain([place.as_str()]) {
            assert!(told.contains(word), "{word:?} is not in {told:?}");
            assert!(engine.trouble().unwrap().contains(word));
        }
    }
    let (url, _serving) = tls_before(&ground, ours.server("127.0.0.1", false)).await;
    let engine = ground.engine_with(|settings| settings.host = url.clone());
    assert!(
        told(&engine).await.contains("tls.ca_file"),
        "it is not named"
    );
    let engine = ground.engine_with(|settings| {
        settings.host = url.clone();
        settings.reach.ca_file = Some(file.clone());
    });
    assert!(
        engine
            .check()
            .await
            .unwrap()
            .contains("sandbox@example.com")
    );
    assert_eq!(engine.trouble(), None);

    let clear: Url = ground.host.replace("http://", "https://").parse().unwrap();
    let engine = ground.engine_with(|settings| settings.host = clear);
    assert!(told(&engine).await.contains("not in TLS"));
}

#[tokio::test]
async fn tokens_are_asked_for_over_the_same_way() {
    let ground = Ground::new().await;
    let authority = Authority::new("ours");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    fs::write(&file, &authority.pem).unwrap();
    let (url, _serving) = tls_before(&ground, authority.server("127.0.0.1", false)).await;
    let (proxy, tunnels, _proxying) = proxy().await;
    let engine = |ca: bool, proxy: String| {
        ground.engine_with(|settings| {
            settings.host = url.clone();
            settings.auth = Auth::OauthM2m {
                client_id: "app".to_owned(),
                client_secret: SecretSource::Value("s".to_owned().into()),
            };
            settings.reach.ca_file = ca.then(|| file.clone());
            settings.reach.proxy = Some(SecretSource::Value(proxy.into()));
        })
    };
    let right = engine(true, format!("http://user:pass@{proxy}"));
    let asked = Asked::new(submit(json!({})));
    let mut attached = asked.attach(&right, 1, false).await;
    assert_eq!(end(&mut *attached.run).await, Ended::Success);
    assert!(tunnels.load(Ordering::Relaxed) > 0);
    assert_eq!(ground.calls("oidc/v1/token").await, 1);

    let unbelieved = engine(false, format!("http://user:pass@{proxy}"));
    let error = told(&unbelieved).await;
    assert!(error.contains("no token from 127.0.0.1"), "{error}");
    assert!(error.contains("tls.ca_file"), "{error}");
    let refused = engine(true, format!("http://user:hunter2@{proxy}"));
    let error = told(&refused).await;
    assert!(error.contains("proxy"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_file_of_authorities_that_changes_takes_effect_and_a_broken_one_does_not() {
    let ground = Ground::new().await;
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    fs::write(&file, &old.pem).unwrap();
    let (first, _serving) = tls_before(&ground, old.server("127.0.0.1", false)).await;
    let (second, _serving_too) = tls_before(&ground, new.server("127.0.0.1", false)).await;
    let engine = |host: &Url| {
        ground.engine_with(|settings| {
            settings.host = host.clone();
            settings.reach.ca_file = Some(file.clone());
        })
    };
    let (at_first, at_second) = (engine(&first), engine(&second));
    assert!(at_first.check().await.is_ok());
    assert!(at_second.check().await.is_err());

    fs::write(&file, "no certificate").unwrap();
    later().await;
    assert!(at_first.check().await.is_ok(), "the old ones stay");
    let trouble = at_first.trouble().unwrap();
    assert!(trouble.contains(file.to_str().unwrap()), "{trouble}");
    assert!(trouble.contains("BEGIN CERTIFICATE"), "{trouble}");

    fs::write(&file, &new.pem).unwrap();
    later().await;
    // The clients are new ones, and so are their connections.
    assert!(at_second.check().await.is_ok());
    assert!(at_first.check().await.is_err());
}

/// Time for files to be looked at again.
async fn later() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_wrong_file_is_found_at_the_start() {
    let ground = Ground::new().await;
    let folder = tempfile::tempdir().unwrap();
    let start = |name: &str, content: &str| {
        let file = folder.path().join(name);
        if !content.is_empty() {
            fs::write(&file, content).unwrap();
        }
        let mut settings = ground.settings();
        settings.reach.ca_file = Some(file.clone());
        let error = DatabricksEngine::new("test", &settings)
            .unwrap_err()
            .to_string();
        assert!(error.contains(file.to_str().unwrap()), "{error}");
        error
    };
    assert!(start("missing", "").contains("tls.ca_file"));
    assert!(start("other", "hello").contains("BEGIN CERTIFICATE"));
    let nonsense = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    assert!(start("nonsense", nonsense).contains("tls.ca_file"));
}
