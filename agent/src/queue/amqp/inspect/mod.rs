//! What stands between the broker and lapin: it sees every frame before lapin parses it.
//!
//! lapin parses a message's properties before any code of ours sees the message, and ends the connection
//! where it can't (a text that is not UTF-8, a frame larger than agreed), or the process (headers nested so
//! deep that its stack overflows). The message comes back, and ends the next connection. So properties that
//! lapin can't parse are replaced here by others with a header that names the [`Fault`]: then the message
//! arrives, is told or buried like any that can't be read, and is gone. What is larger than agreed, or would
//! take much memory, is reduced to what this program reads. Everything else passes byte by byte.
//!
//! Guaranteed, whatever a message's properties are: lapin parses what comes out, with at most
//! [`headers::MAX_DEPTH`] calls on the stack, and a connection holds at most about two mebibytes here.
//! Not looked at: what is no frame at all. Only a broker that is none sends that, and lapin ends the connection.

mod cursor;
mod fault;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod headers;
mod methods;
mod properties;
#[cfg(test)]
mod tests;

use std::future::{Future, ready};
use std::io;
use std::io::{IoSlice, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{self, Context, Poll};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::{AsyncRead, AsyncWrite, Stream};
use lapin::tcp::AsyncTcpStream;

pub(super) use self::fault::Fault;
use self::frames::Frames;

/// How much is read from the socket at a time, in bytes.
const READ_BYTES: usize = 16 << 10;

/// A socket of tokio's, with TLS or without.
type Socket = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// A socket whose frames are inspected on their way to lapin. What lapin sends passes as it is.
pub(super) struct Inspected {
    socket: Socket,
    frames: Frames,
    buffer: Box<[u8]>,
    version: Arc<OnceLock<String>>,
}

impl Inspected {
    /// Inspects what comes from a fresh socket. `frame_max` is what the connection asks for, in bytes; the
    /// broker's version is put where it is wanted.
    pub(super) fn new(socket: Socket, frame_max: u32, version: Arc<OnceLock<String>>) -> Self {
        Self {
            socket,
            frames: Frames::new(frame_max),
            buffer: vec![0; READ_BYTES].into(),
            version,
        }
    }
}

impl AsyncRead for Inspected {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            let count = this.frames.read_into(into);
            if count > 0 || into.is_empty() {
                return Poll::Ready(Ok(count));
            }
            let reading = Pin::new(&mut this.socket).poll_read(cx, &mut this.buffer);
            let count = task::ready!(reading)?;
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
            this.frames.feed(&this.buffer[..count]);
            if let Some(version) = this.frames.take_version() {
                // The broker introduces itself once.
                let _ = this.version.set(version);
            }
        }
    }
}

impl AsyncWrite for Inspected {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}

/// tokio, with sockets that are inspected: lapin takes no other stream than its runtime's.
pub(super) type InspectedRuntime = Runtime<RuntimeParts<Tokio, Sockets>>;

/// The current tokio runtime, for lapin.
pub(super) fn runtime() -> InspectedRuntime {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), Sockets(tokio)))
}

/// Timers are tokio's. Sockets are made where a connection is opened, and not by lapin.
#[derive(Clone, Debug)]
pub(super) struct Sockets(Tokio);

impl Reactor for Sockets {
    type TcpStream = Inspected;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Inspected, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, every: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(every)
    }

    fn tcp_connect_addr(
        &self,
        _: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
