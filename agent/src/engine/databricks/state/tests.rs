//! Every word that Databricks is known to use, and what it means.

use proptest::prelude::*;

use super::*;

const LIFE_CYCLES: [&str; 9] = [
    "BLOCKED",
    "INTERNAL_ERROR",
    "PENDING",
    "QUEUED",
    "RUNNING",
    "SKIPPED",
    "TERMINATED",
    "TERMINATING",
    "WAITING_FOR_RETRY",
];
const STATUS_STATES: [&str; 7] = [
    "BLOCKED",
    "PENDING",
    "QUEUED",
    "RUNNING",
    "TERMINATED",
    "TERMINATING",
    "WAITING",
];
const RESULTS: [(&str, Verdict); 10] = [
    ("CANCELED", Canceled),
    ("DISABLED", Skipped),
    ("EXCLUDED", Skipped),
    ("FAILED", USER),
    ("MAXIMUM_CONCURRENT_RUNS_REACHED", THROTTLED),
    ("SUCCESS", Success),
    ("SUCCESS_WITH_FAILURES", SuccessWithFailures),
    ("TIMEDOUT", TimedOut),
    ("UPSTREAM_CANCELED", Canceled),
    ("UPSTREAM_FAILED", USER),
];
/// Each code with the type `CLIENT_ERROR` (`SUCCESS` for the two that are one) and `CLOUD_FAILURE`.
const CODES: [(&str, Verdict, Verdict); 27] = [
    ("BREAKING_CHANGE", INFRASTRUCTURE, INFRASTRUCTURE),
    ("BUDGET_POLICY_LIMIT_EXCEEDED", REQUEST, REQUEST),
    ("CANCELED", Canceled, Canceled),
    ("CLOUD_FAILURE", INFRASTRUCTURE, INFRASTRUCTURE),
    ("CLUSTER_ERROR", INFRASTRUCTURE, INFRASTRUCTURE),
    ("CLUSTER_REQUEST_LIMIT_EXCEEDED", THROTTLED, THROTTLED),
    (
        "CLUSTER_TERMINATED_BY_USER",
        Failed(ErrorClass::Canceled),
        Failed(ErrorClass::Canceled),
    ),
    ("DISABLED", Skipped, Skipped),
    ("DRIVER_ERROR", INFRASTRUCTURE, INFRASTRUCTURE),
    ("FEATURE_DISABLED", REQUEST, REQUEST),
    ("INTERNAL_ERROR", INFRASTRUCTURE, INFRASTRUCTURE),
    ("INVALID_CLUSTER_REQUEST", REQUEST, REQUEST),
    ("INVALID_RUN_CONFIGURATION", REQUEST, REQUEST),
    ("LIBRARY_INSTALLATION_ERROR", USER, INFRASTRUCTURE),
    ("MAX_CONCURRENT_RUNS_EXCEEDED", THROTTLED, THROTTLED),
    ("MAX_JOB_QUEUE_SIZE_EXCEEDED", THROTTLED, THROTTLED),
    ("MAX_SPARK_CONTEXTS_EXCEEDED", THROTTLED, THROTTLED),
    ("REPOSITORY_CHECKOUT_FAILED", INFRASTRUCTURE, INFRASTRUCTURE),
    ("RESOURCE_NOT_FOUND", REQUEST, REQUEST),
    ("RUN_EXECUTION_ERROR", USER, USER),
    ("SKIPPED", Skipped, Skipped),
    ("STORAGE_ACCESS_ERROR", USER, INFRASTRUCTURE),
    ("SUCCESS", Success, INFRASTRUCTURE),
    (
        "SUCCESS_WITH_FAILURES",
        SuccessWithFailures,
        SuccessWithFailures,
    ),
    (
        "UNAUTHORIZED_ERROR",
        Failed(ErrorClass::Auth),
        Failed(ErrorClass::Auth),
    ),
    ("USER_CANCELED", Canceled, Canceled),
    ("WORKSPACE_RUN_LIMIT_EXCEEDED", THROTTLED, THROTTLED),
];

fn state(life_cycle: &str, result: &str) -> State {
    State {
        life_cycle: Some(life_cycle.to_owned()),
        result: Some(result.to_owned()),
        message: None,
    }
}

fn status(state: &str, code: &str, kind: &str) -> Status {
    Status {
        state: Some(state.to_owned()),
        termination_details: Some(TerminationDetails {
            code: Some(code.to_owned()),
            kind: Some(kind.to_owned()),
            message: None,
        }),
    }
}

fn is(state: &State, status: &Status) -> (Option<Verdict>, bool) {
    let meaning = meaning(state, status);
    let verdict = match meaning.phase {
        Phase::Going(_) => None,
        Phase::Ended(Ended::Success) => Some(Success),
        Phase::Ended(Ended::SuccessWithFailures(_)) => Some(SuccessWithFailures),
        Phase::Ended(Ended::Skipped(_)) => Some(Skipped),
        Phase::Ended(Ended::Canceled(_)) => Some(Canceled),
        Phase::Ended(Ended::TimedOut(_)) => Some(TimedOut),
        Phase::Ended(Ended::Failed(failure)) => Some(Failed(failure.error.class)),
        Phase::Ended(Ended::Lost(_)) => panic!("a description is not lost"),
    };
    (verdict, meaning.unknown)
}

#[test]
fn every_known_word_is_known() {
    let silent = (State::default(), Status::default());
    for word in LIFE_CYCLES {
        let (verdict, unknown) = is(&state(word, ""), &silent.1);
        let ends = ["INTERNAL_ERROR", "SKIPPED", "TERMINATED"].contains(&word);
        assert_eq!((verdict.is_some(), unknown), (ends, false), "{word}");
    }
    for word in STATUS_STATES {
        let (verdict, unknown) = is(&silent.0, &status(word, "", ""));
        assert_eq!(
            (verdict.is_some(), unknown),
            (word == "TERMINATED", false),
            "{word}"
        );
    }
    for (word, expected) in RESULTS {
        let found = is(&state("TERMINATED", word), &silent.1);
        assert_eq!(found, (Some(expected), false), "{word}");
    }
    for (code, client, cloud) in CODES {
        let own = if code.starts_with("SUCCESS") {
            "SUCCESS"
        } else {
            "CLIENT_ERROR"
        };
        let found = is(&silent.0, &status("TERMINATED", code, own));
        assert_eq!(found, (Some(client), false), "{code} {own}");
        let found = is(&silent.0, &status("TERMINATED", code, "CLOUD_FAILURE"));
        assert_eq!(found, (Some(cloud), false), "{code} CLOUD_FAILURE");
    }
}

#[test]
fn the_trap_is_the_works_own_failure() {
    let trap = State {
        message: Some(
            "Task main failed with message: Workload failed, see run output for details.".into(),
        ),
        ..state("INTERNAL_ERROR", "FAILED")
    };
    let newer = status("TERMINATED", "RUN_EXECUTION_ERROR", "CLIENT_ERROR");
    for status in [&newer, &Status::default()] {
        let Phase::Ended(Ended::Failed(failure)) = meaning(&trap, status).phase else {
            panic!("it failed");
        };
        assert_eq!(failure.error.class, ErrorClass::User);
        assert!(failure.error.message.contains("Workload failed"));
    }
    // The same words of a cluster that broke: only the newer description tells.
    let broken = status("TERMINATED", "CLUSTER_ERROR", "CLOUD_FAILURE");
    assert_eq!(is(&trap, &broken), (Some(INFRASTRUCTURE), false));
    let silent = state("INTERNAL_ERROR", "");
    assert_eq!(
        is(&silent, &Status::default()),
        (Some(INFRASTRUCTURE), false)
    );
}

#[test]
fn the_older_description_fills_what_the_newer_one_has_no_word_for() {
    let canceled = status("TERMINATED", "CANCELED", "CLIENT_ERROR");
    let found = is(&state("TERMINATED", "TIMEDOUT"), &canceled);
    assert_eq!(found, (Some(TimedOut), false));
    let skipped = status("TERMINATED", "SKIPPED", "CLIENT_ERROR");
    for (result, expected) in [
        ("UPSTREAM_FAILED", USER),
        ("UPSTREAM_CANCELED", Canceled),
        ("EXCLUDED", Skipped),
        ("MAXIMUM_CONCURRENT_RUNS_REACHED", THROTTLED),
        ("SUCCESS", Skipped),
    ] {
        let found = is(&state("TERMINATED", result), &skipped);
        assert_eq!(found, (Some(expected), false), "{result}");
    }
}

#[test]
fn a_contradiction_is_never_green() {
    let success = status("TERMINATED", "SUCCESS", "SUCCESS");
    let tolerant = status("TERMINATED", "SUCCESS_WITH_FAILURES", "SUCCESS");
    for (life_cycle, result) in [
        ("TERMINATED", "FAILED"),
        ("INTERNAL_ERROR", "SUCCESS"),
        ("INTERNAL_ERROR", ""),
        ("SKIPPED", ""),
        ("SKIPPED", "SUCCESS"),
        ("TERMINATED", "CANCELED"),
        ("TERMINATED", "SOMETHING_NEW"),
    ] {
        let (verdict, _) = is(&state(life_cycle, result), &success);
        assert!(
            !matches!(verdict, None | Some(Success | SuccessWithFailures)),
            "{life_cycle} {result}: {verdict:?}"
        );
        let (verdict, _) = is(&state(life_cycle, result), &tolerant);
        assert!(!matches!(
            verdict,
            None | Some(Success | SuccessWithFailures)
        ));
    }
    let failed = status("TERMINATED", "RUN_EXECUTION_ERROR", "CLIENT_ERROR");
    assert_eq!(is(&state("TERMINATED", "SUCCESS"), &failed).0, Some(USER));
    // One of them has not ended yet: wait.
    assert_eq!(is(&state("RUNNING", ""), &success).0, None);
    let running = status("RUNNING", "", "");
    assert_eq!(is(&state("TERMINATED", "SUCCESS"), &running).0, None);
}

#[test]
fn unknown_words_are_counted_and_decide_nothing_alone() {
    let nothing = State::default();
    let new_state = status("HIBERNATING", "", "");
    assert_eq!(is(&nothing, &new_state), (None, true));
    assert_eq!(is(&state("HIBERNATING", ""), &new_state), (None, true));
    assert_eq!(
        is(&state("HIBERNATING", ""), &Status::default()),
        (None, true)
    );
    assert_eq!(is(&state("RUNNING", ""), &new_state), (None, true));
    // The other description knows the end.
    let failed = is(&state("TERMINATED", "FAILED"), &new_state);
    assert_eq!(failed, (Some(USER), true));
    // An ending in new words is blamed by its type, and is the work's own without one.
    for (kind, expected) in [
        ("INTERNAL_ERROR", INFRASTRUCTURE),
        ("CLOUD_FAILURE", INFRASTRUCTURE),
        ("CLIENT_ERROR", USER),
        ("NEW_TYPE", USER),
        ("SUCCESS", USER),
    ] {
        let found = is(&nothing, &status("TERMINATED", "NEW_CODE", kind));
        assert_eq!(found, (Some(expected), true), "{kind}");
    }
    assert_eq!(is(&nothing, &Status::default()), (None, false));
}

proptest! {
    #[test]
    fn nothing_but_an_explicit_success_is_success(
        life_cycle in word(&LIFE_CYCLES),
        result in word(&RESULTS.map(|(word, _)| word)),
        newer in word(&STATUS_STATES),
        code in word(&CODES.map(|(word, ..)| word)),
        kind in word(&["CLIENT_ERROR", "CLOUD_FAILURE", "INTERNAL_ERROR", "SUCCESS"]),
        detailed: bool,
    ) {
        let state = State {
            life_cycle: life_cycle.clone(),
            result: result.clone(),
            message: None,
        };
        let details = TerminationDetails { code: code.clone(), kind: kind.clone(), message: None };
        let status = Status {
            state: newer.clone(),
            termination_details: detailed.then_some(details),
        };
        if is(&state, &status).0 == Some(Success) {
            let older_says = result.as_deref() == Some("SUCCESS");
            let newer_says = detailed && code.as_deref() == Some("SUCCESS");
            prop_assert!(older_says || newer_says);
            let ended = life_cycle.as_deref() == Some("TERMINATED")
                || newer.as_deref() == Some("TERMINATED");
            prop_assert!(ended);
            // And nothing speaks against it.
            let silent = |word: &Option<String>| word.as_deref().is_none_or(str::is_empty);
            prop_assert!(older_says || silent(&result));
            let blames = |kind: &str| kind != "SUCCESS" && kind != "NEW";
            prop_assert!(!detailed || silent(&kind) || !kind.as_deref().is_some_and(blames));
            if detailed && !silent(&code) && !newer_says {
                // A code of tomorrow that is marked as a success, with a plain success beside it.
                prop_assert!(older_says && kind.as_deref() == Some("SUCCESS"));
                prop_assert_eq!(code.as_deref(), Some("NEW"));
            }
        }
    }
}

/// One of the words, a new one, an empty one, or none.
fn word(words: &[&str]) -> impl Strategy<Value = Option<String>> + use<> {
    let mut all: Vec<Option<String>> = words.iter().map(|&word| Some(word.to_owned())).collect();
    all.extend([Some("NEW".to_owned()), Some(String::new()), None]);
    // Success is rare among so many words; look where it is.
    for _ in 0..8 {
        let green = words
            .iter()
            .find(|word| **word == "SUCCESS" || **word == "TERMINATED");
        all.extend(green.map(|&word| Some(word.to_owned())));
    }
    prop::sample::select(all)
}
