//! How large the buffers of a pool are; no I/O.

/// Small sizes are rounded up to a power of two, larger ones to a multiple of this.
const LARGE_STEP: usize = 64 * 1024;

/// The pages that a pool's buffers are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Bytes of an ordinary page: every buffer has whole ones.
    pub(super) page: usize,
    /// Bytes of the larger pages that are used where at least half of one is filled.
    pub(super) huge: Option<usize>,
    /// Whether larger pages are used for small buffers, too.
    pub(super) always_huge: bool,
}

impl Sizes {
    /// What is asked of the backing for `size` bytes: few different sizes, so that buffers fit again.
    pub(super) fn class(&self, size: usize) -> usize {
        match size <= LARGE_STEP {
            true => size.next_power_of_two().max(self.page),
            false => up(size, LARGE_STEP.max(self.page)),
        }
    }

    /// What a buffer for `size` bytes will have.
    pub(super) fn footprint(&self, size: usize) -> usize {
        let class = self.class(size);
        match self.huge {
            Some(huge) if self.always_huge || class >= huge / 2 => up(class, huge),
            _ => up(class, self.page),
        }
    }
}

/// In whole multiples; more than can be counted is refused by the limit.
fn up(size: usize, step: usize) -> usize {
    size.checked_next_multiple_of(step).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUGE: usize = 2 << 20;

    fn pages(page: usize) -> Sizes {
        Sizes { page, huge: None, always_huge: false }
    }

    #[test]
    fn every_buffer_has_whole_pages_whatever_their_size() {
        for page in [4096, 16384, 65536] {
            for sizes in [pages(page), Sizes { huge: Some(HUGE), ..pages(page) }] {
                for size in (0..24).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]) {
                    let (class, footprint) = (sizes.class(size), sizes.footprint(size));
                    assert!(size <= class && class <= footprint, "{size} in {sizes:?}");
                    assert!(class >= page && footprint % page == 0, "{size} in {sizes:?}");
                    assert_eq!(sizes.footprint(class), footprint, "the backing is asked for {class}");
                }
            }
        }
    }

    #[test]
    fn small_buffers_take_a_page_and_large_ones_steps_of_64_kib() {
        let sizes_of =
            |page| [1, 4096, 5000, 65536, 65537, 3_110_400].map(|size| pages(page).footprint(size));
        assert_eq!(sizes_of(4096), [4096, 4096, 8192, 65536, 131_072, 3_145_728]);
        assert_eq!(sizes_of(65536), [65536, 65536, 65536, 65536, 131_072, 3_145_728]);
    }

    #[test]
    fn larger_pages_are_used_from_half_of_one_on_or_always() {
        let some = Sizes { huge: Some(HUGE), ..pages(4096) };
        assert_eq!(
            [HUGE / 2 - LARGE_STEP, HUGE / 2, HUGE + 1].map(|size| some.footprint(size)),
            [983_040, HUGE, 2 * HUGE]
        );
        let always = Sizes { always_huge: true, ..some };
        assert_eq!(always.footprint(1), HUGE);
    }

    #[test]
    fn what_cannot_be_counted_is_more_than_any_limit() {
        assert_eq!(pages(4096).footprint(usize::MAX), usize::MAX);
    }
}
