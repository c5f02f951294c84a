//! A TCP proxy of our own, for stories in which the network is at fault.
//!
//! It listens on a free port of 127.0.0.1, forwards to one target, and on command cuts, halves,
//! delays or holds back what passes. Dropping it cuts everything.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// No limit to what passes.
const UNLIMITED: usize = usize::MAX;

/// What happens to bytes, in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Pass,
    /// Each piece passes so much later.
    Delay(Duration),
    /// Nothing passes; nobody is told. Later it may pass after all.
    Hold,
}

struct Shared {
    flow: watch::Sender<Flow>,
    /// Cancelled by the next cut; a new one is for the connections after it.
    cut: Mutex<CancellationToken>,
    /// Bytes that may still pass to clients; then the connection that needs more is cut.
    left: AtomicUsize,
    accepted: AtomicUsize,
}

/// A proxy. Orders hold for the connections that are open and for those to come.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Forwards to `target`, which need not be there yet: a client is cut off while it isn't.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            flow: watch::Sender::new(Flow::Pass),
            cut: Mutex::default(),
            left: AtomicUsize::new(UNLIMITED),
            accepted: AtomicUsize::new(0),
        });
        let accepting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    shared.accepted.fetch_add(1, Ordering::Relaxed);
                    let cut = shared.cut.lock().expect("unpoisoned").clone();
                    tokio::spawn(forward(client, target, Arc::clone(&shared), cut));
                }
            }
        });
        Self {
            address,
            shared,
            accepting,
        }
    }

    /// Where clients come in.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many clients have come so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Cuts every connection that is open, as a reset. The next ones are served.
    pub fn cut(&self) {
        let mut cut = self.shared.cut.lock().expect("unpoisoned");
        std::mem::take(&mut *cut).cancel();
    }

    /// Lets so many more bytes pass to clients, all connections together, and cuts the connection
    /// that would carry the next one. After that one cut there is no limit.
    pub fn cut_after(&self, bytes: usize) {
        self.shared.left.store(bytes, Ordering::Relaxed);
    }

    /// Whether the cut ordered by [`Self::cut_after`] is still to come.
    pub fn cut_is_due(&self) -> bool {
        self.shared.left.load(Ordering::Relaxed) != UNLIMITED
    }

    /// Makes each piece pass later.
    pub fn delay(&self, by: Duration) {
        self.shared.flow.send_replace(Flow::Delay(by));
    }

    /// Lets nothing pass, as a network that loses everything: connections stay open, new ones are
    /// accepted, and no byte moves before [`Self::pass`].
    pub fn hold(&self) {
        self.shared.flow.send_replace(Flow::Hold);
    }

    /// Back to normal: what was held passes now.
    pub fn pass(&self) {
        self.shared.flow.send_replace(Flow::Pass);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// The connection is to be cut.
struct Cut;

async fn forward(
    mut client: TcpStream,
    target: SocketAddr,
    shared: Arc<Shared>,
    cut: CancellationToken,
) {
    if let Ok(mut server) = TcpStream::connect(target).await {
        {
            let (client_reads, client_writes) = client.split();
            let (server_reads, server_writes) = server.split();
            let both = async {
                tokio::try_join!(
                    pump(client_reads, server_writes, &shared, None),
                    pump(server_reads, client_writes, &shared, Some(&shared.left)),
                )
            };
            tokio::select! {
                _ = both => {}
                () = cut.cancelled() => {}
            }
        }
        let _ = server.set_zero_linger();
    }
    // A reset, as of a machine that is gone; after an orderly end it does nothing.
    let _ = client.set_zero_linger();
}

/// Carries one direction to its orderly end. `left` is how much of it may pass.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    shared: &Shared,
    left: Option<&AtomicUsize>,
) -> Result<(), Cut> {
    let mut flow = shared.flow.subscribe();
    let mut piece = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut piece).await.map_err(|_| Cut)?;
        let now = *flow
            .wait_for(|flow| *flow != Flow::Hold)
            .await
            .map_err(|_| Cut)?;
        if let Flow::Delay(by) = now {
            tokio::time::sleep(by).await;
        }
        if length == 0 {
            return to.shutdown().await.map_err(|_| Cut);
        }
        let passes = left.map_or(length, |left| take(left, length));
        to.write_all(&piece[..passes]).await.map_err(|_| Cut)?;
        if passes < length {
            return Err(Cut);
        }
    }
}

/// Takes up to `wanted` of what is left. Where that is not enough, the limit is gone.
fn take(left: &AtomicUsize, wanted: usize) -> usize {
    let rest = |left: usize| match left {
        UNLIMITED => Some(UNLIMITED),
        left => Some(left.checked_sub(wanted).unwrap_or(UNLIMITED)),
    };
    let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
    before.unwrap_or(UNLIMITED).min(wanted)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Sends back what it is sent.
    async fn echo() -> (SocketAddr, JoinHandle<Infallible>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let serving = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a client");
                tokio::spawn(async move {
                    let (mut reads, mut writes) = stream.split();
                    tokio::io::copy(&mut reads, &mut writes).await
                });
            }
        });
        (address, serving)
    }

    #[tokio::test]
    async fn it_forwards_holds_and_cuts_on_command() {
        let (target, serving) = echo().await;
        let proxy = Proxy::to(target).await;
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        let mut reply = [0; 5];
        client.write_all(b"hello").await.unwrap();
        client.read_exact(&mut reply).await.unwrap();
        assert_eq!(&reply, b"hello");

        proxy.hold();
        client.write_all(b"later").await.unwrap();
        let held = client.read_exact(&mut reply);
        let held = tokio::time::timeout(Duration::from_millis(50), held).await;
        assert!(held.is_err(), "it passed: {reply:?}");
        proxy.pass();
        client.read_exact(&mut reply).await.unwrap();
        assert_eq!(&reply, b"later");

        proxy.delay(Duration::from_millis(1));
        proxy.cut_after(7);
        client.write_all(b"piece").await.unwrap();
        client.read_exact(&mut reply).await.unwrap();
        assert!(proxy.cut_is_due());
        client.write_all(b"piece").await.unwrap();
        let mut rest = Vec::new();
        assert!(client.read_to_end(&mut rest).await.is_err(), "{rest:?}");
        assert!(!proxy.cut_is_due());

        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        client.write_all(b"again").await.unwrap();
        client.read_exact(&mut reply).await.unwrap();
        proxy.cut();
        assert!(client.read(&mut reply).await.is_err());
        assert_eq!(proxy.accepted(), 2);
        serving.abort();
    }
}
