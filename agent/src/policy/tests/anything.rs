//! Bodies of every form and nesting, most of their fields within the policy, some not: they pass
//! exactly if nothing in them is outside.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::{judged, strict};

/// A value, and whether something in it is outside [`strict`].
pub(super) type Made = (Value, bool);

/// One of the good values, seldom one of the bad ones.
fn pick(good: Value, bad: Value) -> BoxedStrategy<Made> {
    let (Value::Array(good), Value::Array(bad)) = (good, bad) else {
        panic!("two lists")
    };
    let good = select(good).prop_map(|value| (value, false));
    if bad.is_empty() {
        return good.boxed();
    }
    let bad = select(bad).prop_map(|value| (value, true));
    prop_oneof![150 => good, 1 => bad].boxed()
}

fn always(value: Value) -> BoxedStrategy<Made> {
    Just((value, false)).boxed()
}

fn object(fields: Vec<(&'static str, BoxedStrategy<Made>)>) -> BoxedStrategy<Made> {
    let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    let put_together = move |made: Vec<Made>| {
        let outside = made.iter().any(|(_, outside)| *outside);
        let names = names.iter().map(|name| (*name).to_owned());
        let fields: Map<_, _> = names
            .zip(made.into_iter().map(|(value, _)| value))
            .collect();
        (Value::Object(fields), outside)
    };
    values.prop_map(put_together).boxed()
}

fn list(of: BoxedStrategy<Made>, most: usize) -> BoxedStrategy<Made> {
    prop::collection::vec(of, 1..=most)
        .prop_map(|made| {
            let outside = made.iter().any(|(_, outside)| *outside);
            let values: Vec<Value> = made.into_iter().map(|(value, _)| value).collect();
            (Value::Array(values), outside)
        })
        .boxed()
}

/// Both objects' fields in one.
fn merged(one: BoxedStrategy<Made>, other: BoxedStrategy<Made>) -> BoxedStrategy<Made> {
    (one, other)
        .prop_map(|((mut one, a), (other, b))| {
            let fields = one.as_object_mut().unwrap();
            fields.extend(other.as_object().unwrap().clone());
            (one, a || b)
        })
        .boxed()
}

fn cluster() -> BoxedStrategy<Made> {
    let flexibility =
        json!([{"alternate_node_type_ids": ["small", "huge"]}, {"alternateNodeTypeIds": ["huge"]}]);
    object(vec![
        ("spark_version", always(json!("15.4.x-scala2.12"))),
        (
            "node_type_id",
            pick(
                json!(["small", "large"]),
                json!(["huge", "Small", null, 7, ["small"]]),
            ),
        ),
        (
            "driver_node_type_id",
            pick(json!([null, "large"]), json!(["huge", true])),
        ),
        (
            "worker_node_type_flexibility",
            pick(
                json!([null, {"alternate_node_type_ids": ["small"]}]),
                flexibility,
            ),
        ),
        (
            "num_workers",
            pick(json!([0, 1, 8]), json!([9, -1, "8", 8.0, 1e30, [8]])),
        ),
        (
            "autoscale",
            pick(
                json!([null, {"min_workers": 1, "max_workers": 8}]),
                json!([{"max_workers": 9}, {"min_workers": 1}, {"max_workers": "8"}, {"max_workers": 1, "maxWorkers": 100}]),
            ),
        ),
        (
            "autotermination_minutes",
            pick(json!([1, 30]), json!([0, 31, null, "10"])),
        ),
        (
            "custom_tags",
            pick(
                json!([{"team": "etl", "owner": "me"}, {"team": "etl", "owner": "x", "more": "y"}]),
                json!([{"team": "x", "owner": "me"}, {"team": "etl"}, {"team": "etl", "owner": " "}, {"Team": "etl", "owner": "x"}, null, []]),
            ),
        ),
        (
            "azure_attributes",
            pick(
                json!([{"availability": "SPOT_AZURE"}, {"availability": "SPOT_AZURE", "first_on_demand": 1}]),
                json!([{"availability": "ON_DEMAND_AZURE"}, {"availability": "spot_azure"}, {}, {"availability": "SPOT_AZURE", "first_on_demand": 5}]),
            ),
        ),
        (
            "aws_attributes",
            pick(
                json!([null, {"availability": "SPOT"}]),
                json!([{"availability": "SPOT_WITH_FALLBACK"}, "SPOT"]),
            ),
        ),
        ("instance_pool_id", pick(json!([null]), json!(["pool"]))),
        (
            "spark_conf",
            pick(
                json!([null, {}, {"spark.sql.x": "8"}]),
                json!([{"spark.jars": "x"}, {"Spark.sql.x": "1"}, "spark.sql.x"]),
            ),
        ),
        (
            "spark_env_vars",
            pick(
                json!([null, {"PYSPARK_PYTHON": "x"}]),
                json!([{"SPARK_JAVA_OPTS": "-Dspark.jars=x"}]),
            ),
        ),
    ])
}

fn packages(entry: impl Fn(&str) -> Value) -> BoxedStrategy<Made> {
    let good = ["simplejson==3.8.0", "x @ git+https://git.example/x@main"].map(&entry);
    let bad = [
        "git+https://evil.example/x",
        "x @ GIT+https://evil.example/x",
        "git+ssh://git.example/x",
        "git+https://git.example@evil.example/x",
    ];
    pick(good.to_vec().into(), bad.map(&entry).to_vec().into())
}

fn task(depth: u32) -> BoxedStrategy<Made> {
    let notebook = json!({"notebook_path": "/n", "base_parameters": {"new_cluster": "x", "num_workers": "99"}});
    let kind = |name| object(vec![(name, always(notebook.clone()))]);
    let cluster = object(vec![("new_cluster", cluster())]);
    let existing = pick(json!(["c-1"]), json!(["c-2", 1]));
    let existing = object(vec![("existing_cluster_id", existing)]);
    let shared = object(vec![("job_cluster_key", always(json!("shared")))]);
    let compute = prop_oneof![cluster, existing, shared].boxed();
    let bad = |value: Value| Just((value, true)).boxed();
    let environment = bad(json!({"environment_key": "e"}));
    let serverless = bad(json!({}));
    let compute = prop_oneof![150 => compute, 1 => environment, 1 => serverless].boxed();
    let job = pick(json!([42]), json!([43, "42", 42.5, null]));
    let job = object(vec![
        ("job_id", job),
        ("job_parameters", always(json!({"job_id": "1"}))),
    ]);
    let plain = prop_oneof![
        20 => merged(kind("notebook_task"), compute.clone()),
        20 => merged(kind("spark_python_task"), compute.clone()),
        10 => merged(kind("dbt_task"), compute.clone()),
        10 => object(vec![("sql_task", always(json!({"warehouse_id": "w"})))]),
        10 => object(vec![("run_job_task", job)]),
        1 => merged(bad(json!({"spark_submit_task": {"parameters": []}})), compute.clone()),
        1 => merged(bad(json!({"spark_jar_task": {}})), compute.clone()),
        1 => bad(json!({"pipeline_task": {"pipeline_id": "p", "full_refresh": true}})),
        1 => merged(bad(json!({"quantum_task": {}})), compute),
    ];
    let libraries = packages(|text| json!([{"pypi": {"package": text}}, {"jar": "/x.jar"}]));
    let libraries = object(vec![
        ("libraries", libraries),
        ("task_key", always(json!("t"))),
    ]);
    let plain = merged(plain.boxed(), libraries);
    if depth == 0 {
        return plain;
    }
    let each = object(vec![
        ("inputs", always(json!("[1, 2]"))),
        ("task", task(depth - 1)),
    ]);
    let each = object(vec![("for_each_task", each)]);
    prop_oneof![3 => plain, 1 => each].boxed()
}

/// What stands beside the tasks.
fn surroundings() -> BoxedStrategy<Made> {
    let shared = object(vec![
        ("job_cluster_key", always(json!("shared"))),
        ("new_cluster", cluster()),
    ]);
    let spec = packages(|text| json!({"client": "1", "dependencies": [text]}));
    let environment = object(vec![
        ("environment_key", always(json!("e"))),
        ("spec", spec),
    ]);
    object(vec![
        ("run_name", always(json!("any"))),
        ("job_clusters", list(shared, 2)),
        ("environments", list(environment, 2)),
        (
            "timeout_seconds",
            pick(json!([1, 3600]), json!([0, 3601, null, "60", 60.5])),
        ),
        (
            "run_as",
            pick(
                json!([null, {"service_principal_name": "robot"}, {"user_name": null}]),
                json!([{"user_name": "admin"}, {"service_principal_name": "robot", "user_name": "admin"}, {"userName": "admin"}, "admin"]),
            ),
        ),
        (
            "git_source",
            pick(
                json!([null, {"git_url": "https://git.example/a/b", "git_branch": "main"}]),
                json!([{"git_url": "https://evil.example/a"}, {"git_branch": "main"}, {"git_url": "https://git.example/a", "gitUrl": "https://evil.example/"}]),
            ),
        ),
    ])
}

/// A `submit_run` of either form, with the fields that are null there or left out.
pub(super) fn submit_run() -> BoxedStrategy<Made> {
    let tasks = object(vec![("tasks", list(task(2), 3))]);
    let forms = prop_oneof![2 => tasks, 1 => task(1)].boxed();
    let body = (merged(surroundings(), forms), any::<bool>());
    body.prop_map(|((mut body, outside), prune)| {
        if prune {
            without_nulls(&mut body);
        }
        (body, outside)
    })
    .boxed()
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_passes_is_within_the_policy_and_what_is_within_passes((body, outside) in submit_run()) {
        let judged = judged(&strict(), &json!({"submit_run": body}));
        prop_assert_eq!(judged.is_err(), outside, "{:?}", judged);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_job_passes_exactly_if_it_is_listed(id in prop_oneof![Just(42_i64), any::<i64>()], name in "nightly|[a-zA-Z]{1,8}") {
        let by_id = json!({"run_now": {"job_id": id}, "timeout_seconds": 1});
        prop_assert_eq!(judged(&strict(), &by_id).is_ok(), id == 42);
        let by_name = json!({"run_now": {"job_name": name}, "timeout_seconds": 1});
        prop_assert_eq!(judged(&strict(), &by_name).is_ok(), name == "nightly");
    }
}
