use std::fs;
use std::io::{IoSlice, Read, pipe};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
use pagecast_ipc::socket::{MAX_FDS_PER_MESSAGE, MAX_FDS_PER_SEND, ReceiveError, SendError, Seqpacket};

fn receive(socket: &Seqpacket) -> Result<Vec<u8>, ReceiveError> {
    let (mut buf, mut fds) = ([0; 256], Vec::new());
    let length = socket.receive(&mut buf, &mut fds)?;
    assert!(fds.is_empty());
    Ok(buf[..length].to_vec())
}

fn is_shared<T: Send + Sync + AsFd>(_: &T) {}

/// Ends of pipes to send; that all copies are closed is seen at the other ends.
fn pipes(count: usize) -> (Vec<std::io::PipeReader>, Vec<std::io::PipeWriter>) {
    (0..count).map(|_| pipe().unwrap()).unzip()
}

fn assert_all_closed(readers: &mut [std::io::PipeReader]) {
    for reader in readers {
        // A copy that is still open would make this wait: look first.
        let mut poll = [nix::poll::PollFd::new(reader.as_fd(), nix::poll::PollFlags::POLLIN)];
        assert_eq!(nix::poll::poll(&mut poll, nix::poll::PollTimeout::ZERO), Ok(1), "a copy is open");
        assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
    }
}

fn send_and_drop(socket: &Seqpacket, bytes: &[u8], writers: Vec<std::io::PipeWriter>) {
    let fds: Vec<BorrowedFd<'_>> = writers.iter().map(|writer| writer.as_fd()).collect();
    socket.send(bytes, &fds).unwrap();
}

#[test]
fn messages_stay_whole_and_in_order() {
    let (a, b) = Seqpacket::pair().unwrap();
    is_shared(&a);
    assert_eq!(receive(&b), Err(ReceiveError::Empty));
    a.send(b"one", &[]).unwrap();
    a.send_vectored(&[IoSlice::new(b"tw"), IoSlice::new(b""), IoSlice::new(b"o")], &[]).unwrap();
    assert_eq!(receive(&b).unwrap(), b"one");
    assert_eq!(receive(&b).unwrap(), b"two");
    assert_eq!(receive(&b), Err(ReceiveError::Empty));
}

#[test]
fn descriptors_arrive_as_the_same_file_and_close_on_exec() {
    let (a, b) = Seqpacket::pair().unwrap();
    for socket in [&a, &b] {
        assert_flags(socket.as_fd());
    }
    let files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
    a.send(b"files", &[files[0].as_fd(), files[1].as_fd()]).unwrap();
    // What is in the list already stays there.
    let mut fds = vec![OwnedFd::from(tempfile::tempfile().unwrap())];
    let kept = fds[0].as_raw_fd();
    let mut buf = [0; 5];
    assert_eq!(b.receive(&mut buf, &mut fds), Ok(5));
    assert_eq!((&buf, fds.len(), fds[0].as_raw_fd()), (b"files", 3, kept));
    for (fd, file) in fds[1..].iter().zip(&files) {
        assert_flags(fd.as_fd());
        let received = fs::File::from(fd.try_clone().unwrap()).metadata().unwrap();
        assert_eq!(received.ino(), file.metadata().unwrap().ino());
    }
}

/// `O_CLOEXEC`, seen from outside.
fn assert_flags(fd: BorrowedFd<'_>) {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
    let flags = i32::from_str_radix(flags, 8).unwrap();
    assert_ne!(flags & libc::O_CLOEXEC, 0, "{info}");
}

#[test]
fn a_message_that_does_not_fit_is_an_error_and_its_descriptors_are_closed() {
    let (a, b) = Seqpacket::pair().unwrap();
    let (mut readers, writers) = pipes(2);
    send_and_drop(&a, b"12345", writers);
    a.send(b"next", &[]).unwrap();
    let (mut buf, mut fds) = ([0; 4], Vec::new());
    assert_eq!(b.receive(&mut buf, &mut fds), Err(ReceiveError::Truncated(4)));
    assert!(fds.is_empty());
    assert_all_closed(&mut readers);
    assert_eq!(b.receive(&mut buf, &mut fds), Ok(4));
    assert_eq!(&buf, b"next");
}

#[test]
fn as_many_descriptors_as_allowed_arrive_and_one_more_closes_all() {
    let (a, b) = Seqpacket::pair().unwrap();
    let mut buf = [0; 8];
    for count in [1, 2, 3, MAX_FDS_PER_MESSAGE - 1, MAX_FDS_PER_MESSAGE] {
        let (mut readers, writers) = pipes(count);
        send_and_drop(&a, b"x", writers);
        let mut fds = Vec::new();
        assert_eq!(b.receive(&mut buf, &mut fds), Ok(1));
        assert_eq!(fds.len(), count);
        drop(fds);
        assert_all_closed(&mut readers);
    }
    for count in [MAX_FDS_PER_MESSAGE + 1, MAX_FDS_PER_MESSAGE + 2, MAX_FDS_PER_MESSAGE + 3] {
        let (mut readers, writers) = pipes(count);
        send_and_drop(&a, b"x", writers);
        let mut fds = Vec::new();
        assert_eq!(b.receive(&mut buf, &mut fds), Err(ReceiveError::TooManyFds), "{count}");
        assert!(fds.is_empty());
        assert_all_closed(&mut readers);
    }
}

#[test]
fn the_kernels_limit_of_descriptors_holds_for_sending() {
    let (a, b) = Seqpacket::pair().unwrap();
    let (mut readers, writers) = pipes(1);
    let many: Vec<BorrowedFd<'_>> = vec![writers[0].as_fd(); MAX_FDS_PER_SEND + 1];
    assert_eq!(a.send(b"x", &many), Err(SendError::TooManyFds(MAX_FDS_PER_SEND + 1)));
    a.send(b"x", &many[1..]).unwrap();
    drop(writers);
    let mut fds = Vec::new();
    assert_eq!(b.receive(&mut [0; 8], &mut fds), Err(ReceiveError::TooManyFds));
    assert_all_closed(&mut readers);
}

#[test]
fn an_empty_message_is_not_sent() {
    let (a, b) = Seqpacket::pair().unwrap();
    assert_eq!(a.send(b"", &[]), Err(SendError::EmptyMessage));
    assert_eq!(a.send_vectored(&[], &[]), Err(SendError::EmptyMessage));
    assert_eq!(a.send_vectored(&[IoSlice::new(b"")], &[b.as_fd()]), Err(SendError::EmptyMessage));
    assert_eq!(receive(&b), Err(ReceiveError::Empty));
}

#[test]
fn an_empty_message_of_a_hostile_peer_ends_the_connection_and_leaks_nothing() {
    let (a, b) = Seqpacket::pair().unwrap();
    let (mut readers, writers) = pipes(1);
    let raw = [writers[0].as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&raw)];
    sendmsg::<()>(a.as_fd().as_raw_fd(), &[], &rights, MsgFlags::empty(), None).unwrap();
    drop(writers);
    let mut fds = Vec::new();
    assert_eq!(b.receive(&mut [0; 8], &mut fds), Err(ReceiveError::Closed));
    assert!(fds.is_empty());
    assert_all_closed(&mut readers);
}

/// A peer with unread messages has sent two more and closed.
fn closed_with_unread_data() -> Seqpacket {
    let (a, b) = Seqpacket::pair().unwrap();
    a.send(b"unread", &[]).unwrap();
    b.send(b"1", &[]).unwrap();
    b.send(b"2", &[]).unwrap();
    a
}

#[test]
fn the_last_messages_of_a_peer_that_closed_with_unread_data_are_received() {
    // The kernel does report the reset first.
    let control = closed_with_unread_data();
    let first = recv(control.as_fd().as_raw_fd(), &mut [0; 8], MsgFlags::MSG_DONTWAIT);
    assert_eq!(first, Err(Errno::ECONNRESET));

    let a = closed_with_unread_data();
    assert_eq!(receive(&a).unwrap(), b"1");
    assert_eq!(receive(&a).unwrap(), b"2");
    assert_eq!(receive(&a), Err(ReceiveError::Closed));
    assert_eq!(receive(&a), Err(ReceiveError::Closed));
    assert_eq!(a.send(b"x", &[]), Err(SendError::Closed));
}

#[test]
fn a_send_that_learns_of_the_reset_loses_no_messages_either() {
    let a = closed_with_unread_data();
    assert_eq!(a.send(b"x", &[]), Err(SendError::Closed));
    assert_eq!(a.send(b"x", &[]), Err(SendError::Closed));
    assert_eq!(receive(&a).unwrap(), b"1");
    assert_eq!(receive(&a).unwrap(), b"2");
    assert_eq!(receive(&a), Err(ReceiveError::Closed));
}

#[test]
fn shutting_down_one_direction_leaves_the_other() {
    let (a, b) = Seqpacket::pair().unwrap();
    a.send(b"last", &[]).unwrap();
    a.shutdown_write();
    assert_eq!(a.send(b"x", &[]), Err(SendError::Closed));
    assert_eq!(receive(&b).unwrap(), b"last");
    assert_eq!(receive(&b), Err(ReceiveError::Closed));
    b.send(b"back", &[]).unwrap();
    assert_eq!(receive(&a).unwrap(), b"back");
    assert_eq!(receive(&a), Err(ReceiveError::Empty));
    b.shutdown();
    assert_eq!(receive(&a), Err(ReceiveError::Closed));
    drop(a);
    b.shutdown();
}

#[test]
fn a_full_queue_says_so_and_takes_more_after_a_read() {
    let (a, b) = Seqpacket::pair().unwrap();
    let mut sent = 0_u32;
    let last = loop {
        match a.send(&sent.to_le_bytes(), &[]) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 1_000_000, "the queue has no end");
    };
    assert_eq!(last, SendError::Full);
    assert!(sent > 10);
    assert_eq!(receive(&b).unwrap(), 0_u32.to_le_bytes());
    // Room for one more long before POLLOUT says so.
    let mut poll = [nix::poll::PollFd::new(a.as_fd(), nix::poll::PollFlags::POLLOUT)];
    assert_eq!(nix::poll::poll(&mut poll, nix::poll::PollTimeout::ZERO), Ok(0));
    a.send(&sent.to_le_bytes(), &[]).unwrap();
    // What was refused is nowhere, what was sent is all there.
    for expected in 1..=sent {
        assert_eq!(receive(&b).unwrap(), expected.to_le_bytes());
    }
    assert_eq!(receive(&b), Err(ReceiveError::Empty));
}

#[test]
fn the_size_of_a_message_is_bounded_by_the_buffer_that_was_set() {
    let (a, b) = Seqpacket::pair().unwrap();
    let small = a.set_buffers(8192, 8192).unwrap();
    assert_eq!(small, a.buffers().unwrap());
    assert!((8192..=65_536).contains(&small.send), "{small:?}");
    assert_eq!(a.send(&vec![0; small.send], &[]), Err(SendError::TooLarge));
    assert_eq!(receive(&b), Err(ReceiveError::Empty));
    let large = a.set_buffers(150_000, 150_000).unwrap();
    assert!(large.send > small.send && large.receive > small.receive, "{large:?}");
    a.send(&vec![7; small.send], &[]).unwrap();
    let mut buf = vec![0; small.send];
    assert_eq!(b.receive(&mut buf, &mut Vec::new()), Ok(small.send));
    assert!(buf.iter().all(|byte| *byte == 7));
}

#[test]
fn buffers_beyond_any_limit_are_cut_and_not_wrapped() {
    let (a, _b) = Seqpacket::pair().unwrap();
    let before = a.buffers().unwrap();
    let after = a.set_buffers(usize::MAX, usize::MAX).unwrap();
    assert!(after.send >= before.send && after.receive >= before.receive, "{after:?}");
}
