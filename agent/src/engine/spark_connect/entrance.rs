//! The way in: whether the server is ready for operations, and the headers that let a call in.

use std::fmt;

use async_trait::async_trait;
use sparkferry_ports::engine::Fault;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};

use crate::config::{SecretSource, SparkConnectSettings};

/// How a server is entered. A plain server is always open; one that must be started first, or that
/// takes its token from elsewhere, is another implementation.
#[async_trait]
pub(super) trait Entrance: fmt::Debug + Send + Sync {
    /// Whether an operation may be begun now. Asked before the first one of each run; answers soon
    /// and never waits until the server is ready: the caller asks again and can be cancelled
    /// meanwhile. `since` is when the caller began to ask.
    ///
    /// # Errors
    /// [`Fault::Waiting`] says what is waited for, [`Fault::Unready`] that it was in vain.
    async fn ready(&self, since: Instant) -> Result<(), Fault>;

    /// The headers of one call of a session. Asked for each call, so that a token may change at any
    /// time.
    ///
    /// # Errors
    /// For a person: why there is no way in. Never a secret.
    async fn headers(&self, session_id: &str) -> Result<MetadataMap, String>;

    /// What is wrong with the way in, or what it waits for, for a person.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// A server that is simply there: the headers of the settings, and perhaps a bearer token.
#[derive(Debug)]
pub(super) struct Open {
    headers: MetadataMap,
    token: Option<SecretSource>,
}

impl Open {
    /// # Errors
    /// Where a header's value can't be sent; names the header.
    pub(super) fn new(settings: &SparkConnectSettings) -> Result<Self, String> {
        Ok(Self {
            headers: headers_of(settings)?,
            token: settings.token.clone(),
        })
    }
}

#[async_trait]
impl Entrance for Open {
    async fn ready(&self, _: Instant) -> Result<(), Fault> {
        Ok(())
    }

    async fn headers(&self, _: &str) -> Result<MetadataMap, String> {
        let mut headers = self.headers.clone();
        if let Some(token) = &self.token {
            let read = token.read().await;
            let read = read.map_err(|error| format!("{}: {error}", token.setting("token")))?;
            headers.insert("authorization", bearer(read.expose())?);
        }
        Ok(headers)
    }
}

/// The headers that the settings name.
///
/// # Errors
/// Where a header's value can't be sent; names the header.
pub(super) fn headers_of(settings: &SparkConnectSettings) -> Result<MetadataMap, String> {
    let mut headers = MetadataMap::new();
    for (name, value) in &settings.headers {
        let why = || format!("the parameter {name:?} can't be sent as a header");
        let key = MetadataKey::<Ascii>::from_bytes(name.as_bytes()).map_err(|_| why())?;
        headers.insert(key, sensitive(value.expose()).ok_or_else(why)?);
    }
    Ok(headers)
}

/// The `authorization` header of a token; prints nothing.
///
/// # Errors
/// Where the token can't be sent; never the token.
pub(super) fn bearer(token: &str) -> Result<MetadataValue<Ascii>, String> {
    sensitive(&format!("Bearer {token}"))
        .ok_or_else(|| "the token holds a character that no header can".to_owned())
}

fn sensitive(text: &str) -> Option<MetadataValue<Ascii>> {
    let mut value = MetadataValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> SparkConnectSettings {
        SparkConnectSettings {
            endpoint: "http://127.0.0.1:1/".parse().unwrap(),
            user_id: None,
            headers: vec![("x-place".to_owned(), "harbour".to_owned().into())],
            ca_file: None,
            token: None,
            compute: None,
            max_active_runs: 1,
        }
    }

    #[tokio::test]
    async fn a_token_that_changes_is_in_use_with_the_next_call() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let mut settings = settings();
        settings.token = Some(SecretSource::File(file.clone()));
        let open = Open::new(&settings).unwrap();
        let error = open.headers("").await.unwrap_err();
        assert!(error.contains("token_file: the secret's file"), "{error}");
        for token in ["first", "second"] {
            std::fs::write(&file, format!("{token}\n")).unwrap();
            let headers = open.headers("").await.unwrap();
            let sent = headers.get("authorization").unwrap();
            assert_eq!(sent, &format!("Bearer {token}"));
            assert_eq!(headers.get("x-place").unwrap(), "harbour");
            assert!(!format!("{headers:?}").contains(token), "{headers:?}");
        }
    }

    #[tokio::test]
    async fn what_no_header_can_hold_is_told_without_it() {
        let mut settings = settings();
        settings.token = Some(SecretSource::Value("hun\nter2".to_owned().into()));
        let error = Open::new(&settings).unwrap().headers("").await.unwrap_err();
        assert!(!error.contains("ter2"), "{error}");
        settings.headers[0].1 = "hun\nter2".to_owned().into();
        let error = Open::new(&settings).unwrap_err();
        assert!(
            error.contains("x-place") && !error.contains("ter2"),
            "{error}"
        );
    }
}
