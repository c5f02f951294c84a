//! What passes and what does not.

mod anything;
mod astray;
mod rules;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sparkferry_shared::{Request, decode};

use super::{Breach, judge};
use crate::config::{Jobs, PolicySettings};

#[expect(clippy::unnecessary_wraps, reason = "rules are optional")]
fn set(entries: &[&str]) -> Option<BTreeSet<String>> {
    Some(entries.iter().map(|entry| (*entry).to_owned()).collect())
}

/// Every rule is on.
fn strict() -> PolicySettings {
    let tags = [("team", "etl"), ("owner", "*")];
    PolicySettings {
        jobs: Some(Jobs {
            ids: [42].into(),
            names: ["nightly".to_owned()].into(),
        }),
        task_kinds: set(&[
            "notebook_task",
            "spark_python_task",
            "sql_task",
            "dbt_task",
            "for_each_task",
            "run_job_task",
            "spark_submit_task",
        ]),
        run_as: set(&["robot"]),
        existing_clusters: set(&["c-1"]),
        serverless: Some(false),
        node_types: set(&["small", "large"]),
        max_workers: Some(8),
        max_autotermination_minutes: Some(30),
        tags: Some(tags.map(|(name, value)| (name.into(), value.into())).into()),
        spot_only: true,
        max_timeout_seconds: Some(3600),
        git_hosts: set(&["git.example"]),
        spark_confs: set(&["spark.sql.*", "spark.speculation"]),
        ..PolicySettings::default()
    }
}

/// A cluster within [`strict`].
fn cluster() -> Value {
    json!({
        "spark_version": "15.4.x-scala2.12", "node_type_id": "small", "num_workers": 8,
        "autotermination_minutes": 30, "custom_tags": {"team": "etl", "owner": "me"},
        "azure_attributes": {"availability": "SPOT_AZURE", "first_on_demand": 1},
    })
}

/// The request with this body, as it comes from a queue.
fn request(body: &str) -> Request {
    match decode(body.as_bytes(), Some("x"), None, 1 << 20) {
        Ok(request) => request,
        Err(error) => panic!("{error:?}: {body}"),
    }
}

fn judged(policy: &PolicySettings, body: &Value) -> Result<(), Breach> {
    judge(policy, &request(&body.to_string()), false)
}

/// The request is outside the policy by this rule (none: it can't be judged), in this field.
#[track_caller]
fn outside(policy: &PolicySettings, body: &Value, rule: Option<&str>, field: &str) {
    let breach = judged(policy, body).expect_err(&body.to_string());
    assert_eq!((breach.rule, &*breach.field), (rule, field), "{breach}");
}
