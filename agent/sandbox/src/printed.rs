//! What a real program prints: kept from its end backwards, because there is no limit to it.

use tokio::io::{AsyncRead, AsyncReadExt};

use super::{ending::Ending, reads::OUTPUT_BYTES};

/// What a program prints: both streams together, and standard error once more for the traceback.
pub(super) struct Output<O, E> {
    stdout: Option<O>,
    stderr: Option<E>,
    from_stdout: Box<[u8]>,
    from_stderr: Box<[u8]>,
    all: Tail,
    errors: Tail,
}

impl<O: AsyncRead + Unpin, E: AsyncRead + Unpin> Output<O, E> {
    /// Of these two streams.
    pub(super) fn new(stdout: Option<O>, stderr: Option<E>) -> Self {
        let buffer = || vec![0; 8192].into_boxed_slice();
        Self {
            stdout,
            stderr,
            from_stdout: buffer(),
            from_stderr: buffer(),
            all: Tail::default(),
            errors: Tail::default(),
        }
    }

    /// Whether there may be more.
    pub(super) fn open(&self) -> bool {
        self.stdout.is_some() || self.stderr.is_some()
    }

    /// Takes the next piece from either stream; to be called while one is open.
    pub(super) async fn more(&mut self) {
        tokio::select! {
            read = piece(self.stdout.as_mut(), &mut self.from_stdout) => match read {
                0 => self.stdout = None,
                length => self.all.push(&self.from_stdout[..length]),
            },
            read = piece(self.stderr.as_mut(), &mut self.from_stderr) => match read {
                0 => self.stderr = None,
                length => {
                    self.all.push(&self.from_stderr[..length]);
                    self.errors.push(&self.from_stderr[..length]);
                }
            },
        }
    }

    /// The end of what was printed, and whether that is not all of it.
    pub(super) fn logs(&self) -> (String, bool) {
        self.all.text()
    }

    /// The ending of a program that didn't exit with 0: the last traceback, if it printed one.
    pub(super) fn failure(&self, status: &str) -> Ending {
        let (errors, _) = self.errors.text();
        let trace = errors
            .rfind("Traceback (most recent call last):")
            .map(|at| errors[at..].trim_end());
        let last = trace.and_then(|trace| trace.lines().rfind(|line| !line.trim().is_empty()));
        let error = last.map_or_else(
            || format!("The program ended with {status}."),
            str::to_owned,
        );
        Ending::failed_program(Some(error), trace.map(str::to_owned))
    }
}

/// Reads a piece; 0 at the end. A stream that is gone never answers.
async fn piece<R: AsyncRead + Unpin>(stream: Option<&mut R>, buffer: &mut [u8]) -> usize {
    match stream {
        Some(stream) => stream.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

/// The last 5 MB of what was pushed.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    fn push(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
        // Cut rarely, so that each byte is moved at most once.
        if self.bytes.len() > 2 * OUTPUT_BYTES {
            self.trim();
        }
    }

    fn trim(&mut self) {
        let over = self.bytes.len().saturating_sub(OUTPUT_BYTES);
        self.cut |= over > 0;
        self.bytes.drain(..over);
    }

    /// The text, and whether something before it was left out.
    fn text(&self) -> (String, bool) {
        let over = self.bytes.len().saturating_sub(OUTPUT_BYTES);
        (
            String::from_utf8_lossy(&self.bytes[over..]).into_owned(),
            self.cut || over > 0,
        )
    }
}
