//! `sparkferry demo`: everything at once, as a newcomer sees it.

use std::fs;

use super::{Place, Ran};

#[test]
fn the_demo_comes_out_as_expected_and_leaves_nothing_behind() {
    let place = Place::new();
    let temporary = place.folder.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = place.command(&["demo"]);
    // Where python3 is.
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.env("TMPDIR", &temporary);
    let ran = Ran::of(command.output().unwrap()).must(0, &[]);
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
    assert!(ran.out.contains("All as it has to be"), "{ran:?}");
    assert!(!ran.out.contains('\u{1b}'), "coloured in a pipe: {ran:?}");
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}
