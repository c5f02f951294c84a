//! More about an error, as the server tells it when asked: the whole message, and its causes.

use std::fmt::Write;

use spark_connect_proto::FetchErrorDetailsResponse;
use spark_connect_proto::fetch_error_details_response::{Error, StackTraceElement};
use sparkferry_shared::{ErrorClass, RunError};

use super::{MESSAGE_BYTES, class_of};
use crate::engine::text;

/// Causes that are told of, at most. Spark sends five.
const CAUSES: usize = 8;
/// Frames of each cause that are told of.
const FRAMES: usize = 20;
/// The longest message of a cause, in bytes.
const CAUSE_BYTES: usize = 2 * 1024;
/// The longest trace, in bytes.
const TRACE_BYTES: usize = 8 * 1024;

/// Puts what the server tells into the run's error: the message where gRPC's was cut off, the class
/// where the cause says more than what it led to, and the chain of causes as `trace`. Changes
/// nothing where the server knows no more.
pub(in crate::engine::spark_connect) fn explain(
    error: &mut RunError,
    details: &FetchErrorDetailsResponse,
) {
    let chain = chain(details);
    let Some(root) = chain.first() else { return };
    if root.message.len() > error.message.len() {
        text::head(&root.message, MESSAGE_BYTES).clone_into(&mut error.message);
    }
    if let Some(code) = error_class(root) {
        error.code = Some(code.to_owned());
    }
    // A task that could not write is infrastructure, unless it was to write a division by zero.
    if matches!(error.class, ErrorClass::User | ErrorClass::Infrastructure)
        && let Some(state) = chain.iter().rev().find_map(|cause| sql_state(cause))
    {
        error.class = class_of(Some(state));
    }
    let frames = chain.iter().any(|cause| !cause.stack_trace.is_empty());
    if chain.len() > 1 || frames {
        error.trace = Some(trace(&chain));
    }
}

/// The error and its causes. A chain that bites its own tail ends.
fn chain(details: &FetchErrorDetailsResponse) -> Vec<&Error> {
    let at = |index: Option<i32>| details.errors.get(usize::try_from(index?).ok()?);
    let mut chain = Vec::new();
    let mut next = at(details.root_error_idx);
    while let Some(error) = next
        && chain.len() < CAUSES
    {
        chain.push(error);
        next = at(error.cause_idx);
    }
    chain
}

fn error_class(error: &Error) -> Option<&str> {
    let class = error.spark_throwable.as_ref()?.error_class.as_deref()?;
    (!class.is_empty()).then_some(class)
}

fn sql_state(error: &Error) -> Option<&str> {
    let state = error.spark_throwable.as_ref()?.sql_state.as_deref()?;
    (!state.is_empty()).then_some(state)
}

/// As Java prints it, bounded. Writing to a String never fails.
fn trace(chain: &[&Error]) -> String {
    let mut trace = String::new();
    for (n, error) in chain.iter().enumerate() {
        let by = if n > 0 { "Caused by: " } else { "" };
        let name = error.error_type_hierarchy.first();
        let name = name.map_or("an error", String::as_str);
        let message = text::head(error.message.trim_end(), CAUSE_BYTES);
        let _ = writeln!(trace, "{by}{name}: {message}");
        for frame in error.stack_trace.iter().take(FRAMES) {
            let StackTraceElement {
                declaring_class,
                method_name,
                file_name,
                line_number,
            } = frame;
            let file = file_name.as_deref().unwrap_or("unknown");
            let _ = writeln!(
                trace,
                "\tat {declaring_class}.{method_name}({file}:{line_number})"
            );
        }
        let more = error.stack_trace.len().saturating_sub(FRAMES);
        if more > 0 {
            let _ = writeln!(trace, "\t... {more} more");
        }
    }
    text::head(trace.trim_end(), TRACE_BYTES).to_owned()
}
