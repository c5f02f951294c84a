//! Arrow's stream format, as far as it is checked before the library reads it.
//!
//! The library trusts what a compressed buffer claims to hold, and allocates that much. So the
//! stream is walked once by its frames, which also counts rows without looking at them.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::{Message, MessageHeader, root_as_message};
use arrow_schema::Schema;

use super::RowsError;

/// What the compressed buffers of one stream may hold, bytes. Spark cuts its batches at about 4 MB.
const UNCOMPRESSED_BYTES: i64 = 256 << 20;

/// Begins a frame in streams of today; older ones begin with the length.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// A stream that consists of whole frames.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    bytes: &'a [u8],
    rows: u64,
}

impl<'a> Frames<'a> {
    /// Walks the frames to the stream's end.
    pub(super) fn split(bytes: &'a [u8]) -> Result<Self, RowsError> {
        let mut rest = bytes;
        let mut rows = 0_u64;
        let mut unpacked = 0_i64;
        while !rest.is_empty() {
            if rest.starts_with(&CONTINUATION) {
                rest = &rest[CONTINUATION.len()..];
            }
            let length = u32::from_le_bytes(*take(&mut rest, 4)?.first_chunk().ok_or_else(cut)?);
            if length == 0 {
                break;
            }
            let frame = take(&mut rest, length.into())?;
            let message = root_as_message(frame)
                .map_err(|error| RowsError(format!("a frame of the Arrow stream: {error}")))?;
            let body = u64::try_from(message.bodyLength()).map_err(|_| cut())?;
            let body = take(&mut rest, body)?;
            rows = rows.saturating_add(rows_of(&message)?);
            unpacked = unpacked.saturating_add(claimed(&message, body)?);
        }
        if unpacked > UNCOMPRESSED_BYTES {
            return Err(RowsError(format!(
                "a compressed batch claims {unpacked} bytes, more than the {UNCOMPRESSED_BYTES} \
                 that are read at once"
            )));
        }
        Ok(Self { bytes, rows })
    }

    /// How many rows the stream says it holds.
    pub(super) fn count_rows(&self) -> u64 {
        self.rows
    }

    /// Reads them.
    ///
    /// # Panics
    /// The library may, at bytes that the format forbids.
    pub(super) fn read(&self) -> Result<(Arc<Schema>, Vec<RecordBatch>), RowsError> {
        let unreadable = |error: arrow_schema::ArrowError| RowsError(error.to_string());
        let mut decoder = StreamDecoder::new();
        let mut batches = Vec::new();
        // A copy, aligned as the arrays want to be: no buffer is copied after it.
        let mut buffer = Buffer::from(self.bytes);
        while !buffer.is_empty() {
            batches.extend(decoder.decode(&mut buffer).map_err(unreadable)?);
        }
        decoder.finish().map_err(unreadable)?;
        let schema = decoder
            .schema()
            .ok_or_else(|| RowsError("the Arrow stream has no schema".to_owned()))?;
        Ok((schema, batches))
    }
}

fn cut() -> RowsError {
    RowsError("the Arrow stream is cut off".to_owned())
}

/// The next `length` bytes.
fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], RowsError> {
    let length = usize::try_from(length).map_err(|_| cut())?;
    let (taken, left) = rest.split_at_checked(length).ok_or_else(cut)?;
    *rest = left;
    Ok(taken)
}

fn rows_of(message: &Message<'_>) -> Result<u64, RowsError> {
    match message.header_as_record_batch() {
        Some(batch) => u64::try_from(batch.length())
            .map_err(|_| RowsError("a batch with fewer rows than none".to_owned())),
        None => Ok(0),
    }
}

/// What the compressed buffers of a frame say they hold, bytes.
fn claimed(message: &Message<'_>, body: &[u8]) -> Result<i64, RowsError> {
    let batch = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch(),
        MessageHeader::DictionaryBatch => message
            .header_as_dictionary_batch()
            .and_then(|dictionary| dictionary.data()),
        _ => None,
    };
    let Some(batch) = batch.filter(|batch| batch.compression().is_some()) else {
        return Ok(0);
    };
    let mut sum = 0_i64;
    for buffer in batch.buffers().into_iter().flatten() {
        let at = usize::try_from(buffer.offset()).map_err(|_| cut())?;
        if buffer.length() == 0 {
            continue;
        }
        let length = body
            .get(at..)
            .and_then(|from| from.first_chunk())
            .ok_or_else(cut)?;
        // Below 0 stands for "not compressed".
        sum = sum.saturating_add(i64::from_le_bytes(*length).max(0));
    }
    Ok(sum)
}
