//! What each kind of credentials asks a token endpoint for.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::Url;

use crate::config::{Auth, AzureWorkspace, Secret, SecretSource};

/// Databricks, among the things that Entra ID gives out tokens for; the same in all of Azure's clouds.
const DATABRICKS: &str = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d";

/// A question to a token endpoint.
pub(super) struct Grant {
    pub(super) url: Url,
    pub(super) asks: Asks,
    /// What must not be seen in what comes back.
    pub(super) secrets: Vec<Secret>,
    /// What a person can do if the endpoint refuses.
    pub(super) advice: String,
}

/// How it is asked.
pub(super) enum Asks {
    /// A form is posted, with a user and password in Basic authentication where they are given.
    Form {
        fields: Vec<(&'static str, String)>,
        basic: Option<(String, Secret)>,
    },
    /// The metadata service is read.
    Metadata,
}

/// The questions of one renewal.
pub(super) struct Grants {
    /// For the token that lets us in.
    pub(super) entry: Grant,
    /// For the one that shows us as somebody who manages a workspace (its resource id), where that
    /// is needed.
    pub(super) management: Option<(String, Grant)>,
}

impl Grant {
    /// The questions for credentials, with their secrets as they are now. A personal access token
    /// is no question: it has none.
    pub(super) async fn of(auth: &Auth, host: &Url) -> Result<Grants, String> {
        match auth {
            Auth::Pat(_) => Err("a personal access token is not asked for".to_owned()),
            Auth::OauthM2m {
                client_id,
                client_secret,
            } => {
                let secret = read("client_secret", client_secret).await?;
                Ok(only(Self::client_credentials(host, client_id, secret)))
            }
            Auth::Federation { token, client_id } => {
                let subject = read("token", token).await?;
                Ok(only(Self::exchange(
                    host,
                    token,
                    client_id.as_deref(),
                    subject,
                )))
            }
            Auth::AzureServicePrincipal {
                tenant_id,
                client_id,
                client_secret,
                authority_host,
                workspace,
            } => {
                let secret = read("client_secret", client_secret).await?;
                let url = below(authority_host, &[tenant_id, "oauth2", "token"]);
                let ask = |resource: &str| Self::principal(&url, client_id, &secret, resource);
                Ok(both(ask, workspace.as_ref()))
            }
            Auth::AzureManagedIdentity {
                client_id,
                endpoint,
                workspace,
            } => {
                let ask = |resource: &str| Self::identity(endpoint, client_id.as_deref(), resource);
                Ok(both(ask, workspace.as_ref()))
            }
        }
    }

    /// A service principal of Databricks.
    fn client_credentials(host: &Url, client_id: &str, secret: Secret) -> Self {
        // As the header holds it.
        let pair = format!("{client_id}:{}", secret.expose());
        Self {
            url: below(host, &["oidc", "v1", "token"]),
            asks: Asks::Form {
                fields: vec![
                    ("grant_type", "client_credentials".to_owned()),
                    ("scope", "all-apis".to_owned()),
                ],
                basic: Some((client_id.to_owned(), secret.clone())),
            },
            secrets: vec![STANDARD.encode(pair).into(), secret],
            advice:
                "are client_id and client_secret right, is the secret still valid, and was the \
                     service principal added to the workspace?"
                    .to_owned(),
        }
    }

    /// A token of another issuer, changed for one of Databricks'.
    fn exchange(
        host: &Url,
        source: &SecretSource,
        client_id: Option<&str>,
        subject: Secret,
    ) -> Self {
        let mut fields = vec![
            (
                "grant_type",
                "urn:ietf:params:oauth:grant-type:token-exchange".to_owned(),
            ),
            (
                "subject_token_type",
                "urn:ietf:params:oauth:token-type:jwt".to_owned(),
            ),
            ("subject_token", subject.expose().to_owned()),
            ("scope", "all-apis".to_owned()),
        ];
        if let Some(client_id) = client_id {
            fields.push(("client_id", client_id.to_owned()));
        }
        let place = match source {
            SecretSource::File(path) => path.as_path(),
            _ => Path::new("the settings"),
        };
        Self {
            url: below(host, &["oidc", "v1", "token"]),
            asks: Asks::Form {
                fields,
                basic: None,
            },
            secrets: vec![subject],
            advice: format!(
                "is the token in {} still valid, and does a federation policy of Databricks allow \
                 its issuer, subject and audience?",
                place.display()
            ),
        }
    }

    /// A service principal of Entra ID.
    fn principal(url: &Url, client_id: &str, secret: &Secret, resource: &str) -> Self {
        Self {
            url: url.clone(),
            asks: Asks::Form {
                fields: vec![
                    ("grant_type", "client_credentials".to_owned()),
                    ("client_id", client_id.to_owned()),
                    ("client_secret", secret.expose().to_owned()),
                    ("resource", resource.to_owned()),
                ],
                basic: None,
            },
            secrets: vec![secret.clone()],
            advice:
                "are tenant_id, client_id and client_secret right, and is the secret still valid?"
                    .to_owned(),
        }
    }

    /// The identity of the machine.
    fn identity(endpoint: &Url, client_id: Option<&str>, resource: &str) -> Self {
        let mut url = below(endpoint, &["metadata", "identity", "oauth2", "token"]);
        url.query_pairs_mut()
            .append_pair("api-version", "2018-02-01")
            .append_pair("resource", resource);
        if let Some(client_id) = client_id {
            url.query_pairs_mut().append_pair("client_id", client_id);
        }
        Self {
            url,
            asks: Asks::Metadata,
            secrets: Vec::new(),
            advice: "is this a machine of Azure with a managed identity, and is it the one of \
                     client_id?"
                .to_owned(),
        }
    }
}

fn only(entry: Grant) -> Grants {
    Grants {
        entry,
        management: None,
    }
}

fn both(ask: impl Fn(&str) -> Grant, workspace: Option<&AzureWorkspace>) -> Grants {
    Grants {
        entry: ask(DATABRICKS),
        management: workspace
            .map(|workspace| (workspace.resource_id.clone(), ask(&workspace.management))),
    }
}

/// A secret as it is now; `key` is the setting of its value.
pub(super) async fn read(key: &str, source: &SecretSource) -> Result<Secret, String> {
    let read = source.read().await;
    read.map_err(|error| format!("auth.{}: {error}", source.setting(key)))
}

/// The URL of a path below another URL.
fn below(url: &Url, parts: &[&str]) -> Url {
    let mut below = url.clone();
    // Every URL of the settings has a host, and so can have a path.
    if let Ok(mut path) = below.path_segments_mut() {
        path.pop_if_empty().extend(parts);
    }
    below
}
