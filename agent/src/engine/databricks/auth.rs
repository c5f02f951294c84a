//! What lets us in: the `Authorization` header, kept as short as its source may change.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderValue;
use tokio::time::Instant;

use crate::config::{Auth, SecretSource};

/// A token is read from its source again after so long: a rotated file is noticed before the old
/// token is refused, and thousands of calls a second don't read it thousands of times.
const KEPT: Duration = Duration::from_secs(30);

/// The credentials of a connection.
#[derive(Debug)]
pub(super) struct Credentials {
    source: SecretSource,
    kept: Mutex<Option<(Token, Instant)>>,
}

/// A bearer token that prints nothing.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(HeaderValue);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl Token {
    /// The value of the `Authorization` header, marked as sensitive.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// A text in which the token, should it stand there, does not.
    pub(super) fn censored(&self, text: &mut String) {
        let token = self.0.to_str().unwrap_or_default();
        let token = token.strip_prefix("Bearer ").unwrap_or(token);
        if !token.is_empty() && text.contains(token) {
            *text = text.replace(token, "[secret]");
        }
    }
}

impl Credentials {
    pub(super) fn new(auth: &Auth) -> Self {
        let Auth::Pat(source) = auth;
        Self {
            source: source.clone(),
            kept: Mutex::new(None),
        }
    }

    /// The token as it was read lately, or as it is now.
    ///
    /// # Errors
    /// For a person: why it can't be had. Never the token.
    pub(super) async fn token(&self) -> Result<Token, String> {
        let kept = self.lock().clone();
        match kept {
            Some((token, read_at)) if read_at.elapsed() < KEPT => Ok(token),
            _ => self.read().await,
        }
    }

    /// A token other than the one that was refused, if the source has another one by now.
    pub(super) async fn other_than(&self, refused: &Token) -> Option<Token> {
        let kept = self.lock().clone();
        match kept {
            Some((token, _)) if token != *refused => Some(token),
            _ => self.read().await.ok().filter(|token| token != refused),
        }
    }

    async fn read(&self) -> Result<Token, String> {
        let secret = self
            .source
            .read()
            .await
            .map_err(|error| error.to_string())?;
        let mut header = HeaderValue::try_from(format!("Bearer {}", secret.expose()))
            .map_err(|_| "the token holds a character that no HTTP header can".to_owned())?;
        header.set_sensitive(true);
        let token = Token(header);
        *self.lock() = Some((token.clone(), Instant::now()));
        Ok(token)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Token, Instant)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_rotated_file_is_read_when_the_old_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "first\n").unwrap();
        let credentials = Credentials::new(&Auth::Pat(SecretSource::File(path.clone())));
        let first = credentials.token().await.unwrap();
        assert_eq!(first.header(), "Bearer first");
        assert_eq!(credentials.other_than(&first).await, None);

        std::fs::write(&path, "second\n").unwrap();
        assert_eq!(credentials.token().await.unwrap(), first);
        let second = credentials.other_than(&first).await.unwrap();
        assert_eq!(second.header(), "Bearer second");
        assert_eq!(credentials.token().await.unwrap(), second);
        // Another caller that was refused with the first one is given the second one at once.
        assert_eq!(credentials.other_than(&first).await, Some(second));
    }

    #[tokio::test]
    async fn nothing_prints_a_token() {
        let value = |text: &str| Auth::Pat(SecretSource::Value(text.to_owned().into()));
        let credentials = Credentials::new(&value("hunter2"));
        let token = credentials.token().await.unwrap();
        assert!(!format!("{credentials:?} {token:?}").contains("hunter2"));
        let mut echo = "User with token hunter2 is unknown".to_owned();
        token.censored(&mut echo);
        assert_eq!(echo, "User with token [secret] is unknown");
        let error = Credentials::new(&value("hun\nter2")).token().await;
        assert!(!error.unwrap_err().contains("ter2"));
    }
}
