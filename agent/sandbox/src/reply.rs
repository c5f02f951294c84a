//! What a call answers: a JSON body, or a refusal in Databricks' own form
//! `{"error_code": ..., "message": ...}` with the texts the real API uses.

use axum::{
    body::Body,
    http::{Response, StatusCode, header},
};
use serde_json::{Value, json};

/// The answer of a call that went as asked, or the refusal.
pub(super) type Answer = Result<Value, Refusal>;

/// A call refused by the workspace.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// The HTTP status.
    pub(super) status: u16,
    /// Databricks' `error_code`.
    pub(super) code: &'static str,
    /// Databricks' `message`.
    pub(super) message: String,
}

impl Refusal {
    /// 400 `INVALID_PARAMETER_VALUE`.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self {
            status: 400,
            code: "INVALID_PARAMETER_VALUE",
            message: message.into(),
        }
    }

    /// 400 `INVALID_STATE`.
    pub(super) fn state(message: impl Into<String>) -> Self {
        Self {
            status: 400,
            code: "INVALID_STATE",
            message: message.into(),
        }
    }

    /// 400 for a field that is not there.
    pub(super) fn missing(field: &str) -> Self {
        Self::invalid(format!("Missing required field: {field}"))
    }

    /// 400 for a body that is not JSON of the right kind.
    pub(super) fn malformed(why: &str) -> Self {
        Self {
            status: 400,
            code: "MALFORMED_REQUEST",
            message: format!("Could not parse request object: {why}"),
        }
    }

    /// 400 for a run that is not, or no longer, there.
    pub(super) fn no_run(run_id: i64) -> Self {
        Self::invalid(format!("Run {run_id} does not exist."))
    }

    /// 400 for a job that is not there.
    pub(super) fn no_job(job_id: i64) -> Self {
        Self::invalid(format!("Job {job_id} does not exist."))
    }

    /// 401.
    pub(super) fn unauthenticated(message: &str) -> Self {
        Self {
            status: 401,
            code: "UNAUTHENTICATED",
            message: message.into(),
        }
    }

    /// 404 for a path that the sandbox doesn't serve.
    pub(super) fn no_endpoint(method: &str, path: &str) -> Self {
        Self {
            status: 404,
            code: "ENDPOINT_NOT_FOUND",
            message: format!("No API found for '{method} {path}'"),
        }
    }

    /// The body as Databricks sends it.
    pub(super) fn body(&self) -> Value {
        json!({"error_code": self.code, "message": self.message})
    }
}

/// Databricks' `error_code` and a message for a status that a rule asks for without a body.
pub(super) fn stock_error(status: u16) -> Value {
    let (code, message) = match status {
        400 => ("INVALID_PARAMETER_VALUE", "The request is invalid."),
        401 => ("UNAUTHENTICATED", "Invalid access token."),
        403 => ("PERMISSION_DENIED", "The caller does not have permission."),
        404 => ("RESOURCE_DOES_NOT_EXIST", "The resource does not exist."),
        408 => ("DEADLINE_EXCEEDED", "The request timed out."),
        409 => (
            "RESOURCE_CONFLICT",
            "The request conflicts with another one.",
        ),
        429 => (
            "REQUEST_LIMIT_EXCEEDED",
            "Too many requests. Please wait a moment and try again.",
        ),
        501 => ("NOT_IMPLEMENTED", "Not implemented."),
        503 => (
            "TEMPORARILY_UNAVAILABLE",
            "The service at this path is temporarily unavailable.",
        ),
        504 => (
            "DEADLINE_EXCEEDED",
            "The request did not finish in time; it may have succeeded.",
        ),
        _ => ("INTERNAL_ERROR", "An internal error occurred."),
    };
    json!({"error_code": code, "message": message})
}

/// What goes onto the wire.
#[derive(Debug)]
pub(super) struct Reply {
    /// The HTTP status.
    pub(super) status: u16,
    /// The body.
    pub(super) payload: Payload,
    /// Seconds for a `Retry-After` header.
    pub(super) retry_after: Option<u64>,
}

/// The body of a [`Reply`].
#[derive(Debug)]
pub(super) enum Payload {
    /// `application/json`.
    Json(Value),
    /// `text/html`, as a proxy in front of the workspace would send.
    Html(String),
    /// `text/plain`.
    Text(String),
}

impl Reply {
    /// A JSON reply.
    pub(super) fn json(status: u16, body: Value) -> Self {
        Self {
            status,
            payload: Payload::Json(body),
            retry_after: None,
        }
    }

    /// The same, as a later version of the workspace might put it.
    pub(super) fn strange(mut self) -> Self {
        if let Payload::Json(body) = &mut self.payload {
            estrange(body);
        }
        self
    }

    /// The HTTP response.
    pub(super) fn into_response(self) -> Response<Body> {
        let (kind, text) = match self.payload {
            Payload::Json(value) => ("application/json", value.to_string()),
            Payload::Html(text) => ("text/html; charset=utf-8", text),
            Payload::Text(text) => ("text/plain; charset=utf-8", text),
        };
        let mut response = Response::new(Body::from(text));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// Puts a field that nobody knows into every object, and a word that nobody knows in the place of
/// every state.
fn estrange(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(estrange),
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                match (name.as_str(), &*field) {
                    ("life_cycle_state" | "state", Value::String(_)) => *field = "PONDERING".into(),
                    _ => estrange(field),
                }
            }
            fields.insert("sandbox_news".into(), json!([{"of": null}, 1.5e300]));
        }
        _ => {}
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        match answer {
            Ok(body) => Self::json(200, body),
            Err(refusal) => Self::json(refusal.status, refusal.body()),
        }
    }
}
