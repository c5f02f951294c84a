//! Results of all sizes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;
use sparkferry_shared::{ErrorClass, Names, Outcome, TaskError, WorkKind};
use uuid::Uuid;

use super::*;

fn attempt(number: u32) -> Attempt {
    Attempt {
        number,
        key: Names::new("sparkferry", "prod", "big").key(number),
        run_id: Some(i64::MAX - i64::from(number)),
        operation_ids: Vec::new(),
        run_page_url: None,
        state: None,
        status: None,
        started_at: Some(Timestamp::now()),
        ended_at: Some(Timestamp::now()),
        setup_duration_ms: Some(u64::MAX),
        execution_duration_ms: Some(u64::MAX),
        queue_duration_ms: Some(u64::MAX),
        adopted: false,
        error: None,
    }
}

fn result(outcome: Outcome, attempts: Vec<Attempt>) -> RunResult {
    RunResult {
        id: "big".parse().expect("an id"),
        outcome,
        connection: "prod".to_owned(),
        kind: Some(WorkKind::RunNow),
        labels: BTreeMap::from([("team".to_owned(), "ferries".to_owned())]),
        attempts,
        output: None,
        error: None,
        received_at: Timestamp::now(),
        finished_at: Timestamp::now(),
        worker: "worker-7".to_owned(),
        redelivered: false,
        truncated: false,
    }
}

fn read(body: &[u8]) -> RunResult {
    serde_json::from_slice(body).expect("a result")
}

#[test]
fn what_fits_is_left_alone() {
    let result = result(Outcome::Success, vec![attempt(1)]);
    let body = serde_json::to_vec(&result).expect("JSON");
    assert_eq!(fit(&result, SMALLEST_LIMIT), body);
    assert!(!String::from_utf8(body).expect("JSON").contains("truncated"));
}

#[test]
fn a_state_of_seven_megabytes_is_cut_and_the_output_stays() {
    let mut last = attempt(1);
    last.status = Some(json!({"state": "TERMINATED", "termination_details":
        {"code": "SUCCESS", "message": "x".repeat(7 << 20)}}));
    let output = json!({"tasks": [{"task_key": "main", "logs": "l".repeat(200_000)}]});
    let whole = RunResult {
        output: Some(output.clone()),
        ..result(Outcome::Success, vec![last])
    };
    let body = fit(&whole, own_limit(256 * 1024));
    assert!(body.len() < 220_000, "{}", body.len());
    let cut = read(&body);
    assert!(cut.truncated);
    assert_eq!((cut.outcome, cut.output), (Outcome::Success, Some(output)));
    let status = cut.attempts[0].status.as_ref().expect("a status");
    assert_eq!(
        (
            &status["state"],
            &status["truncated"],
            &status["termination_details"]["code"]
        ),
        (&json!("TERMINATED"), &json!(true), &json!("SUCCESS"))
    );
}

#[test]
fn an_output_is_cut_to_what_the_broker_takes() {
    let logs = "l".repeat(200_000);
    let whole = RunResult {
        output: Some(json!({"tasks": [{"task_key": "main", "logs": logs}]})),
        ..result(Outcome::Success, vec![attempt(1)])
    };
    let body = fit(&whole, 65_536);
    assert!((32_000..=65_536).contains(&body.len()), "{}", body.len());
    let cut = read(&body);
    assert_eq!(
        (cut.outcome, cut.error, cut.truncated),
        (Outcome::Success, None, true)
    );
    assert_eq!(cut.attempts, whole.attempts);
    assert_eq!(
        cut.output.expect("an output")["tasks"][0]["logs_truncated"],
        true
    );
}

#[test]
fn of_a_failure_the_words_stay_longest() {
    let task = TaskError {
        task_key: "main".to_owned(),
        run_id: Some(7),
        error: Some("e".repeat(2000)),
        trace: Some("t".repeat(8000)),
    };
    let error = RunError {
        trace: task.trace.clone(),
        tasks: vec![task; 50],
        ..RunError::new(ErrorClass::User, "division by zero").with_code("RUN_EXECUTION_ERROR")
    };
    let attempts = (1..=100).map(|number| Attempt {
        // As they are kept: those of the latest ones alone are whole.
        error: Some(if number > 97 {
            error.clone()
        } else {
            RunError {
                trace: None,
                tasks: Vec::new(),
                ..error.clone()
            }
        }),
        ..attempt(number)
    });
    let whole = RunResult {
        error: Some(error.clone()),
        ..result(Outcome::Failed, attempts.collect())
    };
    for limit in [1 << 20, 100_000, 20_000, 8000, SMALLEST_LIMIT] {
        let body = fit(&whole, limit);
        assert!(body.len() <= limit, "{} of {limit}", body.len());
        let cut = read(&body);
        let told = cut.error.expect("an error");
        assert_eq!((&told.code, &told.message), (&error.code, &error.message));
        assert_eq!(cut.attempts.last().expect("an attempt").number, 100);
        assert_eq!(cut.attempts.len() == 100, limit > 50_000, "{limit}");
        assert_eq!(told.trace.is_some(), limit > 100_000, "{limit}");
    }
}

#[test]
fn the_least_says_why_it_is_all() {
    let whole = RunResult {
        labels: (0..1000)
            .map(|n| (n.to_string(), "\0".repeat(100)))
            .collect(),
        error: Some(
            RunError::new(ErrorClass::Request, "\u{1}".repeat(1 << 20))
                .with_code("C".repeat(1 << 20)),
        ),
        worker: "\u{1}".repeat(1000),
        ..result(Outcome::Rejected, vec![attempt(u32::MAX)])
    };
    // As many operations as a request of 1 MiB may have steps.
    let mut many = whole.clone();
    many.attempts[0].operation_ids = vec![Uuid::nil(); 80_000];
    for whole in [whole, many] {
        let cut = read(&fit(&whole, 0));
        assert_eq!(cut.outcome, Outcome::Rejected);
        assert!(cut.error.expect("an error").message.len() >= 64);
        let why = cut.output.expect("a reason")["unavailable"].to_string();
        assert!(
            why.contains("max_message_size") && why.contains("4096"),
            "{why}"
        );
    }
}

fn text() -> impl Strategy<Value = String> {
    (any::<String>(), 0..60_usize).prop_map(|(text, n)| text.repeat(n))
}

fn any_error() -> impl Strategy<Value = RunError> {
    let task =
        (text(), option::of(text()), option::of(text())).prop_map(|(task_key, error, trace)| {
            TaskError {
                task_key,
                run_id: None,
                error,
                trace,
            }
        });
    (
        text(),
        option::of(text()),
        option::of(text()),
        vec(task, 0..4),
    )
        .prop_map(|(message, code, trace, tasks)| RunError {
            code,
            trace,
            tasks,
            ..RunError::new(ErrorClass::User, message)
        })
}

fn any_said() -> impl Strategy<Value = Option<Value>> {
    option::of((text(), text()).prop_map(|(a, b)| json!({"state": a, "more": [{"message": b}]})))
}

fn any_attempt() -> impl Strategy<Value = Attempt> {
    let said = (any_said(), any_said());
    (
        1..100_u32,
        said,
        option::of(text()),
        option::of(any_error()),
        0..500_usize,
    )
        .prop_map(
            |(number, (state, status), run_page_url, error, operations)| Attempt {
                state,
                status,
                run_page_url,
                error,
                operation_ids: vec![Uuid::nil(); operations],
                ..attempt(number)
            },
        )
}

proptest! {
    #[test]
    fn any_result_fits_and_is_still_the_same_requests(
        outcome in prop::sample::select(&Outcome::ALL[..]),
        attempts in vec(any_attempt(), 0..5),
        error in option::of(any_error()),
        output in any_said(),
        labels in prop::collection::btree_map(any::<String>(), text(), 0..4),
        id in "[A-Za-z0-9._:/@-]{1,128}",
        worker in text(),
        limit in SMALLEST_LIMIT..50_000,
    ) {
        let whole = RunResult {
            id: id.parse().expect("an id"),
            connection: "c".repeat(64),
            error,
            output,
            labels,
            worker,
            ..result(outcome, attempts)
        };
        let body = fit(&whole, limit);
        prop_assert!(body.len() <= limit, "{} of {limit}", body.len());
        let cut = read(&body);
        prop_assert_eq!((&cut.id, cut.outcome, &cut.connection, cut.kind), (&whole.id, outcome, &whole.connection, whole.kind));
        prop_assert_eq!((cut.received_at, cut.finished_at), (whole.received_at, whole.finished_at));
        prop_assert_eq!(cut.error.is_some(), whole.error.is_some());
        prop_assert_eq!(cut.truncated, size(&whole) > limit);
        if !cut.truncated {
            prop_assert_eq!(cut, whole);
        }
    }
}
