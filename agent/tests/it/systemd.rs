//! The units, the package and the version, as they are shipped.
//!
//! The stories of a real systemd (`tests/systemd/stories.sh`) need root and what
//! `TEST_DEPLOY=1 agent/tests/prepare.sh test` installs. Where the variable is set they
//! are told or fail; else they are skipped, and `make test` says so. `TEST_DEB` names a package for
//! them, such as `make deb` makes; without it they have one of the program that the tests run.

use std::collections::HashMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A place under the repository's root.
fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(command: &mut Command) -> Output {
    let output = command.output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}:\n{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

/// A unit's settings without comments.
fn settings(unit: &str) -> Vec<String> {
    let unit = fs::read_to_string(project("systemd").join(unit)).unwrap();
    let lines = unit.lines().filter(|line| !line.is_empty());
    let lines = lines.filter(|line| !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_template_differs_from_the_service_in_its_places_alone() {
    let one = settings("sparkferry.service");
    let template: Vec<_> = settings("sparkferry@.service")
        .iter()
        .map(|line| {
            ["/%i", "-%i", " (%i)"]
                .iter()
                .fold(line.clone(), |line, part| line.replace(part, ""))
        })
        .collect();
    assert_eq!(one, template);
    assert!(one.len() > 40, "{one:#?}");
}

#[test]
fn a_stop_is_given_more_time_than_a_drain_takes_and_the_watchdog_more_than_a_beat() {
    let settings: HashMap<_, _> = settings("sparkferry.service")
        .into_iter()
        .filter_map(|line| {
            let (name, value) = line.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        })
        .collect();
    let seconds = |name: &str| settings[name].parse::<u64>().unwrap();
    assert!(seconds("TimeoutStopSec") > 10);
    assert!(seconds("WatchdogSec") >= 20);
    assert_eq!(settings["Type"], "notify");
}

/// Builds `build.rs` as cargo would, and asks it about a package in some folder.
struct BuildScript {
    folder: tempfile::TempDir,
}

impl BuildScript {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        succeeds(
            Command::new(rustc)
                .args(["--edition", "2024", "-o"])
                .arg(folder.path().join("build"))
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs")),
        );
        fs::create_dir_all(folder.path().join("sources/agent")).unwrap();
        Self { folder }
    }

    fn sources(&self) -> PathBuf {
        self.folder.path().join("sources")
    }

    fn version(&self, profile: &str, variables: &[(&str, &str)]) -> String {
        let output = succeeds(
            Command::new(self.folder.path().join("build"))
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .env("CARGO_PKG_VERSION", "1.2.3")
                .env("CARGO_MANIFEST_DIR", self.sources().join("agent"))
                .env("PROFILE", profile)
                .envs(variables.iter().copied()),
        );
        let told = text(&output.stdout);
        let version = told
            .lines()
            .find_map(|line| line.strip_prefix("cargo::rustc-env=BUILD_VERSION="));
        version.expect("a version").to_owned()
    }
}

#[test]
fn the_version_has_commit_and_date_as_far_as_they_are_known() {
    let script = BuildScript::new();
    // A tarball, which may lie within a repository that is not its own.
    let git = |arguments: &[&str], place: &Path| {
        succeeds(
            Command::new("git")
                .args(["-c", "user.name=x", "-c", "user.email=x@x.invalid"])
                .args(arguments)
                .env("GIT_COMMITTER_DATE", "2024-02-29T23:59:59Z")
                .current_dir(place),
        )
    };
    git(&["init", "--quiet"], script.folder.path());
    git(
        &["commit", "--quiet", "--allow-empty", "-m", "x"],
        script.folder.path(),
    );
    assert_eq!(script.version("release", &[]), "1.2.3");
    let named = [
        ("BUILD_COMMIT", "0123456789abcdef0123"),
        ("SOURCE_DATE_EPOCH", "1795219200"),
    ];
    let version = script.version("release", &named);
    assert_eq!(version, "1.2.3 (0123456789ab 2026-11-21)");
    assert_eq!(script.version("debug", &named[1..]), "1.2.3 (2026-11-21)");
    for epoch in ["", "0"] {
        let unknown = [("BUILD_COMMIT", "unknown"), ("SOURCE_DATE_EPOCH", epoch)];
        assert_eq!(script.version("release", &unknown), "1.2.3");
    }

    let sources = script.sources();
    git(&["init", "--quiet"], &sources);
    git(&["commit", "--quiet", "--allow-empty", "-m", "x"], &sources);
    let head = text(&git(&["rev-parse", "--short=12", "HEAD"], &sources).stdout);
    let version = format!("1.2.3 ({} 2024-02-29)", head.trim());
    assert_eq!(script.version("release", &[]), version);
    assert_eq!(
        script.version("debug", &[]),
        "1.2.3",
        "no rebuild for each commit"
    );
}

#[test]
fn a_real_systemd_starts_watches_reloads_and_stops_it() {
    if std::env::var_os("TEST_DEPLOY").is_none() {
        eprintln!("SKIPPED: TEST_DEPLOY is not set, so no systemd is booted");
        return;
    }
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let root = tools.join("systemd-rootfs.tar");
    assert!(
        root.is_file(),
        "no {}: run TEST_DEPLOY=1 agent/tests/prepare.sh test, which makes it",
        root.display()
    );
    let folder = tempfile::tempdir_in(tools).unwrap();
    let package = match std::env::var_os("TEST_DEB") {
        Some(package) => PathBuf::from(package),
        None => unoptimized(folder.path()),
    };
    let boot = succeeds(
        Command::new("bash")
            .arg(project("agent/tests/systemd/boot.sh"))
            .args([&root, &package, &folder.path().join("boot")]),
    );
    let told = text(&boot.stdout);
    assert!(told.ends_with("all told\n"), "{told}");
}

/// A package of the program that the tests were built with.
fn unoptimized(folder: &Path) -> PathBuf {
    let package = folder.join("sparkferry.deb");
    let prepare = project("agent/tests/prepare.sh");
    let cargo_deb = succeeds(Command::new(prepare).args(["--where", "cargo-deb"]));
    succeeds(
        Command::new(text(&cargo_deb.stdout).trim())
            .args(["--package", "sparkferry-agent", "--locked", "--offline"])
            .args(["--no-build", "--profile", "dev"])
            .args(["--no-strip", "--no-dbgsym", "--fast", "--quiet", "--output"])
            .arg(&package)
            .current_dir(project(".")),
    );
    package
}

/// A worker whose service manager is this test.
struct Managed {
    place: tempfile::TempDir,
    socket: UnixDatagram,
    worker: Child,
}

impl Managed {
    fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(place.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        configure(&place, "");
        let worker = Command::new(env!("CARGO_BIN_EXE_sparkferry"))
            .args(["run", "--config", "agent.toml"])
            .current_dir(place.path())
            .env_clear()
            .env("NOTIFY_SOCKET", place.path().join("notify"))
            .stdin(Stdio::null())
            .stderr(fs::File::create(place.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self {
            place,
            socket,
            worker,
        }
    }

    /// What it says next, besides that it lives.
    fn says(&self) -> Vec<String> {
        loop {
            let mut message = [0; 4096];
            let length = self.socket.recv(&mut message).unwrap_or_else(|e| {
                let log = fs::read_to_string(self.place.path().join("log"));
                panic!("it says nothing more ({e}): {log:?}")
            });
            let lines = text(&message[..length]);
            let lines: Vec<_> = lines.lines().map(str::to_owned).collect();
            if lines[0] != "WATCHDOG=1" {
                return lines;
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.worker.id().to_string();
        succeeds(Command::new("kill").args(["-s", name, &pid]));
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        let _ = self.worker.kill();
        let _ = self.worker.wait();
    }
}

/// With a connection that nobody answers for, which a worker that has nothing to do never notices.
fn configure(place: &tempfile::TempDir, more: &str) {
    let text = format!(
        "[queue]\nurl = \"sqlite:queue.db\"\n[http]\nlisten = \"\"\n[connections.prod]\n\
         type = \"databricks\"\nhost = \"http://127.0.0.1:9\"\n\
         auth = {{ type = \"pat\", token = \"t\" }}\n{more}"
    );
    fs::write(place.path().join("agent.toml"), text).unwrap();
}

#[test]
fn the_service_manager_is_told_everything() {
    let mut managed = Managed::start();
    let ready = managed.says();
    assert_eq!(
        ready,
        [
            "READY=1",
            "WATCHDOG=1",
            "STATUS=0 requests under way, 1 connection"
        ]
    );
    // It goes on to live: two beats in a row.
    for _ in 0..2 {
        let mut message = [0; 64];
        let length = managed.socket.recv(&mut message).unwrap();
        assert_eq!(text(&message[..length]), "WATCHDOG=1\n");
    }

    let reload = |managed: &Managed, status: &str| {
        managed.signal("HUP");
        let begins = managed.says();
        assert_eq!(begins[0], "RELOADING=1");
        assert!(begins[1].starts_with("MONOTONIC_USEC="), "{begins:?}");
        let ends = managed.says();
        assert_eq!(ends[0], "READY=1");
        assert!(ends[1].starts_with(status), "{ends:?}");
    };
    configure(&managed.place, "max_active_runs = 0\n");
    let refused = "STATUS=0 requests under way, 1 connection; configuration refused: ";
    reload(&managed, refused);
    configure(&managed.place, "[worker]\nname = \"other\"\n");
    let restart = format!("{refused}what changed needs a restart: worker");
    reload(&managed, &restart);
    configure(&managed.place, "");
    reload(&managed, "STATUS=0 requests under way, 1 connection");

    managed.signal("TERM");
    assert_eq!(managed.says()[0], "STOPPING=1");
    assert!(managed.worker.wait().unwrap().success());
}
