//! What Databricks' own tools find besides their settings: variables, a profile of
//! `~/.databrickscfg`, and the secret of Prefect's old flows. Names are those of a profile.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ConfigError;
use super::check::{Variables, value};
use super::profile::Profile;
use super::secret::{Secret, SecretSource};

/// The variable for each name of a profile, as Databricks' SDK has them.
const VARIABLES: [(&str, &str); 14] = [
    ("host", "DATABRICKS_HOST"),
    ("token", "DATABRICKS_TOKEN"),
    ("client_id", "DATABRICKS_CLIENT_ID"),
    ("client_secret", "DATABRICKS_CLIENT_SECRET"),
    ("oidc_token_filepath", "DATABRICKS_OIDC_TOKEN_FILEPATH"),
    ("oidc_token_filepath", "DATABRICKS_OIDC_TOKEN_FILE"),
    ("oidc_token_env", "DATABRICKS_OIDC_TOKEN_ENV"),
    ("auth_type", "DATABRICKS_AUTH_TYPE"),
    (
        "azure_workspace_resource_id",
        "DATABRICKS_AZURE_RESOURCE_ID",
    ),
    ("azure_use_msi", "ARM_USE_MSI"),
    ("azure_client_id", "ARM_CLIENT_ID"),
    ("azure_client_secret", "ARM_CLIENT_SECRET"),
    ("azure_tenant_id", "ARM_TENANT_ID"),
    ("config_file", "DATABRICKS_CONFIG_FILE"),
];

const PROFILE: &str = "DATABRICKS_CONFIG_PROFILE";
const OIDC_TOKEN: &str = "DATABRICKS_OIDC_TOKEN";
const CONNECTION_STRING: &str = "DATABRICKS_CONNECTION_STRING";

/// Names whose presence means that the environment says how to be let in.
const TELLING: [&str; 6] = [
    "host",
    "token",
    "client_secret",
    "oidc_token_filepath",
    "azure_client_secret",
    "azure_workspace_resource_id",
];

/// What stands in for what the settings leave out.
pub(super) struct Ambient<'a> {
    /// Absent where the settings name a profile: then that is all there is.
    variables: Option<&'a Variables>,
    profile: Option<Profile>,
    old: ConnectionString,
}

/// Prefect's old secret.
#[derive(Default, Deserialize)]
struct ConnectionString {
    host: Option<String>,
    token: Option<Secret>,
}

impl<'a> Ambient<'a> {
    /// The profile that the settings name, and nothing else.
    pub(super) fn of_profile(
        setting: &str,
        name: &str,
        file: Option<&Path>,
        variables: &Variables,
    ) -> Result<Self, ConfigError> {
        let file = match file {
            Some(file) => file.to_owned(),
            None => usual_file(variables).ok_or_else(|| {
                value(
                    setting,
                    "the profile's file is not known, as HOME is not set: name it by `config_file`",
                )
            })?,
        };
        Ok(Self {
            variables: None,
            profile: Some(Profile::read(setting, &file, name)?),
            old: ConnectionString::default(),
        })
    }

    /// The environment; and the profile that it names, or the profile `DEFAULT` if neither the
    /// environment nor the settings (`host_is_set`) speak of a workspace.
    pub(super) fn of_environment(
        variables: &'a Variables,
        host_is_set: bool,
    ) -> Result<Self, ConfigError> {
        let mut ambient = Self {
            variables: Some(variables),
            profile: None,
            old: ConnectionString::default(),
        };
        if let Some(text) = variables
            .get(CONNECTION_STRING)
            .filter(|text| !text.is_empty())
        {
            // The parser's own error would quote the text, and with it the token.
            ambient.old = serde_json::from_str(text).map_err(|_| {
                value(
                    CONNECTION_STRING,
                    r#"is not JSON of the form {"host": "...", "token": "..."}"#,
                )
            })?;
        }
        let telling = |name: &str| ambient.secret(name).is_some();
        ambient.profile = match variables.get(PROFILE).filter(|name| !name.is_empty()) {
            Some(name) => {
                let file = usual_file(variables).ok_or_else(|| {
                    value(
                        PROFILE,
                        "the profile's file is not known, as neither DATABRICKS_CONFIG_FILE nor HOME is set",
                    )
                })?;
                Some(Profile::read(PROFILE, &file, name)?)
            }
            None if host_is_set || TELLING.into_iter().any(telling) => None,
            None => match usual_file(variables).filter(|file| file.is_file()) {
                Some(file) => Profile::default_of(&file)?,
                None => None,
            },
        };
        Ok(ambient)
    }

    fn variable(&self, name: &str) -> Option<&String> {
        let variables = self.variables?;
        VARIABLES
            .iter()
            .filter(|(of, _)| *of == name)
            .filter_map(|(_, variable)| variables.get(*variable))
            .find(|text| !text.is_empty())
    }

    /// What stands under a name. Not for secrets.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let variable = self.variable(name).cloned();
        let old = || self.old.host.clone().filter(|_| name == "host");
        variable
            .or_else(|| self.profile.as_ref()?.text(name))
            .or_else(old)
    }

    /// The secret under a name; `oidc_token_filepath` is the file of one.
    pub(super) fn secret(&self, name: &str) -> Option<SecretSource> {
        if name == "oidc_token_filepath" {
            return self.text(name).map(|path| SecretSource::File(path.into()));
        }
        let old = || self.old.token.clone().filter(|_| name == "token");
        match self.variable(name) {
            Some(text) => Some(SecretSource::Value(text.clone().into())),
            None => self
                .profile
                .as_ref()
                .and_then(|profile| profile.secret(name))
                .or_else(|| old().map(SecretSource::Value)),
        }
    }

    /// The token of another issuer that stands in a variable.
    pub(super) fn oidc_token(&self) -> Option<SecretSource> {
        let named = self.text("oidc_token_env");
        let name = named.as_deref().unwrap_or(OIDC_TOKEN);
        let token = self.variables?.get(name).filter(|text| !text.is_empty())?;
        Some(SecretSource::Value(token.clone().into()))
    }

    /// Whether a name is set, and to something that says yes.
    pub(super) fn truth(&self, name: &str) -> bool {
        self.text(name)
            .is_some_and(|text| matches!(text.to_lowercase().as_str(), "true" | "1" | "yes"))
    }

    /// The workspace of the profile, if there is a profile which has one.
    pub(super) fn profile_host(&self) -> Option<(String, String)> {
        let profile = self.profile.as_ref()?;
        Some((profile.text("host")?, profile.place()))
    }

    /// Where a person may set what stands under a name.
    pub(super) fn place(&self, name: &str) -> String {
        let variable = VARIABLES.iter().find(|(of, _)| *of == name);
        match (&self.profile, variable, self.variables) {
            (Some(profile), _, None) => format!("`{name}` in {}", profile.place()),
            (_, Some((_, variable)), _) => (*variable).to_owned(),
            (_, None, _) => name.to_owned(),
        }
    }
}

/// The file of profiles: `DATABRICKS_CONFIG_FILE`, else `~/.databrickscfg`.
fn usual_file(variables: &Variables) -> Option<PathBuf> {
    let set = |name: &str| variables.get(name).filter(|text| !text.is_empty());
    let home = set("HOME").map(Path::new);
    match set("DATABRICKS_CONFIG_FILE") {
        Some(file) => match (file.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => Some(home.join(rest)),
            _ => Some(file.into()),
        },
        None => Some(home?.join(".databrickscfg")),
    }
}
