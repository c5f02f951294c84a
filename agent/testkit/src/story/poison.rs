//! Messages that each once stopped every worker that met them, and some of their kind. Their bodies
//! are requests like any other; it is the properties that nobody should send.

use super::raw::{long, short};

/// A message's flags, by what they announce.
const CONTENT_TYPE: u16 = 1 << 15;
const HEADERS: u16 = 1 << 13;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;

/// What becomes of a request with such properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Becomes {
    /// It runs as if it had none.
    Succeeds,
    /// It goes to the dead letters: its properties can't be read.
    Buried,
}

/// Properties that nobody should send.
pub struct Poison {
    /// What they are called.
    pub name: &'static str,
    /// What becomes of a request that has them.
    pub becomes: Becomes,
    /// On the wire, their flags first.
    pub properties: Vec<u8>,
}

/// All of them.
pub fn all() -> Vec<Poison> {
    use Becomes::{Buried, Succeeds};
    vec![
        // lapin's stack overflowed, and the process aborted.
        poison("deep-headers", Buried, HEADERS, &[nested(6_000)]),
        poison("rather-deep-headers", Buried, HEADERS, &[nested(100)]),
        // More than the frame that workers agree to.
        poison("40-kb-of-headers", Succeeds, HEADERS, &[headers(13, 3_000)]),
        poison(
            "120-kb-of-headers",
            Succeeds,
            HEADERS,
            &[headers(4, 30_000)],
        ),
        poison("many-values", Succeeds, HEADERS, &[many_values()]),
        // Any Latin-1 producer by accident.
        poison("latin-1-id", Buried, MESSAGE_ID, &[short(b"caf\xe9")]),
        poison("latin-1-type", Buried, CONTENT_TYPE, &[short(b"text/\xe9")]),
        poison(
            "latin-1-correlation",
            Buried,
            CORRELATION_ID,
            &[short(b"\xe9")],
        ),
        poison("latin-1-header", Buried, HEADERS, &[long(b"\x01\xe9V")]),
        // The result's header was too large for the connection that publishes.
        poison(
            "long-traceparent",
            Succeeds,
            HEADERS,
            &[trace("traceparent", 32 << 10)],
        ),
        poison(
            "long-tracestate",
            Succeeds,
            HEADERS,
            &[trace("tracestate", 60_000)],
        ),
        // As above, where what is read is a stream.
        poison(
            "stream-offset",
            Succeeds,
            HEADERS,
            &[stream_offset_and_trace(32 << 10)],
        ),
        // RabbitMQ ends the connection that publishes there.
        poison(
            "made-up-reply-to",
            Succeeds,
            REPLY_TO,
            &[short(b"amq.rabbitmq.reply-to.made-up.address")],
        ),
        poison(
            "odd-numbers",
            Succeeds,
            PRIORITY | TIMESTAMP,
            &[vec![255; 9]],
        ),
    ]
}

impl Poison {
    /// The id of the nth request with these properties.
    pub fn id(&self, nth: usize) -> String {
        format!("poison-{nth}-{}", self.name)
    }
}

fn poison(name: &'static str, becomes: Becomes, flags: u16, properties: &[Vec<u8>]) -> Poison {
    Poison {
        name,
        becomes,
        properties: [&flags.to_be_bytes()[..], &properties.concat()].concat(),
    }
}

/// Headers that hold a table, which holds a table, and so on.
fn nested(levels: usize) -> Vec<u8> {
    let table = (0..levels).fold(Vec::new(), |table, _| {
        [&b"\x01aF"[..], &long(&table)].concat()
    });
    long(&table)
}

/// So many headers of so many bytes.
fn headers(count: u8, bytes: usize) -> Vec<u8> {
    let header = |n| [&[2, b'h', b'a' + n, b'S'][..], &long(&vec![b'x'; bytes])].concat();
    let table: Vec<u8> = (0..count).flat_map(header).collect();
    long(&table)
}

/// A header of few bytes and many values.
fn many_values() -> Vec<u8> {
    long(&[&b"\x01aA"[..], &long(&[b'V'; 8_000])].concat())
}

fn trace(name: &str, bytes: usize) -> Vec<u8> {
    let value = long(&vec![b'0'; bytes]);
    long(&[&short(name.as_bytes())[..], b"S", &value].concat())
}

/// A header that RabbitMQ adds to what it delivers from a stream, and a large one.
fn stream_offset_and_trace(bytes: usize) -> Vec<u8> {
    let offset = [&short(b"x-stream-offset")[..], b"l", &[0xFF; 8]].concat();
    let trace = [&short(b"traceparent")[..], b"S", &long(&vec![b'0'; bytes])].concat();
    long(&[offset, trace].concat())
}
