//! What is told on the way. Best effort: an event never delays a result.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Id;
use crate::result::{Outcome, RunError};

/// The `type` property of an event's message.
pub const EVENT_TYPE: &str = "sparkferry.event";

/// Something that happened to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Sparkferry event", rename = "Event")]
pub struct Event {
    /// What happened.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// The request's id.
    pub id: Id,
    /// The connection it runs on.
    pub connection: String,
    /// When it happened, by the worker's clock.
    pub at: Timestamp,
    /// The worker that tells it.
    pub worker: String,
    /// The request's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The attempt that it belongs to, from 1; absent before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub attempt: Option<u32>,
    /// What belongs to the type of event.
    #[serde(flatten)]
    pub details: EventDetails,
}

/// What belongs to an event, each where it is known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventDetails {
    /// Databricks' run id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<i64>,
    /// Where a person can look at the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_page_url: Option<String>,
    /// The run's state, in the engine's words; before it begins, `WAITING:` and what for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Tasks of the run that have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    /// Tasks of the run altogether.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Stages of the run that have ended (Spark Connect).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stages_done: Option<u64>,
    /// Stages of the run that are known so far (Spark Connect).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stages_total: Option<u64>,
    /// Bytes that the run has read so far (Spark Connect).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_bytes: Option<u64>,
    /// How long until the next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// How the request ended (`finished`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
}

/// The type of an event; the last part of its routing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// A worker has the request.
    Accepted,
    /// A run was started.
    Submitted,
    /// A run that an earlier worker started was found.
    Adopted,
    /// The engine tells another state.
    StateChanged,
    /// Tasks ended.
    Progress,
    /// An attempt failed and another one will follow.
    Retrying,
    /// Somebody asked for the run to be cancelled.
    CancelRequested,
    /// The worker gives the request back to the queue; the run goes on.
    HandedBack,
    /// The result is published.
    Finished,
}

impl EventType {
    /// All of them, in the order in which they can happen.
    pub const ALL: [Self; 9] = [
        Self::Accepted,
        Self::Submitted,
        Self::Adopted,
        Self::StateChanged,
        Self::Progress,
        Self::Retrying,
        Self::CancelRequested,
        Self::HandedBack,
        Self::Finished,
    ];

    /// As it stands in an event and in a routing key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Submitted => "submitted",
            Self::Adopted => "adopted",
            Self::StateChanged => "state_changed",
            Self::Progress => "progress",
            Self::Retrying => "retrying",
            Self::CancelRequested => "cancel_requested",
            Self::HandedBack => "handed_back",
            Self::Finished => "finished",
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
