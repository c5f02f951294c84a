//! A bell for everyone in this process who has the same database open: rung after a change, so that
//! a submit is delivered at once. Between processes, a look every few milliseconds takes its place.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use tokio::sync::watch;

static BELLS: LazyLock<Mutex<HashMap<PathBuf, Weak<watch::Sender<()>>>>> =
    LazyLock::new(Mutex::default);

/// One listener's hold of the bell, which it can ring too.
pub(super) struct Bell {
    rope: Arc<watch::Sender<()>>,
    ear: watch::Receiver<()>,
}

impl Bell {
    /// The bell of a database file that is there.
    pub(super) fn of(path: &Path) -> Self {
        // Two spellings that can't be resolved would only have to wait for each other's looks.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut bells = BELLS.lock().unwrap_or_else(PoisonError::into_inner);
        bells.retain(|_, rope| rope.strong_count() > 0);
        let rope = bells
            .get(&path)
            .and_then(Weak::upgrade)
            .unwrap_or_else(|| Arc::new(watch::Sender::new(())));
        bells.insert(path, Arc::downgrade(&rope));
        let ear = rope.subscribe();
        Self { rope, ear }
    }

    /// Something was written.
    pub(super) fn ring(&self) {
        self.rope.send_replace(());
    }

    /// Returns once it has rung since the last time. Cancel-safe.
    pub(super) async fn rung(&mut self) {
        self.ear
            .changed()
            .await
            .expect("the rope is held beside the ear");
    }
}
