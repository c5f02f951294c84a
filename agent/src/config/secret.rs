//! Secrets: values that print nothing from the file to the header.

use std::fmt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use url::Url;

use super::profile::entry;
use super::spark_connect::server_and_token;

const NOT_TEXT: &str = "is a secret, which is text: put it in quotes";

/// A secret. `Debug` and `Display` print `[secret]`.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// Text and nothing else. A number would have lost its leading zeros by now, and the usual error
/// about a wrong type quotes the value.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text in quotes")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
                Ok(text.to_owned().into())
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Secret, E> {
                Ok(text.into())
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<Secret, E> {
                Err(E::custom(NOT_TEXT))
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<Secret, E> {
                Err(E::custom(NOT_TEXT))
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<Secret, E> {
                Err(E::custom(NOT_TEXT))
            }

            fn visit_i128<E: Error>(self, _: i128) -> Result<Secret, E> {
                Err(E::custom(NOT_TEXT))
            }

            fn visit_u128<E: Error>(self, _: u128) -> Result<Secret, E> {
                Err(E::custom(NOT_TEXT))
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Secret, E> {
                Err(E::custom(NOT_TEXT))
            }
        }

        deserializer.deserialize_any(Text)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Where a secret comes from: the setting `x`, or the file named by `x_file`.
#[derive(Debug, Clone)]
pub enum SecretSource {
    /// The value stands in the configuration or the environment.
    Value(Secret),
    /// The value stands in a file, read each time it is needed, so that it may be rotated.
    File(PathBuf),
    /// The value stands in a profile of `~/.databrickscfg`, read each time it is needed.
    Profile {
        /// The file.
        file: PathBuf,
        /// The profile.
        profile: String,
        /// The name of the value.
        name: String,
        /// The workspace that the profile names: its secrets are shown to no other one.
        host: Option<String>,
    },
    /// The value is the token in the `sc://` URL that stands in a file, read each time it is
    /// needed.
    Url {
        /// The file.
        file: PathBuf,
        /// The server that the URL names: its token is shown to no other one.
        server: Url,
    },
}

/// A secret can't be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file can't be read.
    #[error("the secret's file {path} can't be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds nothing.
    #[error("the secret's file {0} is empty")]
    Empty(PathBuf),
    /// The profile no longer has it.
    #[error("the profile [{profile}] of {file} has no {name}")]
    NotInProfile {
        /// The file.
        file: PathBuf,
        /// The profile.
        profile: String,
        /// The name of the value.
        name: String,
    },
    /// The URL no longer has it.
    #[error("the URL in {0} has no token")]
    NotInUrl(PathBuf),
    /// It belongs to another host by now.
    #[error("{0} names another host by now: have the configuration read again (SIGHUP)")]
    Elsewhere(String),
}

impl SecretSource {
    /// The setting to look at where the secret can't be had; `key` is that of its value.
    pub fn setting(&self, key: &str) -> String {
        match self {
            Self::Value(_) => key.to_owned(),
            Self::File(_) => format!("{key}_file"),
            Self::Profile { .. } => "profile".to_owned(),
            Self::Url { .. } => "url_file".to_owned(),
        }
    }

    /// The secret as it is now. Blank space around a file's content is not part of it.
    pub async fn read(&self) -> Result<Secret, SecretError> {
        match self {
            Self::Value(secret) => Ok(secret.clone()),
            Self::File(path) => content(path, tokio::fs::read_to_string(path).await),
            Self::Profile {
                file,
                profile,
                name,
                host,
            } => {
                let read = tokio::fs::read_to_string(file).await;
                of_profile(file, read, profile, name, host.as_deref())
            }
            Self::Url { file, server } => {
                of_url(file, tokio::fs::read_to_string(file).await, server)
            }
        }
    }

    /// The same for a program that is only starting, where waiting for a disk harms nobody.
    pub fn read_at_start(&self) -> Result<Secret, SecretError> {
        match self {
            Self::Value(secret) => Ok(secret.clone()),
            Self::File(path) => content(path, std::fs::read_to_string(path)),
            Self::Profile {
                file,
                profile,
                name,
                host,
            } => {
                let read = std::fs::read_to_string(file);
                of_profile(file, read, profile, name, host.as_deref())
            }
            Self::Url { file, server } => of_url(file, std::fs::read_to_string(file), server),
        }
    }
}

fn content(path: &Path, read: std::io::Result<String>) -> Result<Secret, SecretError> {
    let text = read.map_err(|source| SecretError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let text = text.trim();
    if text.is_empty() {
        return Err(SecretError::Empty(path.to_owned()));
    }
    Ok(text.to_owned().into())
}

fn of_profile(
    file: &Path,
    read: std::io::Result<String>,
    profile: &str,
    name: &str,
    host: Option<&str>,
) -> Result<Secret, SecretError> {
    let text = content(file, read)?;
    if entry(text.expose(), profile, "host").is_some_and(|now| Some(now) != host) {
        let place = format!("the profile [{profile}] of {}", file.display());
        return Err(SecretError::Elsewhere(place));
    }
    let value = entry(text.expose(), profile, name);
    value
        .map(|value| value.to_owned().into())
        .ok_or_else(|| SecretError::NotInProfile {
            file: file.to_owned(),
            profile: profile.to_owned(),
            name: name.to_owned(),
        })
}

fn of_url(file: &Path, read: std::io::Result<String>, server: &Url) -> Result<Secret, SecretError> {
    match server_and_token(&content(file, read)?) {
        Some((now, _)) if now != *server => {
            let place = format!("the URL in {}", file.display());
            Err(SecretError::Elsewhere(place))
        }
        Some((_, Some(token))) => Ok(token),
        _ => Err(SecretError::NotInUrl(file.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_nothing() {
        let source = SecretSource::Value("hunter2".to_owned().into());
        assert!(!format!("{source:?}").contains("hunter2"));
        assert_eq!(source.read_at_start().unwrap().to_string(), "[secret]");
    }

    #[test]
    fn a_file_is_read_each_time_without_the_space_around() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let source = SecretSource::File(path.clone());
        assert!(matches!(
            source.read_at_start(),
            Err(SecretError::Unreadable { .. })
        ));
        std::fs::write(&path, " \n").unwrap();
        assert!(matches!(source.read_at_start(), Err(SecretError::Empty(_))));
        for token in ["one", "two"] {
            std::fs::write(&path, format!("{token}\n")).unwrap();
            assert_eq!(source.read_at_start().unwrap().expose(), token);
        }
    }

    #[test]
    fn a_token_in_a_url_is_read_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("url");
        let source = SecretSource::Url {
            file: path.clone(),
            server: "https://spark.example:15002".parse().unwrap(),
        };
        for token in ["one", "a%2Fb"] {
            let url = format!("sc://spark.example/;use_ssl=true;token={token}\n");
            std::fs::write(&path, url).unwrap();
            let read = source.read_at_start().unwrap();
            assert_eq!(read.expose(), token.replace("%2F", "/"));
        }
        std::fs::write(&path, "sc://spark.example/;use_ssl=true").unwrap();
        let error = source.read_at_start().unwrap_err();
        assert!(matches!(&error, SecretError::NotInUrl(file) if *file == path));
        // Another server's token is not for this one.
        std::fs::write(&path, "sc://other.example/;use_ssl=true;token=three").unwrap();
        let error = source.read_at_start().unwrap_err();
        assert!(matches!(&error, SecretError::Elsewhere(_)), "{error}");
    }
}
