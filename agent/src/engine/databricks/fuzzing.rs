//! A door for `agent/fuzz`: what a workspace answers, whatever it is.

use serde_json::Value;
use sparkferry_ports::engine::{Ended, Fault};

use super::call::Call;
use super::cut::{Entry, bounded};
use super::error::CallError;
use super::explain::of_output;
use super::known::Known;
use super::state::Phase;
use super::wire::{Done, Jobs, Me, Run, Runs, Started};

/// Statuses that are read in different ways.
const STATUSES: [u16; 10] = [302, 400, 401, 403, 404, 408, 413, 429, 500, 503];
/// No text of a reply is longer in an error, with what stands around it.
const TEXT_BYTES: usize = 4096;
const OUTPUT_BYTES: usize = 1024;

/// Reads a reply's body as each call would. The caller panics where a promise is broken.
pub(in crate::engine) fn reply(body: &[u8]) {
    if let Ok(run) = serde_json::from_slice(body) {
        followed(run, serde_json::from_slice(body).ok().as_ref());
    }
    if let Ok(page) = serde_json::from_slice::<Runs>(body) {
        for run in page.runs {
            followed(run, None);
        }
    }
    // What is not of the shape says so, and no more is asked of it.
    let _ = serde_json::from_slice::<Started>(body);
    let _ = serde_json::from_slice::<Done>(body);
    let _ = serde_json::from_slice::<Jobs>(body);
    let _ = serde_json::from_slice::<Me>(body);
    for status in STATUSES {
        let place = format!("{} at a workspace", Call::Get.name());
        let error = CallError::answered(&place, status, None, body);
        assert!(error.text().len() <= TEXT_BYTES, "{status}");
        drop(Fault::from(error));
    }
    if let Ok(entry) = serde_json::from_slice::<Entry>(body) {
        let told = of_output("main", 1, &entry, None);
        let longest = told
            .error
            .map(|text| text.len())
            .max(told.trace.map(|text| text.len()));
        assert!(longest.unwrap_or(0) <= 2 * TEXT_BYTES);
        let output = bounded(vec![entry.clone(), entry], OUTPUT_BYTES).to_string();
        assert!(output.len() <= OUTPUT_BYTES, "{}: {output}", output.len());
    }
}

/// Looks at a run as its followers do; `reply` is what it was read of.
fn followed(run: Run, reply: Option<&Value>) {
    let known = Known::new(run);
    for round in [None, Some(0), Some(1), Some(7)] {
        let _ = (known.facts(round), known.over(round), known.past(round));
        if let Some(Phase::Going(word)) = known.phase(round) {
            let _ = known.progress(word);
        }
    }
    assert!(!known.differs_from(&known));
    let _ = (known.latest_repair_id(), known.round_began());
    // Never a false green: one of the two descriptions says the word itself.
    let green = known.phase(None) == Some(Phase::Ended(Ended::Success));
    if let Some(reply) = reply.filter(|_| green) {
        let says = |pointer: &str| reply.pointer(pointer).is_some_and(|word| word == "SUCCESS");
        let words = ["/state/result_state", "/status/termination_details/code"];
        assert!(words.into_iter().any(says), "{reply}");
    }
}
