//! Reads and writes of pages that others may be reading or writing: no slices of them are ever made.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use arrayvec::ArrayVec;
use pagecast_allocators::Mapping;

/// Pieces in one system call.
pub(crate) const MAX_PIECES: usize = 48;

/// Bytes to be sent: our own, or a range of pages.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Piece<'a> {
    Bytes(&'a [u8]),
    Pages(PageRange<'a>),
}

impl Piece<'_> {
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Pages(range) => range.length,
        }
    }

    /// Copies its bytes from `at` on.
    pub(crate) fn copy_to(&self, at: usize, to: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => to.copy_from_slice(&bytes[at..at + to.len()]),
            Self::Pages(range) => {
                range.mapping.copy_to(range.offset + at, to).map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    fn iovec(&self) -> libc::iovec {
        match self {
            Self::Bytes(bytes) => {
                libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
            }
            Self::Pages(range) => range.iovec(),
        }
    }
}

/// A range of a mapping, checked to be within it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageRange<'a> {
    mapping: &'a Mapping,
    offset: usize,
    length: usize,
}

impl<'a> PageRange<'a> {
    pub(crate) fn new(mapping: &'a Mapping, offset: usize, length: usize) -> Option<Self> {
        let end = offset.checked_add(length)?;
        (end <= mapping.len()).then_some(Self { mapping, offset, length })
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Fills it from `at` on. Pages must be writable here.
    pub(crate) fn copy_from(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let fits = at.checked_add(bytes.len()).is_some_and(|end| end <= self.length);
        if !fits {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.mapping.copy_from(self.offset + at, bytes).map_err(io::Error::other)
    }

    fn iovec(&self) -> libc::iovec {
        let start = self.mapping.as_ptr().wrapping_add(self.offset);
        libc::iovec { iov_base: start.cast_mut().cast(), iov_len: self.length }
    }
}

/// Sends as many of the pieces' bytes as fit now; never a signal.
pub(crate) fn send(socket: BorrowedFd<'_>, pieces: &[Piece<'_>]) -> io::Result<usize> {
    let mut iov: ArrayVec<libc::iovec, MAX_PIECES> =
        pieces.iter().take(MAX_PIECES).map(Piece::iovec).collect();
    // SAFETY: msghdr is plain data, all zeroes is a valid value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = iov.as_mut_ptr();
    header.msg_iovlen = iov.len() as _;
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: every iovec is a borrowed slice or a checked range of a mapping that is borrowed for the call;
    // the kernel only reads them, and may read pages that others write (the mapping invariant: no SIGBUS).
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &header, flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// Receives into `pages` and, when they are full, into `rest`. Pages must be writable here.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    pages: Option<PageRange<'_>>,
    rest: &mut [u8],
) -> io::Result<usize> {
    let mut iov: ArrayVec<libc::iovec, 2> = ArrayVec::new();
    if let Some(range) = &pages {
        if !range.mapping.is_writable() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        iov.push(range.iovec());
    }
    iov.push(libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() });
    // SAFETY: as in `send`.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = iov.as_mut_ptr();
    header.msg_iovlen = iov.len() as _;
    // SAFETY: `rest` is exclusively borrowed. The range was checked against a mapping that is borrowed for the
    // call and writable; its owner (`link::Room`) has the pages to itself, and no slice of them exists.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_DONTWAIT) };
    if received < 0 { Err(io::Error::last_os_error()) } else { Ok(received as usize) }
}

/// Bytes in a socket's send queue, those included that the other host has not acknowledged.
pub(super) fn unsent(socket: BorrowedFd<'_>) -> u64 {
    let mut count: libc::c_int = 0;
    // SAFETY: the call writes one int, which outlives it.
    let failed = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) } < 0;
    if failed { 0 } else { count.try_into().unwrap_or(0) }
}
