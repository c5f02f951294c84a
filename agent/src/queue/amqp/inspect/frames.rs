//! Frames that the broker sends, from its bytes and back to bytes: what passes, and what is replaced.
//!
//! A frame is its type (one byte), its channel (two) and its size (four), so many bytes of content,
//! and an end of one byte. Methods and content headers are looked at whole; all others, bodies most of
//! all, pass as they come.

use super::cursor::Cursor;
use super::properties::PREFIX_BYTES;
use super::{methods, properties};

const HEAD_BYTES: usize = 7;
const END: u8 = 0xCE;
const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;
/// What a frame has beside its content, in bytes.
const AROUND_CONTENT: usize = HEAD_BYTES + 1;

/// The largest frame that is looked at whole, in bytes. A client can't send a larger content header
/// than the broker's `frame_max` (128 KiB by default), to which the broker adds a little.
const LARGEST: usize = 1 << 20;
/// What we may add to a message's properties before we publish it again, in bytes.
const ADDED: usize = 256;
/// The smallest `frame_max` that AMQP allows.
const FRAME_MIN: u32 = 4096;
/// The gathered frame keeps so much memory for the next one.
const KEPT_BYTES: usize = 32 << 10;

/// How the broker introduces itself, and how long frames may be.
const CONNECTION_START: (u16, u16) = (10, 10);
const CONNECTION_TUNE: (u16, u16) = (10, 30);

/// What is expected next.
enum Next {
    /// A frame's head.
    Head,
    /// The rest of a frame that is looked at whole: so many bytes with its head.
    Whole(usize),
    /// So many bytes of a frame that passes.
    Pass(u64),
    /// So many bytes of a content header that is too large to be gathered.
    Drop(u64),
}

/// The broker's frames on their way to lapin.
pub(super) struct Frames {
    /// The largest frame that lapin takes, in bytes: what we ask for, then what is agreed.
    frame_max: u32,
    next: Next,
    /// The frame that is being gathered.
    gathered: Vec<u8>,
    /// What lapin may read, and how much of it is read.
    passed: Vec<u8>,
    read: usize,
    version: Option<String>,
}

impl Frames {
    /// Of a new connection, for which we ask for frames of at most so many bytes.
    pub(super) fn new(frame_max: u32) -> Self {
        Self {
            frame_max: frame_max.max(FRAME_MIN),
            next: Next::Head,
            gathered: Vec::new(),
            passed: Vec::new(),
            read: 0,
            version: None,
        }
    }

    /// The broker has sent this.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let used = match self.next {
                Next::Head => self.gather(bytes, HEAD_BYTES),
                Next::Whole(size) => self.gather(bytes, size),
                Next::Pass(left) => {
                    let (used, end) = up_to(bytes, left);
                    self.passed.extend_from_slice(&bytes[..used]);
                    self.next = end.map_or(Next::Head, Next::Pass);
                    used
                }
                Next::Drop(left) => {
                    let (used, end) = up_to(bytes, left);
                    self.next = end.map_or(Next::Head, Next::Drop);
                    used
                }
            };
            bytes = &bytes[used..];
        }
    }

    /// Moves what lapin may read into its buffer, and tells how much that was.
    pub(super) fn read_into(&mut self, buffer: &mut [u8]) -> usize {
        let unread = &self.passed[self.read..];
        let count = unread.len().min(buffer.len());
        buffer[..count].copy_from_slice(&unread[..count]);
        self.read += count;
        if self.read == self.passed.len() {
            self.passed.clear();
            self.passed.shrink_to(KEPT_BYTES);
            self.read = 0;
        }
        count
    }

    /// The broker's version, once: when it has introduced itself.
    pub(super) fn take_version(&mut self) -> Option<String> {
        self.version.take()
    }

    /// Gathers up to so many bytes, and tells how many it took.
    fn gather(&mut self, bytes: &[u8], size: usize) -> usize {
        let used = bytes.len().min(size - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..used]);
        if self.gathered.len() == size {
            match self.next {
                Next::Whole(_) => self.whole(),
                _ => self.head(),
            }
        }
        used
    }

    /// A head is complete.
    fn head(&mut self) {
        let mut cursor = Cursor::new(&self.gathered);
        let kind = cursor.octet().unwrap_or_default();
        cursor.short();
        let size = cursor.long().unwrap_or_default();
        let whole = usize::try_from(size).unwrap_or(LARGEST) + AROUND_CONTENT;
        self.next = match kind {
            METHOD | CONTENT_HEADER if whole <= LARGEST => Next::Whole(whole),
            CONTENT_HEADER => Next::Whole(HEAD_BYTES + PREFIX_BYTES),
            _ => {
                self.passed.append(&mut self.gathered);
                Next::Pass(u64::from(size) + 1)
            }
        };
    }

    /// What is looked at whole is complete.
    fn whole(&mut self) {
        let mut frame = std::mem::take(&mut self.gathered);
        self.next = Next::Head;
        let size = Cursor::new(&frame[3..]).long().unwrap_or_default();
        let content = HEAD_BYTES..frame.len() - 1;
        if usize::try_from(size).ok() != Some(content.len()) {
            // Only the beginning is here: the rest, and the end, are dropped.
            let prefix = HEAD_BYTES..HEAD_BYTES + PREFIX_BYTES;
            self.pass_instead(&frame, &properties::too_large(&frame[prefix]));
            let dropped = u64::try_from(PREFIX_BYTES).unwrap_or_default();
            self.next = Next::Drop(u64::from(size) + 1 - dropped);
        } else if frame[0] == METHOD {
            self.method(&mut frame[content]);
            self.passed.extend_from_slice(&frame);
        } else {
            let frame_max = usize::try_from(self.frame_max).unwrap_or(LARGEST);
            match properties::inspect(&frame[content], frame_max - AROUND_CONTENT - ADDED) {
                Some(instead) => self.pass_instead(&frame, &instead),
                None => self.passed.extend_from_slice(&frame),
            }
        }
        frame.clear();
        frame.shrink_to(KEPT_BYTES);
        self.gathered = frame;
    }

    /// Passes a frame with another content.
    fn pass_instead(&mut self, frame: &[u8], content: &[u8]) {
        let size = u32::try_from(content.len()).unwrap_or_default();
        self.passed.extend_from_slice(&frame[..3]);
        self.passed.extend_from_slice(&size.to_be_bytes());
        self.passed.extend_from_slice(content);
        self.passed.push(END);
    }

    fn method(&mut self, method: &mut [u8]) {
        match methods::of(method) {
            Some(CONNECTION_START) => self.version = version_in(method),
            Some(CONNECTION_TUNE) => {
                // Class and method, the most channels, then the largest frame; 0 is no limit.
                let mut cursor = Cursor::new(method);
                cursor.take(6);
                if let Some(theirs @ 1..) = cursor.long() {
                    self.frame_max = self.frame_max.min(theirs).max(FRAME_MIN);
                }
            }
            _ => methods::make_readable(method),
        }
    }
}

/// How much of the bytes to take of so many that are expected, and how many are left to come; `None`
/// where these were the last.
fn up_to(bytes: &[u8], left: u64) -> (usize, Option<u64>) {
    let used = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    let left = left - u64::try_from(used).unwrap_or(left);
    (used, (left > 0).then_some(left))
}

/// Finds the string field `version` in a greeting: its name's length and name, `S`, the value's
/// length in four bytes, the value.
fn version_in(greeting: &[u8]) -> Option<String> {
    const FIELD: &[u8] = b"\x07versionS";
    let mut fields = greeting.windows(FIELD.len());
    let at = fields.position(|part| part == FIELD)? + FIELD.len();
    let mut cursor = Cursor::new(greeting.get(at..)?);
    String::from_utf8(cursor.long_string()?.to_vec()).ok()
}
