//! Statuses as Spark and Sail send them.

use std::collections::HashMap;

use prost::Message;
use spark_connect_proto::fetch_error_details_response::{Error, SparkThrowable, StackTraceElement};
use spark_connect_proto::spark_connect_service_client::SparkConnectServiceClient;
use spark_connect_proto::{FetchErrorDetailsResponse, ReleaseSessionRequest};
use sparkferry_shared::ErrorClass;
use tonic::{Code, Status};

use super::details::{Any, Delay, ErrorInfo, RetryInfo, RpcStatus};
use super::{Said, error_id, explain, read};

const PLACE: &str = "ExecutePlan at 127.0.0.1:15002";

fn packed(type_name: &str, message: &impl Message) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{type_name}"),
        value: message.encode_to_vec(),
    }
}

fn status(code: Code, message: &str, details: Vec<Any>) -> Status {
    let details = RpcStatus {
        code: 13,
        message: message.to_owned(),
        details,
    };
    Status::with_details(code, message, details.encode_to_vec().into())
}

/// As Spark sends an exception.
fn spark(message: &str, reason: &str, metadata: &[(&str, &str)]) -> Status {
    let info = ErrorInfo {
        reason: reason.to_owned(),
        domain: "org.apache.spark".to_owned(),
        metadata: metadata
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<HashMap<_, _>>(),
    };
    status(
        Code::Internal,
        message,
        vec![packed("google.rpc.ErrorInfo", &info)],
    )
}

fn of_class(class: &str) -> Status {
    spark(
        &format!("[{class}] ..."),
        "org.apache.spark.SparkSQLException",
        &[("errorClass", class)],
    )
}

fn failed(status: &Status) -> sparkferry_shared::RunError {
    match read(status, PLACE) {
        Said::Failed(error) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_an_operation_or_a_session_has_become() {
    for (class, said) in [
        ("INVALID_CURSOR.DISCONNECTED", Said::Disconnected),
        ("INVALID_CURSOR.POSITION_NOT_AVAILABLE", Said::PositionGone),
        ("INVALID_HANDLE.SESSION_CLOSED", Said::SessionClosed),
        ("INVALID_HANDLE.SESSION_NOT_FOUND", Said::SessionNotFound),
        ("INVALID_HANDLE.SESSION_CHANGED", Said::SessionChanged),
        (
            "INVALID_HANDLE.OPERATION_NOT_FOUND",
            Said::OperationNotFound,
        ),
        (
            "INVALID_HANDLE.OPERATION_ABANDONED",
            Said::OperationAbandoned,
        ),
        (
            "INVALID_HANDLE.OPERATION_ALREADY_EXISTS",
            Said::OperationExists,
        ),
    ] {
        assert_eq!(read(&of_class(class), PLACE), said);
    }
    for (message, said) in [
        ("operation not found: 8dd7", Said::OperationNotFound),
        (
            "invalid argument: operation not found: 8dd7",
            Said::OperationNotFound,
        ),
        (
            "task context not found for operation: 8dd7",
            Said::PositionGone,
        ),
        (
            "invalid argument: session 231d is not running",
            Said::SessionClosed,
        ),
    ] {
        let status = spark(message, "java.lang.IllegalArgumentException", &[]);
        assert_eq!(read(&status, PLACE), said);
    }
}

#[test]
fn failures_have_their_class_code_and_sqlstate() {
    for (code, state, class) in [
        ("PARSE_SYNTAX_ERROR", "42601", ErrorClass::User),
        ("TABLE_OR_VIEW_NOT_FOUND", "42P01", ErrorClass::User),
        ("DIVIDE_BY_ZERO", "22012", ErrorClass::User),
        ("TASK_WRITE_FAILED", "58030", ErrorClass::Infrastructure),
        ("INTERNAL_ERROR", "XX000", ErrorClass::Infrastructure),
        (
            "UNABLE_TO_ACQUIRE_MEMORY",
            "53200",
            ErrorClass::Infrastructure,
        ),
    ] {
        let message = format!("[{code}] What went wrong.");
        let metadata = [("errorClass", code), ("sqlState", state)];
        let error = failed(&spark(&message, "x.SparkException", &metadata));
        assert_eq!((error.class, error.code.as_deref()), (class, Some(code)));
        assert_eq!(error.message, format!("{message} SQLSTATE: {state}"));
    }
    let message = "[DIVIDE_BY_ZERO] Division by zero. SQLSTATE: 22012\n== SQL ==";
    let error = failed(&spark(message, "", &[("sqlState", "22012")]));
    assert_eq!(error.message, message);
}

#[test]
fn a_code_is_found_where_the_details_have_none() {
    for (message, reason, code) in [
        (
            "[PYTHON_EXCEPTION] An exception was thrown: ValueError: [NOT_THIS]",
            "org.apache.spark.api.python.PythonException",
            "PYTHON_EXCEPTION",
        ),
        (
            "Table not found: [TABLE_OR_VIEW_NOT_FOUND] Table or view not found: nope",
            "org.apache.spark.sql.AnalysisException",
            "TABLE_OR_VIEW_NOT_FOUND",
        ),
        (
            "cannot [cast] [A]",
            "org.apache.spark.sql.AnalysisException",
            "AnalysisException",
        ),
    ] {
        let error = failed(&spark(message, reason, &[]));
        assert_eq!(
            (error.class, error.code.as_deref()),
            (ErrorClass::User, Some(code))
        );
        assert_eq!(error.message, message);
    }
    assert_eq!(failed(&Status::internal("")).code, None);
}

#[test]
fn a_cancel_is_no_failure() {
    let metadata = [("errorClass", "OPERATION_CANCELED"), ("sqlState", "HY008")];
    match read(&spark("[OPERATION_CANCELED] x", "", &metadata), PLACE) {
        Said::Canceled(error) => assert_eq!(error.class, ErrorClass::Canceled),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_passes_says_nothing_about_the_run() {
    let retry = RetryInfo {
        retry_delay: Some(Delay {
            seconds: 2,
            nanos: -1,
        }),
    };
    for (status, expected) in [
        (
            Status::unavailable("no"),
            (ErrorClass::Infrastructure, None),
        ),
        (
            Status::deadline_exceeded(""),
            (ErrorClass::Infrastructure, None),
        ),
        (
            Status::resource_exhausted("too many"),
            (ErrorClass::Throttled, None),
        ),
        (
            Status::internal("Cannot call methods on a stopped SparkContext.\nIt was made at:"),
            (ErrorClass::Infrastructure, None),
        ),
        (
            Status::internal("Unexpected EOF decoding stream."),
            (ErrorClass::Infrastructure, None),
        ),
        (
            Status::unknown("grpc-status header missing, mapped from HTTP status code 500"),
            (ErrorClass::Infrastructure, None),
        ),
        (
            status(
                Code::Internal,
                "again",
                vec![packed("google.rpc.RetryInfo", &retry)],
            ),
            (ErrorClass::Infrastructure, Some(2)),
        ),
        (
            Status::from_error(Box::new(std::io::Error::other("h2 protocol error"))),
            (ErrorClass::Infrastructure, None),
        ),
    ] {
        match read(&status, PLACE) {
            Said::Passing {
                message,
                class,
                retry_after,
                perhaps_done,
            } => {
                assert_eq!((class, retry_after.map(|wait| wait.as_secs())), expected);
                assert!(message.starts_with(PLACE), "{message}");
                assert_eq!(perhaps_done, class != ErrorClass::Throttled);
            }
            other => panic!("{status:?}: {other:?}"),
        }
    }
    assert!(matches!(
        read(&Status::unknown("Java heap space"), PLACE),
        Said::Unclear(_)
    ));
}

#[tokio::test]
async fn a_connection_that_is_refused_took_no_effect() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut service = SparkConnectServiceClient::new(channel.connect_lazy());
    let reply = service
        .release_session(ReleaseSessionRequest::default())
        .await;
    match read(&reply.unwrap_err(), PLACE) {
        Said::Passing {
            message,
            perhaps_done: false,
            ..
        } => {
            assert!(message.contains("refused"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_is_not_let_in_and_what_is_refused() {
    for status in [
        Status::unauthenticated("Invalid token"),
        Status::permission_denied("no"),
    ] {
        assert!(matches!(read(&status, PLACE), Said::Auth(text) if text.starts_with(PLACE)));
    }
    assert!(matches!(
        read(&Status::unimplemented("x"), PLACE),
        Said::Unimplemented(_)
    ));
    for status in [
        Status::invalid_argument("no plan"),
        Status::resource_exhausted("gRPC message exceeds maximum size 134217728: 200000000"),
    ] {
        assert_eq!(failed(&status).class, ErrorClass::Request);
    }
    // Our own decoder's limit says nothing about the statement.
    let ours = Status::out_of_range("Error, decoded message length too large: found 200000000");
    assert!(matches!(read(&ours, PLACE), Said::PositionGone));
}

#[test]
fn damaged_details_count_as_none() {
    let status = Status::with_details(Code::Internal, "[A_B] x", vec![0xff; 40].into());
    assert_eq!(failed(&status).code.as_deref(), Some("A_B"));
    assert_eq!(error_id(&status), None);
    let status = spark("x", "", &[("errorId", "8dd7")]);
    assert_eq!(error_id(&status).as_deref(), Some("8dd7"));
}

fn cause(name: &str, message: &str, state: Option<&str>, next: Option<i32>) -> Error {
    Error {
        error_type_hierarchy: vec![name.to_owned(), "java.lang.Throwable".to_owned()],
        message: message.to_owned(),
        cause_idx: next,
        spark_throwable: state.map(|state| SparkThrowable {
            error_class: Some(name.to_uppercase()),
            sql_state: Some(state.to_owned()),
            ..SparkThrowable::default()
        }),
        ..Error::default()
    }
}

#[test]
fn the_causes_are_told_and_decide_whose_fault_it_is() {
    let metadata = [("errorClass", "TASK_WRITE_FAILED"), ("sqlState", "58030")];
    let mut error = failed(&spark("[TASK_WRITE_FAILED] Task f", "x", &metadata));
    let mut divide = cause(
        "divide_by_zero",
        "[DIVIDE_BY_ZERO] Division by zero.",
        Some("22012"),
        None,
    );
    divide.stack_trace = vec![
        StackTraceElement {
            declaring_class: "org.example.Job".to_owned(),
            method_name: "run".to_owned(),
            file_name: Some("Job.scala".to_owned()),
            line_number: 7,
        };
        25
    ];
    let whole = "[TASK_WRITE_FAILED] Task failed while writing rows to file:/tmp/x.";
    let details = FetchErrorDetailsResponse {
        root_error_idx: Some(0),
        errors: vec![
            cause("task_write_failed", whole, Some("58030"), Some(1)),
            divide,
        ],
        ..FetchErrorDetailsResponse::default()
    };
    explain(&mut error, &details);
    assert_eq!(
        (error.class, error.message.as_str()),
        (ErrorClass::User, whole)
    );
    assert_eq!(error.code.as_deref(), Some("TASK_WRITE_FAILED"));
    let trace = error.trace.unwrap();
    let lines: Vec<_> = trace.lines().collect();
    assert_eq!(lines.len(), 23);
    assert_eq!(
        lines[1],
        "Caused by: divide_by_zero: [DIVIDE_BY_ZERO] Division by zero."
    );
    assert_eq!(lines[2], "\tat org.example.Job.run(Job.scala:7)");
    assert_eq!(lines[22], "\t... 5 more");
}

#[test]
fn a_chain_is_bounded_whatever_it_says() {
    let mut error = failed(&spark("x", "", &[]));
    let before = error.clone();
    explain(&mut error, &FetchErrorDetailsResponse::default());
    assert_eq!(error, before);
    let long = "ü".repeat(100_000);
    let details = FetchErrorDetailsResponse {
        root_error_idx: Some(0),
        errors: vec![cause("a", &long, None, Some(0))],
        ..FetchErrorDetailsResponse::default()
    };
    explain(&mut error, &details);
    assert!(error.message.len() <= 4096 && error.trace.unwrap().len() <= 8192);
}
