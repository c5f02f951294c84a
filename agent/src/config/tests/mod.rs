//! What people write, and what comes of it.

mod auth;
mod environment;
mod errors;
mod policy;
mod queue_tls;
mod shipped;
mod spark_connect;
mod written;

use std::collections::HashMap;

use super::{Auth, ConfigError, Connection, DatabricksSettings, Settings, load};

/// What must never be seen.
const SECRET: &str = "hunter2";

const PROD: &str = r#"
[connections.prod]
type = "databricks"
host = "https://adb-1.azuredatabricks.net"
auth = { type = "pat", token = "t" }
"#;

/// Loads settings from a file with this text.
fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    std::fs::write(&path, text).unwrap();
    let variables: HashMap<_, _> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    load(Some(&path), &variables)
}

/// The error, which holds all of `words` and no secret, neither for people nor for developers.
fn fails(text: &str, variables: &[(&str, &str)], words: &[&str]) -> String {
    let error = match load_text(text, variables) {
        Ok(settings) => panic!("{text:?} with {variables:?} gave {settings:?}"),
        Err(error) => error,
    };
    let told = error.to_string();
    for word in words {
        assert!(told.contains(word), "{word:?} is not in {told:?}");
    }
    for shown in [&told, &format!("{error:?}")] {
        assert!(!shown.contains(SECRET), "a secret is shown: {shown}");
    }
    told
}

fn prod(settings: &Settings) -> &DatabricksSettings {
    match &settings.connections["prod"] {
        Connection::Databricks(settings) => settings,
        other @ Connection::SparkConnect(_) => panic!("{other:?}"),
    }
}

fn token(settings: &Settings) -> String {
    let Auth::Pat(source) = &prod(settings).auth else {
        panic!("{:?}", prod(settings).auth);
    };
    source.read_at_start().unwrap().expose().to_owned()
}
