//! What is done to whom, drawn from one seed: the same seed gives the same plan.

use fastrand::Rng;
use serde_json::{Value, json};
use sparkferry_shared::Outcome;

use crate::stories::harness::Work;

/// A line that a proxy stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// From the workers to RabbitMQ.
    Broker,
    /// From the workers to the workspace.
    Engine,
}

/// One thing that is done. What lasts, lasts until the next beat unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL; another worker takes the place.
    Kill { worker: usize },
    /// SIGSTOP, and SIGCONT so many beats later.
    Freeze { worker: usize, beats: usize },
    /// Every connection is reset.
    Cut(Line),
    /// After so many more bytes towards the workers a connection is reset, within a frame or a reply.
    CutAfter(Line, usize),
    /// No byte passes, and nobody is told.
    Hold(Line),
    /// Each piece passes 100 ms later.
    Delay(Line),
    /// The workspace refuses every call.
    Outage { milliseconds: u32 },
    /// The workspace says "too many" to nearly every call, with or without saying when to come again.
    Storm { milliseconds: u32, tells_when: bool },
    /// The workspace lets nobody in, and calls it a missing permission.
    Revoke { milliseconds: u32 },
    /// The workspace answers the next calls after half a minute.
    Slow { calls: u32 },
    /// Every token that was issued is refused from now on.
    ExpireTokens,
    /// Somebody else holds the database's lock.
    LockDatabase,
    /// The workers find no more room on the disk.
    FillDisk,
    /// The broker is stopped, and goes on so many beats later.
    FreezeBroker { beats: usize },
    /// The broker has too little memory, and takes no message.
    StarveBroker,
    /// The broker's operator closes all connections.
    CloseConnections,
    /// The operator deletes the queue with all requests in it, and may make it anew at once.
    DeleteQueue { anew: bool },
    /// A producer sends a request with properties that nobody should send: which of them is drawn by
    /// this number.
    Poison { number: usize },
}

/// What the requests wait in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broker {
    /// None: the queue is a database.
    None,
    /// RabbitMQ, which other tests use too, behind a proxy.
    Shared,
    /// A node of our own, behind a proxy.
    Own,
}

/// What can suffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage {
    pub(super) workers: usize,
    pub(super) broker: Broker,
    /// Half a minute is not too long for anything.
    pub(super) long: bool,
    /// A producer sends requests with properties that nobody should send.
    pub(super) poison: bool,
}

/// What is drawn for each beat and each request.
pub(super) struct Plan {
    random: Rng,
    stage: Stage,
}

impl Plan {
    pub(super) fn new(seed: u64, stage: Stage) -> Self {
        Self {
            random: Rng::with_seed(seed),
            stage,
        }
    }

    /// The faults of the next beat: always a kill, and more often than not something else.
    pub(super) fn beat(&mut self) -> Vec<Fault> {
        let Stage {
            workers,
            broker,
            long,
            poison,
        } = self.stage;
        let (broker, node) = (broker != Broker::None, broker == Broker::Own);
        let worker = self.random.usize(..workers);
        let mut faults = vec![Fault::Kill { worker }];
        if poison {
            let number = self.random.usize(..);
            faults.push(Fault::Poison { number });
        }
        // Not the one that was killed: it is gone.
        let other = (worker + 1) % workers;
        let line = if broker && self.random.bool() {
            Line::Broker
        } else {
            Line::Engine
        };
        let beats = self.random.usize(1..5);
        let milliseconds = self.random.u32(500..4000);
        let further = match self.random.u32(..20) {
            0 | 1 => Fault::Freeze {
                worker: other,
                beats,
            },
            2 => Fault::Cut(line),
            3 => Fault::CutAfter(line, self.random.usize(1..20_000)),
            4 => Fault::Hold(line),
            5 => Fault::Delay(line),
            6 => Fault::Outage { milliseconds },
            7 => Fault::Storm {
                milliseconds,
                tells_when: self.random.bool(),
            },
            8 => Fault::Revoke { milliseconds },
            9 => Fault::ExpireTokens,
            10 if long => Fault::Slow { calls: 3 },
            11 if !broker => Fault::LockDatabase,
            12 if !broker => Fault::FillDisk,
            11 if node => Fault::FreezeBroker { beats },
            12 if node => Fault::StarveBroker,
            13 if node => Fault::CloseConnections,
            14 if node => Fault::DeleteQueue {
                anew: self.random.bool(),
            },
            _ => return faults,
        };
        faults.push(further);
        faults
    }
}

/// What becomes of a request: what the sandbox is told, the outcome, and after how many attempts.
pub(super) struct Fate {
    pub(super) work: Work,
    pub(super) outcome: Outcome,
    pub(super) attempts: usize,
}

/// The requests, with runs of 0.2 s to `longest_ms`. One in four does not simply succeed.
pub(super) fn fates(seed: u64, requests: usize, longest_ms: usize) -> Vec<Fate> {
    let mut random = Rng::with_seed(seed ^ 0x5eed);
    (0..requests)
        .map(|number| {
            let (words, outcome, attempts) = match random.u32(..20) {
                0 => ("FAILED", Outcome::Failed, 1),
                1 => ("CLUSTER_ERROR,FAILED", Outcome::Failed, 2),
                2 => ("CLUSTER_ERROR,SUCCESS", Outcome::Success, 2),
                3 => ("CANCELED", Outcome::Canceled, 1),
                4 => ("DELETED", Outcome::Lost, 1),
                _ => ("SUCCESS", Outcome::Success, 1),
            };
            Fate {
                work: Work::new(number, random.usize(200..longest_ms), words),
                outcome,
                attempts,
            }
        })
        .collect()
}

/// Rules for the sandbox: about one call in ten goes wrong, in each way that there is.
///
/// Fewer of them say "too many": workers do as that asks and slow down, and then little else happens.
/// A 403 is only for those who ask: refused at the start, a request is REJECTED, and rightly.
pub(super) fn faulty_calls(seed: u64) -> Value {
    let mut kinds = [
        json!({"probability": 0.0015, "status": 429}),
        json!({"probability": 0.0015, "status": 429, "retry_after": 1}),
        json!({"probability": 0.011, "status": 500}),
        json!({"probability": 0.011, "status": 502, "html": true}),
        json!({"probability": 0.005, "status": 503, "retry_after": 1}),
        json!({"probability": 0.011, "status": 504}),
        json!({"probability": 0.012, "reset": true}),
        json!({"probability": 0.012, "lose_reply": true}),
        json!({"probability": 0.012, "half_reply": true}),
        json!({"probability": 0.011, "delay_ms": 1500}),
        json!({"probability": 0.012, "strange": true}),
        json!({"probability": 0.008, "status": 401}),
        json!({"probability": 0.008, "status": 403, "call": "jobs/runs/get"}),
    ];
    for (kind, number) in kinds.iter_mut().zip(0..) {
        kind["seed"] = (seed.wrapping_mul(100) + number).into();
    }
    kinds.to_vec().into()
}

#[test]
fn the_same_seed_is_the_same_plan_and_another_one_is_not() {
    let stage = Stage {
        workers: 3,
        broker: Broker::Own,
        long: true,
        poison: true,
    };
    let plan = |seed| {
        let mut plan = Plan::new(seed, stage);
        (0..50).map(|_| plan.beat()).collect::<Vec<_>>()
    };
    assert_eq!(plan(7), plan(7));
    assert_ne!(plan(7), plan(8));
}
