//! The command's own readers: what anybody who subscribes gets to see.

use std::time::{Duration, Instant};

use pagecast::{FaceSet, Frame, Message, Policy, RecvError, Subscriber, SubscriberOptions};

use crate::address::Remote;
use crate::exit::Failure;

/// Frames that a reader holds while it looks.
const HOLD: usize = 3;
/// How often each is asked for a frame.
const LOOK: Duration = Duration::from_millis(20);

/// Somebody who reads through one kind of face.
pub(super) struct Reader {
    pub(super) face: &'static str,
    subscriber: Option<Subscriber>,
    held: Vec<Frame>,
    /// Why it sees nothing.
    pub(super) failed: Option<String>,
}

impl Reader {
    pub(super) fn open(
        uri: &str,
        face: FaceSet,
        name: &'static str,
        remote: &Remote,
    ) -> Result<Self, Failure> {
        let options = SubscriberOptions {
            faces: face,
            any_face: false,
            credits: Some(HOLD as u32 + 1),
            policy: Some(Policy::DropOldest),
            reconnect: false,
            name: format!("pagecast prove ({name})"),
            remote: remote.options([uri])?,
            ..SubscriberOptions::default()
        };
        let subscriber = Subscriber::open(uri, options)?;
        Ok(Self { face: name, subscriber: Some(subscriber), held: Vec::new(), failed: None })
    }

    /// Receives until all it may hold is there, for a moment.
    fn look(&mut self) {
        let Some(subscriber) = self.subscriber.as_ref().filter(|_| self.held.len() < HOLD) else { return };
        match subscriber.recv(Some(LOOK)) {
            Ok(Message::Frame(frame)) => match touch(&frame) {
                Ok(()) => self.held.push(frame),
                Err(why) => self.failed = Some(why),
            },
            Ok(_) | Err(RecvError::Timeout) => {}
            Err(error) => self.end(error.to_string()),
        }
    }

    fn end(&mut self, why: String) {
        self.failed = Some(why);
        self.subscriber = None;
    }

    fn is_done(&self) -> bool {
        self.subscriber.is_none() || self.held.len() == HOLD
    }

    /// Whether it has a frame.
    pub(super) fn sees(&self) -> bool {
        !self.held.is_empty()
    }
}

/// Maps a frame and reads a byte of each of its pages.
fn touch(frame: &Frame) -> Result<(), String> {
    let guard = frame.read().map_err(|error| error.to_string())?;
    for at in (0..frame.size()).step_by(4096) {
        guard.copy_to(at, &mut [0]).map_err(|error| error.to_string())?;
    }
    guard.finish().map_err(|error| error.to_string())
}

/// Lets all of them look until they hold what they may, for at most `patience`.
pub(super) fn gather(readers: &mut [Reader], patience: Duration) {
    let until = Instant::now() + patience;
    while Instant::now() < until && !readers.iter().all(Reader::is_done) {
        readers.iter_mut().for_each(Reader::look);
    }
    for reader in readers.iter_mut().filter(|reader| !reader.sees() && reader.failed.is_none()) {
        reader.failed = Some(format!("no frame came within {patience:?}"));
    }
}
