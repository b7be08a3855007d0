//! One direction of one connection.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagecast::ipc::wire::{Packets, ToPublisher, ToSubscriber};
use pagecast_remote::framing::{Cut, Item, Kind, LENGTH, Splitter, kind_of};

use super::faults::{Close, Deed, Message, Once, Wound};
use super::line::{Line, Link};
use crate::roles::say;

const READ: usize = 64 * 1024;
/// Bytes passed on at once where there is a rate.
const STEP: usize = 4 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Down,
    Up,
}

/// The direction is at its end.
struct Ended;

/// A frame whose bytes pass.
struct Passing {
    at: usize,
    size: usize,
    wound: Option<(usize, Wound)>,
}

/// What becomes of the bytes that follow a packet.
enum Bytes {
    Pass,
    Lose(usize),
    /// All of them are needed first; the packet is in front.
    Collect {
        whole: Vec<u8>,
        missing: usize,
        deed: Deed,
    },
}

pub(super) struct Pump {
    side: Side,
    line: Arc<Line>,
    link: Arc<Link>,
    splitter: Option<Splitter>,
    input: Vec<u8>,
    passing: Passing,
    bytes: Bytes,
    /// A message that comes after the next.
    late: Option<Vec<u8>>,
    passed: u64,
    frames: u64,
    broken: u64,
    /// When the last byte at this rate is due.
    due: Instant,
}

impl Pump {
    pub(super) fn new(side: Side, line: Arc<Line>, link: Arc<Link>) -> Self {
        let broken = line.broken().0;
        Self {
            side,
            line,
            link,
            splitter: Some(Splitter::default()),
            input: Vec::new(),
            passing: Passing { at: 0, size: 0, wound: None },
            bytes: Bytes::Pass,
            late: None,
            passed: 0,
            frames: 0,
            broken,
            due: Instant::now(),
        }
    }

    fn to(&self) -> &TcpStream {
        if self.side == Side::Down { &self.link.subscriber } else { &self.link.publisher }
    }

    pub(super) fn run(mut self) {
        while let Ok(true) = self.read() {
            if self.take_all().is_err() {
                break;
            }
        }
        // What is not whole is passed on, too.
        let rest = std::mem::take(&mut self.input);
        let _ = self.pass(&rest);
        let _ = self.to().shutdown(Shutdown::Write);
        if self.side == Side::Down {
            let Passing { at, size, .. } = self.passing;
            say(&format!("ended frames={} part={at} of={size}", self.frames));
        }
    }

    /// Reads some; `false` at the end.
    fn read(&mut self) -> Result<bool, Ended> {
        let start = self.input.len();
        self.input.resize(start + READ, 0);
        let count = loop {
            self.look()?;
            let mut from = if self.side == Side::Down { &self.link.publisher } else { &self.link.subscriber };
            match from.read(&mut self.input[start..]) {
                Ok(count) => break count,
                Err(error) if waits(&error) => {}
                Err(_) => break 0,
            }
        };
        self.input.truncate(start + count);
        Ok(count > 0)
    }

    /// Waits while nothing may pass; notices a `break`.
    fn look(&mut self) -> Result<(), Ended> {
        loop {
            let (broken, how) = self.line.broken();
            if broken != self.broken {
                self.broken = broken;
                self.link.close(how.unwrap_or(Close::Rst));
            }
            if self.link.is_closed() {
                return Err(Ended);
            }
            if !self.line.lasting().stall {
                return Ok(());
            }
            self.line.wait();
        }
    }

    /// Passes on what is here, as far as it is understood.
    fn take_all(&mut self) -> Result<(), Ended> {
        let mut input = std::mem::take(&mut self.input);
        let mut start = 0;
        loop {
            let taken = self.take(&input[start..])?;
            start += taken;
            if taken == 0 || start == input.len() {
                break;
            }
        }
        input.drain(..start);
        self.input = input;
        Ok(())
    }

    /// Deals with the front of `input`; how many bytes that were.
    fn take(&mut self, input: &[u8]) -> Result<usize, Ended> {
        match &mut self.bytes {
            Bytes::Pass if self.passing.at < self.passing.size => return self.frame_bytes(input),
            Bytes::Lose(left) if *left > 0 => {
                let count = input.len().min(*left);
                *left -= count;
                return Ok(count);
            }
            Bytes::Collect { whole, missing, .. } if *missing > 0 => {
                let count = input.len().min(*missing);
                whole.extend_from_slice(&input[..count]);
                *missing -= count;
                if *missing == 0 {
                    self.collected()?;
                }
                return Ok(count);
            }
            _ => {}
        }
        self.bytes = Bytes::Pass;
        let Some(splitter) = &mut self.splitter else {
            self.pass(input)?;
            return Ok(input.len());
        };
        match splitter.cut(input) {
            Ok(Cut::Need(_)) => Ok(0),
            Ok(Cut::Item(Item::Beat(_), length)) => {
                self.pass(&input[..length])?;
                Ok(length)
            }
            Ok(Cut::Item(Item::Packet(packet), length)) => {
                let start = length - packet.len() - LENGTH;
                // The preamble, where it is in front.
                self.pass(&input[..start])?;
                let (message, size) = self.look_into(packet);
                self.message(message, size, &input[start..length])?;
                Ok(length)
            }
            // Nobody who does not speak the protocol is kept from it.
            Err(_) => {
                self.splitter = None;
                Ok(0)
            }
        }
    }

    /// What a packet is, and how many bytes follow it.
    fn look_into(&self, packet: &[u8]) -> (Message, usize) {
        if self.side == Side::Down
            && let Ok(Kind::Frame { frame, .. }) = kind_of(packet)
        {
            return (Message::Frame, frame.size() as usize);
        }
        let Ok(mut packets) = Packets::open(packet) else { return (Message::Other, 0) };
        while let Ok(Some(record)) = packets.next_record() {
            let found = match self.side {
                Side::Down => matches!(ToSubscriber::decode(record), Ok(ToSubscriber::Welcome(_)))
                    .then_some(Message::Welcome),
                Side::Up => match ToPublisher::decode(record) {
                    Ok(ToPublisher::Hello(_)) => Some(Message::Hello),
                    Ok(ToPublisher::Return(_)) => Some(Message::Return),
                    _ => None,
                },
            };
            if let Some(message) = found {
                return (message, 0);
            }
        }
        (Message::Other, 0)
    }

    /// Passes a packet on, with its length, unless something else is wanted.
    fn message(&mut self, message: Message, size: usize, bytes: &[u8]) -> Result<(), Ended> {
        self.frames += u64::from(message == Message::Frame);
        let deed = self.line.take(|once| match once {
            Once::Message(wanted, deed) if *wanted == message => Some(*deed),
            _ => None,
        });
        let Some(deed) = deed else {
            let wound = self.line.take(|once| match once {
                Once::Frame(at, wound) if *at < size => Some((*at, *wound)),
                _ => None,
            });
            self.passing = Passing { at: 0, size, wound };
            self.pass(bytes)?;
            return if size == 0 { self.pass_late() } else { Ok(()) };
        };
        self.say_did(&deed);
        let mut whole = bytes.to_vec();
        match deed {
            Deed::Drop => self.bytes = Bytes::Lose(size),
            Deed::Double | Deed::Swap => {
                self.bytes = Bytes::Collect { whole, missing: size, deed };
                if size == 0 {
                    self.collected()?;
                }
            }
            Deed::Stale => {
                let epoch = LENGTH + 4..LENGTH + 8;
                let older = u32::from_le_bytes(whole[epoch.clone()].try_into().unwrap_or_default());
                whole[epoch].copy_from_slice(&older.wrapping_sub(1).to_le_bytes());
                self.passing = Passing { at: 0, size, wound: None };
                self.pass(&whole)?;
            }
            Deed::Flip(at) => {
                if let Some(byte) = whole.get_mut(at) {
                    *byte ^= 0x10;
                }
                self.passing = Passing { at: 0, size, wound: None };
                self.pass(&whole)?;
            }
        }
        Ok(())
    }

    /// A message with all of its bytes is here.
    fn collected(&mut self) -> Result<(), Ended> {
        if let Bytes::Collect { whole, deed, .. } = std::mem::replace(&mut self.bytes, Bytes::Pass) {
            if deed == Deed::Swap {
                self.late = Some(whole);
            } else {
                self.pass(&whole)?;
                self.pass(&whole)?;
            }
        }
        Ok(())
    }

    fn pass_late(&mut self) -> Result<(), Ended> {
        self.late.take().map_or(Ok(()), |late| self.pass(&late))
    }

    /// Bytes of the frame that passes.
    fn frame_bytes(&mut self, input: &[u8]) -> Result<usize, Ended> {
        let Passing { at, size, wound } = self.passing;
        let mut count = input.len().min(size - at);
        match wound {
            Some((place, _)) if at < place => count = count.min(place - at),
            Some((_, wound)) => self.strike(wound)?,
            None => {}
        }
        match wound {
            Some((place, Wound::Corrupt)) if at == place => {
                self.pass_frame(&[!input[0]])?;
                count = 1;
            }
            Some((place, Wound::Tear)) if at >= place => self.pass_frame(&vec![0; count])?,
            _ => self.pass_frame(&input[..count])?,
        }
        if self.passing.at == size {
            self.passing = Passing { at: 0, size: 0, wound: None };
            self.pass_late()?;
        }
        Ok(count)
    }

    /// The byte at which something is wanted is the next.
    fn strike(&mut self, wound: Wound) -> Result<(), Ended> {
        let Passing { at, size, wound: place } = self.passing;
        if place.is_none_or(|(place, _)| place != at) {
            return Ok(());
        }
        match wound {
            Wound::Cut(how) => {
                self.link.close(how);
                self.say_did(&wound);
                return Err(Ended);
            }
            Wound::Halt => {
                say(&format!("halted {at} {size}"));
                let cleared = self.line.cleared();
                while self.line.cleared() == cleared {
                    self.look()?;
                    self.line.wait();
                }
            }
            Wound::Corrupt | Wound::Tear => self.say_did(&wound),
        }
        Ok(())
    }

    fn pass_frame(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        let before = self.passed;
        let result = self.pass(bytes);
        self.passing.at += (self.passed - before) as usize;
        result
    }

    /// Passes bytes on, as slowly as is wanted.
    fn pass(&mut self, mut bytes: &[u8]) -> Result<(), Ended> {
        while !bytes.is_empty() {
            let mut most = bytes.len();
            let lasting = self.line.lasting();
            most = most.min(lasting.pieces.unwrap_or(most));
            if lasting.rate.is_some() {
                most = most.min(STEP);
            }
            let cut = self.line.take(|once| match once {
                Once::Cut(at, how) if *at >= self.passed && at - self.passed <= most as u64 => {
                    Some((*at, *how))
                }
                _ => None,
            });
            if let Some((at, how)) = cut {
                let count = (at - self.passed) as usize;
                // Closed in any case: it is said, and happens once.
                let _ = self.write(&bytes[..count]);
                self.link.close(how);
                self.say_did(&Once::Cut(at, how));
                return Err(Ended);
            }
            std::thread::sleep(lasting.delay);
            self.write(&bytes[..most])?;
            bytes = &bytes[most..];
            if let Some(rate) = lasting.rate {
                let took = Duration::from_secs_f64(most as f64 / rate.max(1) as f64);
                self.due = self.due.max(Instant::now().checked_sub(took).unwrap_or(self.due)) + took;
                std::thread::sleep(self.due.saturating_duration_since(Instant::now()));
            }
        }
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Ended> {
        while !bytes.is_empty() {
            self.look()?;
            match self.to().write(bytes) {
                Ok(count) => {
                    self.passed += count as u64;
                    bytes = &bytes[count..];
                }
                Err(error) if waits(&error) => {}
                Err(_) => {
                    // Nobody is there: the other side is to know.
                    self.link.close(Close::Fin);
                    return Err(Ended);
                }
            }
        }
        Ok(())
    }

    fn say_did(&self, what: &impl std::fmt::Debug) {
        say(&format!("did {:?} {what:?}", self.side));
    }
}

fn waits(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
