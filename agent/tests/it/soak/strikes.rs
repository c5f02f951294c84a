//! What is done to the field, and undone.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use sparkferry_testkit::story::broker::BrokerNode;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::field::{Field, Node};
use super::plan::{Fault, Plan};
use crate::stories::harness::{FULL_DISK, limit_files, signal};

/// What [`Fault::Delay`] adds to each piece.
const DELAY: Duration = Duration::from_millis(100);
/// A share of memory that any broker exceeds, and RabbitMQ's own.
const STARVED: &str = "0.000001";
const FED: &str = "0.4";

/// What lasts for a while.
#[derive(Default)]
pub(super) struct Ills {
    /// Holds the database's lock.
    lock: Option<rusqlite::Connection>,
    disk_full: bool,
    starved: bool,
    /// The broker is frozen until this beat.
    frozen: Option<usize>,
}

impl Field {
    /// Suffers what the plan says, beat for beat, without an end. What is done is printed.
    pub(super) async fn suffer(&mut self, mut plan: Plan, pace: Duration) {
        let mut beats = interval(pace);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beats.tick().await;
        for beat in 1.. {
            beats.tick().await;
            self.recover(beat).await;
            let faults = plan.beat();
            eprintln!("beat {beat}: {faults:?}");
            for fault in faults {
                self.strike(fault, beat).await;
            }
        }
    }

    /// Ends what lasts no longer than to this beat.
    pub(super) async fn recover(&mut self, beat: usize) {
        for proxy in [Some(&self.engine), self.broker.as_ref()]
            .into_iter()
            .flatten()
        {
            proxy.pass();
        }
        self.ills.lock = None;
        for post in &mut self.posts {
            if post.frozen.is_some_and(|until| until <= beat) {
                signal(&post.worker, "CONT").await;
                post.frozen = None;
            }
        }
        if std::mem::take(&mut self.ills.disk_full) {
            self.limit_files(None).await;
        }
        if let Some(node) = self.node.clone() {
            if self.ills.frozen.is_some_and(|until| until <= beat) {
                self.ills.frozen = None;
                node.with(|node| node.thaw()).await;
            }
            if std::mem::take(&mut self.ills.starved) {
                node.with(|node| drop(feed(node, FED))).await;
            }
        }
    }

    async fn strike(&mut self, fault: Fault, beat: usize) {
        match fault {
            Fault::Kill { worker } => {
                let victim = &mut self.posts[worker];
                victim.killed = true;
                // SIGKILL, and its end awaited.
                victim.worker.kill().await.expect("our own child");
                self.posts[worker] = self.post();
                self.done.kills += 1;
                return;
            }
            Fault::Freeze { worker, beats } => {
                let post = &mut self.posts[worker];
                signal(&post.worker, "STOP").await;
                post.frozen = Some(beat + beats);
                self.done.freezes += 1;
                return;
            }
            Fault::Cut(line) => self.proxy(line).cut(),
            Fault::CutAfter(line, bytes) => self.proxy(line).cut_after(bytes),
            Fault::Hold(line) => self.proxy(line).hold(),
            Fault::Delay(line) => self.proxy(line).delay(DELAY),
            Fault::Outage { milliseconds } => self.refuse_all(503, milliseconds).await,
            Fault::Revoke { milliseconds } => self.refuse_all(403, milliseconds).await,
            Fault::Storm {
                milliseconds,
                tells_when,
            } => {
                let seconds = f64::from(milliseconds) / 1000.0;
                let mut storm = json!({
                    "call": "*", "status": 429, "probability": 0.9, "outage_seconds": seconds,
                });
                if tells_when {
                    storm["retry_after"] = 1.into();
                }
                self.workspace.rules(storm).await;
            }
            Fault::Slow { calls } => {
                // Not for longer: where one request is left, the calls that are made are few.
                let slow = json!({
                    "call": "*", "delay_ms": 30_000, "times": calls, "outage_seconds": 2.0,
                });
                self.workspace.rules(slow).await;
            }
            Fault::ExpireTokens => {
                let expiry = json!({"call": "*", "expire_tokens": true, "times": 1});
                self.workspace.rules(expiry).await;
            }
            Fault::LockDatabase => self.ills.lock = lock(self.ground.database()).await,
            Fault::FillDisk => {
                self.limit_files(Some(FULL_DISK)).await;
                self.ills.disk_full = true;
            }
            Fault::DeleteQueue { anew } => self.delete_queue(anew).await,
            Fault::Poison { number } => {
                let (poisoner, ground) = (self.poisoner.as_mut(), &self.ground);
                let poisoner = poisoner.expect("the plan knows the queue");
                return poisoner.send_another(ground, number).await;
            }
            Fault::FreezeBroker { .. } | Fault::StarveBroker | Fault::CloseConnections => {
                let node = self.node.clone().expect("the plan knows the broker");
                if self.ills.frozen.is_some() || !self.strike_broker(fault, beat, &node).await {
                    return;
                }
            }
        }
        self.done.others += 1;
    }

    /// False where the broker is just being killed, and feels nothing else.
    async fn strike_broker(&mut self, fault: Fault, beat: usize, node: &Node) -> bool {
        match fault {
            // Noted before: whoever does this may be interrupted, and it is done all the same.
            Fault::FreezeBroker { beats } => {
                self.ills.frozen = Some(beat + beats);
                let done = node.with_if_free(|node| node.freeze()).await;
                self.ills.frozen = done.then_some(beat + beats);
                done
            }
            Fault::StarveBroker => {
                self.ills.starved = true;
                self.ills.starved = node.with_if_free(|node| drop(feed(node, STARVED))).await;
                self.ills.starved
            }
            _ => {
                let close = ["close_all_connections", "the operator wants it so"];
                node.with_if_free(move |node| drop(node.ctl(&close))).await
            }
        }
    }

    async fn refuse_all(&self, status: u16, milliseconds: u32) {
        let seconds = f64::from(milliseconds) / 1000.0;
        let outage = json!({"call": "*", "status": status, "outage_seconds": seconds});
        self.workspace.rules(outage).await;
    }

    /// How large the workers' files may be from now on.
    async fn limit_files(&self, limit: Option<u32>) {
        for post in &self.posts {
            limit_files(&post.worker, limit).await;
        }
    }
}

fn feed(node: &BrokerNode, share: &str) -> String {
    node.ctl(&["set_vm_memory_high_watermark", share])
}

/// Takes the lock of a database, where it can be had at once.
pub(super) async fn lock(path: PathBuf) -> Option<rusqlite::Connection> {
    let locking = spawn_blocking(move || -> rusqlite::Result<rusqlite::Connection> {
        let database = rusqlite::Connection::open(path)?;
        database.busy_timeout(Duration::from_secs(1))?;
        database.execute_batch("BEGIN IMMEDIATE")?;
        Ok(database)
    });
    locking.await.expect("no panic").ok()
}
