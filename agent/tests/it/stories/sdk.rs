//! databricks-sdk for Python against the sandbox.

use tokio::process::Command;
use tokio::time::timeout;

use super::harness::{PATIENCE, Workspace};

/// Made by `agent/tests/prepare.sh test`.
const PYTHON: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/python/bin/python");
const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/python/sdk_against_sandbox.py"
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databricks_sdk_for_python_runs_unchanged() {
    let workspace = Workspace::start().await;
    let running = Command::new(PYTHON)
        .args([SCRIPT, &workspace.host])
        .env("NO_PROXY", "127.0.0.1")
        .kill_on_drop(true)
        .output();
    let ran = timeout(PATIENCE, running).await;
    let ran = ran.expect("waited in vain for the script");
    let ran = ran.expect("Python is there; agent/tests/prepare.sh test brings it");
    assert!(
        ran.status.success(),
        "{}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
}
