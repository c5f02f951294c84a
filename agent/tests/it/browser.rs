//! A real browser without a window: Debian's Chromium.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// How long it may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long the page may go on, by its own clock, which does not run while it waits for an answer.
const PAGE_TIME_MS: u32 = 1500;

/// Opens a page, lets it fetch and run what it wants, and returns what has become of its document,
/// as HTML.
pub(crate) async fn document(url: &str) -> String {
    let profile = tempfile::tempdir().expect("a temporary folder");
    let running = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ])
        .args(["--no-first-run", "--no-proxy-server", "--disable-sync"])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--virtual-time-budget={PAGE_TIME_MS}"))
        .args(["--dump-dom", url])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ran = timeout(PATIENCE, running).await;
    let ran = ran.expect("waited in vain for the browser");
    let ran = ran.expect("Chromium is there; agent/tests/prepare.sh test brings it");
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{errors}");
    String::from_utf8(ran.stdout).expect("HTML")
}
