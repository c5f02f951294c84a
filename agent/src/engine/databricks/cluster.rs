//! The cluster of a Spark Connect connection: looked up, started if it is down, and awaited.
//!
//! Guarantees: however many runs wait, one look at a time is taken for all of them; a start that
//! races with another worker's is no error; nothing here waits longer than a call takes, so that
//! whoever waits can be cancelled meanwhile. Deliberately absent: stopping it. A cluster stops
//! itself (`autotermination_minutes`), or its owner does.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use sparkferry_shared::{ErrorClass, RunError};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::info;

use super::call::Call;
use super::client::Client;
use super::error::CallError;
use super::libraries::{Libraries, Standing};
use super::text;
use crate::engine::Fault;

/// How long a cluster is awaited. A cold start takes 5 to 10 minutes, and more where machines are
/// short.
const PATIENCE: Duration = Duration::from_mins(30);
/// Starts of one wait, at most: a cluster that can't start would be started for half an hour.
const STARTS: u32 = 3;
/// How long "it is ready" is believed.
const READY: Duration = Duration::from_secs(30);
/// How long a refusal holds, so that all who waited hear it.
const REFUSED: Duration = Duration::from_mins(1);
/// The longest text that is taken over from a reply, in bytes.
const TEXT_BYTES: usize = 1024;

/// A cluster, as far as a Spark Connect connection needs it.
#[derive(Debug)]
pub(in crate::engine) struct Cluster {
    client: Client,
    id: String,
    /// Between two looks at a cluster that is not ready.
    interval: Duration,
    /// One look at a time.
    looking: Semaphore,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The last answer, and until when it holds.
    answer: Option<(Result<(), Fault>, Instant)>,
    waiting: Option<Waiting>,
}

/// The cluster is awaited.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    since: Instant,
    starts: u32,
}

/// What is read of `clusters/get`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Shown {
    state: String,
    state_message: String,
    termination_reason: Option<Reason>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reason {
    code: String,
    parameters: Value,
}

/// What a look showed.
enum Found {
    Ready,
    /// What is waited for.
    Waiting(String),
    Refused(RunError),
}

impl Cluster {
    /// Looks every `interval` at a cluster that is not ready.
    pub(in crate::engine) fn new(client: Client, id: &str, interval: Duration) -> Self {
        Self {
            client,
            id: id.to_owned(),
            interval,
            looking: Semaphore::new(1),
            seen: Mutex::default(),
        }
    }

    /// The headers that let a call in; see [`Client::headers`].
    pub(in crate::engine) async fn headers(&self) -> Result<HeaderMap, String> {
        self.client.headers().await
    }

    /// What is wrong with the workspace or the cluster, or what the cluster is doing meanwhile.
    pub(in crate::engine) fn trouble(&self) -> Option<String> {
        let waiting = match &self.lock().answer {
            Some((Err(fault), _)) => Some(fault.to_string()),
            _ => None,
        };
        waiting.or_else(|| self.client.trouble())
    }

    /// Whether the cluster runs and has its libraries. If it is down, it is started.
    ///
    /// # Errors
    /// A passing fault says what is waited for, and when to ask again. A cluster that does not exist,
    /// can't be started, lacks a library or is not ready after half an hour is a refusal.
    pub(in crate::engine) async fn ready(&self) -> Result<(), Fault> {
        // The semaphore is never closed, so this can't fail.
        let _one = self.looking.acquire().await.ok();
        let now = Instant::now();
        if let Some((answer, until)) = &self.lock().answer
            && now < *until
        {
            return answer.clone();
        }
        let found = self.look().await;
        let answer = self.judge(found);
        let holds = match &answer {
            Ok(()) => READY,
            Err(Fault::Passing { retry_after, .. }) => retry_after.unwrap_or(self.interval),
            Err(_) => REFUSED,
        };
        self.lock().answer = Some((answer.clone(), Instant::now() + holds));
        answer
    }

    fn judge(&self, found: Result<Found, CallError>) -> Result<(), Fault> {
        let now = Instant::now();
        let mut seen = self.lock();
        let since = seen.waiting.map_or(now, |waiting| waiting.since);
        let waited = now.duration_since(since);
        let (message, class, retry_after) = match found {
            Ok(Found::Ready) => {
                seen.waiting = None;
                return Ok(());
            }
            Ok(Found::Refused(error)) => {
                seen.waiting = None;
                return Err(Fault::Refused(Box::new(error)));
            }
            Err(CallError::Refused(refusal)) => {
                seen.waiting = None;
                return Err(refusal.into());
            }
            Ok(Found::Waiting(message)) if waited >= PATIENCE => {
                seen.waiting = None;
                let minutes = PATIENCE.as_secs() / 60;
                let message = format!("{message}, and was not ready within {minutes} minutes");
                let error = RunError::new(ErrorClass::Infrastructure, message);
                return Err(Fault::Refused(Box::new(error)));
            }
            Ok(Found::Waiting(message)) => {
                (message, ErrorClass::Infrastructure, Some(self.interval))
            }
            Err(CallError::Passing(passing)) => {
                (passing.message, passing.class, passing.retry_after)
            }
        };
        let waiting = seen.waiting.get_or_insert(Waiting { since, starts: 0 });
        tracing::debug!(cluster = self.id, starts = waiting.starts, "{message}");
        Err(Fault::Passing {
            message,
            class,
            retry_after,
            // No run is begun before the cluster is ready.
            perhaps_done: false,
        })
    }

    async fn look(&self) -> Result<Found, CallError> {
        let query = [("cluster_id", self.id.clone())];
        let shown: Shown = self.client.get(Call::ClusterGet, &query).await?;
        match shown.state.as_str() {
            "RUNNING" | "RESIZING" => {
                let libraries: Libraries = self.client.get(Call::LibraryStatus, &query).await?;
                Ok(match libraries.standing() {
                    Standing::Ready => Found::Ready,
                    Standing::Installing(which) => {
                        Found::Waiting(format!("{} installs {which}", self.name()))
                    }
                    Standing::Failed(which) => Found::Refused(RunError::new(
                        ErrorClass::Infrastructure,
                        format!("{} can't install {which}", self.name()),
                    )),
                })
            }
            "TERMINATED" => self.start(&shown).await,
            _ => Ok(Found::Waiting(self.text(&shown))),
        }
    }

    async fn start(&self, shown: &Shown) -> Result<Found, CallError> {
        let starts = self.lock().waiting.map_or(0, |waiting| waiting.starts);
        if starts >= STARTS {
            let error = RunError::new(
                ErrorClass::Infrastructure,
                format!("{}, after {starts} starts", self.text(shown)),
            );
            let code = shown
                .termination_reason
                .as_ref()
                .map(|reason| reason.code.clone());
            return Ok(Found::Refused(RunError { code, ..error }));
        }
        let body = json!({"cluster_id": self.id}).to_string();
        let reply: Result<Value, _> = self.client.post(Call::ClusterStart, body.into()).await;
        match reply {
            Ok(_) => {
                info!(
                    cluster = self.id,
                    host = self.client.host(),
                    "the cluster is started"
                );
                let mut seen = self.lock();
                let since = Instant::now();
                let waiting = seen.waiting.get_or_insert(Waiting { since, starts: 0 });
                waiting.starts += 1;
            }
            // Somebody else was faster.
            Err(CallError::Refused(refusal))
                if refusal.code.as_deref() == Some("INVALID_STATE") => {}
            Err(error) => return Err(error),
        }
        Ok(Found::Waiting(format!("{} is being started", self.name())))
    }

    /// `cluster 1121-x at adb-1.azuredatabricks.net`.
    fn name(&self) -> String {
        format!("cluster {} at {}", self.id, self.client.host())
    }

    /// Its state, for a person.
    fn text(&self, shown: &Shown) -> String {
        let mut text = format!("{} is {}", self.name(), shown.state);
        if !shown.state_message.is_empty() {
            text = format!("{text}: {}", shown.state_message);
        }
        if let Some(reason) = &shown.termination_reason {
            text = format!("{text} ({}, {})", reason.code, reason.parameters);
        }
        text::head(&text, TEXT_BYTES).to_owned()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::config::{Auth, DatabricksSettings, Reach, SecretSource};

    #[tokio::test(start_paused = true)]
    async fn half_an_hour_is_the_longest_wait() {
        // The first test installs it; the others find it.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let interval = Duration::from_secs(1);
        let settings = DatabricksSettings {
            host: "http://127.0.0.1:1".parse().unwrap(),
            auth: Auth::Pat(SecretSource::Value("t".to_owned().into())),
            reach: Reach::default(),
            max_active_runs: 1,
            submit_per_second: 1.0,
            poll_per_second: 1.0,
            poll_interval: (interval, interval),
            call_timeout: interval,
        };
        let client = Client::new("lake", &settings).unwrap();
        let cluster = Cluster::new(client, "c1", interval);
        let pending = || Ok(Found::Waiting("cluster c1 is PENDING".to_owned()));
        for _ in 0..3 {
            assert!(matches!(
                cluster.judge(pending()),
                Err(Fault::Passing { .. })
            ));
            advance(Duration::from_mins(9)).await;
        }
        advance(Duration::from_mins(3)).await;
        let Err(Fault::Refused(error)) = cluster.judge(pending()) else {
            panic!("30 minutes are over");
        };
        assert!(error.message.ends_with("was not ready within 30 minutes"));
        // Whoever comes later waits anew.
        assert!(matches!(
            cluster.judge(pending()),
            Err(Fault::Passing { .. })
        ));
        assert_eq!(cluster.judge(Ok(Found::Ready)), Ok(()));
        advance(Duration::from_mins(40)).await;
        assert!(matches!(
            cluster.judge(pending()),
            Err(Fault::Passing { .. })
        ));
    }
}
