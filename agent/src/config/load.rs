//! Reads the settings: a file, then `SPARKFERRY__SECTION__KEY` variables.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use config::{Config, Environment, FileFormat};

use super::file::File;
use super::{ConfigError, Settings, Written, check, shape};

/// Where settings are looked for when no `--config` is given, in this order.
pub const DEFAULT_FILES: [&str; 2] = ["config/agent.toml", "/etc/sparkferry/agent.toml"];

const PREFIX: &str = "SPARKFERRY";

/// How the names of variables that are settings begin.
pub const VARIABLE_PREFIX: &str = "SPARKFERRY__";

/// Reads and checks the settings.
///
/// `file` must be there if given; else the first of [`DEFAULT_FILES`] that is, if any. `variables`
/// are the process's environment.
pub fn load(
    file: Option<&Path>,
    variables: &HashMap<String, String>,
) -> Result<Settings, ConfigError> {
    let Some(path) = file.map(Path::to_owned).or_else(default_file) else {
        return parse(None, variables);
    };
    let text = std::fs::read_to_string(&path).map_err(|e| ConfigError::File {
        path: path.clone(),
        why: e.to_string(),
    })?;
    parse(Some((&path, &text)), variables)
}

/// Checks the settings in a file's text, if there is one, and in the environment.
pub(crate) fn parse(
    file: Option<(&Path, &str)>,
    variables: &HashMap<String, String>,
) -> Result<Settings, ConfigError> {
    let mut sources = Config::builder();
    if let Some((path, text)) = file {
        // Parsed by itself first, for an error that names the file, the line and the column.
        Config::builder()
            .add_source(config::File::from_str(text, FileFormat::Toml))
            .build()
            .map_err(|e| ConfigError::File {
                path: path.to_owned(),
                why: shape::without_quotation(&e.to_string()),
            })?;
        sources = sources.add_source(config::File::from_str(text, FileFormat::Toml));
    }
    let environment = Environment::with_prefix(PREFIX)
        .prefix_separator("__")
        .separator("__")
        .ignore_empty(true)
        .source(Some(ours(variables)?));
    let merged = sources
        .add_source(environment)
        .build()
        .map_err(|e| ConfigError::Shape(e.to_string()))?;
    let written = Written::new(&merged.cache);
    let file: File = shape::read("", merged)?;
    check::check(file, written, variables)
}

/// The first of [`DEFAULT_FILES`] that is there.
pub fn default_file() -> Option<PathBuf> {
    DEFAULT_FILES
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file())
}

/// The variables that are settings. One that begins like a setting but is spelt with a single
/// underscore would be overlooked in silence, so it is refused.
fn ours(variables: &HashMap<String, String>) -> Result<HashMap<String, String>, ConfigError> {
    let single = format!("{PREFIX}_");
    let mut ours = HashMap::new();
    for (name, value) in variables {
        if name.starts_with(VARIABLE_PREFIX) {
            ours.insert(name.clone(), value.clone());
        } else if name.starts_with(&single) && !service_link(name) {
            return Err(ConfigError::Shape(format!(
                "the variable {name} is no setting: sections are parted by two underscores, as in {VARIABLE_PREFIX}QUEUE__URL"
            )));
        }
    }
    Ok(ours)
}

/// Kubernetes sets variables such as `SPARKFERRY_SERVICE_HOST` and `SPARKFERRY_PORT_8790_TCP` in
/// every pod beside a Service of that name.
fn service_link(name: &str) -> bool {
    let parts = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"];
    name.ends_with("_PORT") || parts.iter().any(|part| name.contains(part))
}
