//! The requests of the demo, and what has to come of each.

use std::path::Path;

use serde_json::{Value, json};
use sparkferry_shared::{Id, Outcome};

use super::stage::{CONNECTION, SPARK};

/// The name of the job that the demo creates.
pub(super) const JOB: &str = "nightly";
/// The request whose first reply gets lost, which is also the name of its run.
pub(super) const LOST_REPLY: &str = "lost-reply";
/// The request that is cancelled once it has begun.
pub(super) const CANCELLED: &str = "cancelled";

/// A real program that succeeds.
const WORDS: &str = "\
import sys

words = sys.argv[1:]
print(f\"{len(words)} words, {sum(map(len, words))} letters\")
";

/// A real program with a mistake.
const MISTAKE: &str = "\
orders = {\"2026-11-21\": 42}

def rows(day):
    return orders[day]

print(rows(\"2026-11-22\"))
";

/// A request and what has to come of it.
pub(super) struct Case {
    /// The request's id.
    pub(super) id: Id,
    /// Where it runs.
    pub(super) connection: &'static str,
    /// What it shows, for a person.
    pub(super) shows: &'static str,
    /// The request.
    pub(super) body: Value,
    /// How it has to end.
    pub(super) outcome: Outcome,
    /// Attempts that its result has to tell of: as many runs have to be started.
    pub(super) attempts: usize,
    /// A text that the result's traces or outputs have to contain, where a real program ran.
    pub(super) tells: Option<&'static str>,
}

/// The job that `run_now` names, for jobs/create.
pub(super) fn job() -> Value {
    json!({
        "name": JOB,
        "parameters": [{"name": "day", "default": "today"}],
        "tasks": [{"task_key": "load", "notebook_task": {
            "notebook_path": "/demo/nightly",
            "base_parameters": {"sandbox.duration_ms": "1500", "sandbox.output": "42 rows"},
        }}],
    })
}

/// The rule of the sandbox by which the first reply to one request gets lost.
pub(super) fn rule() -> Value {
    json!({"call": "runs/submit", "run_name": LOST_REPLY, "lose_reply": true, "times": 1})
}

/// The files that the demo has run: their names, and what stands in them.
pub(super) fn files() -> [(&'static str, &'static str); 2] {
    [("words.py", WORDS), ("mistake.py", MISTAKE)]
}

/// The requests, with their files in `folder`. Without python3 the sandbox pretends their runs.
pub(super) fn all(folder: &Path, python: bool) -> Vec<Case> {
    let really = |text: &'static str| python.then_some(text);
    let mut mistake = python_task(folder, "mistake.py", &[]);
    if !python {
        mistake["parameters"] = json!(["--sandbox.outcome=FAILED"]);
    }
    vec![
        case(
            "job-by-name",
            "a job by its name, with parameters",
            json!({"run_now": {"job_name": JOB, "job_parameters": {"day": "2026-11-21"}}}),
        ),
        Case {
            tells: really("3 words, 18 letters"),
            ..case(
                "python-file",
                "a Python file",
                submit(
                    "python-file",
                    &json!([{"task_key": "count", "spark_python_task":
                        python_task(folder, "words.py", &["orders", "clicks", "visits"])}]),
                ),
            )
        },
        case(
            "three-tasks",
            "three tasks, one after the other",
            submit(
                "three-tasks",
                &json!([
                    notebook("extract", &[], &json!({"sandbox.duration_ms": "1200"})),
                    notebook(
                        "join",
                        &["extract"],
                        &json!({"sandbox.duration_ms": "1200"})
                    ),
                    notebook("report", &["join"], &json!({"sandbox.duration_ms": "1200"})),
                ]),
            ),
        ),
        Case {
            outcome: Outcome::Failed,
            tells: really("KeyError: '2026-11-22'"),
            ..case(
                "user-error",
                "a mistake in the program: no retry, and its trace",
                submit(
                    "user-error",
                    &json!([{"task_key": "main", "spark_python_task": mistake}]),
                ),
            )
        },
        Case {
            attempts: 2,
            ..case(
                "cluster-failure",
                "a cluster that fails, and a retry",
                submit(
                    "cluster-failure",
                    &json!([notebook(
                        "main",
                        &[],
                        &json!({
                            "sandbox.duration_ms": "800",
                            "sandbox.outcomes": "CLUSTER_ERROR,SUCCESS",
                        })
                    )]),
                ),
            )
        },
        case(
            LOST_REPLY,
            "the reply to the start gets lost: one run all the same",
            submit(
                LOST_REPLY,
                &json!([notebook(
                    "main",
                    &[],
                    &json!({"sandbox.duration_ms": "800"})
                )]),
            ),
        ),
        Case {
            outcome: Outcome::Canceled,
            ..case(
                CANCELLED,
                "a run of ten minutes, cancelled",
                submit(
                    CANCELLED,
                    &json!([notebook(
                        "main",
                        &[],
                        &json!({"sandbox.duration_ms": "600000"})
                    )]),
                ),
            )
        },
        Case {
            outcome: Outcome::Rejected,
            attempts: 0,
            tells: Some("max_retrys"),
            ..case(
                "bad-request",
                "a request with a field that is not known",
                json!({"run_now": {"job_name": JOB}, "max_retrys": 3}),
            )
        },
    ]
}

/// The requests for a Spark Connect server. They leave nothing behind there.
pub(super) fn on_spark() -> Vec<Case> {
    let steps = |statements: &[&str]| {
        let steps: Vec<Value> = statements.iter().map(|sql| json!({"sql": sql})).collect();
        json!({"spark_connect": {"steps": steps}})
    };
    vec![
        Case {
            connection: SPARK,
            tells: Some(r#"[["DK","61.50"],["SE","20.00"]]"#),
            ..case(
                "spark-steps",
                "two statements in one session, and their rows",
                steps(&[
                    "CREATE TEMPORARY VIEW orders AS SELECT * FROM VALUES \
                     ('DK', 42.00), ('SE', 20.00), ('DK', 19.50) AS orders (country, amount)",
                    "SELECT country, CAST(SUM(amount) AS decimal(9, 2)) AS total FROM orders \
                     GROUP BY country ORDER BY country",
                ]),
            )
        },
        Case {
            connection: SPARK,
            outcome: Outcome::Failed,
            tells: Some("nowhere"),
            ..case(
                "spark-error",
                "a table that is not there: no retry",
                steps(&["SELECT * FROM nowhere"]),
            )
        },
    ]
}

/// A request that one run carries out; every one may be retried, so that none is without need.
fn case(id: &str, shows: &'static str, mut body: Value) -> Case {
    body["id"] = id.into();
    if body.get("max_retrys").is_none() {
        body["max_retries"] = 2.into();
        body["min_retry_interval_millis"] = 500.into();
    }
    Case {
        id: id.parse().expect("the ids above are ids"),
        connection: CONNECTION,
        shows,
        body,
        outcome: Outcome::Success,
        attempts: 1,
        tells: None,
    }
}

fn submit(run_name: &str, tasks: &Value) -> Value {
    json!({"submit_run": {"run_name": run_name, "tasks": tasks}})
}

fn notebook(task_key: &str, after: &[&str], parameters: &Value) -> Value {
    let after: Vec<Value> = after.iter().map(|key| json!({"task_key": key})).collect();
    json!({
        "task_key": task_key,
        "depends_on": after,
        "notebook_task": {
            "notebook_path": format!("/demo/{task_key}"),
            "base_parameters": parameters,
        },
    })
}

fn python_task(folder: &Path, file: &str, parameters: &[&str]) -> Value {
    json!({"python_file": folder.join(file), "parameters": parameters})
}
