//! `recorder`: somebody between two hosts who passes everything on and keeps a copy.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use super::{Options, say};

/// Listens at `address`, connects to `to`, and writes all that passes, both ways, to `file`.
pub(super) fn run(address: &str, options: &Options) {
    let to: SocketAddr = options.get("to").expect("where to");
    let path: String = options.get("file").expect("a file");
    let file = OpenOptions::new().create(true).append(true).open(path).expect("a file");
    let listener = TcpListener::bind(address).expect("a place to listen");
    say("ready");
    // Its input ends it.
    let _commands = super::commands();
    for near in listener.incoming().map_while(Result::ok) {
        let Ok(far) = TcpStream::connect(to) else { continue };
        for (from, to) in [(&near, &far), (&far, &near)] {
            let streams = (from.try_clone().expect("a clone"), to.try_clone().expect("a clone"));
            let copy = file.try_clone().expect("a clone");
            std::thread::spawn(move || pass_on(streams.0, streams.1, copy));
        }
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, mut copy: File) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        copy.write_all(&bytes[..count]).expect("a copy");
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
