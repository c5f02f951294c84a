//! The workspace's REST API: one call in, its reply or what went wrong out.
//!
//! Guarantees: every call waits for its turn, is bounded in time and size, and is counted; no
//! credentials stand in any error.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use reqwest::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

use super::call::Call;
use super::clock::Clock;
use super::contact::Contact;
use super::error::CallError;
use super::wire::Me;
use crate::config::DatabricksSettings;
use crate::http::auth::{Credentials, Token};
use crate::http::client::HttpClient;
use crate::http::pace::{Brake, Pace};
use crate::http::{fault, headers};
use crate::observe::metrics;

/// The largest reply that is read, in bytes. Output is the largest: Databricks keeps 5 MB of a
/// notebook's result and 5 MB of logs, and JSON may write a character as six.
const REPLY_BYTES: usize = 64 << 20;

/// Outputs that are read at once: together they fit into memory, however many runs end together.
const OUTPUTS_AT_ONCE: usize = 8;

/// One workspace.
#[derive(Debug)]
pub(in crate::engine) struct Client {
    http: Arc<HttpClient>,
    connection: Arc<str>,
    base: Url,
    /// The host (and port), for texts.
    host: String,
    credentials: Credentials,
    brake: Arc<Brake>,
    starting: Pace,
    /// For everything that starts nothing.
    asking: Pace,
    outputs: Semaphore,
    /// The workspace's clock.
    pub(super) clock: Clock,
    /// Whether the workspace is within reach.
    contact: Mutex<Contact>,
}

/// The client can't be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the client for {host} can't be made: {why}")]
pub struct ClientError {
    /// The workspace.
    pub host: String,
    /// Why.
    pub why: String,
}

/// What a call sends.
#[derive(Debug, Clone)]
enum Sent<'a> {
    Query(&'a [(&'a str, String)]),
    Body(Bytes),
}

impl Client {
    /// Calls nothing yet. `connection` is the connection's name, for metrics.
    ///
    /// # Errors
    /// Where the HTTP client can't be made.
    pub(in crate::engine) fn new(
        connection: &str,
        settings: &DatabricksSettings,
    ) -> Result<Self, ClientError> {
        let host = match (settings.host.host_str(), settings.host.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        let failed = |why| ClientError {
            host: host.clone(),
            why,
        };
        let http = HttpClient::new(&settings.reach, &settings.host, settings.call_timeout);
        let http = Arc::new(http.map_err(failed)?);
        let connection: Arc<str> = connection.into();
        let credentials = Credentials::new(&connection, &settings.auth, &settings.host, &http);
        let credentials = credentials.map_err(failed)?;
        let mut base = settings.host.clone();
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let brake = Brake::new();
        Ok(Self {
            http,
            connection,
            base,
            host,
            credentials,
            starting: Pace::new(settings.submit_per_second, Arc::clone(&brake)),
            asking: Pace::new(settings.poll_per_second, Arc::clone(&brake)),
            outputs: Semaphore::new(OUTPUTS_AT_ONCE),
            brake,
            clock: Clock::default(),
            contact: Mutex::default(),
        })
    }

    /// Waits until one more run may be started.
    pub(super) async fn permit(&self) {
        self.starting.turn().await;
    }

    /// Why the workspace is out of reach, if it is; or what is wrong with our credentials or
    /// certificates, though the old ones may still serve.
    pub(in crate::engine) fn trouble(&self) -> Option<String> {
        let told = self.lock_contact().trouble().map(str::to_owned);
        let ours = self.credentials.trouble().or_else(|| self.http.trouble());
        match (told, ours) {
            // A token is refused, and this is why there is no newer one.
            (Some(told), Some(ours)) => Some(format!("{told}; {ours}")),
            (told, ours) => told.or(ours),
        }
    }

    fn lock_contact(&self) -> std::sync::MutexGuard<'_, Contact> {
        self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection's name, for metrics.
    pub(super) fn connection(&self) -> &str {
        &self.connection
    }

    /// The host and port, for texts.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The headers that let a call in, for calls that are made elsewhere. Secret ones are marked as
    /// sensitive.
    ///
    /// # Errors
    /// For a person: why there is no token.
    #[cfg(feature = "spark_connect")]
    pub(in crate::engine) async fn headers(&self) -> Result<reqwest::header::HeaderMap, String> {
        let token = self.credentials.token().await?;
        Ok(token.headers().collect())
    }

    /// A GET.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        call: Call,
        query: &[(&str, String)],
    ) -> Result<T, CallError> {
        let (body, token) = self.exchange(call, Sent::Query(query)).await?;
        self.read(call, &body, &token)
    }

    /// A POST of a JSON body.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        call: Call,
        body: Bytes,
    ) -> Result<T, CallError> {
        let (body, token) = self.exchange(call, Sent::Body(body)).await?;
        self.read(call, &body, &token)
    }

    fn read<T: DeserializeOwned>(
        &self,
        call: Call,
        body: &[u8],
        token: &Token,
    ) -> Result<T, CallError> {
        serde_json::from_slice(body).map_err(|error| {
            let mut why = format!("is not what this call answers ({error})");
            token.censor(&mut why);
            let body = token.censored(body);
            CallError::unreadable(&self.place(call), 200, &why, body.as_bytes())
        })
    }

    /// A call and where it goes, for texts.
    pub(super) fn place(&self, call: Call) -> String {
        format!("{} at {}", call.name(), self.host)
    }

    /// Takes its turn, calls, and once more where the credentials have changed in between.
    /// Comes with the token that let it in.
    async fn exchange(&self, call: Call, sent: Sent<'_>) -> Result<(Bytes, Token), CallError> {
        // The semaphore is never closed, so this can't fail.
        let _large = match call {
            Call::GetOutput => self.outputs.acquire().await.ok(),
            _ => None,
        };
        match call {
            Call::Repair => self.starting.turn().await,
            // A start has its permit already (`Client::permit`).
            Call::RunNow | Call::Submit | Call::SubmitOneTask | Call::Me => {}
            _ => self.asking.turn().await,
        }
        let mut token = self.token(call).await?;
        let (mut error, status) = match self.once(call, sent.clone(), &token).await {
            Ok(body) => return Ok((body, token)),
            Err(failed) => failed,
        };
        if !matches!(status, Some(401 | 403)) {
            return Err(error);
        }
        if let Some(other) = self.credentials.other_than(&token).await {
            token = other;
            match self.once(call, sent.clone(), &token).await {
                Ok(body) => return Ok((body, token)),
                Err((later, _)) => error = later,
            }
        }
        let asked_at = Instant::now();
        if is_denied(&error)
            && let Some(admitted) = self.admitted().await
        {
            // Between the refusal and that answer we may have been let in again.
            token = admitted;
            match self.once(call, sent, &token).await {
                Ok(body) => return Ok((body, token)),
                Err((later, _)) if is_denied(&later) => return Err(later),
                Err((later, _)) => error = later,
            }
        }
        Err(match error {
            CallError::Refused(refusal) if refusal.status == 403 => {
                self.note(asked_at, Some(self.not_let_in()));
                CallError::no_credentials(&refusal.to_error().message, "is the token right?")
            }
            other => other,
        })
    }

    async fn token(&self, call: Call) -> Result<Token, CallError> {
        let why = |why: String| CallError::no_credentials(&self.place(call), &why);
        self.credentials.token().await.map_err(why)
    }

    /// Whether our credentials work as such, now. A 403 refuses a request only if they do, and the
    /// text says that a permission is missing; else they are not accepted at the moment, which is
    /// nobody's request's fault.
    ///
    /// Returns the token that was let in.
    async fn admitted(&self) -> Option<Token> {
        let token = self.token(Call::Me).await.ok()?;
        let answered = self.once(Call::Me, Sent::Query(&[]), &token).await;
        answered.is_ok().then_some(token)
    }

    fn not_let_in(&self) -> String {
        format!("{} does not accept our credentials", self.host)
    }

    fn note(&self, sent_at: Instant, trouble: Option<String>) {
        self.lock_contact().note(&self.connection, sent_at, trouble);
    }

    /// Who we are.
    pub(super) async fn me(&self) -> Result<Me, CallError> {
        self.get(Call::Me, &[]).await
    }

    /// One request and its reply, counted. With an error comes the status, if there was one.
    async fn once(
        &self,
        call: Call,
        sent: Sent<'_>,
        token: &Token,
    ) -> Result<Bytes, (CallError, Option<u16>)> {
        let sent_at = Instant::now();
        let result = self.send(call, sent, token).await;
        let trouble = match &result {
            Ok((401, ..)) => Some(self.not_let_in()),
            Ok((status @ 500.., ..)) => Some(format!("{} answers {status}", self.place(call))),
            Err((_, Some(_))) => Some(format!("{} answers half", self.place(call))),
            Ok(_) => None,
            Err((error, None)) => Some(format!(
                "{} can't be reached: {}",
                self.host,
                if let Some(trouble) = fault::tls(error) {
                    trouble
                } else if error.is_timeout() {
                    "no answer in time".to_owned()
                } else {
                    "the connection failed".to_owned()
                }
            )),
        };
        // A 403 alone tells nothing: who sent it asks on.
        if !matches!(&result, Ok((403, ..))) {
            self.note(sent_at, trouble);
        }
        let status = match &result {
            Ok((status, ..)) | Err((_, Some(status))) => Some(*status),
            Err((_, None)) => None,
        };
        metrics::engine_call(&self.connection, call.name(), status);
        match result {
            Ok((status @ 200..300, body, _)) => {
                self.brake.reached();
                if body.len() > REPLY_BYTES {
                    let error = CallError::too_large(&self.place(call), REPLY_BYTES);
                    return Err((error, Some(status)));
                }
                Ok(body)
            }
            Ok((status, body, retry_after)) => {
                self.brake.reached();
                match (status, retry_after) {
                    (429, wait) => self.brake.throttled(sent_at, wait),
                    (503, Some(wait)) => self.brake.pause(wait),
                    _ => {}
                }
                let body = token.censored(&body);
                let place = self.place(call);
                let error = CallError::answered(&place, status, retry_after, body.as_bytes());
                Err((censored(error, token), Some(status)))
            }
            Err((error, status)) => {
                if error.is_connect() {
                    self.brake.unreachable(sent_at);
                }
                let error = CallError::transport(&self.place(call), &error.without_url());
                Err((censored(error, token), status))
            }
        }
    }

    async fn send(
        &self,
        call: Call,
        sent: Sent<'_>,
        token: &Token,
    ) -> Result<Reply, (reqwest::Error, Option<u16>)> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{}", url.path(), call.path()));
        let http = self.http.client().await;
        let mut request = match sent {
            Sent::Query(query) => http.get(url).query(query),
            Sent::Body(body) => http
                .post(url)
                .header(CONTENT_TYPE, "application/json")
                .body(body),
        };
        let sent_at = Timestamp::now();
        for (name, value) in token.headers() {
            request = request.header(name, value);
        }
        let mut response = request.send().await.map_err(|error| (error, None))?;
        let status = response.status().as_u16();
        // What stands in between (a gateway, a proxy) answers otherwise, by a clock of its own.
        if let (200..300, Some(date)) = (status, headers::date(response.headers())) {
            self.clock.note(date, sent_at);
        }
        let retry_after = headers::retry_after(response.headers(), Timestamp::now());
        let mut body = BytesMut::new();
        // A larger reply is not read to its end.
        while body.len() <= REPLY_BYTES
            && let Some(chunk) = response.chunk().await.map_err(|e| (e, Some(status)))?
        {
            body.extend_from_slice(&chunk);
        }
        Ok((status, body.freeze(), retry_after))
    }
}

/// Whether a permission is missing, as the workspace says.
fn is_denied(error: &CallError) -> bool {
    matches!(error, CallError::Refused(refusal)
        if refusal.status == 403 && refusal.code.as_deref() == Some("PERMISSION_DENIED"))
}

/// Status, body, `Retry-After`.
type Reply = (u16, Bytes, Option<Duration>);

fn censored(mut error: CallError, token: &Token) -> CallError {
    for text in error.texts() {
        token.censor(text);
    }
    error
}
