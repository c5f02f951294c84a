//! What every engine promises, as tests that each implementation runs.
//!
//! A [`Harness`] knows how to have an engine run something of a given kind; [`all`] does the rest.
//! Every check panics with what was promised and not kept.

mod case;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use sparkferry_ports::engine::{Change, Ended, Engine, Facts, Fault, Start, State, Unknown};
use sparkferry_shared::{ErrorClass, Key, Work};
use tokio::time::timeout;

use self::case::{Case, bounded, repeated};

/// What a run is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Ends well soon, and produces [`SAID`].
    Succeeds,
    /// Its work fails soon, saying [`SAID`].
    FailsByUser,
    /// The engine fails it soon.
    FailsByInfrastructure,
    /// Ends only when it is cancelled.
    UntilCancelled,
    /// Three tasks (or steps) that end well soon, each of which produces [`SAID`].
    ThreeTasks,
    /// Ends well soon, and produces at least 100 000 bytes.
    LargeOutput,
}

/// What runs say, in their output or their error.
pub const SAID: &str = "seven ships";

/// How an implementation is put to the test.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The engine as a worker has it; each call is another worker, on the same ground.
    fn engine(&self) -> Arc<dyn Engine>;

    /// Work for a scenario; each call is asked for by one check, before its runs. `None` where the
    /// ground can't have it happen: the reason stands there.
    fn work(&self, scenario: Scenario) -> Option<Work>;

    /// What [`Scenario::ThreeTasks`] counts as in a run's state; `None` where the engine counts
    /// smaller parts, of which it finds more as it goes.
    fn three_tasks(&self) -> Option<u64> {
        Some(3)
    }

    /// How many runs the engine really started under this name. Asked in the order of the attempts.
    async fn runs_started(&self, key: Key) -> u64;

    /// Makes the engine forget the ended run of this name.
    async fn forget(&self, key: Key);
}

/// Runs every check.
pub async fn all(harness: &impl Harness) {
    one_name_one_run(harness).await;
    a_dropped_call_starts_no_second_run(harness).await;
    each_attempt_has_its_own_run(harness).await;
    runs_end_as_they_ended(harness).await;
    an_ended_run_is_found_as_it_is(harness).await;
    a_cancelled_run_ends_cancelled(harness).await;
    a_run_that_ended_first_stays_what_it_was(harness).await;
    a_dropped_run_is_left_alone(harness).await;
    a_forgotten_run_is_lost(harness).await;
    output_is_there_and_bounded(harness).await;
    progress_is_told(harness).await;
}

/// However often, from however many workers and at whatever moment one asks: one run.
pub async fn one_name_one_run(harness: &impl Harness) {
    let case = Case::new(harness, Scenario::Succeeds);
    let workers = [harness.engine(), harness.engine()];
    let asked = (0..10).map(|n| case.attach_with(&*workers[n % 2], 1, false));
    let mut runs: Vec<_> = join_all(asked).await;
    let mut found = HashSet::new();
    for attached in &mut runs {
        assert_eq!(case.end(&mut *attached.run).await, Ended::Success);
        found.insert(identity(&attached.run.facts()));
    }
    let again = case.attach(1, true).await;
    found.insert(identity(&again.run.facts()));
    assert_eq!(found.len(), 1, "all of them hold the same run: {found:?}");
    case.started(1, 1).await;
}

/// A call that is dropped at any await may have started the run; the next call finds it.
pub async fn a_dropped_call_starts_no_second_run(harness: &impl Harness) {
    let case = Case::new(harness, Scenario::Succeeds);
    let engine = harness.engine();
    for n in 0..8 {
        let patience = Duration::from_micros(200 * n);
        drop(timeout(patience, engine.attach_or_start(&case.start(1, false))).await);
    }
    let mut attached = case.attach(1, true).await;
    assert_eq!(case.end(&mut *attached.run).await, Ended::Success);
    case.started(1, 1).await;
}

/// Attempts after the first are runs of their own.
pub async fn each_attempt_has_its_own_run(harness: &impl Harness) {
    let case = Case::new(harness, Scenario::FailsByUser);
    let mut found = HashSet::new();
    for attempt in 1..=3 {
        let mut attached = case.attach(attempt, false).await;
        case.end(&mut *attached.run).await;
        found.insert(identity(&attached.run.facts()));
        case.started(attempt, 1).await;
    }
    assert_eq!(found.len(), 3, "{found:?}");
}

/// Success, the work's failure and the engine's failure are told apart.
pub async fn runs_end_as_they_ended(harness: &impl Harness) {
    let case = Case::new(harness, Scenario::Succeeds);
    let mut attached = case.attach(1, false).await;
    assert!(!attached.adopted, "nobody asked for it before");
    assert_eq!(case.end(&mut *attached.run).await, Ended::Success);
    let facts = attached.run.facts();
    assert!(!facts.adopted, "this worker started it: {facts:?}");
    let (start, end) = (facts.started_at.unwrap(), facts.ended_at.unwrap());
    assert!(start <= end, "{start} {end}");

    for (scenario, class) in [
        (Scenario::FailsByUser, ErrorClass::User),
        (Scenario::FailsByInfrastructure, ErrorClass::Infrastructure),
    ] {
        let Some(case) = Case::if_possible(harness, scenario) else {
            continue;
        };
        let mut attached = case.attach(1, false).await;
        let Ended::Failed(failure) = case.end(&mut *attached.run).await else {
            panic!("{scenario:?} fails");
        };
        assert_eq!(failure.error.class, class, "{failure:?}");
        if class == ErrorClass::User {
            let message = &failure.error.message;
            assert!(message.contains(SAID), "its own words: {message}");
        }
    }
}

/// A worker that comes later finds the same ending, and knows that it came later.
pub async fn an_ended_run_is_found_as_it_is(harness: &impl Harness) {
    for scenario in [Scenario::Succeeds, Scenario::FailsByUser] {
        let case = Case::new(harness, scenario);
        let mut first = case.attach(1, false).await;
        let ended = case.end(&mut *first.run).await;
        let mut second = case.attach(1, true).await;
        assert!(second.adopted, "{scenario:?} was there");
        assert_eq!(case.end(&mut *second.run).await, ended);
        let facts = second.run.facts();
        assert!(facts.adopted);
        let own = Facts {
            adopted: true,
            ..first.run.facts()
        };
        assert_eq!(facts, own, "the engine's account does not change");
        case.started(1, 1).await;
    }
}

/// Cancelling is asked for; the ending comes as any other.
pub async fn a_cancelled_run_ends_cancelled(harness: &impl Harness) {
    let case = Case::new(harness, Scenario::UntilCancelled);
    let mut attached = case.attach(1, false).await;
    case.cancel(&mut *attached.run).await;
    let ended = case.end(&mut *attached.run).await;
    let Ended::Canceled(failure) = &ended else {
        panic!("cancelled, not {ended:?}");
    };
    assert_eq!(failure.error.class, ErrorClass::Canceled);
    let mut later = case.attach(1, true).await;
    assert!(matches!(
        case.end(&mut *later.run).await,
        Ended::Canceled(_)
    ));
    case.started(1, 1).await;
}

/// A cancel that comes too late is no error and changes nothing.
pub async fn a_run_that_ended_first_stays_what_it_was(harness: &impl Harness) {
    let case = Case::new(harness, Scenario::Succeeds);
    let mut early = case.attach(1, false).await;
    let mut late = case.attach(1, false).await;
    assert_eq!(case.end(&mut *early.run).await, Ended::Success);
    case.cancel(&mut *early.run).await;
    // This one has not been told of the ending yet.
    case.cancel(&mut *late.run).await;
    assert_eq!(case.end(&mut *late.run).await, Ended::Success);
    let mut again = case.attach(1, true).await;
    assert_eq!(case.end(&mut *again.run).await, Ended::Success);
}

/// Dropping a run, or the whole worker, cancels nothing.
pub async fn a_dropped_run_is_left_alone(harness: &impl Harness) {
    let case = Case::new(harness, Scenario::UntilCancelled);
    let worker = harness.engine();
    let attached = case.attach_with(&*worker, 1, false).await;
    let found = identity(&attached.run.facts());
    drop(attached);
    drop(worker);
    let mut later = case.attach(1, true).await;
    assert_eq!(identity(&later.run.facts()), found);
    match case.change(&mut *later.run).await {
        Change::State(state) => assert!(!state.word.is_empty()),
        Change::Ended(ended) => panic!("it should run on, and is {ended:?}"),
    }
    case.cancel(&mut *later.run).await;
    case.end(&mut *later.run).await;
    case.started(1, 1).await;
}

/// What the engine forgot is lost, and not started again.
pub async fn a_forgotten_run_is_lost(harness: &impl Harness) {
    let case = Case::new(harness, Scenario::Succeeds);
    let mut first = case.attach(1, false).await;
    case.end(&mut *first.run).await;
    harness.forget(case.names.key(1)).await;
    let start = Start {
        unknown: Unknown::Lost,
        ..case.start(1, true)
    };
    let engine = harness.engine();
    let found = repeated(|| async {
        match engine.attach_or_start(&start).await {
            Err(Fault::Lost(error)) => Ok(Err(*error)),
            other => other.map(Ok),
        }
    });
    let error = match bounded("attaching", found).await {
        Err(error) => error,
        Ok(mut attached) => match case.end(&mut *attached.run).await {
            Ended::Lost(failure) => failure.error,
            ended => panic!("lost, not {ended:?}"),
        },
    };
    assert_eq!(error.class, ErrorClass::Lost);
    case.started(1, 1).await;
}

/// Output is there, and never larger than asked for.
pub async fn output_is_there_and_bounded(harness: &impl Harness) {
    for (scenario, limit, whole) in [
        (Scenario::Succeeds, 10_000, true),
        (Scenario::ThreeTasks, 10_000, true),
        (Scenario::LargeOutput, 1024, false),
        (Scenario::LargeOutput, 20_000, false),
    ] {
        let case = Case::new(harness, scenario);
        let mut attached = case.attach(1, false).await;
        assert_eq!(case.end(&mut *attached.run).await, Ended::Success);
        let output = case.output(&mut *attached.run, limit).await.to_string();
        assert!(output.len() <= limit, "{} of {limit}", output.len());
        let cut = output.contains("\"truncated\":true");
        assert_eq!(cut, !whole, "what is cut says so: {output:.200}");
        if whole {
            let parts = if scenario == Scenario::ThreeTasks {
                3
            } else {
                1
            };
            assert_eq!(output.matches(SAID).count(), parts, "{output}");
        } else {
            assert!(
                output.len() > limit / 2,
                "as much as fits: {}",
                output.len()
            );
        }
    }
}

/// The states of a run are told as they change; its tasks are counted where the engine counts.
pub async fn progress_is_told(harness: &impl Harness) {
    let case = Case::new(harness, Scenario::ThreeTasks);
    let mut attached = case.attach(1, false).await;
    let mut told: Vec<State> = Vec::new();
    let ended = loop {
        match case.change(&mut *attached.run).await {
            Change::State(state) => {
                assert!(state.done <= state.total);
                if let Some(three) = harness.three_tasks() {
                    assert!(state.total == 0 || state.total == three, "{state:?}");
                }
                if let Some(last) = told.last() {
                    assert_ne!(*last, state, "only what is new is told");
                    assert!(last.done <= state.done, "{state:?} after {last:?}");
                }
                told.push(state);
            }
            Change::Ended(ended) => break ended,
        }
    };
    assert_eq!(ended, Ended::Success);
}

/// What is the same for two holders of the same run.
fn identity(facts: &Facts) -> String {
    format!("{:?} {:?}", facts.run_id, facts.operation_ids)
}
