//! Fields to bytes and back.

use crate::DecodeError;

/// Collects the fields of one frame.
pub struct Writer {
    frame: Vec<u8>,
}

impl Default for Writer {
    fn default() -> Self {
        Writer { frame: vec![0; 4] }
    }
}

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.frame.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.frame.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.frame.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.frame.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.frame.extend_from_slice(value);
    }

    pub(crate) fn list(&mut self, items: &[Vec<u8>]) {
        self.length(items.len());
        for item in items {
            self.bytes(item);
        }
    }

    // A length that does not fit makes a frame that the other side refuses.
    fn length(&mut self, length: usize) {
        self.u32(u32::try_from(length).unwrap_or(u32::MAX));
    }

    pub(crate) fn into_frame(mut self) -> Vec<u8> {
        let length = u32::try_from(self.frame.len() - 4).unwrap_or(u32::MAX);
        self.frame[..4].copy_from_slice(&length.to_le_bytes());
        self.frame
    }
}

/// Takes the fields of one frame apart.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Reader { rest: body }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()? as usize;
        let (head, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn list(&mut self) -> Result<Vec<Vec<u8>>, DecodeError> {
        let count = self.u32()? as usize;
        // Each item takes four bytes or more, so a count that lies cannot make us allocate.
        if count > self.rest.len() / 4 {
            return Err(DecodeError::Truncated);
        }
        (0..count).map(|_| self.bytes().map(<[u8]>::to_vec)).collect()
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }
}
