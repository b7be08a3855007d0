//! A pipeline whose frames lie in huge pages, seen from the process that receives them.

mod common;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::*;
use gst::prelude::*;
use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};
use pagecast::allocators::HugetlbBacking;
use pagecast_tests::skip;

const FRAMES: usize = 60;
const CAPS: &str = "video/x-raw,format=NV12,width=640,height=360,framerate=30/1";
const SIZE: usize = 640 * 360 * 3 / 2;

/// Huge pages that the pipeline may need at the same time.
const NEEDED: u64 = 16;

/// Where the consumer's process finds its task.
const TASK: &str = "PAGECAST_TEST_CONSUMER";

/// The test program once more, as a consumer.
struct Consumer {
    child: Child,
    folder: PathBuf,
}

impl Consumer {
    fn start(place: &Place) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["the_consumer", "--exact", "--ignored", "--test-threads=1"])
            .env(TASK, place.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, folder: place.path().to_owned() }
    }

    fn has_first_frame(&self) -> bool {
        self.folder.join("first").exists()
    }

    /// Lets it read on.
    fn go_on(&self) {
        File::create(self.folder.join("go")).unwrap();
    }

    /// Descriptors of memfds that it has: device, inode, and whether they are of hugetlbfs.
    fn pages(&self) -> Vec<(u64, u64, bool)> {
        let folder = format!("/proc/{}/fd", self.child.id());
        let entries = std::fs::read_dir(folder).unwrap().flatten();
        let pages = entries.filter(|entry| {
            std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:"))
        });
        let look = |entry: std::fs::DirEntry| {
            let file = File::open(entry.path()).unwrap();
            let (data, kind) = (file.metadata().unwrap(), fstatfs(&file).unwrap().filesystem_type());
            (data.dev(), data.ino(), kind == HUGETLBFS_MAGIC)
        };
        pages.map(look).collect()
    }

    fn ends_well(&mut self) {
        let mut status = None;
        eventually("the consumer ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success(), "the consumer: {status:?}");
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Compares every frame with what the same source writes into a file.
#[test]
#[ignore = "runs as a process of the other tests"]
fn the_consumer() {
    let folder = PathBuf::from(std::env::var_os(TASK).expect("a task"));
    let expected = std::fs::read(folder.join("expected")).unwrap();
    let uri = format!("unix:{}", folder.join("s").display());
    let subscriber = pagecast::Subscriber::open(&uri, pagecast::SubscriberOptions::default()).unwrap();
    let mut number = 0;
    let frames = each_frame(&subscriber, |frame| {
        let bytes = frame.to_vec().unwrap();
        assert!(bytes == expected[number * SIZE..][..SIZE], "frame {number} has other bytes");
        number += 1;
        if number == 1 {
            File::create(folder.join("first")).unwrap();
            eventually("it is told to go on", || folder.join("go").exists());
        }
    });
    assert_eq!(frames, FRAMES);
}

fn source() -> String {
    format!("videotestsrc name=w num-buffers={FRAMES} pattern=ball ! {CAPS}")
}

/// What is seen from outside while a pipeline with this backing has a consumer.
struct Seen {
    backing: String,
    copied: u64,
    wrote: BTreeSet<u64>,
    /// See [`Consumer::pages`].
    pages: Vec<(u64, u64, bool)>,
    /// Huge pages that the machine had free before, meanwhile and afterwards.
    free: [u64; 3],
}

fn free() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    line.map_or(0, |count| count.trim().parse().unwrap())
}

fn expected(path: &Path) {
    Pipeline::new(&format!("{} ! filesink location={}", source(), path.display())).play().eos();
}

fn look_at(backing: &str) -> Seen {
    let place = Place::new();
    init();
    expected(&place.path().join("expected"));
    let before = free();
    let mut consumer = Consumer::start(&place);
    let pipeline = Pipeline::new(&format!(
        "{} ! pagecastsink name=k sync=false policy=block block-deadline=60000000000 wait-for-connection=true \
         backing={backing} uri={}",
        source(),
        place.uri()
    ));
    let wrote = inodes_at(&pipeline.element("w").static_pad("src").unwrap());
    pipeline.play();
    eventually("the consumer has a frame", || consumer.has_first_frame());
    let (pages, meanwhile) = (consumer.pages(), free());
    consumer.go_on();
    pipeline.eos();
    let backing = pipeline.stats("k").get("backing").unwrap();
    let copied = pipeline.copied("k");
    drop(pipeline);
    consumer.ends_well();
    if meanwhile < before {
        eventually("the huge pages are free again", || free() >= before);
    }
    let wrote = wrote.lock().unwrap().clone();
    Seen { backing, copied, wrote, pages, free: [before, meanwhile, free()] }
}

#[test]
fn frames_of_a_pipeline_lie_in_huge_pages() {
    let available = HugetlbBacking::pages_available();
    if available < NEEDED {
        return skip(&format!("{NEEDED} free huge pages of 2 MiB needed, {available} here"));
    }
    let seen = look_at("hugetlb");
    assert_eq!((seen.backing.as_str(), seen.copied), ("hugetlb", 0));
    assert!(!seen.pages.is_empty());
    for (_, inode, huge) in &seen.pages {
        assert!(*huge && seen.wrote.contains(inode), "{:?}, written {:?}", seen.pages, seen.wrote);
    }
    let [before, meanwhile, after] = seen.free;
    assert!(meanwhile < before && after >= before, "free huge pages {:?}", seen.free);
}

/// The negative control: the same look at small pages does not find huge ones.
#[test]
fn small_pages_are_told_from_huge_ones() {
    let seen = look_at("memfd");
    assert_eq!((seen.backing.as_str(), seen.copied), ("memfd", 0));
    assert!(!seen.pages.is_empty() && seen.pages.iter().all(|(.., huge)| !huge), "{:?}", seen.pages);
    assert!(seen.pages.iter().all(|(_, inode, _)| seen.wrote.contains(inode)));
}
