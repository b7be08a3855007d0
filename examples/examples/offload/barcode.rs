//! A number and a time drawn into a picture, in blocks that survive H.264.

/// Pixels of a block, each way: a macroblock.
const BLOCK: usize = 16;
/// 24 bits of the number, 40 of the time, 8 to check them.
const BITS: usize = 72;
const DARK: u8 = 32;
const LIGHT: u8 = 220;

/// What a picture says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Which picture it is; below 2^24.
    pub(crate) number: u64,
    /// When it was drawn, in microseconds; modulo 2^40.
    pub(crate) micros: u64,
}

impl Mark {
    fn bits(self) -> u128 {
        let word = u128::from(self.number & 0xff_ffff) << 40 | u128::from(self.micros & 0xff_ffff_ffff);
        word << 8 | u128::from(check(word))
    }

    /// Microseconds from the drawing until `micros`.
    pub(crate) fn age(self, micros: u64) -> u64 {
        micros.wrapping_sub(self.micros) & 0xff_ffff_ffff
    }
}

/// A CRC of eight bits.
fn check(word: u128) -> u8 {
    let step = |sum: u8, byte: &u8| {
        (0..8).fold(sum ^ byte, |sum, _| if sum & 0x80 == 0 { sum << 1 } else { sum << 1 ^ 0x07 })
    };
    word.to_be_bytes().iter().fold(0xff, step)
}

/// Top left corners of the blocks in a picture of this width.
fn blocks(width: usize) -> impl Iterator<Item = (usize, usize)> {
    let across = (width / BLOCK).max(1);
    (0..BITS).map(move |bit| (bit % across * BLOCK, bit / across * BLOCK))
}

/// Whether a picture of this size has room for it.
pub(crate) fn fits(width: usize, height: usize) -> bool {
    width >= BLOCK && BITS.div_ceil(width / BLOCK) * BLOCK <= height
}

/// Draws into a plane of luma whose lines are `stride` bytes apart.
pub(crate) fn draw(luma: &mut [u8], stride: usize, width: usize, mark: Mark) {
    let bits = mark.bits();
    for (bit, (left, top)) in blocks(width).enumerate() {
        let light = bits >> (BITS - 1 - bit) & 1 == 1;
        for line in luma.chunks_mut(stride).skip(top).take(BLOCK) {
            line[left..left + BLOCK].fill(if light { LIGHT } else { DARK });
        }
    }
}

/// Reads it; `None` if the check does not fit.
pub(crate) fn read(luma: &[u8], stride: usize, width: usize) -> Option<Mark> {
    let mut bits = 0_u128;
    for (left, top) in blocks(width) {
        // The middle of the block: its edges are what coding blurs.
        let lines = luma.chunks(stride).skip(top + BLOCK / 4).take(BLOCK / 2);
        let mut sum = 0;
        for line in lines {
            let middle = line.get(left + BLOCK / 4..left + 3 * BLOCK / 4)?;
            sum += middle.iter().map(|pixel| u64::from(*pixel)).sum::<u64>();
        }
        let mean = sum / (BLOCK / 2 * BLOCK / 2) as u64;
        bits = bits << 1 | u128::from(mean > u64::from((DARK + LIGHT) / 2));
    }
    let word = bits >> 8;
    let mark = Mark { number: (word >> 40) as u64, micros: (word & 0xff_ffff_ffff) as u64 };
    (check(word) == bits as u8).then_some(mark)
}

/// Now, in microseconds of a clock that all processes of a host share.
pub(crate) fn now() -> u64 {
    pagecast::clock::monotonic_ns() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_is_read_and_a_wrong_block_is_noticed() {
        for (number, micros) in [(0, 0), (1, 5), (0xff_ffff, 0xff_ffff_ffff), (0x5a_5a5a, 1 << 39)] {
            let mark = Mark { number, micros };
            let mut picture = vec![100; 320 * 96];
            draw(&mut picture, 320, 304, mark);
            assert_eq!(read(&picture, 320, 304), Some(mark));
            let (left, top) = blocks(304).nth(9).unwrap();
            for line in picture.chunks_mut(320).skip(top).take(BLOCK) {
                line[left..left + BLOCK].iter_mut().for_each(|pixel| *pixel = 255 - *pixel);
            }
            assert_eq!(read(&picture, 320, 304), None);
        }
        assert!(fits(320, 64) && !fits(320, 63) && !fits(15, 2000));
        assert_eq!(Mark { number: 0, micros: 0xff_ffff_ffff }.age((1 << 40) + 9), 10);
    }
}
