//! Rounds, tasks and facts of a run as Databricks describes it.

use serde_json::json;

use super::*;

fn known(run: &Value) -> Known {
    Known::new(serde_json::from_str(&run.to_string()).unwrap())
}

fn failed() -> Value {
    json!({"life_cycle_state": "TERMINATED", "result_state": "FAILED"})
}

/// A run that failed, was repaired, failed again, and is being repaired again. The history comes
/// in no particular order.
fn repaired_twice() -> Known {
    known(&json!({
        "run_id": 7, "start_time": 1000, "end_time": 0,
        "state": {"life_cycle_state": "RUNNING"},
        "tasks": [
            {"task_key": "a", "run_id": 1, "attempt_number": 0, "state": failed()},
            {"task_key": "b", "run_id": 2, "attempt_number": 0, "state": failed()},
            {"task_key": "a", "run_id": 5, "attempt_number": 2, "state": {"life_cycle_state": "RUNNING"}},
            {"task_key": "a", "run_id": 3, "attempt_number": 1, "state": failed()},
        ],
        "repair_history": [
            {"id": 22, "type": "REPAIR", "start_time": 5000, "end_time": 0,
             "state": {"life_cycle_state": "RUNNING"}},
            {"id": 0, "type": "ORIGINAL", "start_time": 1000, "end_time": 2000,
             "status": {"state": "TERMINATED", "termination_details":
                {"code": "CLUSTER_ERROR", "type": "CLOUD_FAILURE", "message": "gone"}}},
            {"id": 11, "type": "REPAIR", "start_time": 3000, "end_time": 4000, "state": failed()},
        ],
    }))
}

#[test]
fn each_round_of_a_repaired_run_is_as_its_history_tells() {
    let run = repaired_twice();
    assert_eq!((run.repairs(), run.latest_repair_id()), (2, Some(22)));
    let class = |round| match run.phase(round) {
        Some(Phase::Ended(Ended::Failed(failure))) => Some(failure.error.class),
        _ => None,
    };
    assert_eq!(class(Some(0)), Some(ErrorClass::Infrastructure));
    assert_eq!(class(Some(1)), Some(ErrorClass::User));
    assert_eq!(run.phase(Some(2)), Some(Phase::Going("RUNNING".into())));
    assert_eq!(run.phase(Some(3)), None);
    assert_eq!(run.phase(None), Some(Phase::Going("RUNNING".into())));
    let over = |round| run.over(round);
    assert_eq!(
        [Some(0), Some(1), Some(2), Some(3), None].map(over),
        [true, true, false, false, false]
    );
    let facts = run.facts(Some(1));
    assert_eq!(facts.started_at.unwrap().as_millisecond(), 3000);
    assert_eq!(facts.ended_at.unwrap().as_millisecond(), 4000);
    assert_eq!(facts.state, Some(failed()));
    assert_eq!(run.facts(Some(2)).ended_at, None);
    assert_eq!(run.facts(Some(3)), Facts::default());
    assert_eq!(
        run.facts(Some(0)).status.unwrap()["termination_details"]["code"],
        "CLUSTER_ERROR"
    );
    assert_eq!(run.round_began(), 5000);
}

#[test]
fn a_repair_is_not_seen_in_what_was_read_before_it() {
    let ended = known(&json!({"run_id": 7, "start_time": 1, "end_time": 2, "state": failed()}));
    assert!(ended.over(None) && ended.over(Some(0)) && !ended.over(Some(1)));
    assert_eq!(ended.phase(Some(1)), None);
    assert_eq!((ended.repairs(), ended.latest_repair_id()), (0, None));
    // A repaired run whose history lacks its first round: it failed, at least.
    let run = known(
        &json!({"run_id": 7, "state": {"life_cycle_state": "RUNNING"},
        "repair_history": [{"id": 1, "type": "REPAIR", "start_time": 5}]}),
    );
    assert!(matches!(
        run.phase(Some(0)),
        Some(Phase::Ended(Ended::Failed(_)))
    ));
}

#[test]
fn of_each_task_the_latest_attempt_counts() {
    let run = repaired_twice();
    assert_eq!((run.done, run.total), (1, 2));
    assert!(run.tasks.is_none(), "only of an ended run");
    let ended = known(&json!({"run_id": 7, "state": failed(), "tasks": [
        {"task_key": "a", "run_id": 9, "attempt_number": 1, "state": failed()},
        {"task_key": "a", "run_id": 1, "attempt_number": 0, "state": failed()},
    ]}));
    let tasks = ended.tasks.unwrap();
    assert_eq!((tasks.len(), tasks[0].run_id), (1, 9));
    let paged = known(
        &json!({"run_id": 7, "state": failed(), "next_page_token": "x",
        "tasks": [{"task_key": "a", "run_id": 9}]}),
    );
    assert!(paged.tasks.is_none() && paged.total == 0);
}

#[test]
fn what_is_kept_of_a_run_under_way_is_small() {
    let run = repaired_twice();
    assert!(size_of_val(&run) <= 320, "{}", size_of_val(&run));
}

#[test]
fn a_huge_description_is_kept_in_short_and_means_the_same() {
    let huge = "m".repeat(7 << 20);
    let failed = json!({"life_cycle_state": "INTERNAL_ERROR", "result_state": "FAILED",
        "state_message": huge, "queue_reason": huge});
    let client_error = json!({"state": "TERMINATED", "termination_details":
        {"code": "RUN_EXECUTION_ERROR", "type": "CLIENT_ERROR", "message": huge}});
    // Of no known shape: it says nothing, and goes on saying nothing.
    let nothing = json!({"life_cycle_state": "TERMINATED", "result_state": ["SUCCESS", huge]});
    for (state, status) in [
        (failed.clone(), client_error.clone()),
        (failed, json!({"state": "TERMINATED"})),
        (nothing.clone(), client_error),
        (nothing, json!({"state": huge})),
    ] {
        let read = |value: &Value| to_raw_value(value).unwrap();
        let meaning = meaning_of(Some(&read(&state)), Some(&read(&status)));
        let run = known(&json!({"run_id": 7, "state": state, "status": status,
            "run_page_url": huge, "repair_history":
                [{"id": 0, "type": "ORIGINAL", "state": state, "status": status}]}));
        assert_eq!(run.phase(None), Some(meaning.phase));
        let facts = run.facts(None);
        assert_eq!(facts.run_page_url, None);
        let told = serde_json::to_vec(&json!([facts.state, facts.status])).unwrap();
        assert!(told.len() < 8 << 10, "{}", told.len());
        assert_eq!(facts.state.unwrap()["truncated"], true);
        let item = run.history[0].state.as_ref().unwrap();
        assert!(item.get().len() < 8 << 10);
    }
}
