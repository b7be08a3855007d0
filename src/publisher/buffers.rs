//! What a publisher tells of its buffers: enough for others to see with their own eyes that the pages are the same.

use std::os::fd::BorrowedFd;

use nix::sys::stat::fstat;
use pagecast_allocators::{Buffer, FaceKind};
use pagecast_remote::registration;
use serde::{Deserialize, Serialize};

use super::core::Core;

/// Buffers that are told of at most.
pub const MAX_TOLD_BUFFERS: usize = 64;

/// A buffer, as its publisher has it. Only the publisher's own user and root, on this host, are told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BufferInfo {
    /// Its number.
    pub id: u64,
    /// Its bytes.
    pub size: u64,
    /// Bytes of one of its pages.
    pub page_size: u64,
    /// Where its pages come from.
    pub backing: String,
    /// The file behind its memory face.
    pub memory: Option<FaceInfo>,
    /// The file behind its dma-buf face.
    pub dma_buf: Option<FaceInfo>,
    /// Where the publisher has mapped it, if it has.
    pub address: Option<u64>,
    /// The mr faces.
    pub registrations: Vec<RegistrationInfo>,
}

/// The file behind a face: what tells its pages from all others while it is open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FaceInfo {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// `enforced` or `cooperative`.
    pub access: String,
}

/// A registration with an RDMA device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistrationInfo {
    /// The device's name.
    pub device: String,
    /// Where the registered bytes begin, in the publisher's memory.
    pub address: u64,
    /// How many there are.
    pub length: u64,
}

impl BufferInfo {
    fn of(buffer: &Buffer) -> Self {
        let face = |kind| {
            let face = buffer.face(kind)?;
            let (device, inode) = identity(face.fd)?;
            Some(FaceInfo { device, inode, access: face.access.to_string() })
        };
        let registrations = registration::all(buffer).into_iter().map(|region| RegistrationInfo {
            device: region.domain().device().name().to_owned(),
            address: region.address(),
            length: region.length(),
        });
        Self {
            id: buffer.id().get(),
            size: buffer.size() as u64,
            page_size: buffer.page_size() as u64,
            backing: buffer.backing().to_string(),
            memory: face(FaceKind::Memory),
            dma_buf: face(FaceKind::DmaBuf),
            address: buffer.mapping().map(|mapping| mapping.as_ptr() as u64),
            registrations: registrations.collect(),
        }
    }
}

#[allow(clippy::unnecessary_cast, reason = "the types differ between architectures")]
fn identity(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    fstat(fd).ok().map(|stat| (stat.st_dev as u64, stat.st_ino as u64))
}

impl Core {
    /// The buffers of frames that subscribers hold now. They are only looked at: another reference to one would keep its
    /// pool from handing it out for writing.
    pub(super) fn held_buffers(&self) -> Vec<BufferInfo> {
        let ledger = self.books.ledger();
        let mut all: Vec<BufferInfo> = Vec::new();
        let held = self.ids().into_iter().flat_map(|id| ledger.held(id)).map(|held| held.frame);
        for published in held.filter_map(|frame| ledger.resource(frame)) {
            for segment in published.frame.segments() {
                if all.len() == MAX_TOLD_BUFFERS {
                    return all;
                }
                if all.iter().all(|known| known.id != segment.buffer.id().get()) {
                    all.push(BufferInfo::of(&segment.buffer));
                }
            }
        }
        all
    }
}
