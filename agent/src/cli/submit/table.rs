//! What came of a batch.

use std::time::Duration;

use comfy_table::{Cell, Color, ColumnConstraint, Table};
use sparkferry_shared::{Outcome, RunResult};

use crate::cli::exit::Exit;
use crate::cli::{print, story};

/// The column of links, from 0.
const RUN_PAGE: usize = 4;
/// Characters that the other columns need to be readable.
const OTHER_COLUMNS: usize = 80;

/// One row a result, in the order in which they are given.
pub(super) fn table(results: &[&RunResult]) -> String {
    let mut table = print::table(&["id", "outcome", "attempts", "time", "run page", "error"]);
    for result in results {
        table.add_row([
            Cell::new(&result.id),
            Cell::new(result.outcome).fg(color(result.outcome)),
            Cell::new(result.attempts.len()),
            Cell::new(print::duration(took(result))),
            Cell::new(run_page(result).unwrap_or_default()),
            Cell::new(result.error.as_ref().map(story::error).unwrap_or_default()),
        ]);
    }
    keep_pages_whole(&mut table, results);
    table.trim_fmt()
}

/// Keeps links on one line, where the terminal leaves room for the other columns: a link that is
/// broken can't be followed.
fn keep_pages_whole(table: &mut Table, results: &[&RunResult]) {
    let pages = results.iter().filter_map(|result| run_page(result));
    let longest = pages.map(|page| page.len()).max().unwrap_or_default();
    let room = usize::from(table.width().unwrap_or(u16::MAX));
    if longest + OTHER_COLUMNS <= room
        && let Some(column) = table.column_mut(RUN_PAGE)
    {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
}

/// One line about a result.
pub(super) fn summary(result: &RunResult) -> String {
    let mut parts = vec![result.outcome.to_string()];
    match result.attempts.len() {
        0 => {}
        1 => parts.push("1 attempt".to_owned()),
        more => parts.push(format!("{more} attempts")),
    }
    parts.push(print::duration(took(result)));
    parts.extend(result.error.as_ref().map(story::error));
    parts.extend(run_page(result));
    parts.join(", ")
}

/// From the worker's receipt to the known ending. A worker that took the request over counts from
/// its own receipt, so the runs' own times may tell of an earlier beginning.
fn took(result: &RunResult) -> Duration {
    let began = result
        .attempts
        .iter()
        .filter_map(|attempt| attempt.started_at)
        .chain([result.received_at])
        .min()
        .unwrap_or(result.received_at);
    Duration::try_from(result.finished_at.duration_since(began)).unwrap_or_default()
}

fn run_page(result: &RunResult) -> Option<String> {
    let page = result.attempts.last()?.run_page_url.as_deref()?;
    Some(print::one_line(page, 400))
}

fn color(outcome: Outcome) -> Color {
    match Exit::from(outcome) {
        Exit::Success => Color::Green,
        Exit::LostOrExpired => Color::Yellow,
        _ => Color::Red,
    }
}
