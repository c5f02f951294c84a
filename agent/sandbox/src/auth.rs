//! Who may call: bearer tokens, among them issued ones, which expire.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{reply::Refusal, state::State};

/// What an issued token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// This workspace.
    Workspace,
    /// Azure's management.
    Management,
}

/// What a call shows of itself.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// `Authorization`.
    pub(super) authorization: Option<String>,
    /// `X-Databricks-Azure-Workspace-Resource-Id`.
    pub(super) resource_id: Option<String>,
    /// `X-Databricks-Azure-SP-Management-Token`.
    pub(super) management: Option<String>,
    /// `Metadata`, which Azure's metadata service asks for.
    pub(super) metadata: Option<String>,
}

/// The tokens that serve.
pub(super) struct Tokens {
    named: Option<String>,
    /// Issued by a token endpoint: what for, and when each expires, epoch milliseconds.
    issued: HashMap<String, (Audience, i64)>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Tokens")
            .field("issued", &self.issued.len())
            .finish_non_exhaustive()
    }
}

impl Tokens {
    /// Any token serves, or only the named one; those issued serve until they expire.
    pub(super) fn new(named: Option<String>) -> Self {
        Self {
            named,
            issued: HashMap::new(),
        }
    }

    /// Ends the life of every issued token.
    pub(super) fn expire(&mut self) {
        for (_, expires) in self.issued.values_mut() {
            *expires = 0;
        }
    }

    pub(super) fn issue(&mut self, audience: Audience, now: i64, expires_in: i64) -> String {
        self.issued
            .retain(|_, (_, expires)| *expires == 0 || *expires + 86_400_000 > now);
        let token = format!("sandbox-{}", uuid::Uuid::now_v7().simple());
        let expires = now + expires_in * 1000;
        self.issued.insert(token.clone(), (audience, expires));
        token
    }

    /// Whether a call may pass. Basic credentials are taken for their password, as Databricks takes
    /// a personal access token under the user name `token`. Who names the workspace in Azure's words
    /// must show a token for Azure's management, too.
    pub(super) fn check(&self, shown: &Shown, now: i64) -> Result<(), Refusal> {
        let password;
        let header = shown.authorization.as_deref();
        let token = match header.and_then(|value| value.trim().split_once(' ')) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            Some((scheme, pair)) if scheme.eq_ignore_ascii_case("basic") => {
                password = basic(pair)
                    .map(|(_, password)| password)
                    .unwrap_or_default();
                &password
            }
            _ => "",
        };
        if token.is_empty() {
            return Err(Refusal::unauthenticated(
                "Credential was not sent or was of an unsupported type for this API.",
            ));
        }
        match (self.issued.get(token), &self.named) {
            (Some((Audience::Workspace, expires)), _) if *expires > now => {}
            (Some((Audience::Workspace, _)), _) => {
                return Err(Refusal::unauthenticated("Token is expired."));
            }
            (Some((Audience::Management, _)), _) => {
                return Err(Refusal::unauthenticated("Invalid access token."));
            }
            (None, Some(named)) if named != token => {
                return Err(Refusal::unauthenticated("Invalid access token."));
            }
            (None, _) => {}
        }
        let manages = |token: &String| {
            let issued = self.issued.get(token);
            issued.is_some_and(|(audience, expires)| {
                *audience == Audience::Management && *expires > now
            })
        };
        if shown.resource_id.is_some() && !shown.management.as_ref().is_some_and(manages) {
            return Err(Refusal::unauthenticated(
                "The management token is missing, expired or not for Azure's management.",
            ));
        }
        Ok(())
    }
}

/// User and password of a Basic header.
pub(super) fn basic(pair: &str) -> Option<(String, String)> {
    let text = String::from_utf8(base64(pair.trim())?).ok()?;
    text.split_once(':')
        .map(|(user, password)| (user.to_owned(), password.to_owned()))
}

/// Decodes base64 with or without padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let mut bits = 0_u32;
    let mut held = 0_u32;
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xFFFF;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xFF).ok()?);
        }
    }
    Some(bytes)
}

impl State {
    /// `/api/2.0/preview/scim/v2/Me`.
    pub(super) fn me() -> Value {
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "id": "1",
            "userName": USER,
            "displayName": "Sandbox",
            "active": true,
            "emails": [{"type": "work", "value": USER, "primary": true}],
        })
    }
}

/// The one user of the workspace.
pub(super) const USER: &str = "sandbox@example.com";
