//! `sparkferry demo`: everything at once, as a newcomer sees it.

use std::fs;

use super::{Place, Ran};

/// Made by `agent/tests/prepare.sh test`.
const SAIL: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/sail");

/// The demo comes out well and leaves nothing behind. Returns what it printed.
fn shown(arguments: &[&str]) -> Ran {
    let place = Place::new();
    let temporary = place.folder.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = place.command(&[&["demo"], arguments].concat());
    // Where python3 is.
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.env("TMPDIR", &temporary);
    let ran = Ran::of(command.output().unwrap()).must(0, &[]);
    assert!(ran.out.contains("All as it has to be"), "{ran:?}");
    assert!(!ran.out.contains('\u{1b}'), "coloured in a pipe: {ran:?}");
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
    ran
}

#[test]
fn the_demo_comes_out_as_expected_and_leaves_nothing_behind() {
    let ran = shown(&[]);
    for id in [
        "job-by-name",
        "python-file",
        "three-tasks",
        "user-error",
        "cluster-failure",
        "lost-reply",
        "cancelled",
        "bad-request",
    ] {
        assert!(ran.out.contains(id), "{id} is not told: {ran:?}");
    }
    assert!(!ran.out.contains("spark-steps"), "{ran:?}");
}

#[test]
fn with_a_spark_connect_server_the_demo_runs_statements() {
    let ran = shown(&["--spark", "--venv", SAIL]);
    for told in ["bin/sail", "spark-steps", "spark-error", "job-by-name"] {
        assert!(ran.out.contains(told), "{told} is not told: {ran:?}");
    }
}

#[test]
fn a_spark_connect_server_that_is_not_there_is_69_and_how_to_get_one_is_said() {
    let place = Place::new();
    let said = ["pip install pysail", "SPARK_REMOTE"];
    place
        .run(&["demo", "--spark", "--venv", "."])
        .must(69, &said);
    place.run(&["demo", "--spark"]).must(69, &said);
    for (remote, code, said) in [
        ("sc://127.0.0.1:9", 69, "SPARK_REMOTE: "),
        ("spark://127.0.0.1", 78, "sc://"),
    ] {
        let mut command = place.command(&["demo"]);
        command.env("SPARK_REMOTE", remote);
        Ran::of(command.output().unwrap()).must(code, &[said]);
    }
}
