//! Idempotency tokens, and what the books say about them.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Workspace, one};

#[tokio::test]
async fn a_token_makes_one_run_for_submit_and_run_now_alike() {
    let workspace = Workspace::start().await;
    let job = workspace
        .post("/api/2.2/jobs/create", json!({"name": "j"}))
        .await["job_id"]
        .clone();
    let mut body = one(&json!({}));
    body["idempotency_token"] = "k".into();
    let first = workspace.submit(body.clone()).await;
    assert_eq!(workspace.submit(body).await, first);
    let again = json!({"job_id": job, "idempotency_token": "k"});
    assert_eq!(
        workspace.post("/api/2.1/jobs/run-now", again.clone()).await["run_id"],
        first
    );
    let books = workspace.stats().await;
    assert_eq!(books["runs_started"], 1);
    assert_eq!(books["runs_by_token"], json!({"k": 1}));
    assert_eq!(
        books["calls"]["jobs/runs/submit"],
        json!({"total": 2, "by_status": {"200": 2}, "cut": 0})
    );

    workspace.end(first).await;
    workspace
        .post("/api/2.2/jobs/runs/delete", json!({"run_id": first}))
        .await;
    let (status, code, message) = workspace
        .refused(Method::POST, "/api/2.2/jobs/run-now", again)
        .await;
    assert_eq!((status, code.as_str()), (400, "INVALID_PARAMETER_VALUE"));
    assert!(message.contains("has been deleted"), "{message}");
    workspace.stop().await;
}

#[tokio::test]
async fn a_token_of_more_than_64_characters_is_refused() {
    let workspace = Workspace::start().await;
    let mut body = one(&json!({}));
    body["idempotency_token"] = "x".repeat(64).into();
    workspace.submit(body.clone()).await;
    body["idempotency_token"] = "x".repeat(65).into();
    let (status, code, _) = workspace
        .refused(Method::POST, "/api/2.2/jobs/runs/submit", body)
        .await;
    assert_eq!((status, code.as_str()), (400, "INVALID_PARAMETER_VALUE"));
    assert_eq!(workspace.stats().await["runs_started"], 1);
    workspace.stop().await;
}

#[tokio::test]
async fn the_user_error_trap() {
    let workspace = Workspace::start().await;
    let choices = json!({"sandbox.outcome": "FAILED", "sandbox.duration_ms": 0, "sandbox.error": "ValueError: x",
        "sandbox.trace": "Traceback ..."});
    let run_id = workspace.submit(one(&choices)).await;
    let run = workspace.end(run_id).await;
    assert_eq!(
        run["state"],
        json!({
            "life_cycle_state": "INTERNAL_ERROR",
            "result_state": "FAILED",
            "state_message": "Task main failed with message: Workload failed, see run output for details.",
            "user_cancelled_or_timedout": false,
        })
    );
    assert_eq!(run["status"]["state"], "TERMINATED");
    assert_eq!(
        run["status"]["termination_details"]["code"],
        "RUN_EXECUTION_ERROR"
    );
    assert_eq!(run["status"]["termination_details"]["type"], "CLIENT_ERROR");
    assert_eq!(run["tasks"][0]["state"]["life_cycle_state"], "TERMINATED");
    assert_eq!(run["tasks"][0]["state"]["result_state"], "FAILED");
    let output = workspace.output(&run, 0).await;
    assert_eq!(output["error"], "ValueError: x");
    assert_eq!(output["error_trace"], "Traceback ...");
    let path = format!("/api/2.2/jobs/runs/get-output?run_id={run_id}");
    let (status, code, message) = workspace.refused(Method::GET, &path, Value::Null).await;
    assert_eq!((status, code.as_str()), (400, "INVALID_PARAMETER_VALUE"));
    assert!(
        message.starts_with("Retrieving the output of runs with multiple tasks is not supported.")
    );
    workspace.stop().await;
}
