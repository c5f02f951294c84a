//! Stories of one request, on a paused clock with the fake engine.

mod attempts;
mod cancels;
mod found;
mod stops;

use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};
use sparkferry_shared::event::EventDetails;
use sparkferry_shared::{ErrorClass, EventType, Names, Request, decode};
use tokio::sync::Notify;

use super::{Ending, Flow, Host};
use crate::engine::fake::{FakeEngine, Trouble, World};
use crate::engine::{Engine, Fault};

struct TestHost {
    world: World,
    cancel: OnceLock<String>,
    cancelled: Notify,
    told: Mutex<Vec<EventType>>,
    stirred: Notify,
}

impl TestHost {
    fn new(world: &World) -> Self {
        Self {
            world: world.clone(),
            cancel: OnceLock::new(),
            cancelled: Notify::new(),
            told: Mutex::default(),
            stirred: Notify::new(),
        }
    }

    fn cancel(&self) {
        self.cancel.set("enough".into()).unwrap();
        self.cancelled.notify_waiters();
    }

    fn told(&self) -> Vec<EventType> {
        self.told.lock().unwrap().clone()
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
        self.world.now()
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

    fn tell(&self, event: EventType, _: Option<u32>, _: EventDetails) {
        self.told.lock().unwrap().push(event);
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
            received_at: self.world.now(),
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
    Trouble::Fails(Fault::Passing {
        message: "engine.example: connection refused".into(),
        class: ErrorClass::Infrastructure,
        retry_after: None,
        perhaps_done,
    })
}
