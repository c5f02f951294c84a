//! The watch: one task that follows all runs of a connection.
//!
//! It looks at each run when it is due, by runs/get where few are due and by the pages of runs/list
//! where many are, whichever costs fewer calls. Calls that fail are repeated for as long as it takes,
//! more and more slowly; they never end a run. A run that is not among the active ones is asked for
//! by runs/get, which its ending needs anyway.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error, warn};

use super::book::{Book, Miss, Plan, Sweeping};
use super::call::Call;
use super::client::Client;
use super::error::CallError;
use super::known::Known;
use super::wire::{Run, Runs};
use crate::observe::metrics;

/// Looks under way at once: enough to keep up with any sensible pace over a slow line.
const AT_ONCE: usize = 16;
/// After calls that fail one after the other the watch rests, from 0.1 s, doubled each time.
const REST: Duration = Duration::from_millis(100);
/// At most 0.1 s × 2⁶, about 6 s, and then one call at a time.
const REST_DOUBLINGS: u32 = 6;
/// What others' runs fill in runs/list is measured again after so long, where a sweep was given up.
const FOREIGN_KEPT: Duration = Duration::from_mins(10);
/// Runs may begin so much earlier than we believe, by a clock that differs: they are still listed.
const START_SLACK_MS: i64 = 60_000;
/// Rest after a panic, so that one that comes back at once does not spin.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// The watch's task; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    _task: AbortOnDropHandle<()>,
}

impl Watch {
    /// Starts to follow the runs in the book.
    pub(super) fn start(client: Arc<Client>, book: Arc<Book>) -> Self {
        Self {
            _task: AbortOnDropHandle::new(tokio::spawn(keep_watching(client, book))),
        }
    }
}

/// A panic is an error of ours: it is told, and the watch goes on.
async fn keep_watching(client: Arc<Client>, book: Arc<Book>) {
    loop {
        let watching = Watching::new(&client, &book).run();
        if let Err(panic) = AssertUnwindSafe(watching).catch_unwind().await {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no text");
            error!(
                connection = client.connection(),
                panic = text,
                "the watch of this connection's runs panicked and starts again"
            );
        }
        book.recover();
        sleep(AFTER_PANIC).await;
    }
}

/// What a call of the watch brought.
enum Look {
    Run(i64, Result<Run, CallError>),
    Page(Result<Runs, CallError>),
}

type Looking<'a> = Pin<Box<dyn Future<Output = Look> + Send + 'a>>;

struct Watching<'a> {
    client: &'a Client,
    book: &'a Arc<Book>,
    calls: FuturesUnordered<Looking<'a>>,
    sweep: Option<Sweep>,
    /// Pages of runs/list that the active runs of others fill, as far as is known, and since when.
    foreign_pages: (usize, Instant),
    /// runs/list is refused until then.
    no_list_until: Option<Instant>,
    /// Calls in a row that failed.
    failures: u32,
}

/// A walk through the pages of all active runs.
struct Sweep {
    /// Looks that it can spare: more pages than that are not worth it.
    due: usize,
    pages: usize,
    query: Vec<(&'static str, String)>,
}

impl<'a> Watching<'a> {
    fn new(client: &'a Client, book: &'a Arc<Book>) -> Self {
        Self {
            client,
            book,
            calls: FuturesUnordered::new(),
            sweep: None,
            foreign_pages: (0, Instant::now()),
            no_list_until: None,
            failures: 0,
        }
    }

    async fn run(mut self) {
        let mut rest_until = Instant::now();
        loop {
            let wake_at = if Instant::now() < rest_until {
                Some(rest_until)
            } else {
                self.fill()
            };
            let woken = async {
                match wake_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(look) = self.calls.next() => {
                    if self.handle(look) {
                        self.failures = 0;
                    } else if Instant::now() >= rest_until {
                        // Calls that were under way together count once.
                        self.failures += 1;
                        let doublings = (self.failures - 1).min(REST_DOUBLINGS);
                        let rest = REST * 2_u32.pow(doublings);
                        rest_until = Instant::now() + rest.mul_f64(0.75 + fastrand::f64() / 2.0);
                    }
                }
                () = woken => {}
                () = self.book.sooner() => {}
            }
        }
    }

    /// Makes the calls that are due, as many as may be under way; says when the next one is due.
    fn fill(&mut self) -> Option<Instant> {
        // In trouble, one call feels whether it is over.
        let at_once = if self.failures > 0 { 1 } else { AT_ONCE };
        while self.calls.len() < at_once {
            match self.book.plan(self.sweeping()) {
                Plan::Get { run_id, history } => {
                    let client = self.client;
                    self.calls.push(Box::pin(async move {
                        Look::Run(run_id, get(client, run_id, history).await)
                    }));
                }
                Plan::Sweep => {
                    self.sweep = Some(self.new_sweep());
                    self.next_page(None);
                }
                Plan::Wait(until) => return until,
            }
        }
        None
    }

    fn sweeping(&mut self) -> Sweeping {
        let now = Instant::now();
        if self.sweep.is_some() {
            return Sweeping::UnderWay;
        }
        if self.no_list_until.is_some_and(|until| now < until) {
            return Sweeping::Impossible;
        }
        if now.duration_since(self.foreign_pages.1) > FOREIGN_KEPT {
            self.foreign_pages = (0, now);
        }
        Sweeping::Possible {
            foreign_pages: self.foreign_pages.0,
        }
    }

    fn new_sweep(&self) -> Sweep {
        let mut query = vec![
            ("active_only", "true".to_owned()),
            ("expand_tasks", "true".to_owned()),
            ("limit", "25".to_owned()),
        ];
        // What began before all of ours (the streams of others) need not be told.
        if let Some(oldest) = self.book.oldest_ms() {
            query.push(("start_time_from", (oldest - START_SLACK_MS).to_string()));
        }
        Sweep {
            due: self.book.sweep_begins(),
            pages: 0,
            query,
        }
    }

    fn next_page(&mut self, token: Option<String>) {
        let Some(sweep) = &mut self.sweep else {
            return;
        };
        sweep.query.retain(|(name, _)| *name != "page_token");
        sweep.query.extend(token.map(|token| ("page_token", token)));
        let (client, query) = (self.client, sweep.query.clone());
        self.calls.push(Box::pin(async move {
            Look::Page(client.get(Call::List, &query).await)
        }));
    }

    /// Takes in what a call brought; false if it failed.
    fn handle(&mut self, look: Look) -> bool {
        match look {
            Look::Run(run_id, Ok(run)) => {
                self.saw(run_id, run);
                true
            }
            Look::Run(run_id, Err(error)) => self.missed(run_id, &error),
            Look::Page(Ok(page)) => {
                self.page(page);
                true
            }
            Look::Page(Err(error)) => {
                self.sweep = None;
                match &error {
                    CallError::Refused(_) => {
                        warn!(
                            connection = self.client.connection(),
                            error = error.text(),
                            "runs can't be listed; they are asked for one by one"
                        );
                        self.no_list_until = Some(Instant::now() + FOREIGN_KEPT);
                    }
                    CallError::Passing(_) => self.tell_fault(&error),
                }
                false
            }
        }
    }

    fn tell_fault(&self, error: &CallError) {
        debug!(
            connection = self.client.connection(),
            error = error.text(),
            "a look at the runs failed and is repeated"
        );
    }

    fn saw(&self, run_id: i64, run: Run) {
        let known = Known::new(run);
        let unknown = known.unknown;
        let changed = self.book.saw(run_id, known, self.client.clock.now_ms());
        if changed && unknown {
            tell_unknown(self.client, run_id);
        }
    }

    fn missed(&self, run_id: i64, error: &CallError) -> bool {
        match error {
            CallError::Refused(refusal) if refusal.run_gone() => {
                self.book.missed(run_id, Miss::Gone(error.text()));
                true
            }
            CallError::Refused(_) => {
                warn!(
                    connection = self.client.connection(),
                    run_id,
                    error = error.text(),
                    "the run can't be looked at; it may be under way, and is asked for again"
                );
                self.book.missed(run_id, Miss::Fault);
                false
            }
            CallError::Passing(_) => {
                self.tell_fault(error);
                self.book.missed(run_id, Miss::Fault);
                false
            }
        }
    }

    fn page(&mut self, page: Runs) {
        for run in page.runs {
            if self.book.shares(run.run_id) {
                self.saw(run.run_id, run);
            }
        }
        let Some(sweep) = &mut self.sweep else {
            return;
        };
        sweep.pages += 1;
        let (pages, due) = (sweep.pages, sweep.due);
        let now = Instant::now();
        let own = self.book.own_pages();
        match page.next_page_token.filter(|token| !token.is_empty()) {
            None => {
                self.foreign_pages = (pages.saturating_sub(own), now);
                self.book.swept();
                self.sweep = None;
            }
            Some(token) => {
                let expected = (own + self.foreign_pages.0).saturating_sub(pages).max(1);
                if self.book.left() <= expected || pages >= due {
                    // The rest costs less one by one.
                    let seen = (pages + 1).saturating_sub(own);
                    if seen > self.foreign_pages.0 {
                        self.foreign_pages = (seen, now);
                    }
                    self.sweep = None;
                } else {
                    self.next_page(Some(token));
                }
            }
        }
    }
}

/// Counts and tells that a run is described in words that this version doesn't know.
pub(super) fn tell_unknown(client: &Client, run_id: i64) {
    metrics::unknown_state(client.connection());
    warn!(
        connection = client.connection(),
        run_id, "the run is described in words that this version doesn't know"
    );
}

/// A run, or its first page of tasks.
pub(super) async fn get(client: &Client, run_id: i64, history: bool) -> Result<Run, CallError> {
    let mut query = vec![("run_id", run_id.to_string())];
    if history {
        query.push(("include_history", "true".to_owned()));
    }
    get_page(client, run_id, &query).await
}

/// One page of a run's tasks.
pub(super) async fn get_page(
    client: &Client,
    run_id: i64,
    query: &[(&str, String)],
) -> Result<Run, CallError> {
    let run: Run = client.get(Call::Get, query).await?;
    if run.run_id != run_id {
        return Err(CallError::another_run(
            &client.place(Call::Get),
            run_id,
            run.run_id,
        ));
    }
    Ok(run)
}
