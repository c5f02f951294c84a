//! A RabbitMQ node of our own, for stories that stop, kill, freeze or starve it.
//!
//! Usable from any test by `#[path = "..."] mod broker;`. The node listens on free ports of
//! 127.0.0.1, keeps everything in a temporary folder, and is killed when it is dropped.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// Where distributions put the scripts that run as anybody. (Debian's `/usr/sbin` ones insist on
/// the user rabbitmq.) `RABBITMQ_BIN` names another folder.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";
/// How long a node may take to start on a busy machine.
const STARTUP: Duration = Duration::from_secs(90);
/// What the node logs once it is ready.
const READY: &str = "Server startup complete";

/// A node, running or not. All calls block until what they ask for has happened.
pub struct BrokerNode {
    folder: TempDir,
    name: String,
    port: u16,
    dist_port: u16,
    running: Option<Child>,
}

impl BrokerNode {
    /// Starts a node. `settings` are lines of `rabbitmq.conf`, such as `consumer_timeout = 5000`.
    /// Whatever the node does every minute (looking for consumers that hold deliveries too long)
    /// it does every second.
    pub fn start(settings: &str) -> Self {
        Self::with_plugins(settings, "[]")
    }

    /// The same with plugins, as an Erlang list.
    pub fn with_plugins(settings: &str, plugins: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (port, dist_port) = (free_port(), free_port());
        let listen = format!("listeners.tcp.1 = 127.0.0.1:{port}\nlog.console.level = info\n");
        write(
            folder.path(),
            "rabbitmq.conf",
            &format!("{listen}{settings}\n"),
        );
        let ticks = "[{rabbit, [{channel_tick_interval, 1000}]}].\n";
        write(folder.path(), "advanced.config", ticks);
        write(folder.path(), "enabled_plugins", &format!("{plugins}.\n"));
        write(folder.path(), "env.conf", "");
        let mut node = Self {
            folder,
            name: format!("sparkferry-test-{port}@localhost"),
            port,
            dist_port,
            running: None,
        };
        node.start_again();
        node
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f?heartbeat=2", self.port)
    }

    /// Starts it after [`Self::stop`] or [`Self::kill`], with all that it had on disk.
    pub fn start_again(&mut self) {
        assert!(self.running.is_none(), "the node runs already");
        let mut child = self
            .command("rabbitmq-server")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A group of its own: the script, the node and its helpers end together.
            .process_group(0)
            .spawn()
            .expect("RabbitMQ is installed (Debian: apt-get install rabbitmq-server)");
        let log = child.stdout.take().expect("its output is piped");
        self.running = Some(child);
        let (ready, is_ready) = mpsc::channel();
        thread::spawn(move || {
            // Read to its end, so that the node never waits for us.
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                if line.contains(READY) {
                    let _ = ready.send(());
                }
            }
        });
        assert!(
            is_ready.recv_timeout(STARTUP).is_ok(),
            "the node did not start"
        );
    }

    /// Stops it in good order.
    pub fn stop(&mut self) {
        self.signal("TERM");
        self.wait();
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.wait();
    }

    /// Freezes it: it keeps its sockets and says nothing any more.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Thaws it.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Runs `rabbitmqctl` and returns what it printed.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output = self
            .command("rabbitmqctl")
            .args(["--quiet", "--node", &self.name])
            .args(arguments)
            .output()
            .expect("rabbitmqctl is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {text} {errors}");
        text
    }

    /// A file in its folder, such as definitions to import.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        write(self.folder.path(), name, content)
    }

    fn command(&self, script: &str) -> Command {
        let folder = self.folder.path();
        let scripts = std::env::var("RABBITMQ_BIN").unwrap_or_else(|_| SCRIPTS.into());
        let mut command = Command::new(Path::new(&scripts).join(script));
        command
            .env("HOME", folder)
            .env("RABBITMQ_NODENAME", &self.name)
            .env("RABBITMQ_CONF_ENV_FILE", folder.join("env.conf"))
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env(
                "RABBITMQ_ADVANCED_CONFIG_FILE",
                folder.join("advanced.config"),
            )
            .env(
                "RABBITMQ_ENABLED_PLUGINS_FILE",
                folder.join("enabled_plugins"),
            )
            .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_PID_FILE", folder.join("pid"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1");
        command
    }

    fn signal(&self, signal: &str) {
        let Some(child) = &self.running else {
            return;
        };
        let group = format!("-{}", child.id());
        // Killing what has just ended is no error.
        let _ = Command::new("kill")
            .args(["-s", signal, "--", &group])
            .stderr(Stdio::null())
            .status();
    }

    fn wait(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.wait().expect("our own child");
        }
    }
}

impl Drop for BrokerNode {
    fn drop(&mut self) {
        self.kill();
    }
}

fn write(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("our own folder");
    path
}

/// Free a moment ago, and none of those that the system gives to whoever asks for any: nobody takes it
/// until the server does, nor while the server is down.
pub fn free_port() -> u16 {
    let ports = std::iter::repeat_with(|| fastrand::u16(15_000..30_000));
    let free = ports
        .take(100)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    free.expect("a free port")
}
