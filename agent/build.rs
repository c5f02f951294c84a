//! Puts the version that `--version` prints together: `0.1.0 (1f2e3d4c5b6a 2026-11-21)`.
//!
//! | | from | else |
//! |---|---|---|
//! | commit | the variable `BUILD_COMMIT` | git, in a release build within our own repository |
//! | date | the variable `SOURCE_DATE_EPOCH` (seconds, as reproducible builds have it) | the commit's, from git |
//!
//! What can't be known is left out: sources from a tarball build too. No clock is read, so the same
//! sources make the same program on any day. Builds for development don't ask git: each commit would
//! make the whole crate anew.

use std::env;
use std::path::Path;
use std::process::Command;

/// So many characters name a commit.
const COMMIT_LENGTH: usize = 12;

fn main() {
    for variable in ["BUILD_COMMIT", "SOURCE_DATE_EPOCH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let package = set("CARGO_MANIFEST_DIR").unwrap_or_default();
    let git = match set("PROFILE").as_deref() {
        Some("release") => Path::new(&package).parent().and_then(Git::of),
        _ => None,
    };
    let commit = set("BUILD_COMMIT")
        .filter(|commit| commit != "unknown")
        .or_else(|| git.as_ref().map(|git| git.commit.clone()));
    let date = set("SOURCE_DATE_EPOCH")
        .and_then(|seconds| seconds.parse().ok())
        // What reproducible builds are told where there is no commit.
        .filter(|seconds| *seconds > 0)
        .map(date)
        .or_else(|| git.map(|git| git.date));
    let commit = commit.map(|commit| commit.chars().take(COMMIT_LENGTH).collect());
    let known: Vec<String> = [commit, date].into_iter().flatten().collect();
    let version = set("CARGO_PKG_VERSION").unwrap_or_default();
    if known.is_empty() {
        println!("cargo::rustc-env=BUILD_VERSION={version}");
    } else {
        let known = known.join(" ");
        println!("cargo::rustc-env=BUILD_VERSION={version} ({known})");
    }
}

/// What git says of the last commit.
struct Git {
    commit: String,
    /// Such as `2026-11-21`.
    date: String,
}

impl Git {
    /// `None` where the sources are no repository of their own: one that merely lies around them
    /// says nothing about them.
    fn of(root: &Path) -> Option<Self> {
        let ask = |arguments: &[&str]| {
            let asked = Command::new("git")
                .arg("-C")
                .arg(root)
                .args(arguments)
                .output();
            let asked = asked.ok().filter(|output| output.status.success())?;
            Some(String::from_utf8(asked.stdout).ok()?.trim().to_owned())
        };
        if !root.join(".git").exists() {
            return None;
        }
        let log = ask(&["rev-parse", "--git-path", "logs/HEAD"])?;
        println!("cargo::rerun-if-changed={}", root.join(log).display());
        let seconds = ask(&["log", "-1", "--format=%ct"])?.parse().ok()?;
        Some(Self {
            commit: ask(&["rev-parse", "HEAD"])?,
            date: date(seconds),
        })
    }
}

/// The day, in UTC, of a moment in seconds since 1970.
///
/// Counted in eras of 400 years, whose first day is the 1st of March: so a leap day is the last one
/// of its year.
fn date(seconds: u64) -> String {
    const ERA: u64 = 146_097;
    // From the 1st of March of the year 0 to 1970.
    let days = seconds / 86_400 + 719_468;
    let day_of_era = days % ERA;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / (ERA - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = days / ERA * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
