//! The system calls that nix does not wrap, or not well enough. All `unsafe` of the sockets is here.

use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

/// Descriptors that fit the control buffer of [`receive`]: more than a message may carry, so that one
/// that carries too many is told apart from one whose descriptors could not be installed.
pub(super) const CONTROL_FDS: usize = super::seqpacket::MAX_FDS_PER_MESSAGE + 2;

// SAFETY: CMSG_SPACE only computes a length.
const CONTROL_LEN: usize = unsafe { libc::CMSG_SPACE((CONTROL_FDS * size_of::<RawFd>()) as u32) } as usize;

/// Space for control messages, aligned as the kernel's header wants it.
#[repr(C)]
union ControlBuffer {
    _align: libc::cmsghdr,
    bytes: [MaybeUninit<u8>; CONTROL_LEN],
}

/// Receives one message without waiting; its descriptors are appended to `fds`, also when the flags
/// say `MSG_CTRUNC`.
///
/// nix's `recvmsg` hands out no descriptors at all when some were cut off: those that did arrive would
/// stay open for ever.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    buf: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> Result<(usize, MsgFlags), Errno> {
    let mut control = ControlBuffer { bytes: [MaybeUninit::uninit(); CONTROL_LEN] };
    let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: msghdr is plain data, all zeroes is a valid value.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = CONTROL_LEN as _;

    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header points to `iov` and `control`, which outlive the call and are written by
    // nobody else; `iov` covers exactly `buf`, which is borrowed mutably.
    let length = Errno::result(unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, flags) })?;
    if header.msg_controllen > 0 {
        // SAFETY: recvmsg succeeded, so `header` describes control messages that the kernel wrote to
        // `control`; they are taken over once, here.
        unsafe { take_fds(&header, fds) };
    }
    Ok((length as usize, MsgFlags::from_bits_truncate(header.msg_flags)))
}

/// Takes ownership of every descriptor in the control messages of `header`.
///
/// # Safety
/// `header` must have been filled by a successful `recvmsg`, its control buffer must still be alive,
/// and its descriptors must not have been taken before.
unsafe fn take_fds(header: &libc::msghdr, fds: &mut Vec<OwnedFd>) {
    let end = header.msg_control as usize + header.msg_controllen;
    // SAFETY: by this function's contract; the CMSG macros stay within msg_controllen.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: `message` is a header within the control buffer, aligned by `ControlBuffer`.
        let (kind, data, length) = unsafe {
            let data = libc::CMSG_DATA(message);
            let claimed = ((*message).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            (((*message).cmsg_level, (*message).cmsg_type), data, claimed.min(end - data as usize))
        };
        if kind == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            for index in 0..length / size_of::<RawFd>() {
                // SAFETY: `index` lies within the message's data; the kernel has just opened this
                // descriptor for us, and nobody else knows its number.
                fds.push(unsafe { OwnedFd::from_raw_fd(data.cast::<RawFd>().add(index).read_unaligned()) });
            }
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
}

/// Takes one connection from a listening socket's queue, non-blocking and `CLOEXEC`.
pub(super) fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: null pointers tell accept4 that the peer's address is not wanted.
    let fd = Errno::result(unsafe {
        libc::accept4(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags)
    })?;
    // SAFETY: accept4 has just opened `fd` for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The peer's supplementary groups when it connected (`SO_PEERGROUPS`, Linux 4.13).
pub(super) fn peer_groups(socket: BorrowedFd<'_>) -> Result<Vec<libc::gid_t>, Errno> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut length = size_of_val(groups.as_slice()) as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to `groups`, which has that many, and any
        // bytes are valid group ids.
        let result = Errno::result(unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &mut length,
            )
        });
        let count = length as usize / size_of::<libc::gid_t>();
        match result {
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups);
            }
            // The kernel says how many there are; the number is fixed for this connection.
            Err(Errno::ERANGE) if count > groups.len() => groups.resize(count, 0),
            Err(errno) => return Err(errno),
        }
    }
}

/// A descriptor for the process that has the id `pid` now (`pidfd_open`, Linux 5.3).
pub(super) fn pidfd_open(pid: libc::pid_t) -> Result<OwnedFd, Errno> {
    // SAFETY: pidfd_open takes two integers and touches no memory.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just opened this descriptor for us (CLOEXEC by definition).
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
