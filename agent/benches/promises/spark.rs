//! Spark Connect on a real server, Sail: what the engine adds to the bare calls, operations at once,
//! and the memory that a large result takes.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sparkferry_agent::config;
use sparkferry_agent::engine::table as engines;
use sparkferry_ports::engine::{Change, Ended, Engine, Run, Start, Unknown};
use sparkferry_shared::{Names, OnFailure, Work};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, interval, timeout};
use uuid::Uuid;

use super::bare_spark::BareSpark;
use super::ground::{PATIENCE, resident_kib};
use super::table::{Table, percentile};

/// Brought by `agent/tests/prepare.sh bench`.
const SAIL: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/sail/bin/sail");
/// The one connection.
const CONNECTION: &str = "lake";
/// Statements by turns, for the comparison.
const TURNS: usize = 200;
/// The most that the engine may add to the bare calls, in milliseconds.
const MOST_MS: f64 = 5.0;
/// Operations at once, and the rows of each: more than the connection carries ahead of its reader.
const AT_ONCE: usize = 16;
const ROWS_EACH: usize = 1_000_000;
/// A result of at least so many bytes, and by how much the memory may grow, in KiB.
const LARGE: usize = 100_000_000;
const LARGE_ROWS: usize = 13_000_000;
const GROWTH: usize = 64 << 10;

pub(crate) async fn measure(table: &mut Table) {
    let Some(sail) = Sail::start().await else {
        let why = format!("skipped: there is no {SAIL} (agent/tests/prepare.sh bench brings it)");
        return table.note("Spark Connect", why);
    };
    let engine = sail.engine();
    added(table, &*engine, sail.port).await;
    // First: what many operations leave in this process' memory would hide what one takes.
    large(table, &*engine, sail.port).await;
    at_once(table, &*engine).await;
}

/// `SELECT 1` by the engine and by the bare calls, by turns.
async fn added(table: &mut Table, engine: &dyn Engine, port: u16) {
    let mut bare = BareSpark::connect(port);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // The first turns warm everybody up.
    for turn in 0..TURNS + 20 {
        let began = Instant::now();
        let output = finish(begin(engine, "SELECT 1").await).await;
        let engine_ms = milliseconds(began);
        assert_eq!(output["steps"][0]["rows"], json!([[1]]));
        let began = Instant::now();
        bare.statement("SELECT 1").await;
        let bare_ms = milliseconds(began);
        if turn >= 20 {
            ours.push(engine_ms);
            theirs.push(bare_ms);
        }
    }
    ours.sort_by(f64::total_cmp);
    theirs.sort_by(f64::total_cmp);
    let (ours, theirs) = (percentile(&ours, 50), percentile(&theirs, 50));
    table.promise(
        &format!("SELECT 1 on a warm Sail, median of {TURNS} by turns"),
        "at most 5 ms more than the bare calls",
        format!(
            "{:.1} ms more ({ours:.1} ms, bare {theirs:.1} ms)",
            ours - theirs
        ),
        ours - theirs <= MOST_MS,
    );
}

/// All of them have begun before the first is read to its end.
async fn at_once(table: &mut Table, engine: &dyn Engine) {
    let statement = format!("SELECT * FROM range({ROWS_EACH})");
    let began = Instant::now();
    let runs = join_all((0..AT_ONCE).map(|_| begin(engine, &statement))).await;
    let outputs = join_all(runs.into_iter().map(finish)).await;
    let took = began.elapsed();
    let whole = outputs
        .iter()
        .filter(|output| output["steps"][0]["row_count"] == json!(ROWS_EACH));
    let whole = whole.count();
    table.promise(
        &format!("{AT_ONCE} operations at once, {ROWS_EACH} rows each"),
        "all of them succeed",
        format!("{whole} succeeded, in {:.1} s", took.as_secs_f64()),
        whole == AT_ONCE,
    );
}

/// The peak of this process' memory while a large result goes by.
async fn large(table: &mut Table, engine: &dyn Engine, port: u16) {
    let statement = format!("SELECT * FROM range({LARGE_ROWS})");
    let before = resident_kib("self");
    // From here on VmHWM is the peak since now.
    fs::write("/proc/self/clear_refs", "5").expect("Linux");
    let output = finish(begin(engine, &statement).await).await;
    let growth = peak_kib().saturating_sub(before);
    let step = &output["steps"][0];
    let cut = step["row_count"] == json!(LARGE_ROWS) && step["truncated"] == json!(true);
    // How much that was, somebody else tells.
    let bytes = BareSpark::connect(port).statement(&statement).await;
    table.promise(
        "a result of 100 MB of which 1000 rows are kept",
        "at most 64 MiB more resident",
        format!(
            "{}.{} MiB more, of {} MB",
            growth / 1024,
            growth % 1024 * 10 / 1024,
            bytes / 1_000_000
        ),
        cut && bytes >= LARGE && growth <= GROWTH,
    );
}

/// Begins a statement; returns once the server has answered about it.
async fn begin(engine: &dyn Engine, statement: &str) -> Box<dyn Run> {
    let body = serde_json::from_value(json!({"steps": [{"sql": statement}]}));
    let id = Uuid::now_v7().to_string();
    let attaching = engine
        .attach_or_start(&Start {
            names: &Names::new("bench", CONNECTION, &id),
            attempt: 1,
            work: &Work::SparkConnect(body.expect("steps")),
            on_failure: OnFailure::Rerun,
            seen_before: false,
            unknown: Unknown::Start,
            past: &[],
            since: Instant::now(),
        })
        .await;
    attaching.expect("it begins").run
}

/// Follows a run to its end, and has the server forget it.
async fn finish(mut run: Box<dyn Run>) -> Value {
    loop {
        match run.next().await {
            Change::State(_) => {}
            Change::Ended(Ended::Success) => break,
            Change::Ended(other) => panic!("{other:?}"),
        }
    }
    let output = run.output(256 << 10).await;
    run.release().await;
    output.expect("it is held").expect("rows")
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// The most memory of this process that was resident, in KiB.
fn peak_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).expect("KiB")
}

/// A server of our own; ends with its measurement.
struct Sail {
    port: u16,
    _process: Child,
    _folder: TempDir,
}

impl Sail {
    /// `None` where it is not installed.
    async fn start() -> Option<Self> {
        if !Path::new(SAIL).exists() {
            return None;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = fs::File::create(folder.path().join("log")).expect("our own folder");
        let process = Command::new(SAIL)
            .args(["spark", "server", "--ip", "127.0.0.1", "--port"])
            .arg(port.to_string())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("Sail starts");
        let sail = Self {
            port,
            _process: process,
            _folder: folder,
        };
        let engine = sail.engine();
        let mut looks = interval(Duration::from_millis(100));
        let ready = timeout(PATIENCE, async {
            while engine.check().await.is_err() {
                looks.tick().await;
            }
        });
        ready.await.expect("Sail answers");
        Some(sail)
    }

    /// By the settings that a worker would have.
    fn engine(&self) -> Arc<dyn Engine> {
        let setting = |key: &str, text: String| {
            let prefix = config::VARIABLE_PREFIX;
            (format!("{prefix}CONNECTIONS__{CONNECTION}__{key}"), text)
        };
        let variables = HashMap::from([
            setting("TYPE", "spark_connect".to_owned()),
            setting("URL", format!("sc://127.0.0.1:{}", self.port)),
        ]);
        let settings = config::load(None, &variables).expect("right settings");
        let connection = &settings.connections[CONNECTION];
        engines::open(CONNECTION, connection, &settings).expect("an engine")
    }
}
