//! From merged text to typed settings, with errors that name the setting and never its value: a
//! password that stands in the wrong place must not reach a log.
//!
//! Variables arrive as text and become numbers and booleans only where a setting is one, so a
//! password made of digits stays what it is.

use std::str::FromStr;

use config::{Map, Value, ValueKind};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error};

use super::ConfigError;

/// A table whose `type` says which settings it has. Prints nothing: it may hold a secret.
pub(super) struct Tagged(Value);

impl<'de> Deserialize<'de> for Tagged {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match value.kind {
            ValueKind::Table(_) => Ok(Self(value)),
            _ => Err(D::Error::custom("is no table, such as { type = \"...\" }")),
        }
    }
}

impl Tagged {
    /// Takes out a setting that every type has.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        match &mut self.0.kind {
            ValueKind::Table(table) => table.remove(key),
            _ => None,
        }
    }

    /// Its `type`, and the rest.
    pub(super) fn split(self, path: &str) -> Result<(String, Value), ConfigError> {
        let mut table: Map<String, Value> = self.0.into_table().map_err(|e| error(path, &e))?;
        let tag = table
            .remove("type")
            .ok_or_else(|| ConfigError::Shape(format!("setting `{path}`: its `type` is missing")))?
            .into_string()
            .map_err(|e| error(&format!("{path}.type"), &e))?;
        Ok((tag, Value::from(table)))
    }
}

/// Reads settings of one shape; `path` is where they stand, empty for all of them.
pub(super) fn read<'de, T, D>(path: &str, from: D) -> Result<T, ConfigError>
where
    T: DeserializeOwned,
    D: Deserializer<'de, Error = config::ConfigError>,
{
    serde_path_to_error::deserialize(from).map_err(|e| {
        let inner = e.path().to_string();
        let path = match (path, inner.as_str()) {
            (outer, ".") => outer.to_owned(),
            ("", inner) => inner.to_owned(),
            (outer, inner) => format!("{outer}.{inner}"),
        };
        error(&path, e.inner())
    })
}

fn error(path: &str, error: &config::ConfigError) -> ConfigError {
    let why = without_value(&error.to_string());
    ConfigError::Shape(if path.is_empty() {
        why
    } else {
        format!("setting `{path}`: {why}")
    })
}

/// ``invalid type: string "hunter2", expected a map`` without what stands in quotes.
fn without_value(text: &str) -> String {
    const EXPECTED: &str = ", expected ";
    let found = ["invalid type: ", "invalid value: "]
        .into_iter()
        .find_map(|beginning| text.strip_prefix(beginning));
    match found.and_then(|found| Some((found, found.rfind(EXPECTED)?))) {
        Some((found, end)) => {
            let kind = found[..end].split(['"', '`']).next().unwrap_or_default();
            let expected = &found[end + EXPECTED.len()..];
            format!("is of the type {}, expected {expected}", kind.trim())
        }
        None => text.to_owned(),
    }
}

/// What is wrong with a file's text, with line and column but without the line itself, which the
/// parser quotes in lines that begin with a number or nothing before a bar.
pub(super) fn without_quotation(text: &str) -> String {
    let margin = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == ' ');
    let quotation = |line: &&str| {
        line.split_once('|')
            .is_some_and(|(before, _)| margin(before))
    };
    let told: Vec<&str> = text
        .lines()
        .filter(|line| !quotation(line))
        .map(str::trim)
        .collect();
    told.join(": ")
}

/// An integer, or text that is one, as variables have it. By itself the reader of settings would
/// take `true` for 1 and 1.5 for 2.
pub(super) fn integer<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64> + FromStr,
{
    let number = match Value::deserialize(deserializer)?.kind {
        ValueKind::I64(number) => T::try_from(number).ok(),
        ValueKind::String(text) => text.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| {
        let bits = 8 * size_of::<T>();
        D::Error::custom(format!(
            "must be an integer, 0 or larger and of at most {bits} bits"
        ))
    })
}

/// A number, or text that is one.
pub(super) fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let is_number = matches!(
        value.kind,
        ValueKind::I64(_) | ValueKind::Float(_) | ValueKind::String(_)
    );
    let number = is_number.then(|| value.into_float().ok()).flatten();
    number.ok_or_else(|| D::Error::custom("must be a number"))
}
