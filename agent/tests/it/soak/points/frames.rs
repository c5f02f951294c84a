//! The line to RabbitMQ: AMQP's frames, read as far as it takes to know the steps.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use sparkferry_shared::Topology;
use tokio::io::{self, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::line::Line;
use super::trap::{Point, Step, Trap};

/// What a client sends before its first frame.
const PROTOCOL_HEADER: usize = 8;
/// Before a frame's payload: its type, its channel, the payload's size. Behind it: one byte.
const FRAME_HEADER: usize = 7;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// Class and method, as they are numbered in AMQP 0-9-1.
const BASIC_PUBLISH: [u16; 2] = [60, 40];
const BASIC_DELIVER: [u16; 2] = [60, 60];
const BASIC_ACK: [u16; 2] = [60, 80];

/// A line to the broker, for a worker of one story.
pub(super) async fn line(broker: SocketAddr, topology: &Topology, trap: &Arc<Trap>) -> Line {
    let requests: Arc<str> = topology.requests_exchange().as_str().into();
    let results: Arc<str> = topology.results_exchange().as_str().into();
    let trap = Arc::clone(trap);
    Line::to(broker, move |worker, broker| {
        let channels = Channels {
            requests: Arc::clone(&requests),
            results: Arc::clone(&results),
            consuming: AtomicU16::new(0),
            publishing: AtomicU16::new(0),
        };
        carry(worker, broker, channels, Arc::clone(&trap))
    })
    .await
}

/// What is known of one connection's channels; 0 is none of them.
struct Channels {
    requests: Arc<str>,
    results: Arc<str>,
    /// Requests were delivered on it.
    consuming: AtomicU16,
    /// A result was published on it.
    publishing: AtomicU16,
}

async fn carry(
    mut worker: TcpStream,
    mut broker: TcpStream,
    channels: Channels,
    trap: Arc<Trap>,
) -> io::Result<()> {
    let (mut from_worker, to_worker) = worker.split();
    let (from_broker, mut to_broker) = broker.split();
    let mut header = [0; PROTOCOL_HEADER];
    from_worker.read_exact(&mut header).await?;
    trap.hold().await;
    to_broker.write_all(&header).await?;
    let sent = |frame: &Frame| channels.sent(frame);
    let told = |frame: &Frame| channels.told(frame);
    // The first end ends both.
    tokio::try_join!(
        pump(from_worker, to_broker, &trap, sent),
        pump(from_broker, to_worker, &trap, told),
    )?;
    Ok(())
}

/// Carries one direction, frame by frame, until it ends, which is an error.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    trap: &Trap,
    step_of: impl Fn(&Frame) -> Option<Step>,
) -> io::Result<()> {
    // A message that began to pass: a method, a header, and as much body as the header says.
    let mut passing: Option<(Step, u16)> = None;
    let mut left = 0;
    loop {
        let frame = Frame::read(&mut from).await?;
        let step = step_of(&frame);
        match step {
            Some(step) => trap.meet(Point::Before(step)).await,
            None => trap.hold().await,
        }
        let passed = match (step, passing) {
            (Some(step @ (Step::Confirm | Step::Acknowledge)), _) => Some(step),
            (Some(step), _) => {
                passing = Some((step, frame.channel()));
                None
            }
            (None, Some((step, channel))) if frame.channel() == channel => {
                match frame.kind() {
                    HEADER => left = frame.body_size(),
                    BODY => left -= frame.payload().len() as u64,
                    _ => {}
                }
                (left == 0).then_some(step)
            }
            _ => None,
        };
        if let Some(step) = passed {
            trap.approach(Point::After(step));
        }
        to.write_all(&frame.0).await?;
        if let Some(step) = passed {
            passing = None;
            trap.meet(Point::After(step)).await;
        }
    }
}

impl Channels {
    /// What a worker's frame does.
    fn sent(&self, frame: &Frame) -> Option<Step> {
        let channel = frame.channel();
        match frame.method()? {
            // After two bytes that mean nothing any more: the exchange.
            BASIC_PUBLISH if frame.text(4 + 2) == self.results.as_bytes() => {
                self.publishing.store(channel, Ordering::Relaxed);
                Some(Step::Publish)
            }
            BASIC_ACK if channel == self.consuming.load(Ordering::Relaxed) => {
                Some(Step::Acknowledge)
            }
            _ => None,
        }
    }

    /// What the broker's frame does.
    fn told(&self, frame: &Frame) -> Option<Step> {
        let channel = frame.channel();
        match frame.method()? {
            BASIC_DELIVER => {
                // The consumer's tag, the delivery's tag, redelivered or not: then the exchange.
                let tag = frame.text(4).len();
                let exchange = frame.text(4 + 1 + tag + 8 + 1);
                (exchange == self.requests.as_bytes()).then(|| {
                    self.consuming.store(channel, Ordering::Relaxed);
                    Step::Receive
                })
            }
            BASIC_ACK if channel == self.publishing.load(Ordering::Relaxed) => Some(Step::Confirm),
            _ => None,
        }
    }
}

/// A frame, whole.
struct Frame(Vec<u8>);

impl Frame {
    async fn read(from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Self> {
        let mut frame = vec![0; FRAME_HEADER];
        from.read_exact(&mut frame).await?;
        let size = u32::from_be_bytes(frame[3..].try_into().expect("four bytes"));
        frame.resize(FRAME_HEADER + size as usize + 1, 0);
        from.read_exact(&mut frame[FRAME_HEADER..]).await?;
        Ok(Self(frame))
    }

    fn kind(&self) -> u8 {
        self.0[0]
    }

    fn channel(&self) -> u16 {
        u16::from_be_bytes([self.0[1], self.0[2]])
    }

    fn payload(&self) -> &[u8] {
        &self.0[FRAME_HEADER..self.0.len() - 1]
    }

    fn method(&self) -> Option<[u16; 2]> {
        let payload = self.payload();
        let number = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
        (self.kind() == METHOD).then(|| [number(0), number(2)])
    }

    /// A short text in the payload.
    fn text(&self, at: usize) -> &[u8] {
        let rest = &self.payload()[at..];
        &rest[1..=usize::from(rest[0])]
    }

    /// What a header says of its message.
    fn body_size(&self) -> u64 {
        u64::from_be_bytes(self.payload()[4..12].try_into().expect("eight bytes"))
    }
}
