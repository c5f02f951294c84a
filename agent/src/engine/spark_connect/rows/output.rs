//! All steps as one output, cut to size.

use serde_json::{Value, json};

use crate::engine::text::level;

/// Room for the whole's own words: `{"steps":[],"truncated":true,"steps_omitted":4294967296}`.
const OWN_BYTES: usize = 64;

/// `{"steps": [...]}` in at most `limit` bytes of JSON, in the steps' order; nothing without steps.
///
/// Rows are cut first, from the end and of the largest steps; a step that lost some says
/// `truncated: true`, and so does the whole. Where even the steps without rows don't fit, columns
/// go, and last the later steps, which `steps_omitted` counts.
pub(in crate::engine::spark_connect) fn output(
    mut steps: Vec<Value>,
    limit: usize,
) -> Option<Value> {
    if steps.is_empty() {
        return None;
    }
    let room = limit.saturating_sub(OWN_BYTES);
    cut(&mut steps, room);
    let all = steps.len();
    let mut left = room;
    let fitting = steps.iter().take_while(|step| {
        let rest = left.checked_sub(size(step) + 1);
        left = rest.unwrap_or(0);
        rest.is_some()
    });
    let fitting = fitting.count();
    steps.truncate(fitting);
    let truncated = fitting < all || steps.iter().any(|step| step["truncated"] == true);
    let mut output = json!({"steps": steps});
    if truncated {
        output["truncated"] = true.into();
    }
    if fitting < all {
        output["steps_omitted"] = (all - fitting).into();
    }
    Some(output)
}

/// Cuts rows and columns as [`output`] will. What may stay only shrinks as steps come, so nothing is
/// cut that the output would keep.
pub(in crate::engine::spark_connect) fn fit(steps: &mut [Value], limit: usize) {
    cut(steps, limit.saturating_sub(OWN_BYTES));
}

/// Cuts rows, and where even the steps without rows don't fit, the columns.
fn cut(steps: &mut [Value], room: usize) {
    cut_rows(steps, room);
    if size_of_all(steps) > room {
        for step in steps {
            step["columns"] = json!([]);
            step["truncated"] = true.into();
        }
    }
}

/// Cuts rows off the largest steps until all of them fit, or no rows are left.
fn cut_rows(steps: &mut [Value], room: usize) {
    let whole = size_of_all(steps);
    if whole <= room {
        return;
    }
    let rows: Vec<Vec<usize>> = steps.iter().map(sizes_of_rows).collect();
    let of_rows: Vec<usize> = rows.iter().map(|rows| rows.iter().sum()).collect();
    // `truncated` may become true, which is shorter than false.
    let fixed = whole - of_rows.iter().sum::<usize>();
    let most = level(&of_rows, room.saturating_sub(fixed));
    for (step, sizes) in steps.iter_mut().zip(rows) {
        let mut taken = 0;
        let kept = sizes.iter().take_while(|size| {
            taken += **size;
            taken <= most
        });
        let kept = kept.count();
        if kept < sizes.len()
            && let Some(rows) = step["rows"].as_array_mut()
        {
            rows.truncate(kept);
            step["truncated"] = true.into();
        }
    }
}

/// Bytes of each row with its comma.
fn sizes_of_rows(step: &Value) -> Vec<usize> {
    let rows = step["rows"].as_array();
    rows.into_iter()
        .flatten()
        .map(|row| size(row) + 1)
        .collect()
}

/// Bytes of the steps with a comma each.
fn size_of_all(steps: &[Value]) -> usize {
    steps.iter().map(|step| size(step) + 1).sum()
}

/// Bytes of a value in JSON.
fn size(value: &Value) -> usize {
    value.to_string().len()
}
