//! The program itself: what it prints, and what the shell sees.

mod dead;
mod demo;
mod submit;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const REQUEST: &str = r#"{"id": "orders-1", "run_now": {"job_id": 42}}"#;

/// A folder with a configuration, where the program is started.
struct Place {
    folder: TempDir,
}

impl Place {
    /// With a SQLite queue and the connections `prod` and `test`, which nobody answers for.
    fn new() -> Self {
        let connection = |name: &str| {
            format!(
                "[connections.{name}]\ntype = \"databricks\"\nhost = \"http://127.0.0.1:9\"\n\
                 auth = {{ type = \"pat\", token = \"dapi-secret\" }}\n"
            )
        };
        Self::with(&format!(
            "default_connection = \"prod\"\n[queue]\nurl = \"sqlite:queue.db\"\n{}{}",
            connection("prod"),
            connection("test"),
        ))
    }

    fn with(configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("config")).unwrap();
        fs::write(folder.path().join("config/agent.toml"), configuration).unwrap();
        Self { folder }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sparkferry"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    fn run_with_input(&self, arguments: &[&str], input: &str) -> Ran {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        Ran::of(child.wait_with_output().unwrap())
    }
}

#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("ended by itself"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn must(self, code: i32, said: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        for part in said {
            assert!(self.err.contains(part), "{part:?} is not said: {self:?}");
        }
        assert!(!self.err.contains("dapi-secret"), "{self:?}");
        self
    }
}

/// A process that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

#[test]
fn a_wrong_command_line_is_64_and_help_is_0() {
    let place = Place::new();
    for arguments in [
        &[][..],
        &["ferry"],
        &["submit"],
        &["submit", "-", "--set", "novalue"],
        &["submit", "-", "--timeout", "5"],
        &["cancel", "no spaces"],
        &["cancel", "a", "--connection", "elsewhere"],
        &["dead", "drop", "--limit", "0"],
        &["submit", "missing.json"],
        &["sandbox", "--listen", "127.0.0.1"],
        &["sandbox", "--listen", "0.0.0.0:0"],
    ] {
        let ran = place.run(arguments).must(64, &[]);
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{ran:?}");
    }
    place
        .run(&["submit", "-", "--connection", "elsewhere"])
        .must(64, &["elsewhere", "prod, test"]);
    for arguments in [&["--help"][..], &["submit", "--help"], &["--version"]] {
        let ran = place.run(arguments).must(0, &[]);
        assert!(ran.out.contains("sparkferry"), "{ran:?}");
    }
    assert!(place.run(&["submit", "--help"]).out.contains("Examples:"));
}

#[test]
fn a_wrong_configuration_is_78_and_named() {
    let place = Place::new();
    let missing = ["watch", "--config", "nowhere.toml"];
    place.run(&missing).must(78, &["nowhere.toml"]);
    for (configuration, said) in [
        ("[queue]\nurll = \"x\"", "urll"),
        ("[queue]\nurl = \"http://x\"", "queue.url"),
        ("[queue", "config/agent.toml"),
        ("[queue]\nurl_file = \"secret\"", "secret"),
        ("", "no connection is configured"),
    ] {
        Place::with(configuration)
            .run(&["submit", "-"])
            .must(78, &["config/agent.toml", said]);
    }
    let ran = place
        .command(&["watch"])
        .env("SPARKFERRY__QUEUE__URLL", "x")
        .output()
        .unwrap();
    Ran::of(ran).must(78, &["SPARKFERRY__QUEUE__URLL"]);
}

#[test]
fn a_queue_that_is_not_there_is_69_and_its_password_is_not_said() {
    let ran = Place::new()
        .command(&["watch"])
        .env("SPARKFERRY__QUEUE__URL", "amqp://u:hunter2@127.0.0.1:9")
        .output()
        .unwrap();
    let ran = Ran::of(ran).must(69, &["127.0.0.1:9"]);
    assert!(!ran.err.contains("hunter2"), "{ran:?}");
}

#[test]
fn a_cancel_and_the_dead_letters_need_no_worker() {
    let place = Place::new();
    place
        .run(&["cancel", "orders-1", "--reason", "wrong day"])
        .must(0, &["orders-1"]);
    let ran = place.run(&["dead", "list", "--json"]).must(0, &[]);
    assert!(ran.out.is_empty());
    let ran = place.run(&["dead", "drop"]).must(0, &[]);
    assert_eq!(ran.out, "0 dropped\n");
}

#[test]
fn check_tells_each_part_and_69_where_an_engine_does_not_answer() {
    let ran = Place::new().run(&["check"]).must(69, &[]);
    for part in [
        "ok    configuration: config/agent.toml",
        "ok    queue: ",
        "FAIL  connection prod: ",
        "FAIL  connection test: ",
    ] {
        assert!(ran.out.contains(part), "{part:?} is not told: {ran:?}");
    }
    assert!(!ran.out.contains("dapi-secret"));
}

#[test]
fn schemas_are_schemas() {
    let place = Place::new();
    let request = place.run(&["schema"]).must(0, &[]).out;
    let schema = jsonschema::validator_for(&serde_json::from_str(&request).unwrap()).unwrap();
    assert!(schema.is_valid(&serde_json::from_str(REQUEST).unwrap()));
    assert!(!schema.is_valid(&serde_json::json!({ "id": "a", "run_now": {}, "x": 1 })));
    for message in ["result", "event", "cancel"] {
        let text = place.run(&["schema", message]).must(0, &[]).out;
        jsonschema::meta::validate(&serde_json::from_str(&text).unwrap()).unwrap();
    }
    let asyncapi = Place::with("namespace = \"elsewhere\"").run(&["schema", "asyncapi"]);
    let document: Value = serde_json::from_str(&asyncapi.must(0, &[]).out).unwrap();
    assert_eq!(document["asyncapi"], "3.0.0");
    assert!(document.to_string().contains("elsewhere.results"));
}

#[test]
fn the_topology_has_a_queue_for_each_connection() {
    let text = Place::new().run(&["topology"]).must(0, &[]).out;
    let definitions: Value = serde_json::from_str(&text).unwrap();
    let names: Vec<&str> = definitions["queues"]
        .as_array()
        .unwrap()
        .iter()
        .map(|queue| queue["name"].as_str().unwrap())
        .collect();
    for queue in [
        "sparkferry.requests.prod",
        "sparkferry.requests.test",
        "sparkferry.results",
    ] {
        assert!(names.contains(&queue), "{names:?}");
    }
}

#[test]
fn every_shell_has_its_completions() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.run(&["completions", shell]).must(0, &[]).out;
        assert!(script.contains("submit"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let mut child = Place::new()
        .command(&["schema", "asyncapi"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ran = Ran::of(child.wait_with_output().unwrap()).must(0, &[]);
    assert_eq!(ran.err, "");
}

#[test]
fn the_sandbox_answers_until_sigterm() {
    let place = Place::new();
    let child = place
        .command(&["sandbox", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let mut out = BufReader::new(running.0.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    let address = first.trim().rsplit_once("http://").unwrap().1;

    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /sandbox/stats HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(
        reply.starts_with("HTTP/1.1 200") && reply.contains("runs_started"),
        "{reply}"
    );

    signal(&running.0, "TERM");
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("[connections.sandbox]"), "{rest}");
}

#[test]
fn watching_ends_with_sigterm() {
    let place = Place::new();
    let child = place
        .command(&["watch"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let mut line = String::new();
    BufReader::new(running.0.stderr.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.starts_with("watching"), "{line}");
    signal(&running.0, "TERM");
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}
