//! A profile of `~/.databrickscfg`: a section of `name = value` lines.

use std::path::{Path, PathBuf};

use super::ConfigError;
use super::check::value;
use super::secret::SecretSource;

const DEFAULT: &str = "DEFAULT";

/// One profile. Its secrets are not kept: they are read from the file when they are needed.
pub(super) struct Profile {
    file: PathBuf,
    name: String,
    /// The names in it.
    names: Vec<String>,
    host: Option<String>,
}

impl Profile {
    /// The profile that `setting` names.
    pub(super) fn read(setting: &str, file: &Path, name: &str) -> Result<Self, ConfigError> {
        let text = content(setting, file)?;
        Self::of(&text, file, name).ok_or_else(|| {
            value(
                setting,
                format!("there is no profile [{name}] in {}", file.display()),
            )
        })
    }

    /// The profile `DEFAULT`, if the file has one.
    pub(super) fn default_of(file: &Path) -> Result<Option<Self>, ConfigError> {
        let text = content("DATABRICKS_CONFIG_FILE", file)?;
        Ok(Self::of(&text, file, DEFAULT))
    }

    fn of(text: &str, file: &Path, name: &str) -> Option<Self> {
        let entries = section(text, name)?;
        Some(Self {
            file: file.to_owned(),
            name: name.to_owned(),
            names: entries.map(|(key, _)| key).collect(),
            host: entry(text, name, "host").map(str::to_owned),
        })
    }

    /// What stands under a name, now. Not for secrets.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let source = self.secret(name)?;
        Some(source.read_at_start().ok()?.expose().to_owned())
    }

    /// The secret under a name.
    pub(super) fn secret(&self, name: &str) -> Option<SecretSource> {
        let there = self.names.iter().any(|there| there == name);
        there.then(|| SecretSource::Profile {
            file: self.file.clone(),
            profile: self.name.clone(),
            name: name.to_owned(),
            host: self.host.clone(),
        })
    }

    /// For texts.
    pub(super) fn place(&self) -> String {
        format!("the profile [{}] of {}", self.name, self.file.display())
    }
}

fn content(setting: &str, file: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(file).map_err(|error| {
        value(
            setting,
            format!("the file {} can't be read: {error}", file.display()),
        )
    })
}

/// What stands under a name in a profile.
pub(super) fn entry<'a>(text: &'a str, profile: &str, name: &str) -> Option<&'a str> {
    let (_, value) = section(text, profile)?.find(|(key, _)| key == name)?;
    Some(value)
}

/// The entries of a section, which says nothing by standing there empty.
fn section<'a>(
    text: &'a str,
    wanted: &str,
) -> Option<impl Iterator<Item = (String, &'a str)> + use<'a>> {
    let header = |line: &'a str| Some(line.strip_prefix('[')?.strip_suffix(']')?.trim());
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| header(line) == Some(wanted))?;
    let entries = lines
        .take_while(move |line| header(line).is_none())
        .filter(|line| !line.starts_with(['#', ';']))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_lowercase(), value.trim()))
        .filter(|(_, value)| !value.is_empty());
    Some(entries)
}
