//! How to be let into a Databricks workspace: the table `auth` of a connection, and what stands in
//! for it where it is absent or leaves something out.
//!
//! Absent, the kinds are tried in the order of Databricks' own tools, and the first one for which
//! everything is there is taken; `DATABRICKS_AUTH_TYPE` names one and excludes the others.
//! Deliberately absent: user names with passwords, and whatever asks a person or another program.

use std::path::PathBuf;

use config::Value;
use serde::Deserialize;
use url::Url;

use super::ambient::Ambient;
use super::check::{Variables, expand, secret, unknown_type, value};
use super::file::{FederationFile, IdentityFile, M2mFile, PatFile, PrincipalFile, ProfileFile};
use super::secret::{Secret, SecretSource};
use super::shape::{Tagged, read};
use super::{ConfigError, address};

/// How to be let into a Databricks workspace.
#[derive(Debug, Clone)]
pub enum Auth {
    /// A personal access token, sent as it is.
    Pat(SecretSource),
    /// A service principal of Databricks, whose secret the workspace changes for a token.
    OauthM2m {
        /// The principal's application id.
        client_id: String,
        /// Its secret.
        client_secret: SecretSource,
    },
    /// A service principal of Microsoft Entra ID.
    AzureServicePrincipal {
        /// The directory.
        tenant_id: String,
        /// The principal's application id.
        client_id: String,
        /// Its secret.
        client_secret: SecretSource,
        /// Where Entra ID answers.
        authority_host: Url,
        /// See [`AzureWorkspace`].
        workspace: Option<AzureWorkspace>,
    },
    /// The identity of the Azure machine that this runs on.
    AzureManagedIdentity {
        /// Which one, where the machine has several.
        client_id: Option<String>,
        /// Where the machine's metadata service answers.
        endpoint: Url,
        /// See [`AzureWorkspace`].
        workspace: Option<AzureWorkspace>,
    },
    /// A token of another issuer, which the workspace trusts and changes for its own.
    Federation {
        /// The token; its issuer writes a new one before the old one expires.
        token: SecretSource,
        /// The service principal, where the trust is one principal's; else it is the account's.
        client_id: Option<String>,
    },
}

/// The workspace in Azure's own words: it lets somebody in who is not one of its users, but may
/// manage it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureWorkspace {
    /// `/subscriptions/.../providers/Microsoft.Databricks/workspaces/...`
    pub resource_id: String,
    /// What a token for Azure's management is asked for; it differs between Azure's clouds.
    pub management: String,
}

/// Azure's public cloud and its others: how a workspace's host ends, where Entra ID answers, and
/// what a token for Azure's management is asked for (as in Databricks' SDK).
const CLOUDS: [(&str, &str, &str); 3] = [
    (
        ".azuredatabricks.net",
        "https://login.microsoftonline.com",
        "https://management.core.windows.net/",
    ),
    (
        ".databricks.azure.us",
        "https://login.microsoftonline.us",
        "https://management.core.usgovcloudapi.net/",
    ),
    (
        ".databricks.azure.cn",
        "https://login.chinacloudapi.cn",
        "https://management.core.chinacloudapi.cn/",
    ),
];

/// The metadata service of every Azure machine.
const METADATA: &str = "http://169.254.169.254";

/// What the environment of Databricks' tools calls the kinds, in the order in which they try them.
const KINDS: [&str; 6] = [
    "pat",
    "oauth-m2m",
    "env-oidc",
    "file-oidc",
    "azure-msi",
    "azure-client-secret",
];

const TYPES: &str =
    "pat, oauth_m2m, azure_service_principal, azure_managed_identity, federation, profile";

/// What is known while an `auth` is read.
pub(super) struct Known<'a> {
    /// The setting's path.
    pub(super) path: &'a str,
    /// The workspace.
    pub(super) host: &'a Url,
    /// What stands in for what is left out.
    pub(super) ambient: &'a Ambient<'a>,
    pub(super) variables: &'a Variables,
}

/// What the settings themselves say.
pub(super) enum Said {
    /// Nothing.
    Nothing,
    /// A profile, and its file where that is named too.
    Profile(String, Option<PathBuf>),
    /// A kind and its settings.
    Kind(String, Value),
}

impl Said {
    pub(super) fn read(
        path: &str,
        auth: Option<Tagged>,
        variables: &Variables,
    ) -> Result<Self, ConfigError> {
        let Some(auth) = auth else {
            return Ok(Self::Nothing);
        };
        let (kind, rest) = auth.split(path)?;
        if kind != "profile" {
            return Ok(Self::Kind(kind, rest));
        }
        let file: ProfileFile = read(path, rest)?;
        let named = file
            .config_file
            .map(|file| expand(&format!("{path}.config_file"), &file, variables))
            .transpose()?;
        Ok(Self::Profile(file.profile, named))
    }
}

/// How to be let in: as the settings say, else as the environment or the profile does.
pub(super) fn auth(said: Said, known: &Known<'_>) -> Result<Auth, ConfigError> {
    let Said::Kind(kind, rest) = said else {
        return known.found();
    };
    match kind.as_str() {
        "pat" => known.pat(rest),
        "oauth_m2m" => known.oauth_m2m(rest),
        "azure_service_principal" => known.azure_service_principal(rest),
        "azure_managed_identity" => known.azure_managed_identity(rest),
        "federation" => known.federation(rest),
        other => Err(unknown_type(known.path, other, TYPES)),
    }
}

impl Known<'_> {
    fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    /// What must be there: the setting `key`, or what the environment has under `name`.
    fn needed<T>(&self, key: &str, name: &str, found: Option<T>) -> Result<T, ConfigError> {
        found.ok_or_else(|| {
            value(
                self.at(key),
                format!("is needed (or {})", self.ambient.place(name)),
            )
        })
    }

    fn secret(
        &self,
        key: &str,
        direct: Option<Secret>,
        file: Option<String>,
        name: &str,
    ) -> Result<Option<SecretSource>, ConfigError> {
        let ours = secret(&self.at(key), direct, file, self.variables)?;
        Ok(ours.or_else(|| self.ambient.secret(name)))
    }

    fn text(&self, key: &str, ours: Option<String>, name: &str) -> Result<String, ConfigError> {
        let found = ours.or_else(|| self.ambient.text(name));
        self.needed(key, name, found.filter(|text| !text.is_empty()))
    }

    fn shape<T: for<'de> Deserialize<'de>>(&self, rest: Value) -> Result<T, ConfigError> {
        read(self.path, rest)
    }

    fn pat(&self, rest: Value) -> Result<Auth, ConfigError> {
        let PatFile { token, token_file } = self.shape(rest)?;
        match self.secret("token", token, token_file, "token")? {
            Some(source) => Ok(Auth::Pat(source)),
            None => Err(value(
                self.path,
                "no token: { type = \"pat\", token_file = \"...\" } is needed (or set DATABRICKS_TOKEN)",
            )),
        }
    }

    fn oauth_m2m(&self, rest: Value) -> Result<Auth, ConfigError> {
        let file: M2mFile = self.shape(rest)?;
        let found = self.secret(
            "client_secret",
            file.client_secret,
            file.client_secret_file,
            "client_secret",
        )?;
        Ok(Auth::OauthM2m {
            client_id: self.text("client_id", file.client_id, "client_id")?,
            client_secret: self.needed("client_secret_file", "client_secret", found)?,
        })
    }

    fn azure_service_principal(&self, rest: Value) -> Result<Auth, ConfigError> {
        let file: PrincipalFile = self.shape(rest)?;
        let found = self.secret(
            "client_secret",
            file.client_secret,
            file.client_secret_file,
            "azure_client_secret",
        )?;
        let tenant_id = self.text("tenant_id", file.tenant_id, "azure_tenant_id")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if !tenant_id.chars().all(plain) {
            return Err(value(
                self.at("tenant_id"),
                "is no tenant: a directory's id or one of its domains",
            ));
        }
        let authority = file.authority_host.as_deref();
        Ok(Auth::AzureServicePrincipal {
            tenant_id,
            client_id: self.text("client_id", file.client_id, "azure_client_id")?,
            client_secret: self.needed("client_secret_file", "azure_client_secret", found)?,
            authority_host: address::https(
                &self.at("authority_host"),
                authority.unwrap_or(self.cloud().1),
            )?,
            workspace: self.workspace(file.azure_workspace_resource_id)?,
        })
    }

    fn azure_managed_identity(&self, rest: Value) -> Result<Auth, ConfigError> {
        let file: IdentityFile = self.shape(rest)?;
        let endpoint = file.endpoint.as_deref().unwrap_or(METADATA);
        Ok(Auth::AzureManagedIdentity {
            client_id: file
                .client_id
                .or_else(|| self.ambient.text("azure_client_id")),
            endpoint: address::of_this_machine(&self.at("endpoint"), endpoint)?,
            workspace: self.workspace(file.azure_workspace_resource_id)?,
        })
    }

    fn federation(&self, rest: Value) -> Result<Auth, ConfigError> {
        let FederationFile {
            token_file,
            client_id,
        } = self.shape(rest)?;
        let found = self.secret("token", None, token_file, "oidc_token_filepath")?;
        Ok(Auth::Federation {
            token: self.needed("token_file", "oidc_token_filepath", found)?,
            client_id: client_id.or_else(|| self.ambient.text("client_id")),
        })
    }

    fn cloud(&self) -> (&'static str, &'static str, &'static str) {
        let host = self.host.host_str().unwrap_or_default();
        let here = CLOUDS.iter().find(|(zone, ..)| host.ends_with(zone));
        *here.unwrap_or(&CLOUDS[0])
    }

    fn workspace(&self, ours: Option<String>) -> Result<Option<AzureWorkspace>, ConfigError> {
        const NAME: &str = "azure_workspace_resource_id";
        let Some(resource_id) = ours.or_else(|| self.ambient.text(NAME)) else {
            return Ok(None);
        };
        if !resource_id.starts_with("/subscriptions/") || !resource_id.is_ascii() {
            return Err(value(
                self.at(NAME),
                "is no resource of Azure: it begins with /subscriptions/",
            ));
        }
        Ok(Some(AzureWorkspace {
            resource_id,
            management: self.cloud().2.to_owned(),
        }))
    }

    /// The first kind for which everything is there, or the one that is asked for.
    fn found(&self) -> Result<Auth, ConfigError> {
        let asked = self.ambient.text("auth_type");
        let kinds = match asked.as_deref() {
            None => &KINDS[..],
            Some(asked) => match KINDS.iter().position(|kind| *kind == asked) {
                Some(at) => &KINDS[at..=at],
                None => {
                    return Err(value(
                        self.path,
                        format!(
                            "{} is {asked:?}, which is not among the kinds that work without a \
                             person: {}",
                            self.ambient.place("auth_type"),
                            KINDS.join(", ")
                        ),
                    ));
                }
            },
        };
        for kind in kinds {
            if asked.is_some() || self.complete(kind) {
                return self.of_kind(kind);
            }
        }
        Err(value(
            self.path,
            "no token: { type = \"pat\", token_file = \"...\" } is needed, or another type (or set \
             DATABRICKS_TOKEN, or the variables of another way to be let in)",
        ))
    }

    /// Whether the environment or the profile has all that a kind needs. Azure's kinds are for
    /// Azure's workspaces: the variables of its other tools serve many purposes.
    fn complete(&self, kind: &str) -> bool {
        let has = |name: &str| self.ambient.secret(name).is_some();
        let host = self.host.host_str().unwrap_or_default();
        let azure = || {
            has("azure_workspace_resource_id")
                || CLOUDS.iter().any(|(zone, ..)| host.ends_with(zone))
        };
        match kind {
            "pat" => has("token"),
            "oauth-m2m" => has("client_id") && has("client_secret"),
            "env-oidc" => self.ambient.oidc_token().is_some(),
            "file-oidc" => has("oidc_token_filepath"),
            "azure-msi" => azure() && self.ambient.truth("azure_use_msi"),
            _ => {
                let all = ["azure_client_id", "azure_client_secret", "azure_tenant_id"];
                azure() && all.into_iter().all(has)
            }
        }
    }

    /// With nothing but what the environment or the profile says.
    fn of_kind(&self, kind: &str) -> Result<Auth, ConfigError> {
        let nothing = || Value::from(config::Map::<String, Value>::new());
        match kind {
            "pat" => self.pat(nothing()),
            "oauth-m2m" => self.oauth_m2m(nothing()),
            "env-oidc" => Ok(Auth::Federation {
                token: self.needed("token_file", "oidc_token_env", self.ambient.oidc_token())?,
                client_id: self.ambient.text("client_id"),
            }),
            "file-oidc" => self.federation(nothing()),
            "azure-msi" => self.azure_managed_identity(nothing()),
            _ => self.azure_service_principal(nothing()),
        }
    }
}
