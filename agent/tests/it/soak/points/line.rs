//! A proxy whose every piece is understood before it passes: who uses it says what carries a
//! connection.

use std::net::SocketAddr;

use tokio::io;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A line from a worker to a server. Dropping it cuts it, and what was held never passes.
pub(super) struct Line {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Line {
    /// `carry` carries one connection, the worker's end and the server's, to its end.
    pub(super) async fn to<F>(
        server: SocketAddr,
        carry: impl Fn(TcpStream, TcpStream) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let accepting = tokio::spawn(async move {
            // They end with this task.
            let mut connections = JoinSet::new();
            while let Ok((worker, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(server).await {
                    connections.spawn(carry(worker, server));
                }
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, accepting }
    }

    /// Where the worker comes in.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
