//! The units, the package and the version, as they are shipped.
//!
//! The stories of a real systemd (`tests/systemd/stories.sh`) need root and what
//! `SPARKFERRY_TEST_DEPLOY=1 agent/tests/prepare.sh test` installs. Where the variable is set they
//! are told or fail; else they are skipped, and `make test` says so.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
            .find_map(|line| line.strip_prefix("cargo::rustc-env=SPARKFERRY_VERSION="));
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
        ("SPARKFERRY_COMMIT", "0123456789abcdef0123"),
        ("SOURCE_DATE_EPOCH", "1795219200"),
    ];
    let version = script.version("release", &named);
    assert_eq!(version, "1.2.3 (0123456789ab 2026-11-21)");
    assert_eq!(script.version("debug", &named[1..]), "1.2.3 (2026-11-21)");
    let unknown = [("SPARKFERRY_COMMIT", "unknown"), ("SOURCE_DATE_EPOCH", "")];
    assert_eq!(script.version("release", &unknown), "1.2.3");

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
    if std::env::var_os("SPARKFERRY_TEST_DEPLOY").is_none() {
        eprintln!("SKIPPED: SPARKFERRY_TEST_DEPLOY is not set, so no systemd is booted");
        return;
    }
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let root = tools.join("systemd-rootfs.tar");
    assert!(
        root.is_file(),
        "no {}: run SPARKFERRY_TEST_DEPLOY=1 agent/tests/prepare.sh test, which makes it",
        root.display()
    );
    let prepare = project("agent/tests/prepare.sh");
    let cargo_deb = succeeds(Command::new(prepare).args(["--where", "cargo-deb"]));
    let folder = tempfile::tempdir_in(tools).unwrap();
    let package = folder.path().join("sparkferry.deb");
    // The program that the tests were built with, unoptimized.
    succeeds(
        Command::new(text(&cargo_deb.stdout).trim())
            .args(["--package", "sparkferry-agent", "--locked", "--offline"])
            .args(["--no-build", "--profile", "dev"])
            .args(["--no-strip", "--no-dbgsym", "--fast", "--quiet", "--output"])
            .arg(&package)
            .current_dir(project(".")),
    );
    let boot = succeeds(
        Command::new("bash")
            .arg(project("agent/tests/systemd/boot.sh"))
            .args([&root, &package, &folder.path().join("boot")]),
    );
    let told = text(&boot.stdout);
    assert!(told.ends_with("all told\n"), "{told}");
}
