//! What a server says when it can't answer as it should, and what that means for the run.
//!
//! On Sail, behind a gate that says it in the server's place: Apache Spark says these things too,
//! but not on command. What it can be brought to say is told in `adoption` and `lost`.

use std::collections::HashMap;

use prost::Message;
use spark_connect_proto::get_status_response::OperationStatus;
use spark_connect_proto::get_status_response::operation_status::OperationState;
use spark_connect_proto::{GetStatusResponse, InterruptResponse};
use sparkferry_ports::engine::{CLOSED, Ended, Unknown};
use sparkferry_shared::{ErrorClass, RunError};
use tonic::{Code, Status};

use super::asked::{Asked, end, output};
use super::conformance::engine_at;
use super::gate::Gate;
use super::servers::SparkServer;

/// The details of a status, as gRPC has them.
#[derive(Clone, PartialEq, Message)]
struct Details {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(map = "string, string", tag = "3")]
    metadata: HashMap<String, String>,
}

/// As Apache Spark sends an error of this class.
fn spark(class: &str) -> Status {
    let info = ErrorInfo {
        reason: "org.apache.spark.SparkSQLException".to_owned(),
        metadata: HashMap::from([("errorClass".to_owned(), class.to_owned())]),
    };
    let details = Details {
        details: vec![Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
            value: info.encode_to_vec(),
        }],
    };
    let message = format!("[{class}] as it is");
    Status::with_details(Code::Internal, message, details.encode_to_vec().into())
}

fn state(state: OperationState) -> GetStatusResponse {
    GetStatusResponse {
        operation_statuses: vec![OperationStatus {
            state: state.into(),
            ..OperationStatus::default()
        }],
        ..GetStatusResponse::default()
    }
}

/// The only step of a request.
fn one() -> Asked {
    Asked::new(&["SELECT 7 AS n".to_owned()])
}

/// A run whose stream breaks off before the first answer, and then the server says this.
async fn run_that_hears(gate: &Gate, status: &Status) -> Ended {
    gate.fail("ExecutePlan", 1, &Status::unavailable("it breaks off"));
    gate.fail("ReattachExecute", 1, status);
    let mut begun = one().begin(&*engine_at(gate.address())).await;
    end(&mut *begun.run).await
}

#[tokio::test]
async fn each_way_to_forget_a_run_has_its_own_answer() {
    let server = SparkServer::sail().await;
    let gate = Gate::before(server.address()).await;
    for (class, words, code) in [
        (
            "INVALID_HANDLE.SESSION_CLOSED",
            "has closed its session",
            Some(CLOSED),
        ),
        (
            "INVALID_HANDLE.SESSION_NOT_FOUND",
            "knows no such session",
            None,
        ),
        (
            "INVALID_HANDLE.SESSION_CHANGED",
            "was restarted meanwhile",
            None,
        ),
        ("INVALID_HANDLE.OPERATION_ABANDONED", "gave it up", None),
        (
            "INVALID_CURSOR.POSITION_NOT_AVAILABLE",
            "were read before",
            None,
        ),
    ] {
        gate.anew();
        let ended = run_that_hears(&gate, &spark(class)).await;
        let Ended::Lost(failure) = ended else {
            panic!("{class}: {ended:?}");
        };
        assert_eq!(failure.error.class, ErrorClass::Lost);
        assert_eq!(failure.error.code.as_deref(), code, "{class}");
        let message = &failure.error.message;
        assert!(message.contains(words), "{class}: {message}");
        assert_eq!(gate.calls("ExecutePlan"), 1, "{class}");
    }
}

#[tokio::test]
async fn a_state_outlives_the_answers() {
    let server = SparkServer::sail().await;
    let gate = Gate::before(server.address()).await;
    let abandoned = spark("INVALID_HANDLE.OPERATION_ABANDONED");

    gate.answer("GetStatus", 1, &state(OperationState::Succeeded));
    gate.fail("ExecutePlan", 1, &Status::unavailable("it breaks off"));
    gate.fail("ReattachExecute", 1, &abandoned);
    let mut begun = one().begin(&*engine_at(gate.address())).await;
    assert_eq!(end(&mut *begun.run).await, Ended::Success);
    let output = output(&mut *begun.run).await;
    assert!(output["steps"][0]["unavailable"].is_string(), "{output}");

    gate.anew();
    gate.answer("GetStatus", 1, &state(OperationState::Failed));
    let ended = run_that_hears(&gate, &abandoned).await;
    assert!(matches!(ended, Ended::Failed(_)), "{ended:?}");

    // Nobody asked for it: that is no CANCELED.
    gate.anew();
    gate.answer("GetStatus", 1, &state(OperationState::Cancelled));
    let ended = run_that_hears(&gate, &abandoned).await;
    let Ended::Lost(failure) = ended else {
        panic!("{ended:?}");
    };
    let message = failure.error.message;
    assert!(message.contains("cancelled it unasked"), "{message}");
}

/// What a JVM says that has no memory left, and what answers in its place: said twice about the
/// same operation it is the operation's own, unless the server knows better.
#[tokio::test]
async fn an_unclear_error_is_believed_the_second_time_unless_the_state_says_otherwise() {
    let server = SparkServer::sail().await;
    let gate = Gate::before(server.address()).await;
    let unclear = Status::unknown("java.lang.OutOfMemoryError: Java heap space");
    for (known, asked) in [(Some(OperationState::Failed), 1), (None, 1)] {
        gate.anew();
        if let Some(known) = known {
            gate.answer("GetStatus", 1, &state(known));
        }
        gate.fail("ExecutePlan", 1, &unclear);
        gate.fail("ReattachExecute", 1, &unclear);
        let mut begun = one().begin(&*engine_at(gate.address())).await;
        let ended = end(&mut *begun.run).await;
        let Ended::Failed(failure) = ended else {
            panic!("{known:?}: {ended:?}");
        };
        assert_eq!(failure.error.class, ErrorClass::Infrastructure);
        assert!(failure.error.message.contains("OutOfMemoryError"));
        assert_eq!(gate.calls("GetStatus"), asked);
    }

    // It goes on: the error was the call's, not the operation's.
    gate.anew();
    gate.answer("GetStatus", 1, &state(OperationState::Running));
    gate.fail("ExecutePlan", 1, &unclear);
    gate.fail("ReattachExecute", 1, &unclear);
    let mut begun = one().begin(&*engine_at(gate.address())).await;
    assert_eq!(end(&mut *begun.run).await, Ended::Success);
    assert_eq!(gate.calls("GetStatus"), 1);

    // Once is not enough.
    gate.anew();
    gate.fail("ExecutePlan", 1, &unclear);
    let mut begun = one().begin(&*engine_at(gate.address())).await;
    assert_eq!(end(&mut *begun.run).await, Ended::Success);
    assert_eq!(gate.calls("GetStatus"), 0);
}

/// No operation begins or is found again: the server is out of reach for these calls.
fn keep_away(gate: &Gate) {
    let away = Status::unavailable("out of reach");
    gate.fail("ExecutePlan", 1, &away);
    for number in 1..100 {
        gate.fail("ReattachExecute", number, &away);
    }
}

/// The plan never arrived, and is not sent again once somebody wants it to stop.
#[tokio::test]
async fn a_cancel_before_the_operation_arrived_begins_nothing() {
    let server = SparkServer::sail().await;
    let gate = Gate::before(server.address()).await;
    keep_away(&gate);
    let mut begun = one().begin(&*engine_at(gate.address())).await;
    let fault = begun.run.cancel().await.expect_err("there is nothing yet");
    assert!(fault.to_string().contains("not there yet"), "{fault}");
    gate.anew();
    let ended = end(&mut *begun.run).await;
    let Ended::Canceled(failure) = ended else {
        panic!("{ended:?}");
    };
    assert_eq!(failure.error.class, ErrorClass::Canceled);
    assert_eq!(gate.calls("ExecutePlan"), 0);
}

/// The server said that it interrupted it, and forgot it: that is no loss. Where it only was to be
/// interrupted, it is one.
#[tokio::test]
async fn what_was_interrupted_is_cancelled_where_the_server_tells_no_states() {
    let server = SparkServer::sail().await;
    for interrupted in [true, false] {
        let gate = Gate::before(server.address()).await;
        keep_away(&gate);
        let mut begun = one().begin(&*engine_at(gate.address())).await;
        let answer = InterruptResponse {
            interrupted_ids: vec!["its own".to_owned(); usize::from(interrupted)],
            ..InterruptResponse::default()
        };
        gate.answer("Interrupt", 1, &answer);
        assert_eq!(begun.run.cancel().await.is_ok(), interrupted);
        let gone = spark("INVALID_HANDLE.OPERATION_ABANDONED");
        for number in 1..100 {
            gate.fail("ReattachExecute", number, &gone);
        }
        let ended = end(&mut *begun.run).await;
        let cancelled = matches!(ended, Ended::Canceled(_));
        assert_eq!(cancelled, interrupted, "{ended:?}");
        assert!(cancelled || matches!(ended, Ended::Lost(_)), "{ended:?}");
    }
}

/// A cluster that never came up, or a server that was restarted: the session of the first attempt
/// would remember nothing. The second writes down how it ended before it begins.
#[tokio::test]
async fn an_attempt_without_a_session_is_over_for_whoever_walks_again() {
    let server = SparkServer::sail().await;
    let gate = Gate::before(server.address()).await;
    for class in [ErrorClass::Infrastructure, ErrorClass::Lost] {
        gate.anew();
        let first = one();
        let error = RunError::new(class, "it was not ready");
        let second = first.next(error.clone());
        let third = second.next(error.clone());
        let mut begun = third.begin(&*engine_at(gate.address())).await;
        assert_eq!(end(&mut *begun.run).await, Ended::Success);
        for asked in [&first, &second] {
            for unknown in [Unknown::Lost, Unknown::Start] {
                let engine = engine_at(gate.address());
                let found = asked.try_attach(&*engine, true, unknown).await;
                let mut found = found.expect("it is there");
                let (Ended::Failed(failure) | Ended::Lost(failure)) = end(&mut *found.run).await
                else {
                    panic!("it was {class:?}");
                };
                assert_eq!(failure.error, error);
                assert!(found.run.facts().ended_at.is_some());
            }
        }
        assert_eq!(gate.calls("ExecutePlan"), 1);
    }
}
