//! Spark Connect servers of our own, from the packages that `agent/tests/prepare.sh test` brings.
//!
//! Each listens on a free port of 127.0.0.1, keeps its files in a temporary folder, and ends with
//! what started it: when it is dropped, and also when the test's process is killed.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sparkferry_testkit::story::broker::free_port;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::spawn_blocking;
use tokio::time::{interval, timeout};

use super::client::BareClient;

/// Made by `agent/tests/prepare.sh test`.
pub(super) const PYTHON: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/python");
/// Made by `agent/tests/prepare.sh test`.
const SAIL: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/sail/bin/sail");
/// The setting of Apache Spark's that asks for a token.
pub(super) const TOKEN: &str = "spark.connect.authenticate.token";
/// Held by whoever runs an Apache Spark, of all test processes of this folder.
const TURN: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/apache-spark.lock");
/// How long a server may take to answer its first statement on a busy machine.
const STARTUP: Duration = Duration::from_mins(3);
/// Ends its process group when its stdin ends, which the death of this process brings about.
const WATCHDOG: &str = r#""$@" & read -r _; kill -s KILL 0"#;

/// What kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Apache,
    Sail,
}

/// A server, running or not.
pub(super) struct SparkServer {
    kind: Kind,
    port: u16,
    folder: TempDir,
    settings: Vec<(&'static str, &'static str)>,
    running: Option<Child>,
    /// The turn on this machine, given up with the server.
    _turn: Option<File>,
}

impl SparkServer {
    /// Apache Spark, once no other test runs one. It takes 15 to 40 s, and 600 MB.
    pub(super) async fn apache() -> Self {
        Self::apache_with(&[]).await
    }

    /// The same, with more settings.
    pub(super) async fn apache_with(settings: &[(&'static str, &'static str)]) -> Self {
        let turn = spawn_blocking(|| {
            let file = File::create(TURN).expect("the build's own folder");
            file.lock().expect("a file that can be locked");
            file
        });
        let turn = turn.await.expect("no panic");
        Self::start(Kind::Apache, settings, Some(turn)).await
    }

    /// Sail: a second, and 54 MB.
    pub(super) async fn sail() -> Self {
        Self::start(Kind::Sail, &[], None).await
    }

    async fn start(
        kind: Kind,
        settings: &[(&'static str, &'static str)],
        turn: Option<File>,
    ) -> Self {
        let mut server = Self {
            kind,
            port: free_port(),
            folder: tempfile::tempdir().expect("a temporary folder"),
            settings: settings.to_vec(),
            running: None,
            _turn: turn,
        };
        server.start_again().await;
        server
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// A client to look at it from outside.
    pub(super) fn client(&self) -> BareClient {
        let mut settings = self.settings.iter();
        let token = settings.find(|(key, _)| *key == TOKEN);
        BareClient::of(self.port, token.map(|(_, token)| *token))
    }

    /// A place for data, which server and test see.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Kills it with SIGKILL, all of its processes. What it held in memory is gone.
    pub(super) async fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            kill_group(&child);
            child.wait().await.expect("our own child");
        }
    }

    /// Starts it after [`Self::kill`], on the same port; returns once a statement works.
    pub(super) async fn start_again(&mut self) {
        assert!(self.running.is_none(), "the server runs already");
        let log = File::create(self.path("server.log")).expect("our own folder");
        let copy = log.try_clone().expect("a file");
        let child = self
            .command()
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(copy)
            // A group of its own: script, server and what it starts end together.
            .process_group(0)
            .spawn()
            .expect("sh is there");
        self.running = Some(child);
        let mut looks = interval(Duration::from_millis(100));
        let mut answer = None;
        let starting = async {
            while !matches!(answer, Some(Ok(1))) {
                looks.tick().await;
                answer = Some(self.client().rows("SELECT 1").await);
            }
        };
        let started = timeout(STARTUP, starting).await;
        assert!(started.is_ok(), "no statement works: {answer:?}");
    }

    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", WATCHDOG, "sh"]);
        match self.kind {
            Kind::Apache => self.apache_command(&mut command),
            Kind::Sail => {
                let port = self.port.to_string();
                command.arg(SAIL);
                command.args(["spark", "server", "--ip", "127.0.0.1", "--port", &port]);
            }
        }
        command.current_dir(self.folder.path());
        command
    }

    /// A server that is small and quick to start. With snappy in place of zstd, parquet needs a
    /// library that does not load where two C libraries are installed.
    fn apache_command(&self, command: &mut Command) {
        let home = spark_home();
        let folder = self.folder.path().display();
        command.arg(home.join("bin/spark-submit"));
        command.args(["--master", "local[2]", "--driver-memory", "512m"]);
        command.args([
            "--driver-java-options",
            "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xss512k -XX:ReservedCodeCacheSize=96m",
        ]);
        for (key, value) in [
            ("spark.ui.enabled", "false".to_owned()),
            ("spark.local.dir", format!("{folder}/local")),
            ("spark.sql.shuffle.partitions", "2".to_owned()),
            ("spark.sql.warehouse.dir", format!("{folder}/warehouse")),
            ("spark.sql.parquet.compression.codec", "zstd".to_owned()),
            ("spark.connect.grpc.binding.address", "127.0.0.1".to_owned()),
            ("spark.connect.grpc.binding.port", self.port.to_string()),
        ] {
            command.args(["--conf", &format!("{key}={value}")]);
        }
        for (key, value) in &self.settings {
            command.args(["--conf", &format!("{key}={value}")]);
        }
        command.args([
            "--class",
            "org.apache.spark.sql.connect.service.SparkConnectServer",
            "spark-internal",
        ]);
        command
            .env("SPARK_HOME", home)
            .env("SPARK_LOCAL_IP", "127.0.0.1")
            .env("PYSPARK_PYTHON", Path::new(PYTHON).join("bin/python"));
    }

    fn last_lines(&self) -> String {
        let log = fs::read_to_string(self.path("server.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for SparkServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's last lines:\n{}", self.last_lines());
        }
        if let Some(child) = &self.running {
            kill_group(child);
        }
    }
}

fn kill_group(child: &Child) {
    let Some(pid) = child.id() else { return };
    // Killing what has just ended is no error.
    let _ = std::process::Command::new("kill")
        .args(["-s", "KILL", "--", &format!("-{pid}")])
        .stderr(Stdio::null())
        .status();
}

/// Where pip put Spark: beside the Python that it was installed for.
fn spark_home() -> PathBuf {
    let versions = fs::read_dir(Path::new(PYTHON).join("lib"));
    let versions = versions.expect("Python is there; agent/tests/prepare.sh test brings it");
    let mut homes = versions.map(|version| {
        let version = version.expect("a folder").path();
        version.join("site-packages/pyspark")
    });
    let home = homes.find(|home| home.join("bin/spark-submit").exists());
    home.expect("pyspark is there; agent/tests/prepare.sh test brings it")
}

#[tokio::test]
async fn both_kinds_start_end_and_start_again() {
    let mut sail = SparkServer::sail().await;
    sail.kill().await;
    assert!(sail.client().rows("SELECT 1").await.is_err());
    sail.start_again().await;
    let rows = sail.client().rows("SELECT * FROM range(7)").await;
    assert_eq!(rows.expect("it answers again"), 7);
}
