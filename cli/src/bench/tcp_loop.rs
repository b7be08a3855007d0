//! The floor of links over TCP: one loop sends a header and the pages of a frame, another receives them into pages.
//! No windows, no policies, no heartbeats: nothing that serves several subscribers can be expected to cost less.

use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use pagecast::Lease;

use super::consume::PATIENCE;
use super::contender::Transport;
use super::job::{Job, Tally, fill};
use super::produce::{finish, measure};
use crate::workers::child::{Control, say};

/// Buffers that go round at each end: as many frames as a subscriber may hold.
const BUFFERS: usize = 8;
/// The send buffer that links of ours to the same host ask for.
const NEAR: usize = 512 * 1024;
/// Bytes before each frame: about as many as a record has.
const HEADER: usize = 128;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn buffers(job: &Job) -> Result<Vec<Lease>, String> {
    let pool = job.pool()?;
    (0..BUFFERS).map(|_| pool.acquire(job.bytes()).map_err(text)).collect()
}

pub(super) fn produce(job: &Job, control: &Control) -> Result<(), String> {
    let listener = TcpListener::bind((job.route.publisher, 0)).map_err(text)?;
    say("ready", &listener.local_addr().map_err(text)?.to_string());
    let mut peers = Vec::new();
    listener.set_nonblocking(true).map_err(text)?;
    let until = Instant::now() + PATIENCE;
    while peers.len() < job.contender.consumers as usize {
        match listener.accept() {
            Ok((peer, _)) => {
                peer.set_nonblocking(false).map_err(text)?;
                peer.set_nodelay(true).map_err(text)?;
                if job.contender.transport == Transport::TcpLoopNear {
                    setsockopt(&peer, sockopt::SndBuf, &NEAR).map_err(text)?;
                }
                peers.push(peer);
            }
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(text(error)),
            Err(_) if Instant::now() > until => return Err("not all subscribers came".to_owned()),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    let mut buffers = buffers(job)?;
    say("connected", &());
    if !control.wait_for_go() {
        return Ok(());
    }
    let mut measured = measure(job, control, |number| {
        let lease = &mut buffers[number as usize % BUFFERS];
        let bytes = &mut lease.as_mut_slice()[..job.bytes()];
        fill(bytes, number);
        peers.iter_mut().try_for_each(|peer| send(peer, &[7; HEADER], bytes).map_err(text))
    })?;
    measured.copied = Some(0);
    finish(measured, control);
    Ok(())
}

/// Sends all of it, in as few calls as the system lets it be.
fn send(peer: &mut TcpStream, header: &[u8], bytes: &[u8]) -> std::io::Result<()> {
    let mut pieces = [IoSlice::new(header), IoSlice::new(bytes)];
    let mut pieces = &mut pieces[..];
    while !pieces.is_empty() {
        match peer.write_vectored(pieces) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut pieces, count),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(super) fn consume(job: &Job, control: &Control) -> Result<Tally, String> {
    let mut tally = Tally::new(job);
    let mut socket = TcpStream::connect(job.address()?).map_err(text)?;
    socket.set_nodelay(true).map_err(text)?;
    let mut buffers = buffers(job)?;
    say("ready", &());
    let mut header = [0; HEADER];
    for buffer in (0..BUFFERS).cycle() {
        if control.stopped() {
            break;
        }
        let bytes = &mut buffers[buffer].as_mut_slice()[..job.bytes()];
        socket.read_exact(&mut header).map_err(text)?;
        receive(&mut socket, bytes)?;
        if !tally.take(bytes)? {
            break;
        }
    }
    Ok(tally)
}

/// Receives all of it, in as few calls as the system lets it be.
fn receive(socket: &mut TcpStream, bytes: &mut [u8]) -> Result<(), String> {
    let mut filled = 0;
    while filled < bytes.len() {
        match recv(socket.as_raw_fd(), &mut bytes[filled..], MsgFlags::MSG_WAITALL) {
            Ok(0) => return Err("the sender is gone".to_owned()),
            Ok(count) => filled += count,
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(text(error)),
        }
    }
    Ok(())
}
