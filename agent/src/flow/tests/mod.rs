//! Stories of one request, on a paused clock with the fake engine.

mod attempts;
mod attended;
mod cancels;
mod clocks;
mod found;
mod stops;
mod waiting;

use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sparkferry_ports::engine::{Engine, Fault};
use sparkferry_shared::event::EventDetails;
use sparkferry_shared::{ErrorClass, EventType, Names, Outcome, Request, decode};
use sparkferry_testkit::engine::fake::{FakeEngine, Trouble, World};
use tokio::sync::Notify;

use super::{Ending, Flow, Host};

struct TestHost {
    world: World,
    /// How far its clock is ahead of the engine's.
    ahead: Mutex<SignedDuration>,
    cancel: OnceLock<String>,
    cancelled: Notify,
    told: Mutex<Vec<EventType>>,
    announced: Mutex<Vec<Outcome>>,
    /// How long it takes until a result is published early.
    announcing: Duration,
    /// The states of these.
    states: Mutex<Vec<String>>,
    stirred: Notify,
}

impl TestHost {
    fn new(world: &World) -> Self {
        Self {
            world: world.clone(),
            ahead: Mutex::default(),
            cancel: OnceLock::new(),
            cancelled: Notify::new(),
            told: Mutex::default(),
            announced: Mutex::default(),
            announcing: Duration::ZERO,
            states: Mutex::default(),
            stirred: Notify::new(),
        }
    }

    /// Sets its clock.
    fn set_clock(&self, ahead: SignedDuration) {
        *self.ahead.lock().unwrap() = ahead;
    }

    fn cancel(&self) {
        self.cancel.set("enough".into()).unwrap();
        self.cancelled.notify_waiters();
    }

    fn told(&self) -> Vec<EventType> {
        self.told.lock().unwrap().clone()
    }

    fn announced(&self) -> Vec<Outcome> {
        self.announced.lock().unwrap().clone()
    }

    async fn until_announced(&self) {
        loop {
            let stirred = self.stirred.notified();
            if !self.announced().is_empty() {
                return;
            }
            stirred.await;
        }
    }

    async fn until_told(&self, event: EventType) {
        loop {
            let stirred = self.stirred.notified();
            if self.told().contains(&event) {
                return;
            }
            stirred.await;
        }
    }
}

#[async_trait]
impl Host for TestHost {
    fn now(&self) -> Timestamp {
        self.world.now() + *self.ahead.lock().unwrap()
    }

    async fn held(&self) {}

    async fn cancelled(&self) -> String {
        loop {
            let cancelled = self.cancelled.notified();
            if let Some(reason) = self.cancel.get() {
                return reason.clone();
            }
            cancelled.await;
        }
    }

    fn announce<'a>(&'a self, ending: &Ending) -> BoxFuture<'a, ()> {
        let outcome = ending.outcome;
        Box::pin(async move {
            tokio::time::sleep(self.announcing).await;
            self.announced.lock().unwrap().push(outcome);
            self.stirred.notify_waiters();
        })
    }

    fn tell(&self, event: EventType, _: Option<u32>, details: EventDetails) {
        self.told.lock().unwrap().push(event);
        self.states.lock().unwrap().extend(details.state);
        self.stirred.notify_waiters();
    }

    fn attempt_ended(&self, _: Option<ErrorClass>) {}
}

/// One request in one world; workers come and go.
struct Story {
    world: World,
    request: Request,
    names: Names,
}

impl Story {
    fn new(fields: &Value) -> Self {
        let mut body = json!({ "id": "x", "run_now": { "job_id": 1, "fake": {} } });
        for (name, value) in fields.as_object().unwrap() {
            match name.as_str() {
                "fake" => body["run_now"]["fake"] = value.clone(),
                _ => body[name] = value.clone(),
            }
        }
        Self {
            world: World::default(),
            request: decode(body.to_string().as_bytes(), None, None, 1 << 20).unwrap(),
            names: Names::new("sparkferry", "prod", "x"),
        }
    }

    async fn worker(&self, host: &TestHost, seen_before: bool) -> Ending {
        let engine = FakeEngine::new(self.world.clone());
        self.worker_on(&engine, host, seen_before).await
    }

    async fn worker_on(&self, engine: &dyn Engine, host: &TestHost, seen_before: bool) -> Ending {
        let flow = Flow {
            engine,
            host,
            request: Box::new(self.request.clone()),
            names: self.names,
            received_at: host.now(),
            seen_before,
            max_output_bytes: 1024,
        };
        flow.carry_out().await
    }

    async fn told(&self) -> (Ending, Vec<EventType>) {
        let host = TestHost::new(&self.world);
        let ending = self.worker(&host, false).await;
        (ending, host.told())
    }

    async fn ending(&self) -> Ending {
        self.told().await.0
    }

    fn deadline_in(mut self, wait: Duration) -> Self {
        self.request.deadline = Some(self.world.now() + wait);
        self
    }
}

fn passing(perhaps_done: bool) -> Trouble {
    Trouble::Fails(fault(perhaps_done))
}

fn fault(perhaps_done: bool) -> Fault {
    Fault::Passing {
        message: "engine.example: connection refused".into(),
        class: ErrorClass::Infrastructure,
        retry_after: None,
        perhaps_done,
    }
}
