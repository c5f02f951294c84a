//! A message's headers: a table of AMQP's, walked without recursion.

use sparkferry_shared::topology::{DEAD_CONNECTION_HEADER, DEAD_ERROR_HEADER, DEAD_REASON_HEADER};

use super::super::message::{LETTER_HEADER, TRACE_PARENT, TRACE_STATE};
use super::cursor::Cursor;
use super::fault::Fault;

/// The deepest nesting that is passed on. Nobody needs more than a few levels (`x-death` has three),
/// and lapin parses with a call for each: some thousands overflow its stack.
pub(super) const MAX_DEPTH: usize = 32;
/// The largest table that is passed on as it is, in bytes.
const MAX_BYTES: usize = 8 << 10;
/// The most values that are passed on as they are: one of a single byte takes 32 once it is parsed.
const MAX_VALUES: usize = 256;
/// The largest of [`READ`] that is kept of a table which is not, in bytes.
const MAX_ENTRY: usize = 4 << 10;

/// What this program reads, the most important first, and so what is kept of a table that is too
/// large.
const READ: [&str; 7] = [
    DEATHS,
    DEAD_REASON_HEADER,
    DEAD_CONNECTION_HEADER,
    LETTER_HEADER,
    TRACE_PARENT,
    TRACE_STATE,
    DEAD_ERROR_HEADER,
];
const DEATHS: &str = "x-death";

/// What was found in a table.
#[derive(Debug, Default)]
pub(super) struct Headers<'a> {
    /// What is wrong with it. What is not wrong is in [`Self::read`] all the same.
    pub(super) fault: Option<Fault>,
    /// It can't stay as it is, though nothing is wrong with it: it is too large, or has a
    /// header that the inspection alone writes.
    pub(super) reduce: bool,
    /// The entries of [`READ`], each with its name.
    read: Vec<(usize, &'a [u8])>,
}

/// A value of a table or an array.
struct Value<'a> {
    /// Its content, where it holds others, and whether these have names.
    nested: Option<(&'a [u8], bool)>,
}

impl<'a> Headers<'a> {
    /// Looks at every entry, by the content of the table.
    pub(super) fn inspect(table: &'a [u8]) -> Self {
        let mut found = Self {
            reduce: table.len() > MAX_BYTES,
            ..Self::default()
        };
        let mut values = 0;
        let mut cursor = Cursor::new(table);
        while !cursor.rest().is_empty() {
            let before = cursor.rest();
            let entry = cursor.short_string().zip(value(&mut cursor));
            let Some((name, value)) = entry else {
                found.fault = Some(Fault::HeadersMalformed);
                break;
            };
            let entry = &before[..before.len() - cursor.rest().len()];
            values += 1;
            let checked = named(name).and_then(|()| nested(&value, &mut values));
            match (
                checked,
                READ.iter().position(|read| read.as_bytes() == name),
            ) {
                (Err(fault), _) => found.fault = found.fault.or(Some(fault)),
                (Ok(()), Some(at)) if entry.len() <= MAX_ENTRY => found.read.push((at, entry)),
                (Ok(()), _) => found.reduce |= name == Fault::HEADER.as_bytes(),
            }
        }
        found.reduce |= values > MAX_VALUES;
        found.read.sort_by_key(|(at, _)| *at);
        found
    }

    /// A table with what this program reads, with the fault that was found if there is one, in at
    /// most so many bytes; `None` where it would be empty.
    pub(super) fn reduced(&self, fault: Option<Fault>, room: usize) -> Option<Vec<u8>> {
        let mut table = vec![0; 4];
        if let Some(fault) = fault {
            let length = u8::try_from(Fault::HEADER.len()).unwrap_or_default();
            table.push(length);
            table.extend_from_slice(Fault::HEADER.as_bytes());
            table.extend_from_slice(&[b'B', fault.code()]);
        }
        for (_, entry) in &self.read {
            if table.len() + entry.len() <= room.min(MAX_BYTES) {
                table.extend_from_slice(entry);
            }
        }
        let length = u32::try_from(table.len() - 4).unwrap_or_default();
        table[..4].copy_from_slice(&length.to_be_bytes());
        (length > 0).then_some(table)
    }
}

fn named(name: &[u8]) -> Result<(), Fault> {
    std::str::from_utf8(name)
        .map(drop)
        .map_err(|_| Fault::HeaderName)
}

/// Looks at all that is nested in a value.
fn nested(value: &Value<'_>, values: &mut usize) -> Result<(), Fault> {
    let Some(outermost) = value.nested else {
        return Ok(());
    };
    let mut open = vec![(Cursor::new(outermost.0), outermost.1)];
    while let Some((cursor, has_names)) = open.last_mut() {
        if cursor.rest().is_empty() {
            open.pop();
            continue;
        }
        if *has_names {
            named(cursor.short_string().ok_or(Fault::HeadersMalformed)?)?;
        }
        let value = self::value(cursor).ok_or(Fault::HeadersMalformed)?;
        *values += 1;
        if let Some((content, has_names)) = value.nested {
            if open.len() == MAX_DEPTH {
                return Err(Fault::TooDeep);
            }
            open.push((Cursor::new(content), has_names));
        }
    }
    Ok(())
}

/// The value at the front: its type, and its content. `None` where it is none.
fn value<'a>(cursor: &mut Cursor<'a>) -> Option<Value<'a>> {
    let mut nested = None;
    match cursor.octet()? {
        b'V' => {}
        b't' | b'b' | b'B' => drop(cursor.take(1)?),
        b's' | b'U' | b'u' => drop(cursor.take(2)?),
        b'I' | b'i' | b'f' => drop(cursor.take(4)?),
        b'D' => drop(cursor.take(5)?),
        b'l' | b'L' | b'd' | b'T' => drop(cursor.take(8)?),
        b'S' | b'x' => drop(cursor.long_string()?),
        b'A' => nested = Some((cursor.long_string()?, false)),
        b'F' => nested = Some((cursor.long_string()?, true)),
        _ => return None,
    }
    Some(Value { nested })
}
