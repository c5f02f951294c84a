//! Reading AMQP's simplest types from the front of a slice.

/// What is left to be read. Each call takes from the front, or takes nothing and says so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// All of it.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// So many bytes.
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// One byte.
    pub(super) fn octet(&mut self) -> Option<u8> {
        self.take(1).map(|taken| taken[0])
    }

    /// A short unsigned integer, of two bytes.
    pub(super) fn short(&mut self) -> Option<u16> {
        let taken = self.take(2)?;
        Some(u16::from_be_bytes(taken.try_into().ok()?))
    }

    /// A long unsigned integer, of four bytes.
    pub(super) fn long(&mut self) -> Option<u32> {
        let taken = self.take(4)?;
        Some(u32::from_be_bytes(taken.try_into().ok()?))
    }

    /// What follows its own length of one byte: a short string.
    pub(super) fn short_string(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let length = ahead.octet()?;
        let text = ahead.take(length.into())?;
        *self = ahead;
        Some(text)
    }

    /// What follows its own length of four bytes: a long string, an array, a table.
    pub(super) fn long_string(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let length = ahead.long()?;
        let text = ahead.take(usize::try_from(length).ok()?)?;
        *self = ahead;
        Some(text)
    }
}
