//! Readers: processes of their own, with the library alone.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use pagecast::{FaceKind, FaceSet, Frame, Message, RecvError, Subscriber, SubscriberOptions};
use pagecast_tests::peers::Peer;
use pagecast_tests::roles::say;

const URI: &str = "PAGECAST_READER_URI";
const CREDITS: &str = "PAGECAST_READER_CREDITS";
const DUMP: &str = "PAGECAST_READER_DUMP";
const FACES: &str = "PAGECAST_READER_FACES";

/// What a reader says of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) sequence: u64,
    pub(crate) digest: u64,
    pub(crate) buffer: u64,
    pub(crate) inode: u64,
}

pub(crate) struct Reader(pub(crate) Peer);

impl Reader {
    /// A reader that asks for so many credits and writes its first frame to `dump`.
    pub(crate) fn start(uri: &str, credits: u32, dump: &Path) -> Self {
        Self::start_with(uri, credits, dump, "memory,dma-buf")
    }

    /// One that may be given these faces only.
    pub(crate) fn start_with(uri: &str, credits: u32, dump: &Path, faces: &str) -> Self {
        let program = std::env::current_exe().expect("this program").display().to_string();
        let arguments = ["reader::entry", "--exact", "--ignored", "--nocapture", "--test-threads=1"];
        let (credits, dump) = (credits.to_string(), dump.display().to_string());
        let env = [(URI, uri), (CREDITS, &credits), (DUMP, &dump), (FACES, faces)];
        Self(Peer::start_with_env(&program, &arguments, &env))
    }

    /// The next frame that it tells of.
    pub(crate) fn next(&self) -> Seen {
        let line = self.0.expect("frame ");
        let mut numbers = line.split(' ').map(|word| word.parse::<u64>().expect("a number"));
        let mut next = || numbers.next().expect("four numbers");
        Seen { sequence: next(), digest: next(), buffer: next(), inode: next() }
    }

    /// Whatever it has told of by now.
    pub(crate) fn forget(&self) {
        while self.0.has_said("frame ") {
            self.next();
        }
    }
}

/// A number that stands for these bytes.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    words
        .fold(bytes.len() as u64, |sum, word| (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The child's side.
#[test]
#[ignore = "runs as a child of other tests"]
fn entry() {
    let Ok(uri) = std::env::var(URI) else { return };
    let variable = |name| std::env::var(name).expect("told by the test");
    let credits = variable(CREDITS).parse().ok();
    let faces = if variable(FACES) == "memory" { FaceSet::MEMORY } else { FaceSet::all() };
    let options = SubscriberOptions { credits, faces, ..SubscriberOptions::default() };
    let subscriber = Subscriber::open(&uri, options).expect("a subscriber");
    // The harness has begun a line.
    say("");
    // The test's end is ours.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let mut dump = Some(variable(DUMP));
    loop {
        match subscriber.recv(Some(Duration::from_secs(60))) {
            Ok(Message::Frame(frame)) => tell(&frame, &mut dump),
            Ok(Message::Disconnected(_)) => say("disconnected"),
            Ok(_) | Err(RecvError::Timeout) => {}
            Err(error) => say(&format!("failed {error}")),
        }
    }
}

fn tell(frame: &Frame, dump: &mut Option<String>) {
    let bytes = match frame.to_vec() {
        Ok(bytes) => bytes,
        Err(error) => return say(&format!("unread {error}")),
    };
    if let Some(dump) = dump.take() {
        std::fs::write(dump, &bytes).expect("a file");
    }
    let buffer = &frame.segments()[0].buffer;
    let face = [FaceKind::DmaBuf, FaceKind::Memory].into_iter().find_map(|kind| buffer.face(kind));
    let fd = face.expect("a face").fd.try_clone_to_owned().expect("a descriptor");
    let inode = std::fs::File::from(fd).metadata().expect("an inode").ino();
    let sequence = frame.description().offset.unwrap_or(u64::MAX);
    say(&format!("frame {sequence} {} {} {inode}", digest(&bytes), buffer.id()));
}
