//! Stamped frames: every 4 KiB page of every frame carries eight bytes that no other page has, so that a
//! reader can tell a torn, stale or swapped page without trusting anybody's counters.

use pagecast::{Frame, ReadError};

/// Bytes of the pages that carry a stamp, whatever the machine's page size.
pub(crate) const PAGE: usize = 4096;

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
const PAGE_BITS: u32 = 20;

/// The inverse of [`FACTOR`] modulo 2^64, by Newton's iteration.
const INVERSE: u64 = {
    let mut inverse = 1_u64;
    let mut round = 0;
    while round < 6 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(FACTOR.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
};
const _: () = assert!(FACTOR.wrapping_mul(INVERSE) == 1);

/// What is wrong with a stamped frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StampError {
    /// The first page has no stamp of a first page.
    #[error("it carries no stamps")]
    NotStamped,
    /// A page is not of this frame.
    #[error("page {page} of frame {number} is not its own: it says {found:#018x}")]
    WrongPage { number: u64, page: usize, found: u64 },
    /// It could not be read.
    #[error("{0}")]
    Unreadable(String),
}

/// The stamp of a page of a frame.
pub(crate) fn stamp(number: u64, page: usize) -> u64 {
    (number << PAGE_BITS | page as u64).wrapping_mul(FACTOR)
}

/// The frame and page that a stamp is of.
pub(crate) fn read_stamp(stamp: u64) -> (u64, usize) {
    let both = stamp.wrapping_mul(INVERSE);
    (both >> PAGE_BITS, (both & ((1 << PAGE_BITS) - 1)) as usize)
}

/// Stamps every page that has room for it.
pub(crate) fn write(bytes: &mut [u8], number: u64) {
    for (page, bytes) in bytes.chunks_mut(PAGE).enumerate() {
        if let Some(place) = bytes.first_chunk_mut() {
            *place = stamp(number, page).to_le_bytes();
        }
    }
}

/// Checks every page of a frame and returns the number that was stamped into it.
pub(crate) fn check(frame: &Frame) -> Result<u64, StampError> {
    let unreadable = |error: ReadError| StampError::Unreadable(error.to_string());
    let guard = frame.read().map_err(|error| unreadable(error.into()))?;
    let place = |page: usize| {
        let mut bytes = [0; 8];
        guard.copy_to(page * PAGE, &mut bytes).map_err(unreadable)?;
        Ok::<_, StampError>(u64::from_le_bytes(bytes))
    };
    let size = frame.size();
    if size < 8 {
        return Err(StampError::NotStamped);
    }
    let (number, first) = read_stamp(place(0)?);
    let result = match first {
        0 => (1..(size - 8) / PAGE + 1).try_for_each(|page| match place(page)? {
            found if found == stamp(number, page) => Ok(()),
            found => Err(StampError::WrongPage { number, page, found }),
        }),
        _ => Err(StampError::NotStamped),
    };
    guard.finish().map_err(|error| unreadable(error.into()))?;
    result.map(|()| number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pagecast::{Pool, PoolOptions};

    fn frame(size: usize, number: u64, spoil: Option<usize>) -> Frame {
        let mut lease = Pool::new(PoolOptions::default()).acquire(size).unwrap();
        let bytes = &mut lease.as_mut_slice()[..size];
        write(bytes, number);
        if let Some(at) = spoil {
            bytes[at] ^= 1;
        }
        Frame::builder().lease(lease, size).build().unwrap()
    }

    #[test]
    fn stamps_say_frame_and_page() {
        for (number, page) in [(0, 0), (1, 0), (0, 1), (77, 759), (1 << 40, (1 << 20) - 1)] {
            assert_eq!(read_stamp(stamp(number, page)), (number, page));
        }
    }

    #[test]
    fn a_stamped_frame_passes_and_one_wrong_bit_does_not() {
        for size in [8, 4095, 4096, 4103, 4104, 100_000] {
            assert_eq!(check(&frame(size, 5, None)), Ok(5), "{size}");
        }
        assert!(matches!(
            check(&frame(100_000, 5, Some(3 * PAGE))),
            Err(StampError::WrongPage { page: 3, .. })
        ));
        assert!(matches!(check(&frame(4104, 5, Some(4103))), Err(StampError::WrongPage { page: 1, .. })));
        assert_eq!(check(&frame(7, 5, None)), Err(StampError::NotStamped));
    }
}
