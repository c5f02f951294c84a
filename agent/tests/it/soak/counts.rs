//! What a worker counts under fire: `/metrics` agrees with the sandbox's own books and with the
//! results that came out, and it stays ready while one call in ten fails.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use sparkferry_shared::Outcome;
use tokio::sync::watch;
use tokio::time::{interval, timeout};

use super::books::Books;
use super::field::{Field, Queue};
use super::plan::{Fate, Line, fates, faulty_calls};
use super::says::{free_address, until};
use super::{shared_broker, submit};
use crate::stories::harness::{PATIENCE, Work, count};

const REQUESTS: usize = 150;
/// Runs that are under way while the broker is cut off.
const RUNS: usize = 20;

/// What a worker counts: numbers by the name, and what it is told by.
struct Counts(BTreeMap<String, f64>);

impl Counts {
    async fn of(http: &reqwest::Client, address: SocketAddr) -> Self {
        let reply = http.get(format!("http://{address}/metrics")).send().await;
        let text = reply.expect("it listens").text().await.expect("text");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let counts = lines.filter_map(|line| {
            let (name, number) = line.rsplit_once(' ')?;
            Some((name.to_owned(), number.parse().expect("a number")))
        });
        Self(counts.collect())
    }

    /// All of a name whose labels hold these, together.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts are whole and small"
    )]
    fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        let named = |whole: &str| whole.split('{').next() == Some(name);
        let told = |whole: &str| labels.iter().all(|label| whole.contains(label));
        let found = self
            .0
            .iter()
            .filter(|(whole, _)| named(whole) && told(whole));
        found.map(|(_, number)| *number as u64).sum()
    }
}

struct Watched {
    field: Field,
    http: reqwest::Client,
    address: SocketAddr,
    books: Books,
}

impl Watched {
    /// A field with one worker that can be looked at.
    async fn begin() -> (Self, tokio::process::Child) {
        let field = Field::new(Queue::Quorum(shared_broker()), None, 0, 60).await;
        let address = free_address();
        let listen = address.to_string();
        let worker = field.ground.worker_with(&[
            ("SPARKFERRY__HTTP__LISTEN", &listen),
            // Nothing is handed back by itself.
            ("SPARKFERRY__QUEUE__HOLD_LIMIT_SECONDS", "600"),
        ]);
        let http = reqwest::Client::builder().no_proxy().build().expect("TLS");
        until(&http, address, StatusCode::OK).await;
        let books = field.books();
        let watched = Self {
            field,
            http,
            address,
            books,
        };
        (watched, worker)
    }

    async fn counts(&self) -> Counts {
        Counts::of(&self.http, self.address).await
    }

    /// Looks until the counts say so: settling comes a moment after the result.
    async fn until_counted(&self, what: &str, say: impl Fn(&Counts) -> bool) -> Counts {
        let looking = async {
            let mut looks = interval(Duration::from_millis(100));
            loop {
                looks.tick().await;
                let counts = self.counts().await;
                if say(&counts) {
                    return counts;
                }
            }
        };
        let found = timeout(PATIENCE, looking).await;
        found.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }
}

/// Asks all the time whether the worker is ready, without an end.
async fn stays_ready(http: &reqwest::Client, address: SocketAddr) {
    let mut looks = interval(Duration::from_millis(50));
    loop {
        looks.tick().await;
        let reply = http.get(format!("http://{address}/readyz")).send().await;
        let reply = reply.expect("it listens");
        let status = reply.status();
        let why = reply.text().await.unwrap_or_default();
        assert_eq!(status, StatusCode::OK, "{why}");
    }
}

/// Each call that the sandbox has in its books is counted, by its status; what was cut off is a
/// fault, or a reply of which half came.
fn every_call_is_counted(counts: &Counts, stats: &Value) {
    for (call, books) in stats["calls"].as_object().expect("by their names") {
        // The API keeps this one under a name that it has outgrown.
        let call = call.trim_start_matches("preview/");
        let label = format!("call=\"{call}\"");
        let all = counts.sum("sparkferry_engine_calls_total", &[&label]);
        if all == 0 {
            // The way in, which is no call of an engine's.
            assert!(call.contains("oidc") || call.contains("sandbox"), "{call}");
            continue;
        }
        assert_eq!(all, count(books, "/total"), "{call}: {books}");
        for (status, times) in books["by_status"].as_object().expect("by their status") {
            let status_label = format!("status=\"{status}\"");
            let counted = counts.sum("sparkferry_engine_calls_total", &[&label, &status_label]);
            let times = times.as_u64().expect("a number");
            // What the sandbox itself answers may also come by half; its books have that under "half".
            if ["200", "400"].contains(&status.as_str()) {
                assert!(counted >= times, "{call}, {status}: {counted} of {times}");
            } else {
                assert_eq!(counted, times, "{call}, {status}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_one_call_in_ten_fails_it_stays_ready_and_every_call_and_result_is_counted() {
    let (mut watched, _worker) = Watched::begin().await;
    let mut faults = faulty_calls(11);
    for fault in faults.as_array_mut().expect("a list") {
        // Not the way in: a token that can't be renewed is told as long as that lasts.
        if fault.get("call").is_none() {
            fault["call"] = "jobs/*".into();
        }
    }
    watched.field.workspace.rules(faults).await;
    let fates = fates(11, REQUESTS, 3_000);
    let (http, address) = (watched.http.clone(), watched.address);
    let progress = watch::Sender::default();
    let ground = watched.field.ground.clone();
    let work = async {
        tokio::join!(
            submit(&ground, &fates),
            watched.books.read(REQUESTS, &progress)
        )
    };
    tokio::select! {
        _ = work => {}
        () = stays_ready(&http, address) => unreachable!("it asks until the work is done"),
    }

    let idle = |counts: &Counts| counts.sum("sparkferry_in_flight", &[]) == 0;
    let counts = watched.until_counted("an idle worker", idle).await;
    let stats = watched.field.workspace.stats().await;
    every_call_is_counted(&counts, &stats);
    let cut = counts.sum("sparkferry_engine_calls_total", &["status=\"fault\""]);
    assert!(cut > 0, "no call was cut");
    let sum = |name: &str| counts.sum(name, &[]);
    let all = REQUESTS as u64;
    assert_eq!(sum("sparkferry_requests_total"), all);
    assert_eq!(sum("sparkferry_redeliveries_total"), 0);
    assert_eq!(sum("sparkferry_results_total"), all);
    assert_eq!(sum("sparkferry_request_duration_seconds_count"), all);
    assert_eq!(sum("sparkferry_publish_confirm_seconds_count"), all);
    assert_eq!(sum("sparkferry_queue_reconnects_total"), 0);
    assert_eq!(
        sum("sparkferry_attempts_total"),
        count(&stats, "/runs_started")
    );
    let mut outcomes: BTreeMap<Outcome, u64> = BTreeMap::new();
    for fate in &fates {
        *outcomes.entry(fate.outcome).or_default() += 1;
    }
    for (outcome, times) in outcomes {
        let label = format!("outcome=\"{}\"", outcome.as_str());
        let told = counts.sum("sparkferry_results_total", &[&label]);
        assert_eq!(told, times, "{outcome:?}");
    }
    let runs = watched.field.workspace.page("runs").await;
    watched.books.balance(&fates, &stats, &runs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_cuts_the_lines_shows_in_the_counts_and_nothing_is_counted_twice() {
    let (mut watched, _worker) = Watched::begin().await;
    let fates: Vec<Fate> = (0..RUNS)
        .map(|number| Fate {
            work: Work::new(number, 15_000, "SUCCESS"),
            outcome: Outcome::Success,
            attempts: 1,
        })
        .collect();
    submit(&watched.field.ground, &fates).await;
    let all = RUNS as u64;
    let held = |counts: &Counts| counts.sum("sparkferry_in_flight", &[]) == all;
    let before = watched.until_counted("all requests", held).await;
    assert_eq!(before.sum("sparkferry_requests_total", &[]), all);
    let active = |stats: &Value| count(stats, "/runs_active") == all;
    watched.field.workspace.until("all runs", active).await;

    watched.field.proxy(Line::Broker).cut();
    // Both lines, receiving and publishing, whichever is there first; and the drivers that were at work
    // took over.
    let again = |counts: &Counts| {
        counts.sum("sparkferry_redeliveries_total", &[]) == all
            && counts.sum("sparkferry_adoptions_total", &[]) == all
            && counts.sum("sparkferry_queue_reconnects_total", &[]) >= 2
    };
    let after = watched.until_counted("all requests again", again).await;
    assert_eq!(after.sum("sparkferry_requests_total", &[]), 2 * all);
    assert_eq!(after.sum("sparkferry_in_flight", &[]), all);
    assert_eq!(after.sum("sparkferry_results_total", &[]), 0);

    watched.books.read(RUNS, &watch::Sender::default()).await;
    let idle = |counts: &Counts| counts.sum("sparkferry_in_flight", &[]) == 0;
    let counts = watched.until_counted("an idle worker", idle).await;
    assert_eq!(counts.sum("sparkferry_results_total", &["SUCCESS"]), all);
    assert_eq!(counts.sum("sparkferry_results_total", &[]), all);
    assert_eq!(counts.sum("sparkferry_attempts_total", &[]), all);
    assert_eq!(watched.books.twice, 0);
    let stats = watched.field.workspace.stats().await;
    let runs = watched.field.workspace.page("runs").await;
    watched.books.balance(&fates, &stats, &runs);
    every_call_is_counted(&counts, &stats);
}
