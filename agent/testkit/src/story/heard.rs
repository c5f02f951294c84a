//! What a story asks for, and what its producer hears.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sparkferry_ports::queue::News;
use sparkferry_shared::{EventType, Id, RunResult};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::PATIENCE;
use super::workspace::count;

/// One request: a one-time run of one task.
pub struct Work {
    /// Its id.
    pub id: Id,
    /// How long each of its runs takes, in milliseconds.
    pub duration_ms: usize,
    /// What becomes of its first attempt, its second, and so on: result states and termination codes,
    /// separated by commas.
    pub outcomes: &'static str,
    /// Its label `team`.
    pub label: Option<&'static str>,
    /// The shortest wait before another attempt, in milliseconds; the longest is twice that.
    pub retry_after_ms: usize,
    /// Its result is wanted when its run has ended, not when it was accepted.
    pub wait: bool,
}

impl Work {
    /// The nth request.
    pub fn new(number: usize, duration_ms: usize, outcomes: &'static str) -> Self {
        Self {
            id: format!("work-{number}").parse().expect("an id"),
            duration_ms,
            outcomes,
            label: None,
            retry_after_ms: 100,
            wait: true,
        }
    }

    /// As a producer publishes it.
    pub fn body(&self) -> Vec<u8> {
        let parameters = json!({
            "sandbox.duration_ms": self.duration_ms.to_string(),
            "sandbox.outcomes": self.outcomes,
        });
        let body = json!({
            "id": self.id.as_str(),
            "labels": self.label.map(|label| json!({"team": label})).unwrap_or(json!({})),
            "max_retries": 3,
            "wait": self.wait,
            "min_retry_interval_millis": self.retry_after_ms,
            "max_retry_interval_millis": 2 * self.retry_after_ms,
            "submit_run": {"run_name": self.id.as_str(), "tasks": [{
                "task_key": "main",
                "existing_cluster_id": "c",
                "notebook_task": {"notebook_path": "/n", "base_parameters": parameters},
            }]},
        });
        serde_json::to_vec(&body).expect("JSON")
    }
}

/// What a producer has heard so far.
#[derive(Default)]
pub struct Heard {
    /// The results, by their requests.
    pub results: BTreeMap<Id, RunResult>,
    /// The events, in the order in which they came.
    pub events: Vec<(Id, EventType)>,
}

impl Heard {
    /// Listens until so many distinct requests have had such an event.
    pub async fn events_of(
        &mut self,
        news: &mut Receiver<News>,
        event_type: EventType,
        wanted: usize,
    ) {
        let mut ids = BTreeSet::new();
        while ids.len() < wanted {
            let heard = timeout(PATIENCE, news.recv()).await;
            let heard = heard
                .unwrap_or_else(|_| panic!("{event_type:?} of {} requests of {wanted}", ids.len()));
            match heard.expect("the producer listens") {
                News::Event(event) => {
                    if event.event_type == event_type {
                        ids.insert(event.id.clone());
                    }
                    self.events.push((event.id, event.event_type));
                }
                News::Result(result) => drop(self.results.insert(result.id.clone(), *result)),
            }
        }
    }

    /// Listens until there are so many distinct results. A result that comes twice is the same.
    pub async fn listen(&mut self, news: &mut Receiver<News>, wanted: usize) {
        while self.results.len() < wanted {
            let heard = timeout(PATIENCE, news.recv()).await;
            let heard = heard.unwrap_or_else(|_| {
                panic!("{} results of {wanted}, and no more", self.results.len())
            });
            match heard.expect("the producer listens") {
                News::Event(event) => self.events.push((event.id, event.event_type)),
                News::Result(result) => {
                    let before = self.results.insert(result.id.clone(), (*result).clone());
                    if let Some(before) = before {
                        assert_eq!(before.outcome, result.outcome, "{}", result.id);
                    }
                }
            }
        }
    }
}

/// Exactly one run for each attempt that was reported, and no other.
pub fn one_run_for_each_attempt(heard: &Heard, stats: &Value) {
    let reported: BTreeMap<String, u64> = heard
        .results
        .values()
        .flat_map(|result| &result.attempts)
        .map(|attempt| (attempt.key.to_string(), 1))
        .collect();
    let books = stats["runs_by_token"].clone();
    let books: BTreeMap<String, u64> = serde_json::from_value(books).expect("counts by token");
    assert_eq!(books, reported);
    assert_eq!(count(stats, "/runs_started"), reported.len() as u64);
}
