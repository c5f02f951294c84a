//! The endpoints that issue tokens: the workspace's own, and those of Azure (Entra ID and the
//! metadata service of its machines).
//!
//! Any client is taken until `/sandbox/clients` names some; then those alone, and what they ask for
//! is checked to the letter.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    auth::{Audience, Shown, basic},
    reply::{Refusal, Reply},
    state::State,
};

/// `expires_in` of an issued token unless a rule says otherwise, seconds: Databricks' hour.
const EXPIRES_IN: i64 = 3600;

const CLIENT_CREDENTIALS: &str = "client_credentials";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// What Entra ID calls Databricks, and Azure's management in each of its clouds.
const DATABRICKS: &str = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d";
const MANAGEMENT: [&str; 3] = [
    "https://management.core.windows.net/",
    "https://management.core.usgovcloudapi.net/",
    "https://management.core.chinacloudapi.cn/",
];

/// Who may have tokens, as posted to `/sandbox/clients`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Clients {
    /// Secrets by client id, of Databricks' and of Azure's service principals.
    #[serde(rename = "clients")]
    secrets: HashMap<String, String>,
    /// Tokens of another issuer that are trusted.
    subjects: HashSet<String>,
    /// Client ids of the machine's identities; an empty one may go unnamed.
    identities: HashSet<String>,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Clients")
            .field("secrets", &self.secrets.len())
            .finish_non_exhaustive()
    }
}

impl Clients {
    /// Reads what was posted.
    pub(super) fn read(body: &[u8]) -> Result<Self, Refusal> {
        serde_json::from_slice(body).map_err(|error| Refusal::malformed(&error.to_string()))
    }
}

/// The fields of a form; empty ones are absent.
struct Form(HashMap<String, String>);

impl Form {
    fn read(text: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(text).into_owned().collect())
    }

    fn field(&self, name: &str) -> Option<&str> {
        let text = self.0.get(name).map(String::as_str);
        text.filter(|text| !text.is_empty())
    }
}

/// OAuth's own form of a refusal.
fn refuse(status: u16, error: &str, why: &str) -> Reply {
    Reply::json(status, json!({"error": error, "error_description": why}))
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

    /// `/oidc/v1/token`; what is missing or wrong is refused in OAuth's own form.
    pub(super) fn issue_token(&mut self, shown: &Shown, body: &[u8], now: i64) -> Reply {
        let form = Form::read(body);
        let refused = match form.field("grant_type") {
            Some(CLIENT_CREDENTIALS) => {
                let header = shown.authorization.as_deref();
                let pair = header
                    .and_then(|value| value.trim().split_once(' '))
                    .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
                    .and_then(|(_, pair)| basic(pair));
                self.client_refused(&form, pair)
            }
            Some(TOKEN_EXCHANGE) => self.subject_refused(&form),
            Some(other) => Some(refuse(
                400,
                "unsupported_grant_type",
                &format!("The grant type {other} is not supported"),
            )),
            None => Some(refuse(400, "invalid_request", "grant_type is missing")),
        };
        if let Some(refused) = refused {
            return refused;
        }
        let expires_in = self.rules.expires_in().unwrap_or(EXPIRES_IN);
        let token = self.tokens.issue(Audience::Workspace, now, expires_in);
        Reply::json(
            200,
            json!({
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": expires_in,
                "scope": form.field("scope").unwrap_or("all-apis"),
            }),
        )
    }

    fn client_refused(&self, form: &Form, pair: Option<(String, String)>) -> Option<Reply> {
        let field = |name: &str| form.field(name).map(str::to_owned);
        let pair = pair.or_else(|| Some((field("client_id")?, field("client_secret")?)));
        let pair = pair.filter(|(id, secret)| !id.is_empty() && !secret.is_empty());
        let known = match (&self.clients, &pair) {
            (None, pair) => pair.is_some(),
            (Some(named), Some((id, secret))) => named.secrets.get(id) == Some(secret),
            (Some(_), None) => false,
        };
        if !known {
            return Some(refuse(
                401,
                "invalid_client",
                "Client authentication failed",
            ));
        }
        self.scope_refused(form)
    }

    fn subject_refused(&self, form: &Form) -> Option<Reply> {
        let Some(subject) = form.field("subject_token") else {
            return Some(refuse(400, "invalid_request", "subject_token is missing"));
        };
        let Some(named) = &self.clients else {
            return None;
        };
        if form.field("subject_token_type") != Some(JWT) {
            return Some(refuse(
                400,
                "invalid_request",
                "subject_token_type is missing or unknown",
            ));
        }
        if !named.subjects.contains(subject) {
            return Some(refuse(
                400,
                "invalid_grant",
                "The subject token is expired or of an issuer that no policy names",
            ));
        }
        self.scope_refused(form)
    }

    fn scope_refused(&self, form: &Form) -> Option<Reply> {
        let right = self.clients.is_none() || form.field("scope") == Some("all-apis");
        (!right).then(|| refuse(400, "invalid_scope", "The scope must be all-apis"))
    }

    /// Entra ID's `/{tenant}/oauth2/token`.
    pub(super) fn issue_azure_token(&mut self, body: &[u8], now: i64) -> Reply {
        let form = Form::read(body);
        if form.field("grant_type") != Some(CLIENT_CREDENTIALS) {
            return refuse(
                400,
                "unsupported_grant_type",
                "AADSTS70003: The app requested an unsupported grant type.",
            );
        }
        let known = match (form.field("client_id"), form.field("client_secret")) {
            (Some(id), Some(secret)) => self
                .clients
                .as_ref()
                .is_none_or(|named| named.secrets.get(id).is_some_and(|right| right == secret)),
            _ => false,
        };
        if !known {
            return refuse(
                401,
                "invalid_client",
                "AADSTS7000215: Invalid client secret provided.",
            );
        }
        self.issue_for(form.field("resource"), now)
    }

    /// The metadata service's `/metadata/identity/oauth2/token`.
    pub(super) fn issue_identity_token(
        &mut self,
        shown: &Shown,
        query: Option<&str>,
        now: i64,
    ) -> Reply {
        if shown.metadata.as_deref() != Some("true") {
            return refuse(
                400,
                "invalid_request",
                "Required metadata header not specified",
            );
        }
        let form = Form::read(query.unwrap_or_default().as_bytes());
        if form.field("api-version") != Some("2018-02-01") {
            return refuse(
                400,
                "invalid_request",
                "Required query variable 'api-version' is missing",
            );
        }
        let client_id = form.field("client_id").unwrap_or_default();
        let named = self.clients.as_ref();
        if named.is_some_and(|named| !named.identities.contains(client_id)) {
            return refuse(400, "invalid_request", "Identity not found");
        }
        self.issue_for(form.field("resource"), now)
    }

    /// In Azure's form: numbers are texts.
    fn issue_for(&mut self, resource: Option<&str>, now: i64) -> Reply {
        let audience = match resource {
            Some(DATABRICKS) => Audience::Workspace,
            Some(resource) if MANAGEMENT.contains(&resource) => Audience::Management,
            _ => {
                return refuse(
                    400,
                    "invalid_resource",
                    "AADSTS500011: The resource principal was not found in the tenant.",
                );
            }
        };
        let expires_in = self.rules.expires_in().unwrap_or(EXPIRES_IN);
        let token = self.tokens.issue(audience, now, expires_in);
        Reply::json(
            200,
            json!({
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": expires_in.to_string(),
                "expires_on": (now / 1000 + expires_in).to_string(),
                "resource": resource,
            }),
        )
    }
}
