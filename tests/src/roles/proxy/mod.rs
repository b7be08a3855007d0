//! `proxy`: stands between the two ends of a TCP link and does to it what networks do, and worse. It knows the
//! framing, so it can lose, double, swap and age whole messages; what it does not understand passes as it is.

mod faults;
mod line;
mod pump;

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use self::line::{Line, Link};
use self::pump::{Pump, Side};
use super::{Options, commands, say};

/// The lines of both directions, which all connections share.
struct Lines {
    down: Arc<Line>,
    up: Arc<Line>,
}

/// Passes connections to `uri` on, and says `ready` with its own address.
///
/// Commands are `down FAULT` (publisher to subscriber), `up FAULT`, see [`faults`], and `clear`, which ends all that
/// lasts and forgets what has not happened yet; each is answered by `set`. It says `did FAULT` when a fault that
/// happens once has happened, and `ended frames=N part=X of=Y` at the end of each connection: X of Y bytes of a frame
/// had been passed on. Options: `buffer`, the bytes that it lets the kernel hold for it.
pub(super) fn run(uri: &str, options: &Options) {
    let upstream = uri.trim_start_matches("tcp://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    say(&format!("ready tcp://{}", listener.local_addr().expect("its address")));
    let lines = Arc::new(Lines { down: Arc::default(), up: Arc::default() });
    let (shared, buffer) = (lines.clone(), options.get("buffer"));
    std::thread::spawn(move || {
        for subscriber in listener.incoming().flatten() {
            // Whoever is not there any more is not there behind a proxy either.
            let Ok(publisher) = connect(&upstream, buffer) else { continue };
            join(&shared, publisher, subscriber);
        }
    });
    for command in commands() {
        match command.split_once(' ').unwrap_or((&command, "")) {
            ("down", fault) => lines.down.add(fault),
            ("up", fault) => lines.up.add(fault),
            ("clear", _) => [&lines.down, &lines.up].into_iter().for_each(|line| line.clear()),
            _ => panic!("no such command: {command}"),
        }
        say("set");
    }
}

fn connect(address: &str, buffer: Option<usize>) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    if let Some(bytes) = buffer {
        nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::RcvBuf, &bytes)?;
    }
    Ok(stream)
}

fn join(lines: &Lines, publisher: TcpStream, subscriber: TcpStream) {
    let Ok(link) = Link::new(publisher, subscriber) else { return };
    let link = Arc::new(link);
    for (side, line) in [(Side::Down, &lines.down), (Side::Up, &lines.up)] {
        let pump = Pump::new(side, line.clone(), link.clone());
        std::thread::spawn(move || pump.run());
    }
}
