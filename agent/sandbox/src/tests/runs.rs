//! Runs: states on the way, arguments, lists, jobs.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Workspace, notebook, one};

#[tokio::test]
async fn a_run_is_pending_then_running_then_ended() {
    let workspace = Workspace::start().await;
    let long = 600_000;
    let pending = workspace
        .submit(one(&json!({"sandbox.setup_ms": long})))
        .await;
    let pending = workspace.run(pending).await;
    assert_eq!(pending["state"]["life_cycle_state"], "PENDING");
    assert_eq!(pending["status"]["state"], "PENDING");
    assert_eq!(
        (&pending["end_time"], pending["state"].get("result_state")),
        (&0.into(), None)
    );
    let running = workspace
        .submit(one(&json!({"sandbox.duration_ms": long})))
        .await;
    let running = workspace.run(running).await;
    assert_eq!(running["state"]["life_cycle_state"], "RUNNING");
    assert_eq!(running["tasks"][0]["status"]["state"], "RUNNING");
    let choices = json!({"sandbox.setup_ms": 20, "sandbox.duration_ms": 30, "sandbox.output": "o"});
    let ended = workspace.submit(one(&choices)).await;
    let ended = workspace.end(ended).await;
    assert_eq!(ended["state"]["result_state"], "SUCCESS");
    assert_eq!(
        (&ended["setup_duration"], &ended["execution_duration"]),
        (&20.into(), &30.into())
    );
    let output = workspace.output(&ended, 0).await;
    assert_eq!(
        output["notebook_output"],
        json!({"result": "o", "truncated": false})
    );
    workspace.stop().await;
}

#[tokio::test]
async fn arguments_are_taken_as_clients_send_them() {
    let workspace = Workspace::start().await;
    let run_id = workspace.submit(one(&json!({}))).await;
    let body = json!({"run_id": run_id.to_string(), "page_token": null, "include_history": "True", "page": null});
    let (status, run) = workspace
        .call(Method::GET, "/api/2.0/jobs/runs/get?page_token=", body)
        .await;
    assert_eq!(
        (status, &run["run_id"], &run["repair_history"][0]["type"]),
        (200, &run_id.into(), &"ORIGINAL".into())
    );
    let refused = workspace
        .refused(Method::GET, "/api/2.2/jobs/runs/get?run_id=5", Value::Null)
        .await;
    assert_eq!(
        refused,
        (
            400,
            "INVALID_PARAMETER_VALUE".into(),
            "Run 5 does not exist.".into()
        )
    );
    let refused = workspace
        .refused(Method::GET, "/api/2.2/nothing", Value::Null)
        .await;
    assert_eq!(
        refused,
        (
            404,
            "ENDPOINT_NOT_FOUND".into(),
            "No API found for 'GET /api/2.2/nothing'".into()
        )
    );
    let refused = workspace
        .refused(
            Method::POST,
            "/api/2.2/jobs/runs/submit",
            one(&json!({"sandbox.colour": 1})),
        )
        .await;
    assert!(
        refused.2.contains("sandbox.colour") && refused.2.contains("sandbox.outcome"),
        "{}",
        refused.2
    );
    workspace.stop().await;
}

#[tokio::test]
async fn the_older_form_has_one_task_and_its_own_output() {
    let workspace = Workspace::start().await;
    let run_id = workspace
        .submit(json!({
            "run_name": "MyDatabricksJob",
            "new_cluster": {"spark_version": "7.3.x-scala2.12", "num_workers": 10, "custom_tags": {"sandbox.setup_ms": "1"}},
            "spark_python_task": {"python_file": "/Users/x/main.py", "parameters": ["param1", "--sandbox.logs=printed"]},
        }))
        .await;
    let run = workspace.end(run_id).await;
    assert_eq!(
        (&run["tasks"][0]["task_key"], &run["setup_duration"]),
        (&"main".into(), &1.into())
    );
    let output = workspace
        .get(&format!("/api/2.0/jobs/runs/get-output?run_id={run_id}"))
        .await;
    assert_eq!(
        (&output["logs"], &output["logs_truncated"]),
        (&"printed".into(), &false.into())
    );
    workspace.stop().await;
}

#[tokio::test]
async fn lists_are_paged_newest_first_and_filtered() {
    let workspace = Workspace::start().await;
    let mut made = Vec::new();
    for n in 0..53 {
        let long = if n % 2 == 0 { 600_000 } else { 0 };
        made.push(
            workspace
                .submit(one(&json!({"sandbox.duration_ms": long})))
                .await,
        );
    }
    made.reverse();
    let mut listed = Vec::new();
    let mut sizes = Vec::new();
    let mut token = String::new();
    loop {
        let path =
            format!("/api/2.2/jobs/runs/list?limit=25&run_type=SUBMIT_RUN&page_token={token}");
        let page = workspace.get(&path).await;
        let runs = page["runs"].as_array().unwrap();
        sizes.push(runs.len());
        listed.extend(runs.iter().map(|run| run["run_id"].as_i64().unwrap()));
        // A run that comes while the pages are turned moves nothing.
        workspace.submit(one(&json!({}))).await;
        match page["next_page_token"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!((listed, sizes), (made, vec![25, 25, 3]));
    let active = workspace
        .get("/api/2.2/jobs/runs/list?active_only=true&limit=1")
        .await;
    assert_eq!(active["runs"][0].get("tasks"), None);
    assert_active_list_follows_the_runs(&workspace).await;
    let refused = workspace
        .refused(Method::GET, "/api/2.2/jobs/runs/list?limit=26", Value::Null)
        .await;
    assert_eq!(
        refused.2,
        "Invalid limit 26 - it has to be no more than 25."
    );
    let both = "/api/2.2/jobs/runs/list?active_only=true&completed_only=TRUE";
    assert_eq!(
        workspace.refused(Method::GET, both, Value::Null).await.0,
        400
    );
    workspace.stop().await;
}

/// A run leaves the list of active runs when it ends, and is back in it while it is repaired.
async fn assert_active_list_follows_the_runs(workspace: &Workspace) {
    let listed = async || {
        let page = workspace
            .get("/api/2.2/jobs/runs/list?active_only=true&limit=1")
            .await;
        page["runs"][0]["run_id"].as_i64().unwrap()
    };
    let choices = json!({"sandbox.duration_ms": 600_000});
    let run_id = workspace.submit(one(&choices)).await;
    assert_eq!(listed().await, run_id);
    workspace
        .post("/api/2.2/jobs/runs/cancel", json!({"run_id": run_id}))
        .await;
    workspace.end(run_id).await;
    assert_ne!(listed().await, run_id);
    let repair = json!({"run_id": run_id, "rerun_tasks": ["main"]});
    workspace.post("/api/2.2/jobs/runs/repair", repair).await;
    assert_eq!(listed().await, run_id);
}

#[tokio::test]
async fn tasks_come_a_hundred_a_page() {
    let workspace = Workspace::start().await;
    let tasks: Vec<Value> = (0..230)
        .map(|n| notebook(&format!("t{n}"), &json!({})))
        .collect();
    let run_id = workspace
        .submit(json!({"run_name": "big", "tasks": tasks}))
        .await;
    let mut sizes = Vec::new();
    let mut token = String::new();
    loop {
        let page = workspace
            .get(&format!(
                "/api/2.2/jobs/runs/get?run_id={run_id}&page_token={token}"
            ))
            .await;
        assert_eq!(page["run_id"], run_id);
        sizes.push(page["tasks"].as_array().unwrap().len());
        match page["next_page_token"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(sizes, [100, 100, 30]);
    workspace.stop().await;
}

#[tokio::test]
async fn jobs_are_found_by_name_in_any_case_and_take_parameters() {
    let workspace = Workspace::start().await;
    for name in ["Orders", "orders", "other"] {
        workspace
            .post("/api/2.1/jobs/create", json!({"name": name}))
            .await;
    }
    let found = workspace
        .get("/api/2.2/jobs/list?name=ORDERS&limit=1")
        .await;
    assert_eq!(found["jobs"][0]["settings"]["name"], "orders");
    let next = found["next_page_token"].as_str().unwrap();
    let found = workspace
        .get(&format!("/api/2.2/jobs/list?name=ORDERS&page_token={next}"))
        .await;
    assert_eq!(
        (
            &found["jobs"][0]["settings"]["name"],
            found.get("next_page_token")
        ),
        (&"Orders".into(), None)
    );
    let job_id = &found["jobs"][0]["job_id"];
    workspace.rule(json!([{"job_name": "Orders", "outcome": "DRIVER_ERROR", "duration_ms": 0, "times": 1}])).await;
    let start = json!({"job_id": job_id, "notebook_params": {"a": "b"}});
    let mut codes = Vec::new();
    for _ in 0..2 {
        let run_id = workspace.post("/api/2.2/jobs/run-now", start.clone()).await["run_id"]
            .as_i64()
            .unwrap();
        let run = workspace.end(run_id).await;
        assert_eq!(
            run["overriding_parameters"],
            json!({"notebook_params": {"a": "b"}})
        );
        codes.push(
            run["status"]["termination_details"]["code"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    assert_eq!(codes, ["DRIVER_ERROR", "SUCCESS"]);
    workspace.stop().await;
}

#[tokio::test]
async fn a_run_that_is_deleted_at_its_end_is_known_by_nothing_but_its_token() {
    let workspace = Workspace::start().await;
    let choices = json!({"sandbox.duration_ms": 0, "sandbox.outcome": "DELETED"});
    let mut body = one(&choices);
    body["idempotency_token"] = "k".into();
    let run_id = workspace.submit(body.clone()).await;
    let path = format!("/api/2.2/jobs/runs/get?run_id={run_id}");
    let (_, _, gone) = workspace.refused(Method::GET, &path, Value::Null).await;
    assert_eq!(gone, format!("Run {run_id} does not exist."));
    let submit = "/api/2.2/jobs/runs/submit";
    let (_, _, spent) = workspace.refused(Method::POST, submit, body).await;
    assert!(spent.contains("has been deleted"), "{spent}");
    assert_eq!(workspace.stats().await["deleted"], 1);
    workspace.stop().await;
}

#[tokio::test]
async fn a_strange_reply_is_the_same_in_words_that_nobody_knows() {
    let workspace = Workspace::start().await;
    let run_id = workspace
        .submit(one(&json!({"sandbox.duration_ms": 0})))
        .await;
    workspace
        .rule(json!({"call": "runs/get", "strange": true, "times": 1}))
        .await;
    let strange = workspace.run(run_id).await;
    assert_eq!(strange["run_id"], run_id);
    assert_eq!(strange["state"]["life_cycle_state"], "PONDERING");
    assert_eq!(strange["tasks"][0]["status"]["state"], "PONDERING");
    assert!(strange["tasks"][0]["sandbox_news"].is_array(), "{strange}");
    let plain = workspace.run(run_id).await;
    assert_eq!(plain["status"]["state"], "TERMINATED");
    assert!(plain.get("sandbox_news").is_none(), "{plain}");
    workspace.stop().await;
}
