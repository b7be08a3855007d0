//! For unit tests.

use std::io::Write;

/// Says what is not tested here, on a line of its own, past libtest's capture.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("PAGECAST_TESTBED").is_none(), "the testbed must not skip: {why}");
    let thread = std::thread::current();
    let line = format!("\nSKIP: {}: {why}\n", thread.name().unwrap_or("?"));
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}
