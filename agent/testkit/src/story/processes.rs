//! What is done to a worker's process, and asked of it.

use std::fs;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

/// What a worker promises its service manager.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Ends a worker by SIGTERM, as it promises.
pub async fn stop(worker: &mut Child) {
    signal(worker, "TERM").await;
    let ended = timeout(STOP_LIMIT, worker.wait()).await;
    let ended = ended.unwrap_or_else(|_| panic!("it runs on after {STOP_LIMIT:?}"));
    assert_eq!(ended.expect("our own child").code(), Some(0));
}

/// The most memory that a process has had so far, in MiB.
pub fn peak_memory(process: &Child) -> usize {
    let id = process.id().expect("it runs");
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    kibibytes.expect("Linux tells") / 1024
}

/// Sends a signal by its name, such as `STOP`.
pub async fn signal(worker: &Child, name: &str) {
    let pid = worker.id().expect("it runs").to_string();
    let signal = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(signal.await.expect("kill is there").success());
}

/// What the files of workers on SQLite may grow to when their disk is full: less than a
/// page of the database.
pub const FULL_DISK: u32 = 4096;

/// Limits the size of a worker's files from now on, as a full disk does, or takes the limit away.
pub async fn limit_files(worker: &Child, limit: Option<u32>) {
    let pid = worker.id().expect("it runs").to_string();
    let limit = limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
    // The hard limit stays: it could not be raised again by everybody.
    let limit = format!("--fsize={limit}:");
    let limited = Command::new("prlimit")
        .args(["--pid", &pid, &limit])
        .status();
    let limited = limited.await.expect("util-linux is installed");
    assert!(limited.success());
}
