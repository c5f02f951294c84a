//! What a call that went wrong means: a passing fault, or a refusal.

use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use serde::Deserialize;
use sparkferry_ports::engine::Fault;
use sparkferry_shared::{ErrorClass, RunError};

use super::text;
use crate::http::fault;

/// The longest text that is taken over from a reply, in bytes.
const TEXT_BYTES: usize = 1024;

/// A call went wrong.
#[derive(Debug, Clone)]
pub(super) enum CallError {
    /// It may well work later; it says nothing about the run.
    Passing(Passing),
    /// Databricks understood and refuses.
    Refused(Refusal),
}

/// See [`Fault::Passing`].
#[derive(Debug, Clone)]
pub(super) struct Passing {
    pub(super) message: String,
    pub(super) class: ErrorClass,
    pub(super) retry_after: Option<Duration>,
    pub(super) perhaps_done: bool,
}

/// Databricks' refusal.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// The HTTP status.
    pub(super) status: u16,
    /// `error_code`.
    pub(super) code: Option<String>,
    /// `message`.
    message: String,
    /// For a person: the call, the host, code and message.
    text: String,
}

impl Refusal {
    /// A refusal of our own making, before any call.
    pub(super) fn of_request(text: impl Into<String>) -> Self {
        Self {
            status: 400,
            code: None,
            message: String::new(),
            text: text.into(),
        }
    }

    /// The run that was asked for does not exist: deleted, or older than 60 days.
    /// A path that does not exist (a wrong host, a proxy) is another matter.
    pub(super) fn run_gone(&self) -> bool {
        let code = self.code.as_deref();
        match self.status {
            404 if matches!(code, Some("RESOURCE_DOES_NOT_EXIST" | "NOT_FOUND")) => true,
            400 | 404 => self.speaks_of("run", &["does not exist"]),
            _ => false,
        }
    }

    /// The job does not exist.
    pub(super) fn job_gone(&self) -> bool {
        matches!(self.status, 400 | 404) && self.speaks_of("job", &["does not exist"])
    }

    /// The idempotency token belongs to a run that was deleted.
    pub(super) fn token_spent(&self) -> bool {
        let gone = ["deleted", "does not exist", "no longer exists"];
        (400..500).contains(&self.status)
            && (self.speaks_of("idempotency token", &gone)
                || self.speaks_of("idempotency_token", &gone))
    }

    fn speaks_of(&self, subject: &str, predicates: &[&str]) -> bool {
        let message = self.message.to_lowercase();
        message.contains(subject)
            && predicates
                .iter()
                .any(|predicate| message.contains(predicate))
    }

    /// As it stands in a result.
    pub(super) fn to_error(&self) -> RunError {
        let class = match self.status {
            401 | 403 => ErrorClass::Auth,
            _ => ErrorClass::Request,
        };
        RunError {
            code: self.code.clone(),
            ..RunError::new(class, self.text.clone())
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal.to_error()))
    }
}

impl From<Passing> for Fault {
    fn from(passing: Passing) -> Self {
        Self::Passing {
            message: passing.message,
            class: passing.class,
            retry_after: passing.retry_after,
            perhaps_done: passing.perhaps_done,
        }
    }
}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Passing(passing) => passing.into(),
            CallError::Refused(refusal) => refusal.into(),
        }
    }
}

impl CallError {
    /// For a person.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Passing(passing) => &passing.message,
            Self::Refused(refusal) => &refusal.text,
        }
    }

    /// The texts in it, to be looked over before they are shown.
    pub(super) fn texts(&mut self) -> Vec<&mut String> {
        match self {
            Self::Passing(passing) => vec![&mut passing.message],
            Self::Refused(refusal) => vec![&mut refusal.message, &mut refusal.text],
        }
    }

    fn infrastructure(message: String, perhaps_done: bool) -> Self {
        Self::Passing(Passing {
            message,
            class: ErrorClass::Infrastructure,
            retry_after: None,
            perhaps_done,
        })
    }

    /// Credentials can't be had at the moment; nothing was sent.
    pub(super) fn no_credentials(place: &str, why: &str) -> Self {
        Self::Passing(Passing {
            message: format!("{place}: {why}"),
            class: ErrorClass::Auth,
            retry_after: None,
            perhaps_done: false,
        })
    }

    /// No whole reply came back.
    pub(super) fn transport(place: &str, error: &reqwest::Error) -> Self {
        if let Some(trouble) = fault::tls(error) {
            return Self::infrastructure(format!("{place}: {trouble}"), !error.is_connect());
        }
        let what = if error.is_connect() {
            "can't be reached"
        } else if error.is_timeout() {
            "gave no answer in time"
        } else if error.is_body() || error.is_decode() {
            "broke off in the middle of its answer"
        } else {
            "the connection failed"
        };
        let mut message = format!("{place}: {what}");
        let mut source = error.source();
        while let Some(cause) = source {
            let _ = write!(message, ": {cause}");
            source = cause.source();
        }
        let message = text::head(&message, TEXT_BYTES).to_owned();
        Self::infrastructure(message, !error.is_connect() && !error.is_builder())
    }

    /// A reply came that can't be what the call brings.
    pub(super) fn unreadable(place: &str, status: u16, why: &str, body: &[u8]) -> Self {
        let body = String::from_utf8_lossy(&body[..body.len().min(200)]);
        let start: Vec<&str> = body.split_whitespace().collect();
        let message = match start.join(" ").as_str() {
            "" => format!("{place}: answered {status} with nothing in it"),
            start => format!(
                "{place}: answered {status}, which {why} (it begins with {:?}): is this the \
                 workspace's address, or does a proxy answer in its place?",
                text::head(start, 120)
            ),
        };
        Self::infrastructure(message, (200..300).contains(&status) || status >= 500)
    }

    /// A reply that tells of another run than it was asked about.
    pub(super) fn another_run(place: &str, asked: i64, told: i64) -> Self {
        let message = format!("{place}: asked about run {asked}, it answered about run {told}");
        Self::infrastructure(message, false)
    }

    /// A reply that is larger than what is read.
    pub(super) fn too_large(place: &str, bytes: usize) -> Self {
        let megabytes = bytes >> 20;
        Self::Refused(Refusal::of_request(format!(
            "{place}: the answer is larger than {megabytes} MiB"
        )))
    }

    /// A reply with a status that is no success.
    pub(super) fn answered(
        place: &str,
        status: u16,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> Self {
        let said = Said::read(body);
        let passing = |class, perhaps_done, said: &Said| {
            Self::Passing(Passing {
                message: said.text(place, status),
                class,
                retry_after,
                perhaps_done,
            })
        };
        match (status, said) {
            (401, said) => passing(ErrorClass::Auth, false, &said.unwrap_or_default()),
            (429, said) => passing(ErrorClass::Throttled, false, &said.unwrap_or_default()),
            // A request that a proxy or the workspace finds too large stays too large.
            (413, said) => {
                let said = said.unwrap_or_default();
                Self::Refused(said.refusal(place, status))
            }
            (400..500, None) => Self::unreadable(place, status, "is not Databricks' JSON", body),
            (300..400, _) => Self::unreadable(place, status, "is a redirection", body),
            (400..500, Some(said)) if said.too_much() => {
                passing(ErrorClass::Throttled, false, &said)
            }
            (408, Some(said)) => passing(ErrorClass::Infrastructure, true, &said),
            (400..500, Some(said)) => Self::Refused(said.refusal(place, status)),
            (_, said) => passing(ErrorClass::Infrastructure, true, &said.unwrap_or_default()),
        }
    }
}

/// What an error's body says, in any of the forms in use: `{"error_code", "message"}`, `{"error"}`
/// (with `error_description`), SCIM's `{"detail", "status"}`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    code: Option<String>,
    message: String,
}

impl Said {
    fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Form {
            error_code: Option<serde_json::Value>,
            message: Option<String>,
            error: Option<serde_json::Value>,
            error_description: Option<String>,
            detail: Option<String>,
        }

        let form: Form = serde_json::from_slice(body).ok()?;
        let word = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        let error = form.error.map(word);
        let message = form
            .message
            .or(form.detail)
            .or(form.error_description)
            .or_else(|| error.clone())
            .unwrap_or_default();
        let bounded = |text: String| text::head(&text, TEXT_BYTES).to_owned();
        Some(Self {
            code: form.error_code.map(word).or(error).map(bounded),
            message: bounded(message),
        })
    }

    /// More than the workspace takes at the moment, though the status says something else: the
    /// jobs created in an hour (`INVALID_STATE`, "exceeding rate limit"), a quota.
    fn too_much(&self) -> bool {
        self.message.contains("exceeding rate limit")
            || self.code.as_deref().is_some_and(|code| {
                code.contains("QUOTA")
                    || code == "RESOURCE_EXHAUSTED"
                    || code == "REQUEST_LIMIT_EXCEEDED"
            })
    }

    fn text(&self, place: &str, status: u16) -> String {
        let mut text = format!("{place}: {status}");
        for part in [self.code.as_deref().unwrap_or_default(), &self.message] {
            if !part.is_empty() && !text.ends_with(part) {
                let _ = write!(text, " {part}");
            }
        }
        text
    }

    fn refusal(self, place: &str, status: u16) -> Refusal {
        Refusal {
            status,
            text: self.text(place, status),
            code: self.code,
            message: self.message,
        }
    }
}

#[cfg(test)]
mod tests;
