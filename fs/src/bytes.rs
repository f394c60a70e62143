//! Numbers in the bytes of on-disk structures. What lies outside of the slice reads as zero and is not written: a damaged disk may say
//! anything, and who reads from it checks what he got.

macro_rules! number {
    ($get:ident, $put:ident, $type:ty, $from:ident, $to:ident) => {
        pub(crate) fn $get(bytes: &[u8], at: usize) -> $type {
            let end = at.saturating_add(size_of::<$type>());
            bytes.get(at..end).and_then(|b| b.try_into().ok()).map_or(0, <$type>::$from)
        }

        pub(crate) fn $put(bytes: &mut [u8], at: usize, value: $type) {
            let end = at.saturating_add(size_of::<$type>());
            if let Some(to) = bytes.get_mut(at..end) {
                to.copy_from_slice(&value.$to());
            }
        }
    };
}

number!(le16, put_le16, u16, from_le_bytes, to_le_bytes);
number!(le32, put_le32, u32, from_le_bytes, to_le_bytes);
number!(be32, put_be32, u32, from_be_bytes, to_be_bytes);
number!(be64, put_be64, u64, from_be_bytes, to_be_bytes);
