//! Imports run one way between the rooms of this crate: `cli -> worker -> flow -> retry`, engines ->
//! `http`. (Between crates Cargo sees to it.) Read from the sources, without their tests and comments.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each room may import of the others; `a::b` is that part of a room and nothing else of it.
const ROOMS: [(&str, &[&str]); 13] = [
    (
        "cli",
        &[
            "config", "engine", "flow", "http", "observe", "queue", "retry", "worker",
        ],
    ),
    ("config", &[]),
    ("engine", &["config", "http", "observe"]),
    ("flow", &["observe", "retry"]),
    // Not in any program.
    (
        "fuzzing",
        &["config", "engine::fuzzing", "policy", "queue::fuzzing"],
    ),
    ("http", &["config", "observe"]),
    ("lib", &[]),
    ("main", &["cli"]),
    ("observe", &["config"]),
    ("policy", &["config"]),
    ("queue", &["config", "observe"]),
    ("retry", &[]),
    (
        "worker",
        &[
            "config",
            "engine::trim",
            "flow",
            "observe",
            "policy",
            "retry",
        ],
    ),
];

/// What stands behind a port: named by its own room, by the tables, and by the wiring in `cli` alone.
const BEHIND_PORTS: [&str; 4] = [
    "queue::amqp",
    "queue::sqlite",
    "engine::databricks",
    "engine::spark_connect",
];

/// What stands behind a port and is lent to a neighbour: a Spark Connect server can be a cluster of
/// a workspace, which Databricks' REST API starts and lets in.
const LENT: [(&str, &str); 2] = [
    ("engine/spark_connect/cluster", "engine::databricks::Client"),
    (
        "engine/spark_connect/cluster",
        "engine::databricks::Cluster",
    ),
];

/// Crates that only some folders may name.
const CRATES: [(&str, &[&str]); 8] = [
    ("lapin", &["queue/amqp"]),
    ("rusqlite", &["queue/sqlite"]),
    ("sd_notify", &["observe/notify"]),
    ("tracing_journald", &["observe/log"]),
    // The demo creates a job in its sandbox and reads the sandbox's books, which no engine does.
    ("reqwest", &["http", "engine/databricks", "cli/demo"]),
    ("spark_connect_proto", &["engine/spark_connect"]),
    ("sparkferry_sandbox", &["cli"]),
    ("tonic", &["engine/spark_connect"]),
];

/// A source file: its path under `src` without the ending, and its code.
struct Source {
    path: String,
    code: String,
}

impl Source {
    fn room(&self) -> &str {
        self.path.split('/').next().unwrap()
    }

    fn is_in(&self, folder: &str) -> bool {
        let rest = self.path.strip_prefix(folder);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// How many modules its own module lies under the crate's root.
    fn depth(&self) -> usize {
        let path = self.path.strip_suffix("/mod").unwrap_or(&self.path);
        path.split('/').count()
    }

    /// Every path from the crate's root that it names.
    fn imports(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        // The program names its library by the crate's name.
        let own = if self.path == "main" {
            "sparkferry_agent::"
        } else {
            "crate::"
        };
        let from_root = "super::".repeat(self.depth());
        for beginning in [own, &from_root] {
            for rest in after(&self.code, beginning) {
                expand("", rest, &mut found);
            }
        }
        found
    }
}

/// What follows each place where `word` stands by itself.
fn after<'a>(code: &'a str, word: &str) -> Vec<&'a str> {
    let part_of_another = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    code.match_indices(word)
        .filter(|(at, _)| !code[..*at].ends_with(part_of_another))
        .map(|(at, _)| &code[at + word.len()..])
        .collect()
}

/// `a::{b, c::d}` is `a::b` and `a::c::d`. Returns what stands after it.
fn expand<'a>(before: &str, code: &'a str, found: &mut BTreeSet<String>) -> &'a str {
    let join = |name: &str| {
        if before.is_empty() {
            name.to_owned()
        } else {
            format!("{before}::{name}")
        }
    };
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            if let Some(end) = rest.strip_prefix('}') {
                return end;
            }
            let next = expand(before, rest, found);
            // Behind a name may stand `as other`, which is no import.
            rest = &next[next.find([',', '}', '{']).unwrap_or(next.len())..];
            if rest.is_empty() {
                return rest;
            }
        }
    }
    let end = code
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(code.len());
    let (name, rest) = code.split_at(end);
    match rest.strip_prefix("::") {
        _ if name.is_empty() => rest,
        Some(more) => expand(&join(name), more, found),
        None => {
            found.insert(join(name));
            rest
        }
    }
}

/// The code without line comments and without its tests, which stand at the end or in other files.
fn without_tests(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line != "#[cfg(test)]" {
            code.push_str(line.split("//").next().unwrap_or_default());
            code.push('\n');
        } else if lines.next().is_none_or(|module| !module.ends_with(';')) {
            break;
        }
    }
    code
}

fn sources() -> Vec<Source> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<Source>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            // Tests of a room stand in `tests` or `tests.rs`.
            if name == "tests" {
                continue;
            }
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let short = path.with_extension("");
                found.push(Source {
                    path: short
                        .strip_prefix(root)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                    code: without_tests(&fs::read_to_string(&path).unwrap()),
                });
            }
        }
    }

    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    assert!(found.len() > 15, "{} sources", found.len());
    found
}

/// Whether a path is a place, or lies in it.
fn lies_in(path: &str, place: &str) -> bool {
    path.strip_prefix(place)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// What a file imports though it may not.
fn wrong_imports(source: &Source) -> Vec<String> {
    let room = source.room();
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!(
            "{}: the room {room} is not in the table of arrows",
            source.path
        )];
    };
    let known = |path: &str| ROOMS.iter().any(|(name, _)| lies_in(path, name));
    let fine = |path: &str| {
        let behind = BEHIND_PORTS.iter().any(|part| lies_in(path, part)) && room != "cli";
        lies_in(path, room) || allowed.iter().any(|place| lies_in(path, place)) && !behind
    };
    source
        .imports()
        .into_iter()
        .filter(|path| known(path) && !fine(path))
        .map(|path| format!("{} may not import {path}", source.path))
        .collect()
}

#[test]
fn imports_run_one_way() {
    let wrong: Vec<_> = sources().iter().flat_map(wrong_imports).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_stands_behind_a_port_knows_nothing_of_its_neighbours() {
    for source in sources() {
        let own = BEHIND_PORTS
            .iter()
            .find(|part| source.is_in(&part.replace("::", "/")));
        let Some(own) = own else { continue };
        for path in source.imports() {
            let other = BEHIND_PORTS.iter().find(|part| lies_in(&path, part));
            let lent = LENT.contains(&(source.path.as_str(), path.as_str()));
            assert!(
                lent || other.is_none_or(|other| other == own),
                "{} may not import {path}",
                source.path
            );
        }
    }
}

#[test]
fn a_foreign_crate_is_named_in_one_place() {
    for source in sources() {
        for (name, folders) in CRATES {
            let named = !after(&source.code, &format!("{name}::")).is_empty()
                || !after(&source.code, &format!("use {name}")).is_empty();
            let allowed = folders.iter().any(|folder| source.is_in(folder));
            assert!(!named || allowed, "{} may not name {name}", source.path);
        }
    }
}

#[test]
fn this_test_sees_what_it_looks_for() {
    let source = |path: &str, text: &str| Source {
        path: path.to_owned(),
        code: without_tests(text),
    };
    let flow = source(
        "flow/attach",
        "use crate::{\n  engine::{self as e, Fault, databricks::client::Client},\n  queue::Lease,\n};\n\
         // crate::worker\n\
         fn x() { super::super::policy::y(); super::z() }\n\
         #[cfg(test)]\nmod tests { use crate::cli; }\n",
    );
    let paths: Vec<_> = flow.imports().into_iter().collect();
    assert_eq!(
        paths,
        [
            "engine::Fault",
            "engine::databricks::client::Client",
            "engine::self",
            "policy::y",
            "queue::Lease",
        ]
    );
    assert_eq!(
        wrong_imports(&flow),
        [
            "flow/attach may not import engine::Fault",
            "flow/attach may not import engine::databricks::client::Client",
            "flow/attach may not import engine::self",
            "flow/attach may not import policy::y",
            "flow/attach may not import queue::Lease",
        ]
    );
    let policy = source(
        "policy/mod",
        "#[cfg(test)]\nmod tests;\nuse crate::engine::{Engine};",
    );
    assert_eq!(
        wrong_imports(&policy),
        ["policy/mod may not import engine::Engine"]
    );
    let main = source("main", "fn main() { sparkferry_agent::worker::x() }");
    assert_eq!(wrong_imports(&main), ["main may not import worker::x"]);
    assert_eq!(wrong_imports(&source("attic", "")).len(), 1);
    assert!(wrong_imports(&source("queue/mod", "use super::super::tokio;")).is_empty());
}
