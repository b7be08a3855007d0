//! One suite that every backing must pass, and proof that the suite can fail.
//!
//! Each case runs for each backing. What a machine does not offer is skipped with a line
//! `SKIP: <why>`; with `PAGECAST_TESTBED=1` (a guest that offers everything) a skip is a failure.

mod attack;
mod cases;
mod child;
mod controls;
mod devices;
mod hostile;
mod limits;
mod meddling;
mod pages;
mod support;

use support::run;

/// One test per backing and case.
macro_rules! conformance {
    ($($backing:ident)*) => { $(
        mod $backing {
            conformance!(@ $backing:
                cases::sizes
                cases::wants
                cases::ids_and_identities_are_unique
                cases::pages_are_zero_and_there
                cases::copies_are_exact_at_any_offset
                cases::owner_writes_are_seen
                cases::second_mapping_has_the_same_page_frames
                cases::face_descriptor_is_safe_to_hand_out
                cases::subscribers_cannot_write
                cases::other_users_cannot_even_open_it
                meddling::buffers_are_whole_whoever_changes_them_in_the_making
                cases::dma_buf_is_the_same_pages
                cases::received_faces_are_checked
                limits::nothing_leaks
                limits::descriptors_run_out
                limits::address_space_runs_out
                limits::file_size_is_limited
            );
        }
    )* };
    (@ $backing:ident: $($module:ident :: $case:ident)*) => { $(
        #[test]
        fn $case() {
            crate::run(stringify!($backing), crate::$module::$case);
        }
    )* };
}

conformance!(memfd memfd_64k hugetlb auto);

/// The same of backings whose buffers are a driver's own dma-bufs.
macro_rules! device_conformance {
    ($($backing:ident)*) => { $(
        mod $backing {
            device_conformance!(@ $backing:
                cases::sizes
                cases::ids_and_identities_are_unique
                cases::copies_are_exact_at_any_offset
                devices::one_face
                devices::pages_are_zero_and_seen_by_all
                devices::what_is_received_is_checked
                devices::nothing_leaks
                devices::descriptors_run_out
            );
        }
    )* };
    (@ $backing:ident: $($module:ident :: $case:ident)*) => { $(
        #[test]
        fn $case() {
            crate::devices::run(stringify!($backing), crate::$module::$case);
        }
    )* };
}

device_conformance!(dma_heap drm_dumb);
