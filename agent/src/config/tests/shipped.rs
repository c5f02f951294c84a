//! `config/agent.toml` as it is shipped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use config::{Config, FileFormat, Map, Value, ValueKind};
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};

use super::super::file::{
    DatabricksFile, File, HttpFile, IntervalFile, LogFile, PatFile, QueueFile, WorkerFile,
};
use super::super::spark_connect::SparkConnectFile;
use super::{PROD, load_text};

const LAKE: &str = r#"
[connections.lake]
type = "spark_connect"
url = "sc://127.0.0.1:15002"
"#;

fn shipped() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config/agent.toml");
    std::fs::read_to_string(path).unwrap()
}

/// The shipped file with every setting in it set. Settings left out are lines that begin with `#`
/// and no space.
fn shipped_with_all() -> String {
    let set = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    shipped().lines().map(|line| set(line) + "\n").collect()
}

/// Everything but the worker's name, which differs for each process.
fn shown(text: &str) -> String {
    let mut settings = load_text(text, &[]).unwrap();
    settings.worker.name.clear();
    format!("{settings:#?}")
}

#[test]
fn the_shipped_file_says_what_the_defaults_are() {
    assert_eq!(shown(&shipped()), shown(""));

    let without = [
        "url_file",
        "auth.token_file",
        "default_connection",
        "name",
        "token",
        "token_file",
    ];
    let all: String = shipped_with_all()
        .lines()
        .filter(|line| {
            !without
                .iter()
                .any(|key| line.starts_with(&format!("{key} =")))
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_eq!(shown(&all), shown(&format!("{PROD}{LAKE}")));
}

/// The names of a struct's fields, asked of the struct itself.
fn fields<T: for<'de> Deserialize<'de>>() -> BTreeSet<String> {
    struct Ask<'a>(&'a mut BTreeSet<String>);

    impl<'de> Deserializer<'de> for Ask<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom("no struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            self.0
                .extend(fields.iter().map(|field| (*field).to_owned()));
            Err(Self::Error::custom("asked for the names alone"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
            ignored_any
        }
    }

    let mut names = BTreeSet::new();
    assert!(T::deserialize(Ask(&mut names)).is_err());
    assert!(!names.is_empty());
    names
}

/// The keys of every table in a file, by the table's path.
fn tables(path: &str, table: Map<String, Value>, found: &mut BTreeMap<String, BTreeSet<String>>) {
    found.insert(path.to_owned(), table.keys().cloned().collect());
    for (key, value) in table {
        if let ValueKind::Table(inner) = value.kind {
            let path = if path.is_empty() {
                key
            } else {
                format!("{path}.{key}")
            };
            tables(&path, inner, found);
        }
    }
}

#[test]
fn every_setting_stands_in_the_shipped_file_and_nothing_else() {
    let all = Config::builder()
        .add_source(config::File::from_str(
            &shipped_with_all(),
            FileFormat::Toml,
        ))
        .build()
        .unwrap();
    let mut found = BTreeMap::new();
    tables("", all.try_deserialize().unwrap(), &mut found);

    let tagged = |mut names: BTreeSet<String>| {
        names.insert("type".to_owned());
        names
    };
    let known: BTreeMap<String, BTreeSet<String>> = [
        ("", fields::<File>()),
        ("queue", fields::<QueueFile>()),
        ("worker", fields::<WorkerFile>()),
        ("http", fields::<HttpFile>()),
        ("log", fields::<LogFile>()),
        ("connections", ["lake".to_owned(), "prod".to_owned()].into()),
        ("connections.lake", tagged(fields::<SparkConnectFile>())),
        ("connections.prod", tagged(fields::<DatabricksFile>())),
        ("connections.prod.auth", tagged(fields::<PatFile>())),
        (
            "connections.prod.poll_interval_seconds",
            fields::<IntervalFile>(),
        ),
    ]
    .into_iter()
    .map(|(path, names)| (path.to_owned(), names))
    .collect();
    assert_eq!(found, known);
}

#[test]
fn every_setting_in_the_shipped_file_has_its_words() {
    let text = shipped();
    let lines: Vec<&str> = text.lines().collect();
    let setting = |line: &str| {
        let line = line.strip_prefix('#').unwrap_or(line);
        !line.starts_with([' ', '[']) && line.contains(" = ")
    };
    let mut settings = 0;
    for pair in lines.windows(2).filter(|pair| setting(pair[1])) {
        assert!(pair[0].starts_with("# "), "no words before {:?}", pair[1]);
        settings += 1;
    }
    assert!(settings > 20, "{settings}");
}
