//! A Spark Connect server for the demo: one that runs already, or one that is started for it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use sparkferry_ports::engine::Engine;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::stage::{SPARK, failed};
use crate::cli::exit::Exit;
use crate::cli::print;
use crate::cli::problem::Problem;
use crate::config;
use crate::engine::table;

/// The variable by which Spark's own clients find their server.
const VARIABLE: &str = "SPARK_REMOTE";
/// How long a server may take to start: Apache Spark needs 10 to 40 s.
const STARTUP: Duration = Duration::from_secs(90);
/// Between two looks whether it has started.
const LOOK: Duration = Duration::from_millis(200);

/// A server that answers.
pub(super) struct Spark {
    /// What runs its statements.
    pub(super) engine: Arc<dyn Engine>,
    /// What it said of itself.
    pub(super) told: String,
    /// The process that was started for it; killed when it is dropped.
    _server: Option<Child>,
}

impl Spark {
    /// The server that `SPARK_REMOTE` names, if it is set.
    pub(super) async fn of_variable(namespace: &str) -> Result<Option<Self>, Problem> {
        let Some(url) = std::env::var(VARIABLE).ok().filter(|url| !url.is_empty()) else {
            return Ok(None);
        };
        let engine = open(&url, namespace)
            .map_err(|e| Problem::told(Exit::Configuration, format!("{VARIABLE}: {e}")))?;
        let told = engine.check().await;
        let told =
            told.map_err(|e| Problem::told(Exit::Unreachable, format!("{VARIABLE}: {e}")))?;
        Ok(Some(Self {
            engine,
            told,
            _server: None,
        }))
    }

    /// Starts one, found in the virtual environment or where it usually is, with its files in
    /// `folder`.
    pub(super) async fn start(
        venv: Option<PathBuf>,
        namespace: &str,
        folder: &Path,
    ) -> Result<Self, Problem> {
        let looking = tokio::task::spawn_blocking(move || look_for(venv.as_deref()));
        let program = looking.await.map_err(failed)??;
        let port = free_port().map_err(failed)?;
        print::line(&format!("Starting {} ...", program.display()))?;
        let log = folder.join("spark.log");
        let output = tokio::fs::File::create(&log).await.map_err(failed)?;
        let output = output.into_std().await;
        let mut server = command(&program, port, folder)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| failed(format!("{}: {e}", program.display())))?;
        let engine = open(&format!("sc://127.0.0.1:{port}"), namespace).map_err(failed)?;
        let until = Instant::now() + STARTUP;
        let told = loop {
            match engine.check().await {
                Ok(told) => break told,
                Err(_) if Instant::now() > until => {
                    let how = format!("does not answer after {STARTUP:?}");
                    return Err(gone(&program, &how, &log).await);
                }
                Err(_) => sleep(LOOK).await,
            }
            if let Some(status) = server.try_wait().map_err(failed)? {
                return Err(gone(&program, &format!("ended ({status})"), &log).await);
            }
        };
        Ok(Self {
            engine,
            told,
            _server: Some(server),
        })
    }
}

/// The server is not to be had: how, and the last that it said.
async fn gone(program: &Path, how: &str, log: &Path) -> Problem {
    let said = tokio::fs::read_to_string(log).await.unwrap_or_default();
    let last = said.lines().rfind(|line| !line.trim().is_empty());
    let text = format!("{} {how}: {}", program.display(), last.unwrap_or_default());
    Problem::told(Exit::Unreachable, text)
}

/// The engine of a server, by the same settings that a worker would have.
fn open(url: &str, namespace: &str) -> Result<Arc<dyn Engine>, String> {
    let connection = |key: &str| format!("{}CONNECTIONS__{SPARK}__{key}", config::VARIABLE_PREFIX);
    let variables = HashMap::from([
        (
            format!("{}NAMESPACE", config::VARIABLE_PREFIX),
            namespace.to_owned(),
        ),
        (connection("TYPE"), "spark_connect".to_owned()),
        (connection("URL"), url.to_owned()),
    ]);
    let settings = config::load(None, &variables).map_err(|e| e.to_string())?;
    let connection = settings
        .connections
        .get(SPARK)
        .ok_or("it names no server")?;
    table::open(SPARK, connection, &settings).map_err(|e| e.to_string())
}

/// `sail` or `spark-submit`: of the virtual environment that is named; else of the one that is
/// active, of `SPARK_HOME`, and on the PATH.
fn look_for(venv: Option<&Path>) -> Result<PathBuf, Problem> {
    let folder = |variable: &str| {
        let folder = std::env::var_os(variable).filter(|value| !value.is_empty())?;
        Some(PathBuf::from(folder).join("bin"))
    };
    let folders: Vec<PathBuf> = if let Some(venv) = venv {
        vec![venv.join("bin")]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = [folder("VIRTUAL_ENV"), folder("SPARK_HOME")];
        let own = own.into_iter().flatten();
        own.chain(std::env::split_paths(&path)).collect()
    };
    let mut programs = ["sail", "spark-submit"]
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    if let Some(program) = programs.find(|program| program.is_file()) {
        // It is started in another folder than this.
        return std::path::absolute(program).map_err(failed);
    }
    let places = match venv {
        Some(venv) => venv.join("bin").display().to_string(),
        None => "VIRTUAL_ENV, SPARK_HOME and PATH".to_owned(),
    };
    let text = format!(
        "--spark: neither sail nor spark-submit is in {places}. One of them is brought by\n  \
               python3 -m venv spark && spark/bin/pip install pysail            # 170 MB, starts in a second\n  \
               python3 -m venv spark && spark/bin/pip install 'pyspark[connect]'  # 490 MB, needs Java 17\n\
             and found by `sparkferry demo --spark --venv spark`. Or name a server that runs: \
             {VARIABLE}=sc://127.0.0.1:15002"
    );
    Err(Problem::told(Exit::Unreachable, text))
}

/// How each of the two is started, on this machine only.
fn command(program: &Path, port: u16, folder: &Path) -> Command {
    let mut command = Command::new(program);
    // Beside them stands the Python that they belong to.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = program.parent().map(Path::to_owned);
    let folders = beside.into_iter().chain(std::env::split_paths(&path));
    if let Ok(path) = std::env::join_paths(folders) {
        command.env("PATH", path);
    }
    if program.ends_with("sail") {
        command.args([
            "spark",
            "server",
            "--ip",
            "127.0.0.1",
            "--port",
            &port.to_string(),
        ]);
        return command;
    }
    command.args(["--master", "local[2]"]);
    for (key, value) in [
        ("spark.ui.enabled", "false".to_owned()),
        ("spark.sql.shuffle.partitions", "2".to_owned()),
        (
            "spark.sql.warehouse.dir",
            folder.join("warehouse").display().to_string(),
        ),
        ("spark.connect.grpc.binding.address", "127.0.0.1".to_owned()),
        ("spark.connect.grpc.binding.port", port.to_string()),
    ] {
        command.args(["--conf", &format!("{key}={value}")]);
    }
    command.args([
        "--class",
        "org.apache.spark.sql.connect.service.SparkConnectServer",
        "spark-internal",
    ]);
    command.env("SPARK_LOCAL_IP", "127.0.0.1");
    command
}

/// Free a moment ago.
fn free_port() -> std::io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
