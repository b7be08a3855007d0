//! Little-endian fields, read with checks.
#![forbid(unsafe_code)]

use super::WireError;

/// Reads fields from the front of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if there are fewer; all readers share this.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// An unsigned byte.
    pub fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Four bytes, signed.
    pub fn i32(&mut self) -> Result<i32, WireError> {
        self.array().map(i32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Eight bytes where all ones mean "none".
    pub fn option_u64(&mut self) -> Result<Option<u64>, WireError> {
        Ok(Some(self.u64()?).filter(|value| *value != u64::MAX))
    }

    /// A length of four bytes, at most `limit`, and so many bytes.
    pub fn blob(&mut self, field: &'static str, limit: usize) -> Result<&'a [u8], WireError> {
        let len = self.u32()? as usize;
        if len > limit {
            return Err(WireError::OverLimit { field, value: len as u64, limit: limit as u64 });
        }
        self.bytes(len)
    }

    /// A [`Reader::blob`] of UTF-8.
    pub fn text(&mut self, field: &'static str, limit: usize) -> Result<String, WireError> {
        let bytes = self.blob(field, limit)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| WireError::NotUtf8 { field })
    }

    /// A count of two bytes, at most `limit`.
    pub fn count(&mut self, field: &'static str, limit: usize) -> Result<usize, WireError> {
        let count = usize::from(self.u16()?);
        if count > limit {
            return Err(WireError::OverLimit { field, value: count as u64, limit: limit as u64 });
        }
        Ok(count)
    }
}

/// Appends fields to a vector.
pub trait Writer {
    /// Two bytes.
    fn put_u16(&mut self, value: u16);
    /// Four bytes.
    fn put_u32(&mut self, value: u32);
    /// Four bytes, signed.
    fn put_i32(&mut self, value: i32);
    /// Eight bytes.
    fn put_u64(&mut self, value: u64);
    /// Eight bytes, all ones for `None`.
    fn put_option(&mut self, value: Option<u64>) {
        self.put_u64(value.unwrap_or(u64::MAX));
    }
    /// A length of four bytes and the bytes.
    fn put_blob(&mut self, bytes: &[u8]);
}

impl Writer for Vec<u8> {
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_i32(&mut self, value: i32) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_blob(&mut self, bytes: &[u8]) {
        self.put_u32(bytes.len() as u32);
        self.extend_from_slice(bytes);
    }
}
