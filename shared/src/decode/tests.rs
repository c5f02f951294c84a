//! What is read, what is refused with which field, what nobody can read.

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1024 * 1024;

fn read(text: &str) -> Result<Request, Undecodable> {
    decode(text.as_bytes(), None, Some("prod"), LIMIT)
}

fn rejection(text: &str) -> FieldFault {
    match read(text) {
        Err(Undecodable::Reject { fault, .. }) => fault,
        other => panic!("expected a rejection of {text}, got {other:?}"),
    }
}

fn burial(bytes: &[u8], message_id: Option<&str>) -> Unreadable {
    match decode(bytes, message_id, Some("prod"), LIMIT) {
        Err(Undecodable::Bury(why)) => why,
        other => panic!("expected a burial, got {other:?}"),
    }
}

#[test]
fn the_field_at_fault_is_named() {
    for (text, field, reason) in [
        (
            r#"{"id":"a","run_now":{"job_id":1},"max_retry":1}"#,
            "max_retry",
            "unknown field",
        ),
        (
            r#"{"id":"a","run_now":{"job_id":1},"max_retries":"x"}"#,
            "max_retries",
            "invalid type",
        ),
        (
            r#"{"id":"a","run_now":{"job_id":1},"max_retries":-1}"#,
            "max_retries",
            "invalid value",
        ),
        (r#"{"id":"a","run_now":[]}"#, "run_now", "a JSON object"),
        (r#"{"id":"a","run_now":{}}"#, "run_now.job_id", "needed"),
        (
            r#"{"id":"a","run_now":{"job_id":1,"job_name":"x"}}"#,
            "run_now.job_name",
            "only one",
        ),
        (
            r#"{"id":"a","run_now":{"job_id":1,"idempotency_token":"t"}}"#,
            "run_now.idempotency_token",
            "not allowed",
        ),
        (
            r#"{"id":"a","submit_run":{"idempotency_token":"t"}}"#,
            "submit_run.idempotency_token",
            "not allowed",
        ),
        (r#"{"id":"a"}"#, "", "none is there"),
        (
            r#"{"id":"a","run_now":{"job_id":1},"submit_run":{}}"#,
            "",
            "only one",
        ),
        (
            r#"{"id":"a","run_now":{"job_id":1},"connection":"x"}"#,
            "connection",
            "in the queue of",
        ),
        (
            r#"{"id":"a","run_now":{"job_id":1},"deadline":"soon"}"#,
            "deadline",
            "",
        ),
        (
            r#"{"id":"a","run_now":{"job_id":1},"retry_on":["user","x"]}"#,
            "retry_on[1]",
            "unknown variant",
        ),
        (
            r#"{"id":"a","submit_run":"hunter2"}"#,
            "submit_run",
            "JSON object",
        ),
        (
            r#"{"id":"a","spark_connect":{"steps":[]}}"#,
            "spark_connect.steps",
            "at least one",
        ),
        (
            r#"{"id":"a","spark_connect":{"steps":[{"sql":"a","plan":"b"}]}}"#,
            "spark_connect.steps[0]",
            "only one",
        ),
        (
            r#"{"id":"a","spark_connect":{"steps":[{"sql":1}]}}"#,
            "spark_connect.steps[0].sql",
            "invalid type",
        ),
        (
            r#"{"id":"a","spark_connect":{"steps":[{"sql":"a"}]},"on_failure":"repair"}"#,
            "on_failure",
            "repair",
        ),
        (
            r#"{"id":"a","run_now":{"job_id":1},"min_retry_interval_millis":2,"max_retry_interval_millis":1}"#,
            "min_retry_interval_millis",
            "more than",
        ),
    ] {
        let fault = rejection(text);
        assert_eq!(fault.field, field, "{text}: {fault}");
        assert!(!fault.to_string().contains("hunter2"), "{fault}");
        assert!(fault.reason.contains(reason), "{text}: {fault}");
    }
}

#[test]
fn every_kind_of_work_may_be_sent_without_waiting_for_its_end() {
    for work in [
        r#""run_now":{"job_id":1}"#,
        r#""submit_run":{"tasks":[]}"#,
        r#""spark_connect":{"steps":[{"sql":"a"}]}"#,
    ] {
        let text = format!(r#"{{"id":"a","wait":false,{work}}}"#);
        let request = decode(text.as_bytes(), None, None, text.len()).expect(work);
        assert!(!request.wait);
    }
}

#[test]
fn steps_may_be_a_thousand_and_no_more() {
    let request = |steps: usize| {
        let steps = vec![r#"{"sql":"a"}"#; steps].join(",");
        format!(r#"{{"id":"a","spark_connect":{{"steps":[{steps}]}}}}"#)
    };
    assert!(decode(request(1000).as_bytes(), None, None, LIMIT).is_ok());
    let fault = rejection(&request(1001));
    assert_eq!(fault.field, "spark_connect.steps");
    assert!(fault.reason.contains("1001 steps are more"), "{fault}");
}

#[test]
fn what_names_nobody_is_buried() {
    assert_eq!(burial(b"no json", None).reason(), "not_json");
    assert_eq!(burial(b"no json", Some("x")).reason(), "not_json");
    assert_eq!(burial(b"{\"id\":\"\xff\"}", None).reason(), "not_json");
    assert_eq!(burial(b"", None).reason(), "not_json");
    assert_eq!(burial(b"[1]", None).reason(), "no_id");
    assert_eq!(burial(b"{}", None).reason(), "no_id");
    assert_eq!(burial(br#"{"id":"a b"}"#, None).reason(), "no_id");
    assert_eq!(burial(br#"{"id":7}"#, Some("x")).reason(), "no_id");
    assert_eq!(burial(br#"{"id":"a","id":"b"}"#, None).reason(), "no_id");
    assert_eq!(burial(&vec![b' '; LIMIT + 1], None).reason(), "too_large");
}

#[test]
fn the_property_names_a_request_whose_body_does_not() {
    let request = decode(
        br#"{"run_now":{"job_id":1}}"#,
        Some("m"),
        Some("prod"),
        LIMIT,
    );
    assert_eq!(request.unwrap().id.as_str(), "m");
    let request = decode(
        br#"{"id":"b","run_now":{"job_id":1}}"#,
        Some("m"),
        None,
        LIMIT,
    );
    assert_eq!(request.unwrap().id.as_str(), "b");
    let array = decode(b"[]", Some("m"), None, LIMIT);
    assert!(
        matches!(array, Err(Undecodable::Reject { .. })),
        "{array:?}"
    );
}

#[test]
fn one_interval_alone_moves_the_other_ones_default() {
    let read = |field: &str| {
        let request = read(&format!(r#"{{"id":"a","run_now":{{"job_id":1}},{field}}}"#));
        let request = request.unwrap();
        (
            request.min_retry_interval_millis,
            request.max_retry_interval_millis,
        )
    };
    assert_eq!(read(r#""wait":true"#), (10_000, 300_000));
    assert_eq!(read(r#""max_retry_interval_millis":50"#), (50, 50));
    assert_eq!(
        read(r#""min_retry_interval_millis":400000"#),
        (400_000, 400_000)
    );
}

proptest! {
    #[test]
    fn any_bytes_have_an_ending(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes, None, Some("prod"), 100);
    }

    #[test]
    fn any_field_with_any_value_has_an_ending(
        field in "(run_now|submit_run|spark_connect|max_retries|deadline|labels|retry_on|wait|x)",
        value in "(null|true|-1|1e999|\"\"|\\[\\]|\\{\\}|\\{\"a\":1\\}|99999999999999999999)",
    ) {
        let text = format!(r#"{{"id":"a","{field}":{value}}}"#);
        let _ = decode(text.as_bytes(), None, Some("prod"), LIMIT);
    }

    #[test]
    fn a_message_has_one_id_however_it_is_read(
        bytes in r#" ?[\[{]("id":("a"|"b"|null|7),?){0,2}"run_now":\{"job_id":1\}[\]}] ?"#,
        message_id in prop::option::of("[a ]"),
    ) {
        let message_id = message_id.as_deref();
        let identified = identify(bytes.as_bytes(), message_id, LIMIT);
        match decode(bytes.as_bytes(), message_id, None, LIMIT) {
            Ok(request) => prop_assert_eq!(Ok(request.id), identified),
            Err(Undecodable::Reject { id, .. }) => prop_assert_eq!(Ok(id), identified),
            Err(Undecodable::Bury(why)) => prop_assert_eq!(Err(why), identified),
        }
    }
}

#[test]
fn labels_are_bounded_and_told_only_within_their_bound() {
    let with = |bytes: usize| {
        let label = "x".repeat(bytes - 1);
        format!(r#"{{"id":"a","run_now":{{"job_id":1}},"labels":{{"l":"{label}"}}}}"#)
    };
    assert!(decode(with(16 << 10).as_bytes(), None, None, LIMIT).is_ok());
    let refused = decode(with((16 << 10) + 1).as_bytes(), None, None, LIMIT);
    let Err(Undecodable::Reject { labels, fault, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        fault.to_string(),
        "labels: take 16385 bytes together, at most 16384 are allowed"
    );
    assert!(labels.is_empty());
}
