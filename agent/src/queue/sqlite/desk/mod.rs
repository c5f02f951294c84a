//! The worker's thread: it owns the database and does all of the worker's reading and writing.
//!
//! It goes round: take what was asked meanwhile, write all of it in one transaction (so that many
//! settlements share one wait for the disk), and only then change what it remembers and answer. A
//! round that fails is rolled back and tried again, with everything still to be done.

mod cancels;
mod round;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sparkferry_ports::queue::{Delivery, Health, Outgoing, SentCancel};
use sparkferry_shared::Event;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::cancels::CancelsTo;
use super::bell::Bell;
use super::database::Database;
use super::lease::Seen;
use super::presence::{Lock, Presence};
use super::trouble::Trouble;
use crate::observe::metrics;

/// How often it looks for what other processes wrote.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// The most settlements and events that one transaction holds.
const MAX_BATCH: usize = 512;

/// The most deliveries that one transaction takes for one connection: with bodies of 1 MiB, as much
/// memory as a worker can spare for a moment.
const MAX_TAKEN: usize = 128;

/// The first and the longest wait before a failed round is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// How long closing tries to give everything back; leases that stay end with
/// the process.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

/// How often old events and cancels are forgotten.
const FORGET: Duration = Duration::from_mins(1);

/// What a worker asks of its thread.
pub(super) enum Command {
    /// Deliver from now on.
    Consume(Consumer),
    /// Deliver no more; answered when that is so.
    StopConsuming(oneshot::Sender<()>),
    /// Tell cancels; answered when the past ones are on their way.
    Cancels(mpsc::Sender<SentCancel>, oneshot::Sender<()>),
    /// Settle.
    Write(Write),
}

/// A settlement. Answered once it is on disk: with false where nothing was ours any more.
pub(super) struct Write {
    pub(super) leases: Vec<(u64, u64)>,
    pub(super) what: What,
    pub(super) answer: oneshot::Sender<bool>,
}

/// How to settle.
pub(super) enum What {
    /// With a result.
    Finish(Outgoing),
    /// Not yet, but the result is there.
    Announce(Outgoing),
    /// Not at all: somebody else shall.
    HandBack,
    /// Among the dead letters.
    Bury {
        /// One word.
        reason: &'static str,
        /// A sentence.
        error: String,
    },
}

/// Somebody who takes deliveries.
pub(super) struct Consumer {
    pub(super) connection: String,
    pub(super) max_active_runs: usize,
    pub(super) deliveries: mpsc::Sender<Delivery>,
}

/// A consumer at work. `key` is never used again, so that a late settlement of an ended one counts
/// for nobody.
struct Active {
    key: u64,
    consumer: Consumer,
    unsettled: usize,
}

impl Active {
    fn room(&self) -> usize {
        // What an ended session left unread takes room in the channel, too.
        let free = self.consumer.max_active_runs.saturating_sub(self.unsettled);
        free.min(self.consumer.deliveries.capacity()).min(MAX_TAKEN)
    }
}

/// A worker's hold on the database: its row in `workers`. Every lease ends with it.
struct Session {
    number: i64,
    lost: CancellationToken,
    lock: Lock,
}

struct Held {
    seq: i64,
    consumer: u64,
}

/// What the thread is made of.
pub(super) struct Setup {
    pub(super) database: Database,
    pub(super) bell: Bell,
    pub(super) presence: Presence,
    pub(super) namespace: String,
    pub(super) worker: String,
    pub(super) beat: Duration,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) health: watch::Sender<Health>,
    pub(super) closing: CancellationToken,
}

/// The worker's thread.
pub(super) struct Desk {
    setup: Setup,
    timer: Runtime,
    session: Option<Session>,
    seen: Seen,
    next_beat: Instant,
    next_look_for_deaths: Instant,
    next_forget: Instant,
    consumers: Vec<Active>,
    held: HashMap<u64, Held>,
    last_number: u64,
    /// Something may be ready that was not seen yet.
    stale: bool,
    pending: Vec<Write>,
    told: Vec<Event>,
    cancels: Vec<CancelsTo>,
    pause: Duration,
}

impl Desk {
    /// Runs until the worker closes, or is dropped without closing: then its leases end.
    pub(super) fn run(setup: Setup) {
        let timer = match Builder::new_current_thread().enable_time().build() {
            Ok(timer) => timer,
            Err(error) => {
                let trouble = Some(format!("the queue's thread can't start: {error}"));
                setup.health.send_replace(Health { trouble });
                return;
            }
        };
        let now = Instant::now();
        let mut desk = Self {
            setup,
            timer,
            session: None,
            seen: Seen::new(),
            next_beat: now,
            next_look_for_deaths: now,
            next_forget: now,
            consumers: Vec::new(),
            held: HashMap::new(),
            last_number: 0,
            stale: true,
            pending: Vec::new(),
            told: Vec::new(),
            cancels: Vec::new(),
            pause: PAUSE.0,
        };
        while desk.wait() {
            if desk.setup.closing.is_cancelled() {
                return desk.close();
            }
            if let Err(trouble) = desk.round() {
                desk.trouble(trouble);
                desk.rest();
            } else {
                desk.well();
            }
        }
    }

    /// Waits for something to do. False once the worker was dropped.
    fn wait(&mut self) -> bool {
        let Setup {
            commands,
            events,
            bell,
            closing,
            ..
        } = &mut self.setup;
        let mut asked = Vec::new();
        let (told, room) = (&mut self.told, MAX_BATCH.saturating_sub(self.pending.len()));
        let open = if self.pending.is_empty() {
            self.timer.block_on(async {
                tokio::select! {
                    () = closing.cancelled() => true,
                    count = commands.recv_many(&mut asked, room) => count > 0,
                    count = events.recv_many(told, MAX_BATCH) => count > 0,
                    () = bell.rung() => true,
                    () = tokio::time::sleep(LOOK) => true,
                }
            })
        } else {
            !commands.is_closed()
        };
        while asked.len() < room
            && let Ok(command) = commands.try_recv()
        {
            asked.push(command);
        }
        while told.len() < MAX_BATCH
            && let Ok(event) = events.try_recv()
        {
            told.push(event);
        }
        for command in asked {
            self.accept(command);
        }
        open
    }

    fn accept(&mut self, command: Command) {
        match command {
            Command::Write(write) => self.pending.push(write),
            Command::Consume(consumer) => {
                self.last_number += 1;
                self.stale = true;
                self.consumers.push(Active {
                    key: self.last_number,
                    consumer,
                    unsettled: 0,
                });
            }
            Command::StopConsuming(answer) => {
                self.consumers.clear();
                // Nobody may wait for it any more.
                let _ = answer.send(());
            }
            Command::Cancels(to, caught_up) => self.cancels.push(CancelsTo::new(to, caught_up)),
        }
    }

    fn trouble(&mut self, Trouble(what): Trouble) {
        for _event in self.told.drain(..) {
            metrics::event_dropped();
        }
        let trouble = Some(what);
        self.setup.health.send_if_modified(|health| {
            let news = health.trouble != trouble;
            if news {
                warn!(
                    path = %self.setup.database.path.display(),
                    trouble = trouble.as_deref(),
                    "the queue can't be written; trying again"
                );
                health.trouble = trouble;
            }
            news
        });
    }

    fn well(&mut self) {
        self.pause = PAUSE.0;
        let path = &self.setup.database.path;
        self.setup.health.send_if_modified(|health| {
            let was_ill = health.trouble.take().is_some();
            if was_ill {
                info!(path = %path.display(), "the queue can be written again");
            }
            was_ill
        });
    }

    fn rest(&mut self) {
        let (closing, pause) = (&self.setup.closing, self.pause);
        // Either way it is time to go on.
        let _ = self
            .timer
            .block_on(async { timeout(pause, closing.cancelled()).await });
        self.pause = (self.pause * 2).min(PAUSE.1);
    }

    /// Writes what is still to be written and gives everything back.
    fn close(mut self) {
        self.consumers.clear();
        self.setup.commands.close();
        while let Ok(command) = self.setup.commands.try_recv() {
            self.accept(command);
        }
        let started = Instant::now();
        // To be given up in time, whoever keeps the database locked. It can't fail.
        let _ = self.setup.database.hurry();
        while let Err(trouble) = self.last_round() {
            if started.elapsed() > CLOSE_PATIENCE {
                let Trouble(why) = trouble;
                warn!(%why, "closed without giving back: the leases end with this process");
                return;
            }
            self.trouble(trouble);
            std::thread::sleep(PAUSE.0);
        }
        self.setup.bell.ring();
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let trouble = Some("the queue's thread ended by a bug; start the worker again".into());
            self.setup.health.send_replace(Health { trouble });
            if let Some(session) = self.session.take() {
                // Its lock goes and its row stays: as if the process had died.
                session.lost.cancel();
            }
        }
    }
}
