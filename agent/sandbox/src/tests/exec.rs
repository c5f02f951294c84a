//! Real programs.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{Workspace, options};

fn script(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn python(workspace: &Workspace, file: &str, parameters: Value) -> i64 {
    let task = json!({"task_key": "main", "spark_python_task": {"python_file": file, "parameters": parameters}});
    workspace
        .submit(json!({"run_name": "p", "tasks": [task]}))
        .await
}

#[tokio::test]
async fn a_program_gets_its_arguments_and_its_output_comes_back() {
    let workspace = Workspace::with(options(true)).await;
    let folder = tempfile::tempdir().unwrap();
    let text = "import sys\nprint('out', *sys.argv[1:])\nprint('err', file=sys.stderr)\n";
    let file = script(folder.path(), "ok.py", text);
    let run_id = python(
        &workspace,
        &format!("file:{file}"),
        json!(["a", "b c", "--sandbox.setup_ms=1"]),
    )
    .await;
    let run = workspace.end(run_id).await;
    assert_eq!(run["state"]["result_state"], "SUCCESS", "{run}");
    let output = workspace.output(&run, 0).await;
    // Two pipes: the order between them is not certain.
    let mut lines: Vec<&str> = output["logs"].as_str().unwrap().lines().collect();
    lines.sort_unstable();
    assert_eq!(
        (lines, &output["logs_truncated"]),
        (vec!["err", "out a b c"], &false.into())
    );
    workspace.stop().await;
}

#[tokio::test]
async fn a_program_that_raises_shows_its_traceback_and_the_trap() {
    let workspace = Workspace::with(options(true)).await;
    let folder = tempfile::tempdir().unwrap();
    let file = script(
        folder.path(),
        "bad.py",
        "def f():\n    raise ValueError('boom')\nf()\n",
    );
    let run = workspace
        .end(python(&workspace, &file, json!([])).await)
        .await;
    assert_eq!(run["state"]["life_cycle_state"], "INTERNAL_ERROR");
    assert_eq!(run["tasks"][0]["state"]["life_cycle_state"], "TERMINATED");
    assert_eq!(
        run["status"]["termination_details"]["code"],
        "RUN_EXECUTION_ERROR"
    );
    let output = workspace.output(&run, 0).await;
    assert_eq!(output["error"], "ValueError: boom");
    let trace = output["error_trace"].as_str().unwrap();
    assert!(
        trace.starts_with("Traceback") && trace.contains("bad.py") && trace.ends_with("boom"),
        "{trace}"
    );

    let file = script(folder.path(), "exit.py", "raise SystemExit(3)\n");
    let run = workspace
        .end(python(&workspace, &file, json!([])).await)
        .await;
    assert_eq!(
        workspace.output(&run, 0).await["error"],
        "The program ended with exit status: 3."
    );

    let run = workspace
        .end(python(&workspace, "dbfs:/no/such.py", json!([])).await)
        .await;
    assert_eq!(
        run["status"]["termination_details"]["code"],
        "RESOURCE_NOT_FOUND"
    );
    let error = workspace.output(&run, 0).await["error"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        error.contains("dbfs:/no/such.py") && error.contains("local"),
        "{error}"
    );
    workspace.stop().await;
}

/// Writes its process id, and then works for a long time.
const LONG: &str = "import os, sys, time\n\
    with open(sys.argv[1] + '.new', 'w') as f: f.write(str(os.getpid()))\n\
    os.rename(sys.argv[1] + '.new', sys.argv[1])\n\
    time.sleep(600)\n";

async fn process_of(mark: &Path) -> String {
    loop {
        if let Ok(id) = tokio::fs::read_to_string(mark).await {
            return id;
        }
        tokio::task::yield_now().await;
    }
}

async fn gone(process: &str) {
    let path = format!("/proc/{process}");
    while tokio::fs::metadata(&path).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn cancelling_and_time_limits_kill_the_program() {
    let workspace = Workspace::with(options(true)).await;
    let folder = tempfile::tempdir().unwrap();
    let file = script(folder.path(), "long.py", LONG);
    let mark = folder.path().join("cancelled");
    let run_id = python(&workspace, &file, json!([mark.to_str()])).await;
    let process = process_of(&mark).await;
    workspace
        .post("/api/2.2/jobs/runs/cancel", json!({"run_id": run_id}))
        .await;
    gone(&process).await;
    assert_eq!(
        workspace.end(run_id).await["state"]["result_state"],
        "CANCELED"
    );

    let mark = folder.path().join("late");
    let run_id = workspace
        .submit(json!({"timeout_seconds": 1, "spark_python_task": {"python_file": file, "parameters": [mark.to_str()]}}))
        .await;
    let process = process_of(&mark).await;
    gone(&process).await;
    assert_eq!(
        workspace.end(run_id).await["state"]["result_state"],
        "TIMEDOUT"
    );

    let mark = folder.path().join("stopped");
    python(&workspace, &file, json!([mark.to_str()])).await;
    let process = process_of(&mark).await;
    workspace.stop().await;
    gone(&process).await;
}

#[tokio::test]
async fn programs_follow_their_dependencies_and_only_so_many_run_at_once() {
    let workspace = Workspace::with(options(true)).await;
    let folder = tempfile::tempdir().unwrap();
    let file = script(
        folder.path(),
        "append.py",
        "import sys\nopen(sys.argv[1], 'a').write(sys.argv[2])\n",
    );
    let written = folder.path().join("written");
    let task = |key: &str, upstream: Value| {
        json!({"task_key": key, "depends_on": upstream,
            "spark_python_task": {"python_file": file, "parameters": [written.to_str(), key]}})
    };
    let run_id = workspace
        .submit(json!({"tasks": [
            task("c", json!([{"task_key": "pretended"}])),
            {"task_key": "pretended", "depends_on": [{"task_key": "b"}], "notebook_task": {"notebook_path": "/n"}},
            task("b", json!([{"task_key": "a"}])),
            task("a", json!([])),
        ]}))
        .await;
    let run = workspace.end(run_id).await;
    assert_eq!(run["state"]["result_state"], "SUCCESS", "{run}");
    assert_eq!(fs::read_to_string(&written).unwrap(), "abc");

    let long = script(folder.path(), "long.py", LONG);
    let mark = |n: i64| {
        folder
            .path()
            .join(n.to_string())
            .to_str()
            .unwrap()
            .to_owned()
    };
    let mut runs = Vec::new();
    for n in 0..9 {
        runs.push(python(&workspace, &long, json!([mark(n)])).await);
    }
    for (n, run_id) in runs.iter().take(8).enumerate() {
        process_of(Path::new(&mark(n.try_into().unwrap()))).await;
        let run = workspace.run(*run_id).await;
        assert_eq!(run["state"]["life_cycle_state"], "RUNNING");
    }
    assert_eq!(
        workspace.run(runs[8]).await["state"]["life_cycle_state"],
        "PENDING"
    );
    workspace
        .post("/api/2.2/jobs/runs/cancel", json!({"run_id": runs[0]}))
        .await;
    process_of(Path::new(&mark(8))).await;
    workspace.stop().await;
}
