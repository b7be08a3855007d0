//! The language of faults: `NAME [ARGUMENT…]`.
//!
//! | fault | what |
//! |---|---|
//! | `rate N` | lasts: at most N bytes a second |
//! | `delay MS` | lasts: every piece is late |
//! | `pieces N` | lasts: at most N bytes at once |
//! | `stall` | lasts: nothing is passed on, not even the end |
//! | `break fin` or `rst` | at once: both sides of every link are closed |
//! | `cut N fin` or `rst` | once: closed when N bytes of a new connection were passed on |
//! | `cut-frame N fin` or `rst` | once: closed when N bytes of a frame were passed on |
//! | `halt N` | once: nothing more is passed on after N bytes of a frame, until `clear` |
//! | `corrupt N` | once: byte N of a frame is another |
//! | `tear N` | once: the bytes of a frame from N on are those that were in its place before, as zeros |
//! | `drop`, `double`, `swap`, `stale MESSAGE` | once: a message is lost, comes twice, after the next one, with an older epoch |
//! | `flip MESSAGE N` | once: byte N of a message, its length included, is another |
//!
//! A message is `welcome`, `frame`, `hello`, `return`, or `other`.

use std::time::Duration;

/// How a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    Fin,
    Rst,
}

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Welcome,
    Frame,
    Hello,
    Return,
    Other,
}

/// What can be done to a whole message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Drop,
    Double,
    Swap,
    Stale,
    Flip(usize),
}

/// What can be done to the bytes of a frame, from one of them on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wound {
    Cut(Close),
    Halt,
    Corrupt,
    Tear,
}

/// Something that happens once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Once {
    Cut(u64, Close),
    Frame(usize, Wound),
    Message(Message, Deed),
}

/// Something that lasts until it is cleared.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lasting {
    /// Bytes a second.
    pub(super) rate: Option<u64>,
    pub(super) delay: Duration,
    /// Bytes at once.
    pub(super) pieces: Option<usize>,
    pub(super) stall: bool,
}

pub(super) enum Fault {
    Lasting(fn(&mut Lasting, u64), u64),
    Once(Once),
    Break(Close),
}

impl Fault {
    /// # Panics
    /// If it is not one.
    pub(super) fn parse(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap_or_else(|_| panic!("no number in {text:?}"));
        let place = |wound| Self::Once(Once::Frame(number(1) as usize, wound));
        let message = |deed| Self::Once(Once::Message(message(words[1]), deed));
        match words[0] {
            "rate" => Self::Lasting(|lasting, rate| lasting.rate = Some(rate), number(1)),
            "delay" => Self::Lasting(|lasting, ms| lasting.delay = Duration::from_millis(ms), number(1)),
            "pieces" => Self::Lasting(|lasting, bytes| lasting.pieces = Some(bytes as usize), number(1)),
            "stall" => Self::Lasting(|lasting, _| lasting.stall = true, 0),
            "break" => Self::Break(close(words[1])),
            "cut" => Self::Once(Once::Cut(number(1), close(words[2]))),
            "cut-frame" => place(Wound::Cut(close(words[2]))),
            "halt" => place(Wound::Halt),
            "corrupt" => place(Wound::Corrupt),
            "tear" => place(Wound::Tear),
            "drop" => message(Deed::Drop),
            "double" => message(Deed::Double),
            "swap" => message(Deed::Swap),
            "stale" => message(Deed::Stale),
            "flip" => message(Deed::Flip(number(2) as usize)),
            other => panic!("no such fault: {other}"),
        }
    }
}

fn close(word: &str) -> Close {
    match word {
        "fin" => Close::Fin,
        "rst" => Close::Rst,
        other => panic!("no such end: {other}"),
    }
}

fn message(word: &str) -> Message {
    match word {
        "welcome" => Message::Welcome,
        "frame" => Message::Frame,
        "hello" => Message::Hello,
        "return" => Message::Return,
        "other" => Message::Other,
        other => panic!("no such message: {other}"),
    }
}
