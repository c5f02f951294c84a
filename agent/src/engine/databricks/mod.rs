//! Databricks: runs of jobs, and one-time runs.
//!
//! | module | holds |
//! |---|---|
//! | `starts`, `repair` | one run (or repair) for one key, however often it is asked for |
//! | `watch`, `book`, `entries` | one task that follows all runs, and when to look at each |
//! | `run`, `known` | one run, and the little that is kept of it |
//! | `state` | what Databricks' words mean |
//! | `output`, `explain`, `cut` | what a run produced, why it failed, and making both fit |
//! | `cluster`, `libraries` | the cluster of a Spark Connect connection: started and awaited |
//! | `client`, `call`, `clock` | the REST API |
//! | `error` | what a call that went wrong means |
//! | `wire` | what is read of the replies |

mod book;
mod call;
mod client;
mod clock;
#[cfg(feature = "spark_connect")]
mod cluster;
mod contact;
mod cut;
mod entries;
mod error;
mod explain;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod known;
#[cfg(feature = "spark_connect")]
mod libraries;
mod output;
mod repair;
mod run;
mod starts;
mod state;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use sparkferry_ports::engine::{Attached, Engine, Fault, Start};
use sparkferry_shared::OnFailure;
use tracing::debug;

use self::book::Book;
use self::known::Known;
use self::run::{DatabricksRun, Origin};
use self::starts::JobNames;
use self::watch::Watch;
use super::text;
use crate::config::DatabricksSettings;

pub(in crate::engine) use client::Client;
pub use client::ClientError;
#[cfg(feature = "spark_connect")]
pub(in crate::engine) use cluster::Cluster;

/// A Databricks workspace. Its watch ends when the engine and all its runs are dropped.
#[derive(Debug)]
pub struct DatabricksEngine {
    workspace: Arc<Workspace>,
}

/// What the engine and its runs share.
#[derive(Debug)]
struct Workspace {
    client: Arc<Client>,
    book: Arc<Book>,
    names: JobNames,
    _watch: Watch,
}

impl DatabricksEngine {
    /// Makes ready to run on a workspace; calls nothing yet. To be called within a tokio runtime,
    /// after a TLS provider is installed. `name` is the connection's, for metrics and logs.
    ///
    /// # Errors
    /// Where the HTTP client can't be made.
    pub fn new(name: &str, settings: &DatabricksSettings) -> Result<Self, ClientError> {
        let client = Arc::new(Client::new(name, settings)?);
        let book = Book::new(settings.poll_interval);
        let watch = Watch::start(Arc::clone(&client), Arc::clone(&book));
        Ok(Self {
            workspace: Arc::new(Workspace {
                client,
                book,
                names: JobNames::default(),
                _watch: watch,
            }),
        })
    }

    fn attached(
        &self,
        run_id: i64,
        round: Option<u32>,
        origin: Origin,
        known: Option<Known>,
    ) -> Attached {
        let start_time = known.as_ref().map_or(0, |known| known.start_time);
        let workspace = Arc::clone(&self.workspace);
        Attached {
            run: Box::new(DatabricksRun::new(workspace, run_id, round, origin, known)),
            adopted: origin.adopted(start_time),
        }
    }
}

#[async_trait]
impl Engine for DatabricksEngine {
    async fn permit(&self) {
        self.workspace.client.permit().await;
    }

    fn trouble(&self) -> Option<String> {
        self.workspace.client.trouble()
    }

    fn clock_ahead(&self) -> SignedDuration {
        SignedDuration::from_millis(self.workspace.client.clock.ahead_ms())
    }

    async fn attach_or_start(&self, start: &Start<'_>) -> Result<Attached, Fault> {
        let Workspace { client, names, .. } = &*self.workspace;
        let at_ms = client.clock.now_ms();
        let (key, round) = match start.on_failure {
            OnFailure::Rerun => (start.names.key(start.attempt), None),
            OnFailure::Repair => (start.names.key(1), Some(start.attempt.saturating_sub(1))),
        };
        let run_id = starts::start(client, names, key, start.work).await?;
        if let Some(nth @ 1..) = round {
            let (known, adopted) = repair::find_or_start(client, run_id, nth).await?;
            return Ok(self.attached(run_id, round, Origin::Adopted(adopted), known));
        }
        let origin = Origin::Asked {
            at_ms,
            seen_before: start.seen_before,
        };
        let known = if start.seen_before {
            match watch::get(client, run_id, round.is_some()).await {
                Ok(run) => {
                    let known = Known::new(run);
                    if known.unknown {
                        watch::tell_unknown(client, run_id);
                    }
                    Some(known)
                }
                // The watch will find out; it was only to know it earlier.
                Err(error) => {
                    debug!(
                        run_id,
                        error = error.text(),
                        "the run can't be looked at now"
                    );
                    None
                }
            }
        } else {
            None
        };
        Ok(self.attached(run_id, round, origin, known))
    }

    async fn check(&self) -> Result<String, Fault> {
        let client = &self.workspace.client;
        let me = client.me().await?;
        let user = me.user_name.as_deref().unwrap_or("somebody without a name");
        Ok(format!("{}, as {user}", client.host()))
    }
}
