//! Where pages can come from, and which faces they can have.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use pagecast::allocators::{AllocError, Backing, Buffer, DmaHeapBacking, open};
use pagecast::{AccessMode, BackingChoice, FaceKind, Wants};

use super::Check;
use crate::output::bytes;

const SIZE: usize = 1 << 16;

fn buffer(wants: Wants) -> Result<Buffer, AllocError> {
    open(BackingChoice::Memfd).allocate(SIZE, &wants)
}

/// Pages that we write and nobody else can: the seals, and a try to break them.
pub(super) fn sealing() -> Check {
    const NAME: &str = "sealed pages";
    let remedy = "Linux 5.1 or newer is needed (F_SEAL_FUTURE_WRITE); in a sandbox, allow memfd_create and F_ADD_SEALS";
    let wants = Wants { read_only: true, offer_dma_buf: false, ..Wants::default() };
    let buffer = match buffer(wants) {
        Ok(buffer) => buffer,
        Err(error) => return Check::fail(NAME, error.to_string(), remedy),
    };
    let Some(face) = buffer.face(FaceKind::Memory) else {
        return Check::fail(NAME, "a memfd has no memory face", remedy);
    };
    let seals =
        fcntl(face.fd, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate).unwrap_or(SealFlag::empty());
    let needed = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_FUTURE_WRITE;
    if !seals.contains(needed) || face.access != AccessMode::Enforced {
        return Check::fail(NAME, format!("seals {seals:?}, {}", face.access), remedy);
    }
    if nix::unistd::write(face.fd, b"x").is_ok() {
        return Check::fail(NAME, "a sealed page could be written through its descriptor", remedy);
    }
    let written = buffer.mapping().is_some_and(|mapping| mapping.copy_from(0, b"x").is_ok());
    if !written {
        return Check::fail(NAME, "the owner cannot write its own pages", remedy);
    }
    Check::pass(NAME, "SHRINK, GROW, then FUTURE_WRITE; only the owner can write")
}

pub(super) fn huge_pages() -> Check {
    const NAME: &str = "huge pages";
    let folder = Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB");
    let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let remedy = "for fewer TLB misses reserve some (2 MiB each): sysctl vm.nr_hugepages=128; until then ordinary pages are used";
    match (number("nr_hugepages"), number("free_hugepages")) {
        (Some(0), _) => Check::warn(NAME, "none are reserved", remedy),
        (Some(all), Some(0)) => Check::warn(NAME, format!("all {all} are in use"), remedy),
        (Some(all), Some(free)) => Check::pass(NAME, format!("{free} of {all} of 2 MiB are free")),
        _ => Check::warn(NAME, "the kernel has none of 2 MiB", "ordinary pages are used; nothing to do"),
    }
}

/// Whether ordinary memfds may get huge pages, too.
pub(super) fn shmem_huge() -> Check {
    const NAME: &str = "shmem_enabled";
    let path = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let Ok(text) = fs::read_to_string(path) else {
        return Check::pass(
            NAME,
            "the kernel has no transparent huge pages; reserved ones are used where there are any",
        );
    };
    let mode =
        text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("unknown", |(mode, _)| mode);
    let what = match mode {
        "always" | "within_size" | "force" => "ordinary memfds get huge pages by themselves",
        _ => "ordinary memfds have small pages; reserved huge pages do not depend on it",
    };
    Check::pass(NAME, format!("{mode}: {what}"))
}

pub(super) fn udmabuf() -> Check {
    const NAME: &str = "udmabuf";
    let purpose = "needed only where devices (GPU, V4L2, display) import the frames";
    match fs::OpenOptions::new().read(true).write(true).open("/dev/udmabuf") {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let remedy = format!("modprobe udmabuf; {purpose}");
            return Check::warn(NAME, "/dev/udmabuf does not exist", remedy);
        }
        Err(error) => {
            let remedy = format!(
                "join the group that owns it (ls -l /dev/udmabuf), usually kvm, or give it one by packaging/60-pagecast.rules; {purpose}"
            );
            return Check::warn(NAME, format!("/dev/udmabuf: {error}"), remedy);
        }
    }
    match buffer(Wants { importable: true, ..Wants::default() }) {
        Ok(buffer) if buffer.face(FaceKind::DmaBuf).is_some() => {
            Check::pass(NAME, "the pages of a memfd have a dma-buf face, too")
        }
        Ok(_) => Check::warn(NAME, "a buffer came without a dma-buf face", purpose),
        Err(error) => Check::warn(NAME, error.to_string(), purpose),
    }
}

pub(super) fn dma_heap() -> Check {
    const NAME: &str = "dma-heap";
    let purpose = "needed only for devices that want memory of their own kind";
    let heaps = DmaHeapBacking::names();
    if heaps.is_empty() {
        let remedy = format!("a kernel with CONFIG_DMABUF_HEAPS; {purpose}");
        return Check::warn(NAME, "/dev/dma_heap does not exist", remedy);
    }
    let tried = |name: &String| {
        let heap = DmaHeapBacking::open(name)?;
        heap.allocate(SIZE, &Wants::default()).map(drop)
    };
    let (open, closed): (Vec<_>, Vec<_>) = heaps.iter().partition(|name| tried(name).is_ok());
    match (open.is_empty(), closed.first().and_then(|name| tried(name).err())) {
        (true, Some(error)) => Check::warn(NAME, error.to_string(), purpose),
        _ => {
            let names = open.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
            Check::pass(NAME, format!("{names}: the dma-buf face only, which its holders can write"))
        }
    }
}

/// A size with its unit, or "unlimited".
pub(super) fn limit(value: u64) -> String {
    if value == u64::MAX { "unlimited".to_owned() } else { bytes(value) }
}
