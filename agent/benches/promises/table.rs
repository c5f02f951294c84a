//! What was promised and what was seen.

/// The rows so far.
#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

struct Row {
    what: String,
    promised: String,
    seen: String,
    kept: Option<bool>,
}

impl Table {
    /// A promise: `seen` in words, and whether it was kept.
    pub(crate) fn promise(&mut self, what: &str, promised: &str, seen: String, kept: bool) {
        self.row(what, promised, seen, Some(kept));
    }

    /// Something worth knowing beside the promises.
    pub(crate) fn note(&mut self, what: &str, seen: String) {
        self.row(what, "", seen, None);
    }

    fn row(&mut self, what: &str, promised: &str, seen: String, kept: Option<bool>) {
        // The whole takes minutes: who waits sees something.
        eprintln!("{what}: {seen}");
        self.0.push(Row {
            what: what.to_owned(),
            promised: promised.to_owned(),
            seen,
            kept,
        });
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.0.iter().all(|row| row.kept != Some(false))
    }

    pub(crate) fn print(&self) {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
        table.set_header(["measured", "promised", "seen", ""]);
        for row in &self.0 {
            let kept = match row.kept {
                Some(true) => "kept",
                Some(false) => "NOT KEPT",
                None => "",
            };
            table.add_row([&row.what, &row.promised, &row.seen, kept]);
        }
        println!("{table}");
    }
}

/// The value that so many percent of the values do not exceed.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100).saturating_sub(1)]
}
