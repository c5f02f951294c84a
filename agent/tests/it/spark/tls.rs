//! A server behind TLS, with an authority of our own: whom we believe, and what is said when we
//! don't. All certificates are made here.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use sparkferry_agent::config::SparkConnectSettings;
use sparkferry_agent::engine::spark_connect::SparkConnectEngine;
use sparkferry_ports::engine::{Engine, Fault};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::servers::SparkServer;
use super::stage::{Stage, rows, statements};
use super::statements::succeeded;
use crate::authority::{Age, Authority, terminate, write};
use crate::stories::harness::{Ground, Place};

/// Sail, with something in front of it that takes the TLS off.
struct Secured {
    folder: TempDir,
    authority: Authority,
    port: u16,
    _terminator: AbortOnDropHandle<()>,
    _server: SparkServer,
}

impl Secured {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = SparkServer::sail().await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let authority = Authority::new("our authority");
        write(&folder.path().join("ca.pem"), &authority.pem());
        authority.issue(&folder.path().join("server"), "localhost", Age::Valid);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let files = folder.path().join("server");
        let terminator = tokio::spawn(terminate(listener, files, server.address(), "h2"));
        Self {
            folder,
            authority,
            port,
            _terminator: AbortOnDropHandle::new(terminator),
            _server: server,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An engine as a worker has it, with this file of the folder.
    fn engine(&self, ca_file: Option<&str>) -> Result<SparkConnectEngine, String> {
        let settings = SparkConnectSettings {
            endpoint: format!("https://localhost:{}/", self.port)
                .parse()
                .expect("an address"),
            user_id: None,
            headers: Vec::new(),
            ca_file: ca_file.map(|name| self.file(name)),
            token: None,
            compute: None,
            max_active_runs: 1,
        };
        SparkConnectEngine::new("lake", "tls", 256 * 1024, &settings).map_err(|e| e.to_string())
    }
}

/// What is said of a server that is not believed.
async fn told(engine: &SparkConnectEngine) -> String {
    let Err(Fault::Passing {
        message,
        perhaps_done,
        ..
    }) = engine.check().await
    else {
        panic!("it is let in");
    };
    assert!(!perhaps_done, "{message}");
    let trouble = engine.trouble().expect("trouble");
    let (_, why) = message.split_once(": ").expect("a place");
    assert!(trouble.contains(why), "{trouble}");
    message
}

/// On a machine without any authorities: the one that we bring is enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_run_on_a_server_with_a_certificate_of_our_own() {
    let secured = Secured::start().await;
    fs::write(secured.file("none.pem"), "").expect("our own folder");
    let none = secured.file("none.pem").display().to_string();
    let no_system = [("SSL_CERT_FILE", none.as_str())];
    let connection = format!(
        "type = \"spark_connect\"\nurl = \"sc://localhost:{}/;use_ssl=true\"\n\
         tls.ca_file = \"{}\"\n",
        secured.port,
        secured.file("ca.pem").display(),
    );
    let stage = Stage::with(Place::Sqlite, &connection);
    let _worker = stage.ground.worker_with(&no_system);
    let mut submitted = stage.submit(&[statements("one", &["SELECT 1"])]).await;
    let result = submitted.result().await;
    assert_eq!(rows(succeeded(&result), 0), serde_json::json!([[1]]));
    submitted.producer.close().await;
}

#[tokio::test]
async fn a_machine_without_authorities_says_what_is_missing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let none = folder.path().join("none.pem");
    write(&none, "");
    for connection in [
        "type = \"spark_connect\"\nurl = \"sc://127.0.0.1:1/;use_ssl=true\"",
        "type = \"databricks\"\nhost = \"https://127.0.0.1:1\"\n\
         auth = { type = \"pat\", token = \"t\" }",
    ] {
        let ground = Ground::new(Place::Sqlite, 60, connection);
        let mut check = ground.command("check");
        let checked = check.env("SSL_CERT_FILE", &none).output().await;
        let out = checked.expect("our own program").stdout;
        let out = String::from_utf8(out).expect("text");
        for words in ["prod", "ca-certificates", "tls.ca_file"] {
            assert!(out.contains(words), "{words:?} is not said: {out}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_believed_says_why() {
    let secured = Secured::start().await;
    let strange = told(&secured.engine(None).expect("a client")).await;
    assert!(strange.contains("not known here"), "{strange}");
    assert!(strange.contains("tls.ca_file"), "{strange}");

    let other = Authority::new("our authority");
    let ours = &secured.authority;
    for (authority, name, age, words) in [
        (ours, "localhost", Age::Expired, ["has expired", "renewed"]),
        (
            ours,
            "other.example",
            Age::Valid,
            ["for another name (other.example)", "host in the settings"],
        ),
        (
            &other,
            "localhost",
            Age::Valid,
            ["not signed by the authority", "tls.ca_file"],
        ),
    ] {
        authority.issue(&secured.file("server"), name, age);
        let said = told(&secured.engine(Some("ca.pem")).expect("a client")).await;
        for word in words {
            assert!(said.contains(word), "{word:?} is not said: {said}");
        }
    }
}

#[tokio::test]
async fn an_authority_that_was_renewed_is_believed_without_a_restart() {
    let secured = Secured::start().await;
    let engine = secured.engine(Some("ca.pem")).expect("a client");
    engine.check().await.expect("it is let in");

    let next = Authority::new("the next authority");
    next.issue(&secured.file("server"), "localhost", Age::Valid);
    write(&secured.file("ca.pem"), "not yet");
    later().await;
    // The old connection stays at work.
    engine.check().await.expect("it is let in");
    let trouble = engine.trouble().expect("trouble");
    assert!(trouble.contains("BEGIN CERTIFICATE"), "{trouble}");

    write(&secured.file("ca.pem"), &next.pem());
    later().await;
    engine.check().await.expect("it is let in");
    assert_eq!(engine.trouble(), None);
    let anew = secured.engine(Some("ca.pem")).expect("a client");
    anew.check().await.expect("it is let in");
}

#[tokio::test]
async fn a_wrong_file_is_found_at_the_start() {
    let secured = Secured::start().await;
    fs::write(secured.file("other.pem"), "hello").expect("our own folder");
    for (name, word) in [("absent.pem", "read"), ("other.pem", "BEGIN CERTIFICATE")] {
        let error = secured.engine(Some(name)).unwrap_err();
        for part in ["tls.ca_file", name, word] {
            assert!(error.contains(part), "{part:?} is not said: {error}");
        }
    }
}

/// Time for files to be looked at again.
async fn later() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
}
