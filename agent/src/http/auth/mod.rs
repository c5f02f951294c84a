//! What lets us into a workspace: a token, had in one of several ways and renewed before it expires.
//!
//! Guarantees: tokens are renewed ahead of time, one renewal at a time, while the old token goes on
//! serving; how long one lasts is counted from before it was asked for, so no clock but our own
//! matters; a renewal is bounded in time and ends with the caller that is dropped. No secret stands in
//! any error. Deliberately absent: the discovery of token endpoints. A secret goes to the host that
//! the settings name, and nowhere that a reply points to.

mod endpoint;
mod grant;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;
use url::Url;

pub use token::Token;

use self::endpoint::Issued;
use self::grant::Grant;
use super::client::HttpClient;
use super::renewed::{Lasting, Renewed};
use crate::config::{Auth, SecretSource};
use crate::observe::metrics;

/// A token that stands in a file is read again after so long: a rotated file is noticed before the
/// old token is refused, and thousands of calls a second don't read it thousands of times.
const KEPT: Duration = Duration::from_secs(30);

/// A token is asked for this long before the old one expires, or for a quarter of its life.
const AHEAD: Duration = Duration::from_mins(5);

/// A token that expires within this time, or a tenth of its life, is not used any more: it must
/// not expire on its way.
const SPARE: Duration = Duration::from_secs(30);

/// New tokens because the workspace refused one are not asked for more often: where it refuses
/// every token, each call would ask for another one.
const DEMANDS: Duration = Duration::from_secs(10);

/// The credentials of a connection.
#[derive(Debug)]
pub struct Credentials {
    /// The connection's name, for metrics.
    connection: Arc<str>,
    auth: Auth,
    host: Url,
    http: Arc<HttpClient>,
    /// For the metadata service, to which no proxy leads; made where it is needed.
    machine: Option<reqwest::Client>,
    tokens: Renewed<Token>,
}

impl Credentials {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// For a person: the client can't be made.
    pub fn new(
        connection: &Arc<str>,
        auth: &Auth,
        host: &Url,
        http: &Arc<HttpClient>,
    ) -> Result<Self, String> {
        let machine = match auth {
            Auth::AzureManagedIdentity { .. } => Some(endpoint::without_proxy()?),
            _ => None,
        };
        let demands = match auth {
            // To read a file costs nobody anything.
            Auth::Pat(_) => Duration::ZERO,
            _ => DEMANDS,
        };
        Ok(Self {
            connection: Arc::clone(connection),
            auth: auth.clone(),
            host: host.clone(),
            http: Arc::clone(http),
            machine,
            tokens: Renewed::new(demands),
        })
    }

    /// The token that serves now.
    ///
    /// # Errors
    /// For a person: why there is none, and what to do. It may pass.
    pub async fn token(&self) -> Result<Token, String> {
        self.tokens.get(|| self.obtain()).await
    }

    /// Another token than the one that was refused, if there is one by now or can be had.
    pub async fn other_than(&self, refused: &Token) -> Option<Token> {
        self.tokens.other_than(refused, || self.obtain()).await
    }

    /// Why no new token can be had, though the old one may still serve.
    pub fn trouble(&self) -> Option<String> {
        self.tokens.trouble()
    }

    async fn obtain(&self) -> Result<Lasting<Token>, String> {
        let grants = match &self.auth {
            Auth::Pat(source) => return as_it_is(source).await,
            _ => Grant::of(&self.auth, &self.host).await?,
        };
        let client = match &self.machine {
            Some(client) => client.clone(),
            None => self.http.client().await,
        };
        let entry = self.ask(&client, &grants.entry);
        let management = async {
            match &grants.management {
                Some((resource_id, grant)) => {
                    let issued = self.ask(&client, grant).await?;
                    Ok(Some((resource_id.as_str(), issued)))
                }
                None => Ok(None),
            }
        };
        let (entry, management) = tokio::try_join!(entry, management)?;
        let lasts = match &management {
            Some((_, issued)) => entry.lasts.min(issued.lasts),
            None => entry.lasts,
        };
        let mut token = Token::bearer(&entry.token)?;
        if let Some((resource_id, issued)) = &management {
            token = token.managing(resource_id, &issued.token)?;
        }
        Ok(Lasting {
            value: token,
            fresh_for: lasts.saturating_sub(AHEAD.min(lasts / 4)),
            serves_for: Some(lasts.saturating_sub(SPARE.min(lasts / 10))),
        })
    }

    async fn ask(&self, client: &reqwest::Client, grant: &Grant) -> Result<Issued, String> {
        let count = |status| metrics::engine_call(&self.connection, call(&self.auth), status);
        let issued = endpoint::ask(client, grant, count).await?;
        debug!(
            host = grant.url.host_str(),
            seconds = issued.lasts.as_secs(),
            "a new token"
        );
        Ok(issued)
    }
}

/// What a question for a token is called in metrics: the kind of credentials that need it.
fn call(auth: &Auth) -> &'static str {
    match auth {
        // Never asked.
        Auth::Pat(_) => "token/pat",
        Auth::OauthM2m { .. } => "token/oauth_m2m",
        Auth::AzureServicePrincipal { .. } => "token/azure_service_principal",
        Auth::AzureManagedIdentity { .. } => "token/azure_managed_identity",
        Auth::Federation { .. } => "token/federation",
    }
}

async fn as_it_is(source: &SecretSource) -> Result<Lasting<Token>, String> {
    let secret = grant::read("token", source).await?;
    Ok(Lasting {
        value: Token::bearer(&secret)?,
        fresh_for: KEPT,
        serves_for: None,
    })
}
