//! What each kind of reply means.

use super::*;

const PLACE: &str = "jobs/run-now at adb-1.azuredatabricks.net";

fn answered(status: u16, body: &str) -> Fault {
    let wait = Some(Duration::from_secs(3));
    CallError::answered(PLACE, status, wait, body.as_bytes()).into()
}

fn refusal(status: u16, body: &str) -> Refusal {
    match CallError::answered(PLACE, status, None, body.as_bytes()) {
        CallError::Refused(refusal) => refusal,
        CallError::Passing(passing) => panic!("{passing:?}"),
    }
}

#[test]
fn each_status_is_passing_or_a_refusal() {
    use ErrorClass::{Auth, Infrastructure, Throttled};
    let error = r#"{"error_code": "X", "message": "y"}"#;
    for (status, class, perhaps_done) in [
        (401, Auth, false),
        (408, Infrastructure, true),
        (429, Throttled, false),
        (500, Infrastructure, true),
        (502, Infrastructure, true),
        (503, Infrastructure, true),
        (504, Infrastructure, true),
        (599, Infrastructure, true),
    ] {
        for body in [error, "", "<html>", "\"text\"", "{}"] {
            let Fault::Passing {
                class: found,
                perhaps_done: done,
                message,
                ..
            } = answered(status, body)
            else {
                panic!("{status} {body}");
            };
            assert!(message.starts_with(PLACE) && message.contains(&status.to_string()));
            if !(status == 408 && body != error && body != "{}") {
                assert_eq!((found, done), (class, perhaps_done), "{status} {body}");
            }
        }
    }
    for status in [400, 404, 409, 422, 403, 413] {
        let Fault::Refused(found) = answered(status, error) else {
            panic!("{status}");
        };
        assert_eq!(found.code.as_deref(), Some("X"));
        assert_eq!(found.message, format!("{PLACE}: {status} X y"));
    }
}

#[test]
fn what_is_not_databricks_json_is_passing_and_says_so() {
    for (status, body) in [
        (404, "<html>\n<title>Sign in</title>"),
        (403, ""),
        (400, "Bad Target"),
        (302, "Found"),
    ] {
        let Fault::Passing { message, class, .. } = answered(status, body) else {
            panic!("{status}");
        };
        assert_eq!(class, ErrorClass::Infrastructure);
        assert!(message.contains(&status.to_string()), "{message}");
    }
    let Fault::Passing { message, .. } = answered(404, "<html>\n<title>Sign in</title>") else {
        panic!();
    };
    assert!(message.contains("<html> <title>Sign in") && message.contains("proxy"));
}

#[test]
fn what_is_too_much_now_is_not_refused() {
    let jobs = r#"{"error_code": "INVALID_STATE", "message": "There were already 1000 jobs created in past 3600 seconds, exceeding rate limit: 1000 job creations per 3600 seconds."}"#;
    let quota = r#"{"error_code": "QUOTA_EXCEEDED", "message": "The quota for the number of jobs has been reached."}"#;
    for body in [jobs, quota] {
        let Fault::Passing {
            class,
            retry_after,
            perhaps_done,
            ..
        } = answered(400, body)
        else {
            panic!("{body}");
        };
        assert_eq!((class, perhaps_done), (ErrorClass::Throttled, false));
        assert_eq!(retry_after, Some(Duration::from_secs(3)));
    }
    let active = r#"{"error_code": "INVALID_STATE", "message": "Run 1 is active."}"#;
    assert!(matches!(answered(400, active), Fault::Refused(_)));
}

#[test]
fn what_is_gone_is_told_from_what_is_not_there() {
    let body = |code: &str, message: &str| {
        serde_json::json!({"error_code": code, "message": message}).to_string()
    };
    let run = refusal(
        400,
        &body("INVALID_PARAMETER_VALUE", "Run 5 does not exist."),
    );
    assert!(run.run_gone() && !run.job_gone() && !run.token_spent());
    assert!(refusal(404, &body("RESOURCE_DOES_NOT_EXIST", "")).run_gone());
    let path = refusal(
        404,
        &body("ENDPOINT_NOT_FOUND", "No API found for 'GET /x'"),
    );
    assert!(!path.run_gone() && !path.job_gone());
    let job = refusal(
        400,
        &body("INVALID_PARAMETER_VALUE", "Job 0 does not exist."),
    );
    assert!(job.job_gone() && !job.run_gone());
    let token = "The run 7 created under this idempotency token has been deleted.";
    assert!(refusal(400, &body("INVALID_PARAMETER_VALUE", token)).token_spent());
    let long = "idempotency_token must be at most 64 characters";
    assert!(!refusal(400, &body("INVALID_PARAMETER_VALUE", long)).token_spent());
}

#[test]
fn every_form_of_error_is_read() {
    for (body, code, message) in [
        (
            r#"{"error_code":"A","message":"b","details":[{}]}"#,
            Some("A"),
            "b",
        ),
        (
            r#"{"error":"invalid_client","error_description":"no"}"#,
            Some("invalid_client"),
            "no",
        ),
        (r#"{"error":"x"}"#, Some("x"), "x"),
        (
            r#"{"detail":"not found","status":"404","schemas":[]}"#,
            None,
            "not found",
        ),
        (r#"{"error_code":403,"message":null}"#, Some("403"), ""),
    ] {
        let said = Said::read(body.as_bytes()).unwrap();
        assert_eq!((said.code.as_deref(), &*said.message), (code, message));
    }
    let long = format!(r#"{{"message":"{}"}}"#, "é".repeat(5000));
    assert!(Said::read(long.as_bytes()).unwrap().message.len() <= TEXT_BYTES);
    assert_eq!(Said::read(b"[1]"), None);
}

#[test]
fn a_reply_that_is_none_is_passing_and_perhaps_done() {
    let read = |body: &[u8]| CallError::unreadable(PLACE, 200, "is not JSON", body).into();
    for (body, says) in [
        (&b"<html><body>Please sign in"[..], "does a proxy answer"),
        (b"{\"run_id\": 12", "begins with"),
        (b" \n", "answered 200 with nothing in it"),
    ] {
        let Fault::Passing {
            message,
            perhaps_done,
            class,
            ..
        } = read(body)
        else {
            panic!();
        };
        assert!(message.contains(says), "{message}");
        assert_eq!((perhaps_done, class), (true, ErrorClass::Infrastructure));
    }
    let large = CallError::too_large(PLACE, 64 << 20).into();
    assert!(matches!(large, Fault::Refused(error) if error.message.contains("64 MiB")));
}
