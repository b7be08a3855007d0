//! What the whole-system tests share: private addresses and stamped frames.

pub mod camera;
pub mod driver;
pub mod hosts;
pub mod ids;
pub mod importer;
pub mod peers;
pub mod proc;
pub mod random;
pub mod roles;
pub mod scaling;
pub mod scene;
pub mod screen;
pub mod testbed;
pub mod tracing;

use std::path::Path;
use std::time::{Duration, Instant};

use pagecast::{Description, Frame, FrameFlags, Pool, ReadError};

/// Bytes of the pages that carry a stamp.
pub const PAGE: usize = 4096;

/// A folder for one test's sockets, gone with it.
#[derive(Debug)]
pub struct Place(tempfile::TempDir);

impl Place {
    /// A new, empty place.
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("pagecast-test").tempdir().expect("a temporary folder"))
    }

    /// A new place in which any user may put a socket.
    ///
    /// # Panics
    /// If its permissions cannot be set.
    pub fn open_to_all() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let place = Self::new();
        let permissions = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(place.path(), permissions).expect("permissions");
        place
    }

    /// The URI of a socket here.
    pub fn uri(&self, name: &str) -> String {
        format!("unix:{}", self.path().join(name).display())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

/// The stamp of one page of one frame: both numbers, mixed so that no other page has it.
pub fn stamp(frame: u64, page: u64) -> u64 {
    (frame << 20 | page).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A frame of `size` bytes with a stamp in every page; `number` is its offset field, too.
pub fn stamped(pool: &Pool, number: u64, size: usize) -> Frame {
    stamped_with(pool, number, size, |page| page)
}

/// The same with the stamp of the next page in `spoilt`, for controls that must notice it.
pub fn spoilt(pool: &Pool, number: u64, size: usize, spoilt: u64) -> Frame {
    stamped_with(pool, number, size, |page| page + u64::from(page == spoilt))
}

fn stamped_with(pool: &Pool, number: u64, size: usize, page_of: impl Fn(u64) -> u64) -> Frame {
    let mut lease =
        pool.acquire_by(size, Some(Instant::now() + Duration::from_secs(30)), || true).expect("a buffer");
    for (page, bytes) in lease.as_mut_slice()[..size].chunks_mut(PAGE).enumerate() {
        let stamp = stamp(number, page_of(page as u64)).to_le_bytes();
        let len = bytes.len().min(8);
        bytes[..len].copy_from_slice(&stamp[..len]);
    }
    let description =
        Description { offset: Some(number), flags: FrameFlags::empty(), ..Description::default() };
    Frame::builder().describe(description).lease(lease, size).build().expect("a frame")
}

/// Checks every stamp of a frame and returns its number.
///
/// # Errors
/// What is wrong with it.
pub fn check(frame: &Frame) -> Result<u64, String> {
    let number = frame.description().offset.ok_or("no number")?;
    let wrong = |error: ReadError| error.to_string();
    let bytes = frame.to_vec().map_err(wrong)?;
    for (page, bytes) in bytes.chunks(PAGE).enumerate() {
        let expected = stamp(number, page as u64).to_le_bytes();
        let len = bytes.len().min(8);
        if bytes[..len] != expected[..len] {
            return Err(format!("frame {number}: page {page} is not its own"));
        }
    }
    Ok(number)
}

/// A pipeline's description in which clients of policy `block` lose nothing however slow the machine is; what it says itself
/// counts more.
pub fn patient(pipeline: &str) -> String {
    pipeline.replace("pagecastsink ", "pagecastsink block-deadline=60000000000 ")
}

/// Says that a test cannot run here, and why, so that whoever counts tests sees it.
///
/// # Panics
/// In the testbed, which offers everything.
pub fn skip(why: &str) {
    use std::io::Write;
    assert!(std::env::var_os("PAGECAST_TESTBED").is_none(), "the testbed must not skip: {why}");
    let line = format!("\nSKIP: {}: {why}\n", std::thread::current().name().unwrap_or("?"));
    // Past the harness, which swallows what a test that passes prints.
    let _ = std::io::stdout().write_all(line.as_bytes());
}

/// Gives something a moment to come true; whether it has.
pub fn soon(mut is_true: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_millis(100);
    while Instant::now() < deadline {
        if is_true() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    is_true()
}

/// Waits until something is true.
///
/// # Panics
/// If it does not come true within thirty seconds.
pub fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_true() {
        assert!(Instant::now() < deadline, "did not come true: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
