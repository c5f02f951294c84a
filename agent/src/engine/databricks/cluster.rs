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
use sparkferry_ports::engine::Fault;
use sparkferry_shared::{ErrorClass, RunError};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::info;

use super::call::Call;
use super::client::Client;
use super::error::CallError;
use super::libraries::{Libraries, Standing};
use super::text;

/// How long an attempt waits for a cluster. A cold start takes 5 to 10 minutes, and more where
/// machines are short.
const PATIENCE: Duration = Duration::from_mins(30);
/// An answer that stopped to hold so long ago says nothing of the present.
const OLD: Duration = Duration::from_mins(1);
/// Starts, at most, until it is ready or given up: a cluster that can't start would be started for
/// half an hour.
const STARTS: u32 = 3;
/// How long "it is ready" is believed.
const READY: Duration = Duration::from_secs(30);
/// How long a refusal holds, so that not everybody asks for it.
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
    /// Starts since it was ready or given up.
    starts: u32,
    /// Why it was given up, and when: for all who waited then. Who comes later waits anew.
    given_up: Option<(RunError, Instant)>,
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
    /// It will not be ready.
    GivenUp(RunError),
}

impl Seen {
    /// The last answer, if it still holds.
    fn fresh(&self) -> Option<Result<(), Fault>> {
        let (answer, until) = self.answer.as_ref()?;
        (Instant::now() < *until).then(|| answer.clone())
    }
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
            // Later than that, nobody has needed it.
            Some((Err(fault), until)) if until.elapsed() < OLD => Some(fault.to_string()),
            _ => None,
        };
        waiting.or_else(|| self.client.trouble())
    }

    /// Whether the cluster runs and has its libraries. If it is down, it is started. `since` is when
    /// whoever asks began to.
    ///
    /// # Errors
    /// [`Fault::Waiting`] says what is waited for, and when to ask again. A cluster that can't be
    /// started, lacks a library or is not ready after half an hour is [`Fault::Unready`]; one that
    /// does not exist is a refusal.
    pub(in crate::engine) async fn ready(&self, since: Instant) -> Result<(), Fault> {
        // The semaphore is never closed, so this can't fail.
        let _one = self.looking.acquire().await.ok();
        if let Some((error, at)) = &self.lock().given_up
            && since <= *at
        {
            return Err(Fault::Unready(error.clone().into()));
        }
        let fresh = self.lock().fresh();
        let answer = if let Some(answer) = fresh {
            answer
        } else {
            let found = self.look().await;
            self.judge(found)
        };
        match answer {
            Err(Fault::Waiting { message, .. }) if since.elapsed() >= PATIENCE => {
                self.lock().starts = 0;
                let minutes = PATIENCE.as_secs() / 60;
                let message = format!("{message}, and was not ready within {minutes} minutes");
                let error = RunError::new(ErrorClass::Infrastructure, message);
                Err(Fault::Unready(error.into()))
            }
            answer => answer,
        }
    }

    /// What a look means, for all who ask while it holds.
    fn judge(&self, found: Result<Found, CallError>) -> Result<(), Fault> {
        let (answer, holds) = match found {
            Ok(Found::Ready) => (Ok(()), READY),
            Ok(Found::Waiting(message)) => {
                let retry_after = self.interval;
                let waiting = Fault::Waiting {
                    message,
                    retry_after,
                };
                (Err(waiting), retry_after)
            }
            Ok(Found::GivenUp(error)) => (Err(Fault::Unready(error.into())), Duration::ZERO),
            Err(CallError::Refused(refusal)) => (Err(refusal.into()), REFUSED),
            Err(CallError::Passing(passing)) => {
                let holds = passing.retry_after.unwrap_or(self.interval);
                let fault = Fault::Passing {
                    message: passing.message,
                    class: passing.class,
                    retry_after: passing.retry_after,
                    // No run is begun before the cluster is ready.
                    perhaps_done: false,
                };
                (Err(fault), holds)
            }
        };
        let now = Instant::now();
        let mut seen = self.lock();
        match &answer {
            Err(Fault::Waiting { .. } | Fault::Passing { .. }) => {}
            Err(Fault::Unready(error)) => {
                seen.given_up = Some(((**error).clone(), now));
                seen.starts = 0;
            }
            Ok(()) => {
                seen.given_up = None;
                seen.starts = 0;
            }
            Err(_) => seen.starts = 0,
        }
        seen.answer = Some((answer.clone(), now + holds));
        answer
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
                    Standing::Failed(which) => Found::GivenUp(RunError::new(
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
        let starts = self.lock().starts;
        if starts >= STARTS {
            let error = RunError::new(
                ErrorClass::Infrastructure,
                format!("{}, after {starts} starts", self.text(shown)),
            );
            let code = shown
                .termination_reason
                .as_ref()
                .map(|reason| reason.code.clone());
            return Ok(Found::GivenUp(RunError { code, ..error }));
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
                self.lock().starts += 1;
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

    /// It is never asked: the tests say what a look shows.
    fn cluster() -> Cluster {
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
        Cluster::new(client, "c1", interval)
    }

    fn pending() -> Found {
        Found::Waiting("cluster c1 is PENDING".to_owned())
    }

    /// Somebody looks, and then who has been waiting since then asks.
    async fn asked(cluster: &Cluster, found: Found, since: Instant) -> Result<(), Fault> {
        cluster.judge(Ok(found)).ok();
        cluster.ready(since).await
    }

    #[tokio::test(start_paused = true)]
    async fn half_an_hour_is_the_longest_that_an_attempt_waits() {
        let cluster = cluster();
        let first = Instant::now();
        for _ in 0..3 {
            let answer = asked(&cluster, pending(), first).await;
            let Err(Fault::Waiting { message, .. }) = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(message, "cluster c1 is PENDING");
            advance(Duration::from_mins(9)).await;
        }
        let second = Instant::now();
        advance(Duration::from_mins(3)).await;
        let Err(Fault::Unready(error)) = asked(&cluster, pending(), first).await else {
            panic!("30 minutes are over");
        };
        assert_eq!(error.class, ErrorClass::Infrastructure);
        assert!(error.message.ends_with("was not ready within 30 minutes"));
        // Whoever came later has waited for three minutes.
        let answer = asked(&cluster, pending(), second).await;
        assert!(matches!(answer, Err(Fault::Waiting { .. })), "{answer:?}");
        let answer = asked(&cluster, Found::Ready, second).await;
        assert_eq!(answer, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_waited_hear_why_it_was_given_up_and_who_comes_later_waits_anew() {
        let cluster = cluster();
        let first = Instant::now();
        advance(Duration::from_secs(5)).await;
        let why = RunError::new(ErrorClass::Infrastructure, "it can't install numpy");
        let given_up = Err(Fault::Unready(why.clone().into()));
        let answer = asked(&cluster, Found::GivenUp(why), first).await;
        assert_eq!(answer, given_up);
        advance(Duration::from_secs(20)).await;
        assert_eq!(cluster.ready(first).await, given_up, "who waited longest");
        let answer = asked(&cluster, pending(), Instant::now()).await;
        assert!(matches!(answer, Err(Fault::Waiting { .. })), "{answer:?}");
    }
}
