//! A call to a token endpoint: what it issued, or why not.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder};
use serde::{Deserialize, Deserializer};
use url::form_urlencoded::Serializer;

use super::grant::{Asks, Grant};
use super::token::censor;
use crate::config::Secret;
use crate::http::fault;

/// How long an endpoint may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer that is read, in bytes; a token has some thousands.
const ANSWER_BYTES: usize = 256 << 10;

/// The longest text that is taken over from an answer, in characters.
const TEXT_CHARS: usize = 400;

/// How long a token is taken to last if nobody says so.
const UNSAID: Duration = Duration::from_mins(5);

/// A token that was issued.
pub(super) struct Issued {
    pub(super) token: Secret,
    /// From before it was asked for.
    pub(super) lasts: Duration,
}

/// A client for addresses to which no proxy leads.
pub(super) fn without_proxy() -> Result<Client, String> {
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| error.to_string())
}

/// Asks for a token. `count` is told the status of the answer, if there is one.
///
/// # Errors
/// For a person: who refused or can't be reached, and what to do.
pub(super) async fn ask(
    client: &Client,
    grant: &Grant,
    count: impl FnOnce(Option<u16>),
) -> Result<Issued, String> {
    let host = match (grant.url.host_str(), grant.url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    let exchanged = exchange(client, grant).await;
    count(exchanged.as_ref().ok().map(|(status, _)| *status));
    let (status, body) = exchanged
        .map_err(|error| format!("no token from {host}: {}", unreachable(&error, grant)))?;
    let said = match status {
        200 => match serde_json::from_slice::<Answer>(&body) {
            Ok(answer) if !answer.access_token.expose().is_empty() => {
                return Ok(Issued {
                    token: answer.access_token,
                    lasts: answer.expires_in.unwrap_or(UNSAID),
                });
            }
            // The parser's own error could quote the token.
            _ => {
                return Err(format!(
                    "no token from {host}: it answers, but not with a token: is this address right, \
                     or does a proxy answer in its place?"
                ));
            }
        },
        _ => refusal(&body, &grant.secrets),
    };
    Err(format!(
        "no token from {host}: {status}{said}{}",
        match status {
            400..=404 => format!(": {}", grant.advice),
            _ => ": it will be asked again".to_owned(),
        }
    ))
}

async fn exchange(client: &Client, grant: &Grant) -> reqwest::Result<(u16, Vec<u8>)> {
    let mut response = request(client, grant).timeout(TIMEOUT).send().await?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while body.len() <= ANSWER_BYTES
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk);
    }
    Ok((status, body))
}

fn request(client: &Client, grant: &Grant) -> RequestBuilder {
    match &grant.asks {
        Asks::Metadata => client.get(grant.url.clone()).header("Metadata", "true"),
        Asks::Form { fields, basic } => {
            let form = Serializer::new(String::new()).extend_pairs(fields).finish();
            let request = client
                .post(grant.url.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form);
            match basic {
                Some((user, password)) => request.basic_auth(user, Some(password.expose())),
                None => request,
            }
        }
    }
}

fn unreachable(error: &reqwest::Error, grant: &Grant) -> String {
    if let Some(trouble) = fault::tls(error) {
        return trouble;
    }
    let what = if error.is_timeout() {
        "no answer in time".to_owned()
    } else if error.is_connect() {
        format!("it can't be reached ({})", fault::cause(error))
    } else {
        format!("the connection failed ({})", fault::cause(error))
    };
    match grant.asks {
        Asks::Metadata => format!("{what}: {}", grant.advice),
        Asks::Form { .. } => format!("{what}: does a proxy or a firewall stand between?"),
    }
}

#[derive(Deserialize)]
struct Answer {
    access_token: Secret,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<Duration>,
}

/// A number, or one in quotes (Azure's). What is neither, nor more than nothing, is not said.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let seconds = match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => text.parse().ok(),
        other => other.as_f64(),
    };
    let positive = seconds.filter(|seconds: &f64| *seconds > 0.0);
    Ok(positive.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
}

/// What an endpoint says of its refusal, in OAuth's form; nothing where it has another one.
fn refusal(body: &[u8], secrets: &[Secret]) -> String {
    #[derive(Default, Deserialize)]
    struct Refusal {
        #[serde(default)]
        error: String,
        #[serde(default)]
        error_description: String,
    }

    let said: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let mut text = format!("{} {}", said.error, said.error_description);
    // Before it is cut: half a secret would no longer be found.
    censor(secrets, &mut text);
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() {
        return String::new();
    }
    let text: String = words.join(" ").chars().take(TEXT_CHARS).collect();
    format!(" {}", text.trim_end_matches(['.', ':', ' ']))
}
