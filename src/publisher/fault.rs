//! Steps that a publisher leaves out: none, but in tests that must be able to fail.

/// What is left out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// Frames count as returned as soon as they are sent: their pages are reused under their readers.
    pub(super) reuse_early: bool,
    /// Whoever returns what it does not hold stays.
    pub(super) skip_return_check: bool,
    /// What a subscriber held is not taken back when it is gone.
    pub(super) keep_rows: bool,
}

impl Faults {
    /// With the feature `fault-injection`: what the environment variable `PAGECAST_FAULT` names.
    #[cfg(feature = "fault-injection")]
    pub(super) fn chosen() -> Self {
        let fault = std::env::var("PAGECAST_FAULT").unwrap_or_default();
        Self {
            reuse_early: fault == "reuse-early",
            skip_return_check: fault == "skip-return-check",
            keep_rows: fault == "keep-rows",
        }
    }

    #[cfg(not(feature = "fault-injection"))]
    pub(super) const fn chosen() -> Self {
        Self { reuse_early: false, skip_return_check: false, keep_rows: false }
    }
}
