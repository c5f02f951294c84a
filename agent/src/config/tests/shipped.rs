//! `config/agent.toml` as it is shipped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use config::{Config, FileFormat, Map, Value, ValueKind};
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};

use super::super::file::{
    DatabricksFile, FederationFile, File, HttpFile, IdentityFile, IntervalFile, LogFile, M2mFile,
    PatFile, PrincipalFile, ProfileFile, QueueFile, TlsFile, WorkerFile,
};
use super::super::policy::PolicyFile;
use super::super::queue_tls::QueueTlsFile;
use super::super::spark_connect::SparkConnectFile;
use super::super::{Auth, Compute, Connection};
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

/// The same without those that exclude another one, and without the tables that are off where nothing
/// in them is set.
fn shipped_with_most(without: &[&str]) -> String {
    let excluded = |line: &str| {
        let key = line.split(" = ").next().unwrap_or_default();
        without.contains(&key) || key.starts_with("policy.") || key.starts_with("tls.")
    };
    let all = shipped_with_all();
    let lines = all.lines().filter(|line| !excluded(line));
    lines.map(|line| line.to_owned() + "\n").collect()
}

/// Everything but the worker's name, which differs for each process, and the connections that show
/// other ways to be let in.
fn shown(text: &str) -> String {
    let mut settings = load_text(text, &[]).unwrap();
    settings.worker.name.clear();
    let plain = ["prod", "lake"];
    settings
        .connections
        .retain(|name, _| plain.contains(&name.as_str()));
    format!("{settings:#?}")
}

#[test]
fn the_shipped_file_says_what_the_defaults_are() {
    assert_eq!(shown(&shipped()), shown(""));

    let without = [
        "url_file",
        "auth.token_file",
        "auth.client_secret",
        "default_connection",
        "name",
        "proxy",
        "proxy_file",
        "token",
        "token_file",
    ];
    let all = shipped_with_most(&without);
    let (all, _) = all.split_once("[connections.by_oauth]").unwrap();
    assert_eq!(shown(all), shown(&format!("{PROD}{LAKE}")));
}

#[test]
fn the_shipped_file_shows_every_way_to_be_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let profiles = dir.path().join("databrickscfg");
    std::fs::write(&profiles, "[prod]\nhost = x.example\ntoken = t\n").unwrap();
    let text = shipped_with_most(&[
        "url_file",
        "auth.token",
        "auth.client_secret",
        "proxy_file",
        "token",
    ])
    .replace("/etc/sparkferry/databrickscfg", profiles.to_str().unwrap());
    let settings = load_text(&text, &[]).unwrap();
    let auth = |name: &str| match &settings.connections[name] {
        Connection::Databricks(settings) => settings.auth.clone(),
        Connection::SparkConnect(settings) => {
            let compute = settings.compute.as_ref().unwrap();
            assert!(matches!(compute.compute, Compute::Cluster(_)));
            compute.workspace.auth.clone()
        }
    };
    assert!(matches!(auth("prod"), Auth::Pat(_)));
    assert!(matches!(auth("by_oauth"), Auth::OauthM2m { .. }));
    assert!(matches!(
        auth("by_azure"),
        Auth::AzureServicePrincipal { .. }
    ));
    assert!(matches!(
        auth("by_machine"),
        Auth::AzureManagedIdentity { .. }
    ));
    assert!(matches!(auth("by_federation"), Auth::Federation { .. }));
    assert!(matches!(auth("by_profile"), Auth::Pat(_)));
    assert!(matches!(auth("on_cluster"), Auth::Pat(_)));

    // What is the same as if it were left out.
    let least = ["auth.authority_host", "auth.endpoint"].map(|key| format!("\n{key} ="));
    let bare = least
        .iter()
        .fold(text.clone(), |text, key| text.replace(key, "\n#"));
    let bare = load_text(&bare, &[]).unwrap();
    let shown = |of: &crate::config::Settings| format!("{:?}", of.connections);
    assert_eq!(shown(&settings), shown(&bare));
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

    let connection = |mut names: BTreeSet<String>| {
        names.extend(["type", "policy"].map(str::to_owned));
        names
    };
    let tagged = |mut names: BTreeSet<String>| {
        names.insert("type".to_owned());
        names
    };
    let mut known: BTreeMap<String, BTreeSet<String>> = [
        ("", fields::<File>()),
        ("queue", fields::<QueueFile>()),
        ("queue.tls", fields::<QueueTlsFile>()),
        ("worker", fields::<WorkerFile>()),
        ("http", fields::<HttpFile>()),
        ("log", fields::<LogFile>()),
        (
            "connections",
            ["lake", "on_cluster", "prod"].map(str::to_owned).into(),
        ),
        (
            "connections.on_cluster.auth",
            ["token_file", "type"].map(str::to_owned).into(),
        ),
        ("connections.prod", connection(fields::<DatabricksFile>())),
        ("connections.prod.policy", fields::<PolicyFile>()),
        (
            "connections.prod.policy.tags",
            ["team", "cost_center"].map(str::to_owned).into(),
        ),
        ("connections.prod.auth", tagged(fields::<PatFile>())),
        ("connections.prod.tls", fields::<TlsFile>()),
        ("connections.lake.tls", fields::<TlsFile>()),
        (
            "connections.prod.poll_interval_seconds",
            fields::<IntervalFile>(),
        ),
    ]
    .into_iter()
    .map(|(path, names)| (path.to_owned(), names))
    .collect();
    // What makes a Spark Connect server compute of a workspace stands in a connection of its own.
    let mut lake = tagged(fields::<SparkConnectFile>());
    let mut compute: BTreeSet<_> = ["host", "auth", "cluster_id", "serverless"]
        .map(str::to_owned)
        .into();
    assert!(compute.iter().all(|key| lake.remove(key)));
    compute.insert("type".to_owned());
    known.insert("connections.lake".to_owned(), lake);
    known.insert("connections.on_cluster".to_owned(), compute);
    // Other ways to be let in stand in connections of their own, with what they need.
    for (name, auth) in [
        ("by_oauth", fields::<M2mFile>()),
        ("by_azure", fields::<PrincipalFile>()),
        ("by_machine", fields::<IdentityFile>()),
        ("by_federation", fields::<FederationFile>()),
        ("by_profile", fields::<ProfileFile>()),
    ] {
        let path = format!("connections.{name}");
        let all = known.get_mut("connections").unwrap();
        all.insert(name.to_owned());
        known.insert(format!("{path}.auth"), tagged(auth));
        let own = ["type", "host", "auth"];
        let own = own
            .into_iter()
            .filter(|key| (name, *key) != ("by_profile", "host"));
        known.insert(path, own.map(str::to_owned).collect());
    }
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
