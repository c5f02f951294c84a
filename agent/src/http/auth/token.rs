//! A token as it is sent.

use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};

use crate::config::Secret;

const RESOURCE_ID: HeaderName = HeaderName::from_static("x-databricks-azure-workspace-resource-id");
const MANAGEMENT: HeaderName = HeaderName::from_static("x-databricks-azure-sp-management-token");

/// The headers that let a call in. Prints nothing.
#[derive(Clone)]
pub struct Token {
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What must be seen nowhere.
    secrets: Vec<Secret>,
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.headers == other.headers
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl Token {
    pub(super) fn bearer(secret: &Secret) -> Result<Self, String> {
        let bearer = format!("Bearer {}", secret.expose()).into();
        Ok(Self {
            headers: vec![(AUTHORIZATION, sensitive(&bearer)?)],
            secrets: vec![secret.clone()],
        })
    }

    /// The same for somebody who manages an Azure workspace without being its user.
    pub(super) fn managing(
        mut self,
        resource_id: &str,
        management: &Secret,
    ) -> Result<Self, String> {
        let resource_id = HeaderValue::try_from(resource_id)
            .map_err(|_| "azure_workspace_resource_id holds a character that no HTTP header can")?;
        self.headers.push((RESOURCE_ID, resource_id));
        self.headers.push((MANAGEMENT, sensitive(management)?));
        self.secrets.push(management.clone());
        Ok(self)
    }

    /// The headers to send: `Authorization`, and what belongs to it. Secret ones are marked as
    /// sensitive.
    pub fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> + '_ {
        self.headers.iter().cloned()
    }

    /// Takes the token out of a text, should it stand there.
    pub fn censor(&self, text: &mut String) {
        censor(&self.secrets, text);
    }

    /// A body without the token, should it stand there: to be used before any part of it is quoted,
    /// as half a token would no longer be found.
    pub fn censored(&self, body: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(body).into_owned();
        censor(&self.secrets, &mut text);
        text
    }
}

/// Takes secrets out of a text that somebody else wrote.
pub(super) fn censor(secrets: &[Secret], text: &mut String) {
    for secret in secrets.iter().map(Secret::expose) {
        if !secret.is_empty() && text.contains(secret) {
            *text = text.replace(secret, "[secret]");
        }
    }
}

fn sensitive(secret: &Secret) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(secret.expose())
        .map_err(|_| "the token holds a character that no HTTP header can".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}
