//! RabbitMQ over TLS: an authority of our own, client certificates, and what is said when one of
//! them is wrong. All certificates are made here.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use sparkferry_agent::queue::amqp::AmqpProducer;
use sparkferry_ports::queue::{Producer, QueueError};
use sparkferry_shared::{Id, Topology};
use sparkferry_testkit::story::broker::BrokerNode;
use tempfile::TempDir;
use tokio::task::{block_in_place, spawn_blocking};

use crate::authority::{Age, Authority, write};

/// A broker that speaks TLS and wants to see a certificate, and a folder with everybody's files.
struct Secured {
    folder: TempDir,
    authority: Authority,
    node: BrokerNode,
    port: u16,
}

impl Secured {
    fn start() -> Self {
        Self::with("")
    }

    /// With further lines of `rabbitmq.conf`.
    fn with(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let authority = Authority::new("our authority");
        let file = |name: &str| folder.path().join(name);
        write(&file("ca.pem"), &authority.pem());
        authority.issue(&file("server"), "localhost", Age::Valid);
        authority.issue(&file("worker"), "robot", Age::Valid);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let settings = format!(
            "listeners.ssl.1 = 127.0.0.1:{port}\n\
             ssl_options.cacertfile = {ca}\n\
             ssl_options.certfile = {certificate}\n\
             ssl_options.keyfile = {key}\n\
             ssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = true\n\
             auth_mechanisms.1 = PLAIN\n\
             auth_mechanisms.2 = EXTERNAL\n\
             ssl_cert_login_from = common_name\n{settings}",
            ca = file("ca.pem").display(),
            certificate = file("server.pem").display(),
            key = file("server.key").display(),
        );
        let node = BrokerNode::with_plugins(&settings, "[rabbitmq_auth_mechanism_ssl]");
        // Known by its certificate alone: a password that nobody knows.
        node.ctl(&["add_user", "robot", "never told"]);
        node.ctl(&["clear_password", "robot"]);
        node.ctl(&["set_permissions", "robot", ".*", ".*", ".*"]);
        Self {
            folder,
            authority,
            node,
            port,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The broker's own certificate is another one from now on.
    fn becomes(&self, authority: &Authority, name: &str, age: Age) {
        authority.issue(&self.file("server"), name, age);
        self.forget();
    }

    /// The broker reads its files again.
    fn forget(&self) {
        self.node.ctl(&["eval", "ssl:clear_pem_cache()."]);
    }

    /// A URL with these files of the folder.
    fn url(&self, login: &str, ca: Option<&str>, ours: Option<&str>) -> String {
        let mut parameters = vec!["heartbeat=2".to_owned()];
        let mut add = |name: &str, file: String| {
            parameters.push(format!("{name}={}", self.file(&file).display()));
        };
        if let Some(ca) = ca {
            add("cacertfile", ca.to_owned());
        }
        if let Some(ours) = ours {
            add("certfile", format!("{ours}.pem"));
            add("keyfile", format!("{ours}.key"));
        }
        format!(
            "amqps://{login}localhost:{}/%2f?{}",
            self.port,
            parameters.join("&")
        )
    }

    async fn connect(&self, url: &str) -> Result<AmqpProducer, QueueError> {
        AmqpProducer::connect(&url.to_owned().into(), &Topology::new("tls"), true).await
    }

    /// Connecting fails, and the error says all of this.
    async fn refused(&self, url: &str, said: &[&str]) {
        let mut error = self.refusal(url).await;
        // In TLS 1.3 the broker looks at our certificate when we speak already: what it says of it can
        // be overtaken by the reset of what we said.
        for _ in 0..20 {
            if !error.contains("reset by peer") {
                break;
            }
            error = self.refusal(url).await;
        }
        for part in said {
            assert!(error.contains(part), "{part:?} is not said: {error}");
        }
    }

    async fn refusal(&self, url: &str) -> String {
        let Err(error) = self.connect(url).await else {
            panic!("{url} is let in");
        };
        let error = error.to_string();
        assert!(!error.contains("secret"), "{error}");
        error
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_the_right_certificates_is_let_in_and_others_are_told_why_not() {
    let starting = spawn_blocking(Secured::start).await;
    let secured = starting.expect("it starts");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let external = secured.url("", Some("ca.pem"), Some("worker"));
    let password = secured.url("guest:guest@", Some("ca.pem"), Some("worker"));
    for url in [&external, &password] {
        let producer = secured.connect(url).await.expect("it is let in");
        producer.close().await;
    }
    block_in_place(|| the_program_says_so_too(&secured));

    // The broker's certificate.
    let strange = secured.url("guest:secret@", None, Some("worker"));
    secured
        .refused(&strange, &["not known here", "queue.tls.ca_file"])
        .await;
    let (before, other) = (&secured.authority, Authority::new("another authority"));
    let changes = [
        (before, "localhost", Age::Expired, "has expired"),
        (before, "other.example", Age::Valid, "for another host"),
        (&other, "localhost", Age::Valid, "queue.tls.ca_file"),
    ];
    for (authority, name, age, said) in changes {
        block_in_place(|| secured.becomes(authority, name, age));
        secured.refused(&external, &[said]).await;
    }
    block_in_place(|| secured.becomes(before, "localhost", Age::Valid));

    // Ours.
    let none = secured.url("guest:secret@", Some("ca.pem"), None);
    secured
        .refused(&none, &["wants a certificate", "queue.tls.cert_file"])
        .await;
    let issue = |authority: &Authority, file: &str, name: &str, age: Age| {
        authority.issue(&secured.file(file), name, age);
        secured.url("", Some("ca.pem"), Some(file))
    };
    let expired = issue(before, "old", "robot", Age::Expired);
    secured
        .refused(&expired, &["expired", "queue.tls.cert_file"])
        .await;
    let foreign = issue(&other, "foreign", "robot", Age::Valid);
    secured
        .refused(
            &foreign,
            &["authority it does not know", "queue.tls.cert_file"],
        )
        .await;
    let nobody = issue(before, "nobody", "nobody", Age::Valid);
    secured.refused(&nobody, &["of our certificate"]).await;

    // Files.
    let absent = secured.url("", Some("absent.pem"), Some("worker"));
    secured
        .refused(&absent, &["queue.tls.ca_file", "absent.pem"])
        .await;
    let no_certificate = secured.url("", Some("worker.key"), Some("worker"));
    secured
        .refused(
            &no_certificate,
            &["queue.tls.ca_file", "holds no certificate"],
        )
        .await;
    fs::copy(secured.file("old.key"), secured.file("nobody.key")).expect("our own folder");
    secured
        .refused(&nobody, &["queue.tls.key_file", "is not the key"])
        .await;

    // Not TLS at all.
    let plain = secured.node.url().replace("amqp://", "amqps://");
    let plain = plain.replace("127.0.0.1", "localhost");
    let plain = format!("{plain}&cacertfile={}", secured.file("ca.pem").display());
    secured.refused(&plain, &["does not answer in TLS"]).await;
}

/// `[queue.tls]` of the configuration, by way of `sparkferry check`.
fn the_program_says_so_too(secured: &Secured) {
    let file = |name: &str| secured.file(name).display().to_string();
    let configuration = format!(
        "[queue]\nurl = \"amqps://localhost:{}\"\n\
         [queue.tls]\nca_file = \"{}\"\ncert_file = \"{}\"\nkey_file = \"{}\"\n\
         [connections.prod]\ntype = \"databricks\"\nhost = \"http://127.0.0.1:9\"\n\
         auth = {{ type = \"pat\", token = \"any\" }}\n",
        secured.port,
        file("ca.pem"),
        file("worker.pem"),
        file("worker.key"),
    );
    write(&secured.file("agent.toml"), &configuration);
    let ran = Command::new(env!("CARGO_BIN_EXE_sparkferry"))
        .args(["check", "--config", &file("agent.toml")])
        .env_clear()
        .output()
        .expect("our own program");
    let out = String::from_utf8(ran.stdout).expect("text");
    let queue = out.lines().find(|line| line.contains("queue:"));
    let queue = queue.expect("a finding about the queue");
    assert!(queue.starts_with("ok"), "{out}");
    assert!(!queue.contains("unknown version"), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_were_renewed_are_in_use_with_the_next_connection() {
    let starting = spawn_blocking(Secured::start).await;
    let mut secured = starting.expect("it starts");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = secured.url("", Some("ca.pem"), Some("worker"));
    let producer = secured.connect(&url).await.expect("it is let in");
    let submit = async |id: &str| {
        let id: Id = id.parse().expect("an id");
        producer.submit("prod", &id, "{}".into()).await
    };
    submit("a").await.expect("the broker takes it");
    // Another authority, and with it everybody's certificates; the producer is the same.
    block_in_place(|| {
        secured.node.stop();
        let authority = Authority::new("the next authority");
        write(&secured.file("ca.pem"), &authority.pem());
        authority.issue(&secured.file("server"), "localhost", Age::Valid);
        authority.issue(&secured.file("worker"), "robot", Age::Valid);
        secured.node.start_again();
    });
    submit("b").await.expect("the broker takes it");
    producer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_speaks_only_an_old_tls_is_refused() {
    let starting = spawn_blocking(|| Secured::with("ssl_options.versions.1 = tlsv1.1\n"));
    let secured = starting.await.expect("it starts");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = secured.url("", Some("ca.pem"), Some("worker"));
    secured.refused(&url, &["1.2 or later"]).await;
}
