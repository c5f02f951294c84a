//! From a request's work to what is sent: plans, settings and files, all checked before any call.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use prost::Message;
use spark_connect_proto::add_artifacts_request::{ArtifactChunk, SingleChunkArtifact};
use spark_connect_proto::{Expression, KeyValue, Plan, Relation, Sql, plan, relation};
use sparkferry_ports::engine::Fault;
use sparkferry_shared::request::{Artifact, Step};
use sparkferry_shared::{ErrorClass, RunError, Work};

use super::literal::literal;

/// What an attempt sends.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// A serialized `Plan` for each step.
    pub(super) plans: Vec<Bytes>,
    /// Settings of the session.
    pub(super) conf: Vec<KeyValue>,
    /// Files of the session.
    pub(super) artifacts: Vec<SingleChunkArtifact>,
    /// Rows of each step that come back.
    pub(super) row_limit: u64,
}

/// # Errors
/// A refusal that names the field at fault.
pub(super) fn prepare(work: &Work) -> Result<Prepared, Fault> {
    let work = match work {
        Work::SparkConnect(work) => work,
        Work::RunNow(_) => return Err(elsewhere("run_now")),
        Work::SubmitRun(_) => return Err(elsewhere("submit_run")),
    };
    let mut prepared = Prepared {
        row_limit: work.row_limit,
        ..Prepared::default()
    };
    for (index, step) in work.steps.iter().enumerate() {
        prepared.plans.push(plan_of(index, step)?);
    }
    for (index, artifact) in work.artifacts.iter().enumerate() {
        prepared.artifacts.push(artifact_of(index, artifact)?);
    }
    let pair = |(key, value): (&String, &String)| KeyValue {
        key: key.clone(),
        value: Some(value.clone()),
    };
    prepared.conf = work.conf.iter().map(pair).collect();
    Ok(prepared)
}

/// SQL is sent as a relation, not as a command: one operation runs it and answers with its rows,
/// queries, DDL and DML alike. The command that exists for SQL answers a query with another plan,
/// which would need a second operation.
fn plan_of(index: usize, step: &Step) -> Result<Bytes, Fault> {
    let at = |field: &str| format!("spark_connect.steps[{index}].{field}");
    if let Some(plan) = &step.plan {
        return decoded(&at("plan"), plan);
    }
    let mut named_arguments: HashMap<String, Expression> = HashMap::new();
    for (name, value) in &step.args {
        let literal = literal(value).map_err(|why| refused(&at(&format!("args.{name}")), why))?;
        named_arguments.insert(name.clone(), literal);
    }
    let sql = Sql {
        query: step.sql.clone().unwrap_or_default(),
        named_arguments,
        ..Sql::default()
    };
    let plan = Plan {
        op_type: Some(plan::OpType::Root(Relation {
            common: None,
            rel_type: Some(relation::RelType::Sql(sql)),
        })),
    };
    Ok(plan.encode_to_vec().into())
}

fn artifact_of(index: usize, artifact: &Artifact) -> Result<SingleChunkArtifact, Fault> {
    let data = decoded(
        &format!("spark_connect.artifacts[{index}].data"),
        &artifact.data,
    )?;
    Ok(SingleChunkArtifact {
        name: artifact.name.clone(),
        data: Some(ArtifactChunk {
            crc: i64::from(crc32fast::hash(&data)),
            data,
        }),
    })
}

fn decoded(field: &str, text: &str) -> Result<Bytes, Fault> {
    let text = text.trim_end();
    let padded = STANDARD.decode(text);
    padded
        .or_else(|error| STANDARD_NO_PAD.decode(text).map_err(|_| error))
        .map(Bytes::from)
        .map_err(|error| refused(field, &format!("is no base64: {error}")))
}

fn elsewhere(kind: &str) -> Fault {
    refused(
        kind,
        "this connection is a Spark Connect server, which takes spark_connect; \
         send it to a connection of type \"databricks\"",
    )
}

fn refused(field: &str, why: &str) -> Fault {
    let message = format!("{field}: {why}");
    Fault::Refused(Box::new(RunError::new(ErrorClass::Request, message)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sparkferry_shared::{Body, SparkConnect};

    use super::*;

    fn work(value: Value) -> Work {
        Work::SparkConnect(serde_json::from_value::<SparkConnect>(value).unwrap())
    }

    #[test]
    fn a_plan_is_not_looked_into() {
        let bytes = [0xff, 0, 1];
        let text = STANDARD.encode(bytes);
        let prepared = prepare(&work(json!({"steps": [{"plan": text}]}))).unwrap();
        assert_eq!(prepared.plans, [Bytes::copy_from_slice(&bytes)]);
    }

    #[test]
    fn a_statement_is_a_relation_with_its_arguments() {
        let step = json!({"sql": "SELECT :n", "args": {"n": 3}});
        let prepared = prepare(&work(json!({"steps": [step]}))).unwrap();
        let plan = Plan::decode(&*prepared.plans[0]).unwrap();
        let Some(plan::OpType::Root(relation)) = plan.op_type else {
            panic!("{plan:?}");
        };
        let Some(relation::RelType::Sql(sql)) = relation.rel_type else {
            panic!("{relation:?}");
        };
        assert_eq!(sql.query, "SELECT :n");
        assert_eq!(sql.named_arguments["n"], literal(&json!(3)).unwrap());
    }

    #[test]
    fn the_field_at_fault_is_named() {
        let run_now = Work::RunNow(serde_json::from_str::<Body>("{}").unwrap());
        for (work, field) in [
            (run_now, "run_now: "),
            (
                work(json!({"steps": [{"sql": "a"}, {"plan": "%"}]})),
                "spark_connect.steps[1].plan: ",
            ),
            (
                work(json!({"steps": [{"sql": "a", "args": {"x": []}}]})),
                "spark_connect.steps[0].args.x: ",
            ),
            (
                work(
                    json!({"steps": [{"sql": "a"}], "artifacts": [{"name": "pyfiles/x.py", "data": "%"}]}),
                ),
                "spark_connect.artifacts[0].data: ",
            ),
        ] {
            match prepare(&work) {
                Err(Fault::Refused(error)) => {
                    assert_eq!(error.class, ErrorClass::Request);
                    assert!(error.message.starts_with(field), "{error:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
