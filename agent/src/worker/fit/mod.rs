//! Making a result fit into a message: what is needed least is cut first, and a result that was cut
//! says so (`truncated`). Pure.
//!
//! However small the limit is, the outcome stays, and with it whose result it is. A result can be cut
//! to [`SMALLEST_LIMIT`] bytes, whatever is in it.

use std::collections::BTreeMap;

use serde_json::json;
use sparkferry_ports::queue::SMALLEST_LIMIT;
use sparkferry_shared::{Attempt, RunError, RunResult};

use crate::engine::trim::{size, trim};

/// The largest result beside its output, in bytes. Attempts, errors and labels rarely take a hundredth
/// of it; with an output of the default size the whole is 1 MiB, as large as a request may be, and
/// far below what brokers take unless they are told otherwise (16 MiB). A thousand drivers may publish
/// at a time, so this bounds the worker's memory, too.
const BESIDE_OUTPUT_BYTES: usize = 768 * 1024;

/// Bytes of a cut state, trace or text, and of the shortest text of an error.
const STATE_BYTES: usize = 512;
const TRACE_BYTES: usize = 1024;
const TEXT_BYTES: usize = 1024;
const WORD_BYTES: usize = 128;
/// Task errors, attempts and operations that are left of many.
const TASKS: usize = 10;
const ATTEMPTS: usize = 3;
const OPERATIONS: usize = 100;

/// The largest result that is published, whatever its queue takes.
pub(super) fn own_limit(max_output_bytes: usize) -> usize {
    max_output_bytes.saturating_add(BESIDE_OUTPUT_BYTES)
}

/// The result as JSON in at most `limit` bytes, or in [`SMALLEST_LIMIT`] where that is more.
pub(super) fn fit(result: &RunResult, limit: usize) -> Vec<u8> {
    let whole = written(result);
    let limit = limit.max(SMALLEST_LIMIT);
    if whole.len() <= limit {
        return whole;
    }
    let mut cut = RunResult {
        truncated: true,
        ..result.clone()
    };
    for step in STEPS {
        step(&mut cut, limit);
        let body = written(&cut);
        if body.len() <= limit {
            return body;
        }
    }
    least(result, whole.len(), limit)
}

/// What is cut, one after the other, until the rest fits.
const STEPS: [fn(&mut RunResult, usize); 9] = [
    |result, _| older(result).iter_mut().for_each(cut_state),
    |result, _| result.attempts.iter_mut().for_each(cut_state),
    |result, _| {
        for error in older(result).iter_mut().filter_map(|a| a.error.as_mut()) {
            error.trace = None;
            error.tasks = Vec::new();
        }
    },
    |result, limit| {
        let room = room_for_output(result, limit).max(limit / 4);
        cut_output(result, room);
    },
    |result, _| errors(result).for_each(cut_traces),
    |result, _| errors(result).for_each(cut_tasks),
    |result, _| {
        let left_out = result.attempts.len().saturating_sub(ATTEMPTS);
        result.attempts.drain(..left_out);
        result.attempts.iter_mut().for_each(cut_texts);
        errors(result).for_each(|error| cut_text(&mut error.message, TEXT_BYTES));
    },
    |result, limit| {
        let room = room_for_output(result, limit);
        cut_output(result, room);
    },
    |result, _| result.labels.clear(),
];

fn written(result: &RunResult) -> Vec<u8> {
    match serde_json::to_vec(result) {
        Ok(body) => body,
        // Only a type that can't be JSON could do this, and none of ours is one.
        Err(e) => panic!("a result can't be written as JSON: {e}"),
    }
}

/// All attempts but the last.
fn older(result: &mut RunResult) -> &mut [Attempt] {
    let older = result.attempts.len().saturating_sub(1);
    &mut result.attempts[..older]
}

fn errors(result: &mut RunResult) -> impl Iterator<Item = &mut RunError> {
    let of_attempts = result.attempts.iter_mut().filter_map(|a| a.error.as_mut());
    of_attempts.chain(result.error.as_mut())
}

fn cut_state(attempt: &mut Attempt) {
    for said in [&mut attempt.state, &mut attempt.status] {
        *said = said.take().map(|said| trim(said, STATE_BYTES));
    }
}

/// What the rest leaves of the limit.
fn room_for_output(result: &RunResult, limit: usize) -> usize {
    let output = result.output.as_ref().map_or(0, size);
    limit.saturating_sub(size(result) - output)
}

fn cut_output(result: &mut RunResult, room: usize) {
    result.output = result.output.take().map(|output| trim(output, room));
}

fn cut_traces(error: &mut RunError) {
    let of_tasks = error.tasks.iter_mut().map(|task| &mut task.trace);
    for trace in of_tasks.chain([&mut error.trace]).flatten() {
        *trace = trace[trace.ceil_char_boundary(trace.len().saturating_sub(TRACE_BYTES))..].into();
    }
}

fn cut_tasks(error: &mut RunError) {
    error.trace = None;
    error.tasks.truncate(TASKS);
    for task in &mut error.tasks {
        task.trace = None;
        cut_text(&mut task.task_key, WORD_BYTES);
        if let Some(text) = &mut task.error {
            cut_text(text, WORD_BYTES);
        }
    }
}

fn cut_texts(attempt: &mut Attempt) {
    attempt.run_page_url.take_if(|url| url.len() > TEXT_BYTES);
    let left_out = attempt.operation_ids.len().saturating_sub(OPERATIONS);
    attempt.operation_ids.drain(..left_out);
    if let Some(code) = attempt.error.as_mut().and_then(|error| error.code.as_mut()) {
        cut_text(code, WORD_BYTES);
    }
}

fn cut_text(text: &mut String, bytes: usize) {
    text.truncate(text.floor_char_boundary(bytes));
}

/// Who, how and when, where the run is, and why there is no more.
fn least(result: &RunResult, size: usize, limit: usize) -> Vec<u8> {
    let why = format!(
        "the result had {size} bytes, and the largest that could be published has {limit} \
         (max_message_size of RabbitMQ, or Sparkferry's own limit): this is what was left of it"
    );
    let last = result.attempts.last().map(|attempt| Attempt {
        operation_ids: Vec::new(),
        run_page_url: None,
        state: None,
        status: None,
        error: None,
        ..attempt.clone()
    });
    let mut cut = RunResult {
        attempts: last.into_iter().collect(),
        labels: BTreeMap::new(),
        output: Some(json!({"truncated": true, "unavailable": why})),
        truncated: true,
        ..result.clone()
    };
    cut_text(&mut cut.worker, WORD_BYTES);
    let mut bytes = TEXT_BYTES;
    loop {
        // Halved, because what is written as `\u0000` is larger than it looks.
        cut.error = result.error.as_ref().map(|error| RunError {
            code: error.code.clone().filter(|code| code.len() <= WORD_BYTES),
            message: error.message[..error.message.floor_char_boundary(bytes)].to_owned(),
            trace: None,
            tasks: Vec::new(),
            class: error.class,
        });
        let body = written(&cut);
        if body.len() <= limit || bytes == 0 {
            return body;
        }
        bytes /= 2;
    }
}

#[cfg(test)]
mod tests;
