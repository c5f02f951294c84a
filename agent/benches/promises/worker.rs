//! A real worker process against the sandbox: idle, with many runs, told to stop.

use std::fs::File;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, interval, sleep, timeout};

use super::ground::{
    CONNECTION, Ground, PATIENCE, Workspace, count, resident_kib, sandbox_work, until,
};
use super::held;
use super::table::Table;

/// Runs held at once.
const RUNS: usize = 20_000;
/// The most that an idle worker may take, in KiB.
const IDLE: usize = 30 << 10;
/// What a worker promises its service manager.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Until what was begun is done.
const CALM: Duration = Duration::from_secs(3);
/// Runs on a page of runs/list.
const RUNS_A_PAGE: usize = 25;

pub(crate) async fn measure(table: &mut Table) {
    let ground = Ground::new().await;
    let workspace = Workspace::start().await;
    let (mut worker, pid) = start(&ground, &workspace).await;

    let idle = resident_kib(&pid);
    table.promise(
        "an idle worker",
        "at most 30 MiB",
        format!("{}.{} MiB", idle / 1024, idle % 1024 * 10 / 1024),
        idle <= IDLE,
    );

    let short = sandbox_work(Duration::from_millis(10));
    ground.warm_up(1000, &short).await;
    let before = resident_kib(&pid);
    ground
        .fill(RUNS, &sandbox_work(Duration::from_hours(1)))
        .await;
    let all = |stats: &serde_json::Value| count(stats, "/runs_active") == RUNS;
    until(&workspace, "all runs", all).await;
    // Each of them has been looked at.
    let pages = |stats: &serde_json::Value| count(stats, "/calls/jobs~1runs~1list/total");
    let looked = pages(&workspace.stats().await) + 2 * RUNS.div_ceil(RUNS_A_PAGE);
    let swept = |stats: &serde_json::Value| pages(stats) >= looked;
    until(&workspace, "two looks at all runs", swept).await;
    sleep(CALM).await;
    held::tell(table, "databricks", before, resident_kib(&pid), RUNS);

    let killing = Command::new("kill").args(["-s", "TERM", &pid]).status();
    let told = Instant::now();
    assert!(killing.await.expect("kill is there").success());
    let ended = timeout(PATIENCE, worker.wait()).await;
    let took = told.elapsed();
    let code = ended.expect("it ends").expect("our own child").code();
    let requests = ground.topology.requests_queue(CONNECTION);
    ground.until_waiting(&requests, RUNS).await;
    let stats = workspace.stats().await;
    let cancelled = count(&stats, "/calls/jobs~1runs~1cancel/total");
    let active = count(&stats, "/runs_active");
    table.promise(
        &format!("SIGTERM with {RUNS} runs held"),
        "exit 0 within 10 s, all handed back, nothing cancelled",
        format!(
            "exit {} after {:.1} s, {RUNS} handed back, {} cancelled",
            code.map_or("by signal".to_owned(), |code| code.to_string()),
            took.as_secs_f64(),
            cancelled.max(RUNS - active),
        ),
        code == Some(0) && took <= STOP_LIMIT && cancelled == 0 && active == RUNS,
    );
    ground.leave().await;
}

/// Starts a worker and waits until it is ready, and calm.
async fn start(ground: &Ground, workspace: &Workspace) -> (Child, String) {
    // Freed at once and taken by the worker: no other program gets in between but by bad luck.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let listen = free.expect("a free port").to_string();
    let connection = format!(
        "host = \"{}\"\nmax_active_runs = {RUNS}\nsubmit_per_second = 1000\npoll_per_second = 200",
        workspace.host
    );
    ground.settings(&listen, &connection);
    let log = File::create(ground.folder.path().join("worker.log")).expect("our own folder");
    let worker = Command::new(env!("CARGO_BIN_EXE_sparkferry"))
        .args(["run", "--config", "agent.toml"])
        .current_dir(ground.folder.path())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("our own program");
    let pid = worker.id().expect("it runs").to_string();
    let http = reqwest::Client::builder().no_proxy().build().expect("TLS");
    let mut looks = interval(Duration::from_millis(100));
    let ready = timeout(PATIENCE, async {
        loop {
            looks.tick().await;
            let asked = http.get(format!("http://{listen}/readyz")).send().await;
            if asked.is_ok_and(|reply| reply.status().is_success()) {
                return;
            }
        }
    });
    ready.await.expect("it becomes ready");
    sleep(CALM).await;
    (worker, pid)
}
