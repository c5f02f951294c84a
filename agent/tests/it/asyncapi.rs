//! The AsyncAPI document, read by AsyncAPI's own parser.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use sparkferry_shared::{Topology, asyncapi};

fn validate(document: &Value) -> Output {
    let parser = Path::new(env!("CARGO_TARGET_TMPDIR")).join("asyncapi");
    let prepare = "run agent/tests/prepare.sh test, which installs it";
    assert!(
        parser.join("node_modules").is_dir(),
        "no parser in {}: {prepare}",
        parser.display()
    );
    // As an argument, the script finds the parser in the folder where it runs.
    let mut node = Command::new("node")
        .args([
            "--input-type=module",
            "--eval",
            include_str!("../asyncapi/validate.mjs"),
        ])
        .current_dir(parser)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("node can't be run ({e}): {prepare}"));
    node.stdin
        .take()
        .unwrap()
        .write_all(document.to_string().as_bytes())
        .unwrap();
    node.wait_with_output().unwrap()
}

#[test]
fn the_document_is_valid() {
    let output = validate(&asyncapi::document(&Topology::new("sparkferry")));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(told.trim(), "5 operations, 5 messages");
}

#[test]
fn the_parser_would_see_a_fault() {
    let mut document = asyncapi::document(&Topology::new("sparkferry"));
    document["channels"]["requests"]["bindings"]["amqp"]["is"] = "a carrier pigeon".into();
    let output = validate(&document);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("channels.requests.bindings.amqp.is"),
        "{told}"
    );
}
