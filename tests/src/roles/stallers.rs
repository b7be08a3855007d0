//! `stallers`: connections that go no further.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::{Options, say, stay};

/// Makes `count` connections to `address`, each with another beginning, and waits until the other end has had enough
/// of all of them.
pub(super) fn run(address: &str, options: &Options) {
    let count = options.get("count").unwrap_or(1);
    let beginnings: [&[u8]; 6] = [
        b"",
        &[22],
        &[22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3],
        &[22, 3, 1, 0xff, 0xff],
        b"GET / HTTP/1.1\r\n\r\n",
        b"PGCR",
    ];
    let connect = |at: usize| {
        let mut stream = TcpStream::connect(address).expect("a connection");
        let _ = stream.write_all(beginnings[at % beginnings.len()]);
        stream
    };
    let streams: Vec<TcpStream> = (0..count).map(connect).collect();
    say("ready");
    for mut stream in streams {
        stream.set_read_timeout(Some(Duration::from_secs(25))).expect("a limit");
        let ended = stream.read_to_end(&mut Vec::new());
        if ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock) {
            return say("one is still there");
        }
    }
    say("all gone");
    stay();
}
