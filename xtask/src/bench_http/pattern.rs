//! Bodies that tell whether they are whole: blocks that begin with their own number. Cheap to make and to check.

/// Of a block, in bytes.
const BLOCK: usize = 64 * 1024;
const NUMBER: usize = 8;

/// A block to send, without its number.
pub(crate) fn block() -> Vec<u8> {
    vec![b'x'; BLOCK]
}

/// Gives a block the number that it has at this position of a body, which is a multiple of the block's length.
pub(crate) fn number(block: &mut [u8], position: u64) {
    let number = (position / BLOCK as u64).to_be_bytes();
    block.iter_mut().zip(number).for_each(|(place, byte)| *place = byte);
}

/// How much of the next block is sent when so much is left.
pub(crate) fn piece(left: u64) -> usize {
    usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK))
}

/// Reads a body along, in whatever pieces it comes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Check {
    /// How many bytes came.
    pub(crate) bytes: u64,
    is_wrong: bool,
}

impl Check {
    /// A check of a body that begins at this position of the whole one.
    pub(crate) fn from(position: u64) -> Self {
        Self { bytes: position, is_wrong: false }
    }

    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = usize::try_from(self.bytes % BLOCK as u64).unwrap_or(0);
            let number = (self.bytes / BLOCK as u64).to_be_bytes();
            let piece = bytes.len().min(BLOCK - at);
            let (now, later) = bytes.split_at(piece);
            let expected = number.iter().skip(at);
            self.is_wrong |= now.iter().zip(expected).any(|(byte, expected)| byte != expected);
            // One byte past the number stands for the rest.
            let after = now.get(NUMBER.saturating_sub(at)..).and_then(<[u8]>::first);
            self.is_wrong |= after.is_some_and(|byte| *byte != b'x');
            self.bytes += piece as u64;
            bytes = later;
        }
    }

    /// Whether all that came was what belongs there.
    pub(crate) fn is_intact(&self) -> bool {
        !self.is_wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(size: u64) -> Vec<u8> {
        let mut body = Vec::new();
        let mut block = block();
        while (body.len() as u64) < size {
            number(&mut block, body.len() as u64);
            let left = piece(size - body.len() as u64);
            body.extend_from_slice(&block[..left]);
        }
        body
    }

    #[test]
    fn a_body_is_recognised_in_pieces_of_any_size_and_from_any_place() {
        let body = body(300_000);
        for size in [1, 7, 4096, 65_536, 100_000] {
            let mut check = Check::default();
            body.chunks(size).for_each(|piece| check.feed(piece));
            assert!(check.is_intact() && check.bytes == 300_000, "{size}");
            let mut check = Check::from(65_539);
            body[65_539..].chunks(size).for_each(|piece| check.feed(piece));
            assert!(check.is_intact() && check.bytes == 300_000, "{size}");
        }
    }

    #[test]
    fn a_body_with_a_hole_or_of_another_place_is_wrong() {
        let body = body(300_000);
        let mut check = Check::default();
        check.feed(&body[..65_536]);
        check.feed(&body[70_000..]);
        assert!(!check.is_intact());
        let mut check = Check::default();
        check.feed(&body[65_536..]);
        assert!(!check.is_intact());
    }
}
