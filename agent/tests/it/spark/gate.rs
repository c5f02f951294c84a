//! What stands between a worker and a server: it knows the calls, passes them on, and on command
//! holds one for ever, or answers one in the server's place.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Status;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

use crate::stories::harness::PATIENCE;

/// Where a call is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// The server never hears of it.
    Before,
    /// The server has done it (or begins to answer), and the caller never hears of that.
    After,
}

/// What becomes of a call.
#[derive(Clone)]
enum Order {
    Hold(Hold),
    Fail(Status),
    Answer(Vec<u8>),
}

/// The gate; it closes when it is dropped.
pub(super) struct Gate {
    address: SocketAddr,
    way: Arc<Way>,
    serving: JoinHandle<()>,
}

struct Way {
    server: Channel,
    /// For the call of this name and number, from 1.
    orders: Mutex<HashMap<(&'static str, u32), Order>>,
    /// How often each call was made.
    calls: Mutex<HashMap<String, u32>>,
    /// How many calls are, or were, held.
    held: watch::Sender<u32>,
    /// How often those that are held were let go.
    opened: watch::Sender<u32>,
}

impl Gate {
    /// Stands before a server, and passes everything on.
    pub(super) async fn before(server: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{server}"));
        let way = Arc::new(Way {
            server: endpoint.expect("an address").connect_lazy(),
            orders: Mutex::default(),
            calls: Mutex::default(),
            held: watch::Sender::new(0),
            opened: watch::Sender::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let app = axum::Router::new()
            .fallback(pass)
            .with_state(Arc::clone(&way));
        let serving = tokio::spawn(async move {
            axum::serve(listener, app).await.expect("it serves");
        });
        Self {
            address,
            way,
            serving,
        }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The call of this name and number, from 1, is held.
    pub(super) fn hold(&self, call: &'static str, number: u32, hold: Hold) {
        self.order(call, number, Order::Hold(hold));
    }

    /// The call of this name and number fails so, and the server never hears of it.
    pub(super) fn fail(&self, call: &'static str, number: u32, status: &Status) {
        self.order(call, number, Order::Fail(status.clone()));
    }

    /// The call of this name and number is answered so, and the server never hears of it.
    pub(super) fn answer(&self, call: &'static str, number: u32, answer: &impl Message) {
        self.order(call, number, Order::Answer(answer.encode_to_vec()));
    }

    fn order(&self, call: &'static str, number: u32, order: Order) {
        let mut orders = self.way.orders.lock().expect("no panic");
        orders.insert((call, number), order);
    }

    /// Counts from 1 again, without orders.
    pub(super) fn anew(&self) {
        self.way.orders.lock().expect("no panic").clear();
        self.way.calls.lock().expect("no panic").clear();
        self.way.held.send_replace(0);
    }

    /// How often a call was made.
    pub(super) fn calls(&self, call: &str) -> u32 {
        let calls = self.way.calls.lock().expect("no panic");
        calls.get(call).copied().unwrap_or(0)
    }

    /// Waits until so many calls have been held.
    pub(super) async fn held(&self, wanted: u32) {
        let mut held = self.way.held.subscribe();
        let waiting = timeout(PATIENCE, held.wait_for(|held| *held >= wanted)).await;
        let reached = waiting.unwrap_or_else(|_| panic!("no call came: {:?}", self.way.calls));
        reached.expect("the gate is here");
    }

    /// Lets go what is held.
    pub(super) fn open(&self) {
        self.way.opened.send_modify(|opened| *opened += 1);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Way {
    fn order_for(&self, call: &str) -> Option<Order> {
        let mut calls = self.calls.lock().expect("no panic");
        let number = calls.entry(call.to_owned()).or_default();
        *number += 1;
        let orders = self.orders.lock().expect("no panic");
        let mut ours = orders.iter();
        let found = ours.find(|((name, nth), _)| *name == call && nth == number);
        found.map(|(_, order)| order.clone())
    }

    async fn hold(&self) {
        let mut opened = self.opened.subscribe();
        self.held.send_modify(|held| *held += 1);
        opened.changed().await.expect("the gate is here");
    }

    /// As the server answers, or as somebody who can't reach it.
    async fn forward(&self, request: Request) -> Response {
        let request = request.map(tonic::body::Body::new);
        // A clone of a channel is ready; one is made for each call, as the generated client does.
        let mut server = self.server.clone();
        let ready = std::future::poll_fn(|context| server.poll_ready(context)).await;
        let answer = match ready {
            Ok(()) => server.call(request).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => answer.map(Body::new),
            Err(error) => Status::unavailable(error.to_string()).into_http(),
        }
    }
}

async fn pass(State(way): State<Arc<Way>>, request: Request) -> Response {
    let path = request.uri().path();
    let call = path.rsplit('/').next().unwrap_or_default().to_owned();
    let order = way.order_for(&call);
    match &order {
        Some(Order::Fail(status)) => return status.clone().into_http(),
        Some(Order::Answer(message)) => return answered(message),
        Some(Order::Hold(Hold::Before)) => way.hold().await,
        Some(Order::Hold(Hold::After)) | None => {}
    }
    let answer = way.forward(request).await;
    if matches!(order, Some(Order::Hold(Hold::After))) {
        way.hold().await;
    }
    answer
}

/// One message, as gRPC frames it.
fn answered(message: &[u8]) -> Response {
    let length = u32::try_from(message.len()).expect("a small message");
    let mut framed = vec![0];
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", "0")
        .body(Body::from(framed))
        .expect("a response")
}
