//! Links within a process: what every other implementation must behave like.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use pagecast_ipc::wire;

use crate::LinkError;
use crate::clock::Estimate;
use crate::framing::{Kind, kind_of};
use crate::limits::{MAX_FRAMES_UNDER_WAY, MAX_IN_A_ROW};
use crate::link::{
    FromPublisher, FromSubscriber, LinkFigures, Pages, Part, Payload, PollFds, Receiver, Room, Sender,
};

/// Bytes that are copied at a time.
const STEP: usize = 64 * 1024;
/// Things under way in one direction that are many.
const MANY: usize = 256;

/// One direction.
#[derive(Debug)]
struct Pipe<T> {
    queue: Mutex<VecDeque<T>>,
    finished: AtomicBool,
    /// Readable when its reader should look.
    bell: EventFd,
}

impl<T> Pipe<T> {
    fn new() -> Result<Arc<Self>, Errno> {
        let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Arc::new(Self { queue: Mutex::default(), finished: AtomicBool::new(false), bell }))
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, item: T) {
        self.queue().push_back(item);
        self.ring();
    }

    fn ring(&self) {
        // Full means that it rings already.
        let _ = self.bell.write(1);
    }

    fn finish(&self) {
        self.finished.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// Whether nothing more will come out of it.
    fn is_over(&self) -> bool {
        self.finished.load(Ordering::SeqCst) && self.queue().is_empty()
    }

    fn poll_fds(&self) -> PollFds<'_> {
        [PollFd::new(self.bell.as_fd(), PollFlags::POLLIN)].into_iter().collect()
    }
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most are frames; a box would be an allocation each")]
enum Down {
    Packet(Vec<u8>),
    Frame { number: u64, packet: Vec<u8>, payload: Payload },
}

#[derive(Debug)]
enum Up {
    Packet(Vec<u8>),
    Done(u64),
    TakenBack,
}

/// Two ends that are joined to each other.
///
/// # Errors
/// If the system has no descriptor left.
pub fn pair() -> Result<(MemorySender, MemoryReceiver), Errno> {
    let (down, up) = (Pipe::new()?, Pipe::new()?);
    let sender = MemorySender { down: down.clone(), up: up.clone(), under_way: 0, packets: Vec::new() };
    Ok((sender, MemoryReceiver { down, up, waiting: None, starved: false }))
}

/// The publisher's end.
#[derive(Debug)]
pub struct MemorySender {
    down: Arc<Pipe<Down>>,
    up: Arc<Pipe<Up>>,
    under_way: usize,
    packets: Vec<Vec<u8>>,
}

impl Drop for MemorySender {
    fn drop(&mut self) {
        self.down.finish();
    }
}

impl Sender for MemorySender {
    fn poll_fds(&self) -> PollFds<'_> {
        self.up.poll_fds()
    }

    fn next_look(&self) -> Instant {
        later()
    }

    fn is_busy(&self) -> bool {
        self.under_way >= MAX_FRAMES_UNDER_WAY || self.down.queue().len() >= MANY
    }

    fn send_packet(&mut self, packet: &[u8]) {
        self.down.push(Down::Packet(packet.to_vec()));
    }

    fn send_frame(&mut self, frame: u64, packet: &[u8], payload: Payload) {
        self.under_way += 1;
        self.down.push(Down::Frame { number: frame, packet: packet.to_vec(), payload });
    }

    fn flush(&mut self, done: &mut Vec<u64>) -> Result<(), LinkError> {
        let _ = self.up.bell.read();
        for up in self.up.queue().drain(..) {
            match up {
                Up::Packet(packet) => self.packets.push(packet),
                Up::TakenBack => return Err(LinkError::TakenBack),
                Up::Done(frame) => {
                    self.under_way -= 1;
                    done.push(frame);
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self, events: &mut Vec<FromSubscriber>) -> Result<(), LinkError> {
        let over = self.up.is_over();
        events.extend(self.packets.drain(..).map(FromSubscriber::Packet));
        if over { Err(LinkError::Closed) } else { Ok(()) }
    }

    fn finish(&mut self) -> bool {
        self.down.finish();
        true
    }

    fn figures(&self) -> LinkFigures {
        figures()
    }

    fn unsent(&self) -> u64 {
        self.down.queue().len() as u64
    }
}

/// The subscriber's end.
#[derive(Debug)]
pub struct MemoryReceiver {
    down: Arc<Pipe<Down>>,
    up: Arc<Pipe<Up>>,
    /// A frame for which there were no pages.
    waiting: Option<(u64, u32, wire::Frame, Payload)>,
    starved: bool,
}

impl Drop for MemoryReceiver {
    fn drop(&mut self) {
        self.up.finish();
    }
}

impl MemoryReceiver {
    fn next(&mut self, pages: &mut dyn Pages) -> Result<Option<FromPublisher>, LinkError> {
        if self.waiting.is_none() {
            let next = self.down.queue().pop_front();
            match next {
                None => return Ok(None),
                Some(Down::Packet(packet)) => return Ok(Some(FromPublisher::Packet(packet))),
                Some(Down::Frame { number, packet, payload }) => match kind_of(&packet)? {
                    Kind::Frame { epoch, frame } => self.waiting = Some((number, epoch, frame, payload)),
                    Kind::Plain => return Ok(Some(FromPublisher::Packet(packet))),
                },
            }
        }
        let Some((number, epoch, frame, payload)) = self.waiting.take() else { return Ok(None) };
        let mut room = None;
        if !frame.segments.is_empty() {
            room = pages.take(frame.size() as usize)?;
            let Some(room) = &room else {
                self.waiting = Some((number, epoch, frame, payload));
                self.starved = true;
                return Ok(None);
            };
            copy(&payload, room)?;
            if payload.still_valid.as_ref().is_some_and(|valid| !valid()) {
                self.up.push(Up::TakenBack);
                return Err(LinkError::Closed);
            }
        }
        drop(payload);
        self.up.push(Up::Done(number));
        Ok(Some(FromPublisher::Frame { epoch, frame, room }))
    }
}

impl Receiver for MemoryReceiver {
    fn poll_fds(&self) -> PollFds<'_> {
        if self.starved { PollFds::new() } else { self.down.poll_fds() }
    }

    fn next_look(&self) -> Instant {
        later()
    }

    fn is_busy(&self) -> bool {
        self.up.queue().len() >= MANY
    }

    fn send_packet(&mut self, packet: &[u8]) {
        self.up.push(Up::Packet(packet.to_vec()));
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        Ok(())
    }

    fn receive(&mut self, pages: &mut dyn Pages, events: &mut Vec<FromPublisher>) -> Result<(), LinkError> {
        let _ = self.down.bell.read();
        self.starved = false;
        for _ in 0..MAX_IN_A_ROW {
            match self.next(pages)? {
                Some(event) => events.push(event),
                None if self.waiting.is_none() && self.down.is_over() => return Err(LinkError::Closed),
                None => return Ok(()),
            }
        }
        self.down.ring();
        Ok(())
    }

    fn finish(&mut self) -> bool {
        self.up.finish();
        true
    }

    fn figures(&self) -> LinkFigures {
        figures()
    }
}

fn copy(payload: &Payload, room: &Room) -> Result<(), LinkError> {
    let no_pages = |error: &dyn std::fmt::Display| LinkError::NoPages(error.to_string());
    let into = room.part.buffer().mapping().ok_or_else(|| no_pages(&"pages that are not mapped"))?;
    let mut bytes = vec![0; STEP];
    let mut to = room.part.offset();
    for part in &payload.parts {
        let from = part.buffer().map().map_err(|error| no_pages(&error))?;
        for step in steps(part) {
            let bytes = &mut bytes[..step.len()];
            from.copy_to(step.start, bytes).map_err(|error| no_pages(&error))?;
            into.copy_from(to, bytes).map_err(|error| no_pages(&error))?;
            to += step.len();
        }
    }
    Ok(())
}

fn steps(part: &Part) -> impl Iterator<Item = std::ops::Range<usize>> {
    let end = part.offset() + part.length();
    (part.offset()..end).step_by(STEP).map(move |at| at..end.min(at + STEP))
}

/// Both ends have the same clock, and there is no wire.
fn figures() -> LinkFigures {
    LinkFigures { clock: Some(Estimate::default()), ..LinkFigures::default() }
}

/// Nothing happens by itself here.
fn later() -> Instant {
    Instant::now() + Duration::from_secs(1)
}
