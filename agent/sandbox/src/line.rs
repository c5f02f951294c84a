//! Connections that can be cut for real: the client sees a TCP reset, a close without a reply, or
//! half a reply, and not some HTTP status that stands for it.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{extract::connect_info::Connected, serve::IncomingStream, serve::Listener};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

/// How a connection is cut in place of its next reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Cut {
    /// A TCP reset (RST).
    Reset = 1,
    /// Closed with nothing sent (FIN), as a server that dies does.
    Close = 2,
    /// The head and half of the body, and then closed.
    Half = 3,
}

/// The switch of one connection; handlers set it, the connection's next write obeys.
#[derive(Debug, Clone, Default)]
pub(super) struct Switch(Arc<AtomicU8>);

impl Switch {
    /// Cuts the connection where the reply would be written.
    pub(super) fn cut(&self, how: Cut) {
        self.0.store(how as u8, Ordering::Release);
    }

    fn asked(&self) -> Option<Cut> {
        match self.0.load(Ordering::Acquire) {
            1 => Some(Cut::Reset),
            2 => Some(Cut::Close),
            3 => Some(Cut::Half),
            _ => None,
        }
    }
}

/// Accepts connections that carry a [`Switch`].
#[derive(Debug)]
pub(super) struct Lines(pub(super) TcpListener);

impl Listener for Lines {
    type Io = Line;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Line, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok((stream, peer)) => {
                    // Small replies must not wait for the client's delayed acknowledgement.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "sandbox: TCP_NODELAY refused");
                    }
                    return (
                        Line {
                            stream,
                            switch: Switch::default(),
                            half_sent: false,
                        },
                        peer,
                    );
                }
                // Out of file descriptors, or a client gone before it was accepted.
                Err(error) => {
                    tracing::warn!(%error, "sandbox: could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Lines>> for Switch {
    fn connect_info(stream: IncomingStream<'_, Lines>) -> Self {
        stream.io().switch.clone()
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Line {
    stream: TcpStream,
    switch: Switch,
    half_sent: bool,
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let cut = || Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        match self.switch.asked() {
            None => Pin::new(&mut self.stream).poll_write(context, bytes),
            Some(Cut::Half) if !self.half_sent => {
                // The server writes head and body of a small reply in one piece.
                let head = bytes
                    .windows(4)
                    .position(|four| four == b"\r\n\r\n")
                    .map_or(0, |at| at + 4);
                let half = head + (bytes.len() - head) / 2;
                let written = Pin::new(&mut self.stream).poll_write(context, &bytes[..half]);
                self.half_sent = written.is_ready();
                written
            }
            Some(Cut::Half | Cut::Close) => cut(),
            Some(Cut::Reset) => {
                // With a linger of zero the drop that follows sends RST.
                if let Err(error) = self.stream.set_zero_linger() {
                    tracing::debug!(%error, "sandbox: linger refused");
                }
                cut()
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
