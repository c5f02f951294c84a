//! Who may call: bearer tokens, and the OAuth endpoints that issue some which expire.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{
    reply::{Refusal, Reply},
    state::State,
};

/// `expires_in` of an issued token unless a rule says otherwise, seconds: Databricks' hour.
const EXPIRES_IN: i64 = 3600;

const CLIENT_CREDENTIALS: &str = "client_credentials";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// The tokens that serve.
pub(super) struct Tokens {
    named: Option<String>,
    /// Issued by the token endpoint: when each expires, epoch milliseconds.
    issued: HashMap<String, i64>,
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
        for expires in self.issued.values_mut() {
            *expires = 0;
        }
    }

    fn issue(&mut self, now: i64, expires_in: i64) -> String {
        self.issued
            .retain(|_, expires| *expires == 0 || *expires + 86_400_000 > now);
        let token = format!("sandbox-{}", uuid::Uuid::now_v7().simple());
        self.issued.insert(token.clone(), now + expires_in * 1000);
        token
    }

    /// Whether a call with this `Authorization` header may pass. Basic credentials are taken for
    /// their password, as Databricks takes a personal access token under the user name `token`.
    pub(super) fn check(&self, header: Option<&str>, now: i64) -> Result<(), Refusal> {
        let password;
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
            (Some(expires), _) if *expires > now => Ok(()),
            (Some(_), _) => Err(Refusal::unauthenticated("Token is expired.")),
            (None, Some(named)) if named != token => {
                Err(Refusal::unauthenticated("Invalid access token."))
            }
            (None, _) => Ok(()),
        }
    }
}

/// User and password of a Basic header.
fn basic(pair: &str) -> Option<(String, String)> {
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
    /// `/.well-known/databricks-config`.
    pub(super) fn databricks_config(&self) -> Value {
        json!({
            "oidc_endpoint": format!("{}/oidc", self.host),
            "host_type": "workspace",
            "cloud": "AWS",
        })
    }

    /// `/oidc/.well-known/oauth-authorization-server`.
    pub(super) fn authorization_server(&self) -> Value {
        let host = &self.host;
        json!({
            "issuer": format!("{host}/oidc"),
            "authorization_endpoint": format!("{host}/oidc/v1/authorize"),
            "token_endpoint": format!("{host}/oidc/v1/token"),
            "grant_types_supported": [CLIENT_CREDENTIALS, TOKEN_EXCHANGE],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        })
    }

    /// `/oidc/v1/token`: any client id and secret, or any subject token, is taken; what is missing is
    /// refused in OAuth's own form.
    pub(super) fn issue_token(&mut self, header: Option<&str>, body: &[u8], now: i64) -> Reply {
        let form: HashMap<String, String> =
            url::form_urlencoded::parse(body).into_owned().collect();
        let field = |name: &str| {
            form.get(name)
                .map(String::as_str)
                .filter(|text| !text.is_empty())
        };
        let refuse = |status: u16, error: &str, why: &str| {
            Reply::json(status, json!({"error": error, "error_description": why}))
        };
        match field("grant_type") {
            Some(CLIENT_CREDENTIALS) => {
                let pair = header
                    .and_then(|value| value.trim().split_once(' '))
                    .and_then(|(scheme, pair)| {
                        scheme
                            .eq_ignore_ascii_case("basic")
                            .then(|| basic(pair))
                            .flatten()
                    });
                let pair = pair.or_else(|| {
                    Some((
                        field("client_id")?.to_owned(),
                        field("client_secret")?.to_owned(),
                    ))
                });
                if !pair.is_some_and(|(id, secret)| !id.is_empty() && !secret.is_empty()) {
                    return refuse(401, "invalid_client", "Client authentication failed");
                }
            }
            Some(TOKEN_EXCHANGE) => {
                if field("subject_token").is_none() {
                    return refuse(400, "invalid_request", "subject_token is missing");
                }
            }
            Some(other) => {
                return refuse(
                    400,
                    "unsupported_grant_type",
                    &format!("The grant type {other} is not supported"),
                );
            }
            None => return refuse(400, "invalid_request", "grant_type is missing"),
        }
        let expires_in = self.rules.expires_in().unwrap_or(EXPIRES_IN);
        let token = self.tokens.issue(now, expires_in);
        Reply::json(
            200,
            json!({
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": expires_in,
                "scope": field("scope").unwrap_or("all-apis"),
            }),
        )
    }

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
