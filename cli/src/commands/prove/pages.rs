//! What the kernel says of a process's mappings and of the page frames behind them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of an entry of /proc/PID/pagemap.
const ENTRY: usize = 8;
/// A page is there.
const PRESENT: u64 = 1 << 63;
/// The bits of the page frame number.
const FRAME: u64 = (1 << 55) - 1;

/// A file: `st_dev` and `st_ino`.
pub(super) type FileId = (u64, u64);

/// A mapping of a file that others can share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) file: FileId,
    pub(super) start: u64,
    pub(super) end: u64,
    /// Where in the file it begins.
    pub(super) offset: u64,
    pub(super) writable: bool,
    /// Of a dma-buf.
    pub(super) dma_buf: bool,
}

/// The mappings of memfds and dma-bufs in a process.
pub(super) fn mappings(pid: u32) -> io::Result<Vec<Mapped>> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    Ok(text.lines().filter_map(parse).collect())
}

/// A line of /proc/PID/maps.
fn parse(line: &str) -> Option<Mapped> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (access, offset, device, inode) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let path = words.next().unwrap_or_default();
    let dma_buf = path.starts_with("/dmabuf:");
    if !access.ends_with('s') || !(dma_buf || path.starts_with("/memfd:")) {
        return None;
    }
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let (major, minor) = device.split_once(':')?;
    Some(Mapped {
        file: (nix::sys::stat::makedev(hex(major)?, hex(minor)?), inode.parse().ok()?),
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
        writable: access.as_bytes().get(1) == Some(&b'w'),
        dma_buf,
    })
}

/// The page frame numbers behind a range of a process's memory; `None` for a page that is not there.
///
/// # Errors
/// If the process cannot be looked into, or the kernel hides the numbers, which it shows to root only.
pub(super) fn frames(pid: u32, address: u64, bytes: u64, page: u64) -> Result<Vec<Option<u64>>, String> {
    let read = || {
        let mut entries = vec![0; usize::try_from(bytes.div_ceil(page)).unwrap_or(0) * ENTRY];
        let file = File::open(format!("/proc/{pid}/pagemap"))?;
        file.read_exact_at(&mut entries, address / page * ENTRY as u64)?;
        Ok(entries)
    };
    let entries: Vec<u8> = read().map_err(|error: io::Error| format!("/proc/{pid}/pagemap: {error}"))?;
    let entries =
        entries.chunks_exact(ENTRY).map(|entry| u64::from_ne_bytes(entry.try_into().unwrap_or_default()));
    let frames: Vec<_> = entries.map(|entry| (entry & PRESENT != 0).then_some(entry & FRAME)).collect();
    if frames.contains(&Some(0)) {
        return Err("the kernel shows page frame numbers to root only (CAP_SYS_ADMIN)".to_owned());
    }
    if frames.iter().all(Option::is_none) {
        return Err("none of its pages is mapped in at the moment".to_owned());
    }
    Ok(frames)
}

/// The devices that have imported a dma-buf, by its inode, as debugfs tells root.
pub(super) fn importers() -> Result<Vec<(u64, Vec<String>)>, String> {
    let path = "/sys/kernel/debug/dma_buf/bufinfo";
    fs::read_to_string(path).map(|text| parse_bufinfo(&text)).map_err(|error| format!("{path}: {error}"))
}

/// Objects begin with their sizes in a column of eight or more digits; attached devices are indented below.
fn parse_bufinfo(text: &str) -> Vec<(u64, Vec<String>)> {
    let mut all: Vec<(u64, Vec<String>)> = Vec::new();
    let mut devices = false;
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if line.starts_with(|first: char| first.is_ascii_digit()) && words.len() >= 6 {
            devices = false;
            all.extend(words[5].parse().ok().map(|inode| (inode, Vec::new())));
        } else if line.trim_start().starts_with("Attached Devices") {
            devices = true;
        } else if line.starts_with("Total") {
            devices = false;
        } else if let (true, Some((_, names)), false) = (devices, all.last_mut(), words.is_empty()) {
            names.push(words.join(" "));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_mappings_of_memfds_and_dma_bufs_are_found() {
        let line = "7f31a4200000-7f31a4600000 r--s 00001000 00:0f 2071      /memfd:pagecast (deleted)";
        let mapped = parse(line).unwrap();
        assert_eq!((mapped.start, mapped.end, mapped.offset), (0x7f31_a420_0000, 0x7f31_a460_0000, 0x1000));
        assert_eq!(mapped.file, (15, 2071));
        assert!(!mapped.writable && !mapped.dma_buf);
        let line = "7f31a4200000-7f31a4600000 rw-s 00000000 00:0b 42  /dmabuf:";
        assert!(parse(line).is_some_and(|mapped| mapped.writable && mapped.dma_buf));
        for other in [
            "7f31a4200000-7f31a4600000 r--p 00000000 00:0f 2071 /memfd:pagecast (deleted)",
            "7f31a4200000-7f31a4600000 r-xp 00000000 fe:00 2071 /usr/lib/libc.so.6",
            "7f31a4200000-7f31a4600000 rw-p 00000000 00:00 0",
            "",
            "nonsense",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn importers_are_found_by_inode() {
        let text = "\nDma-buf Objects:\nsize    \tflags   \tmode    \tcount   \texp_name\tino     \tname\n\
            00460800\t00000002\t00080007\t00000003\tudmabuf\t00000012\t<none>\n\tkernel fence\n\
            \tAttached Devices:\n\tvgem\n\tvivid-000\nTotal 2 devices attached\n\n\
            00004096\t00000002\t00080007\t00000003\tsystem\t00000013\tx\n\tAttached Devices:\n\
            Total 0 devices attached\n\n\nTotal 2 objects, 464896 bytes\n";
        let found = parse_bufinfo(text);
        assert_eq!(found, [(12, vec!["vgem".to_owned(), "vivid-000".to_owned()]), (13, Vec::new())]);
    }

    #[test]
    fn of_our_own_pages_the_kernel_tells_or_says_why_not() {
        let memory = vec![1_u8; 3 * 4096];
        match frames(std::process::id(), memory.as_ptr() as u64, 8192, 4096) {
            Ok(frames) => assert!(frames.len() == 2 && frames.iter().all(Option::is_some)),
            Err(why) => assert!(why.contains("root") || why.contains("pagemap"), "{why}"),
        }
        assert!(frames(std::process::id(), 0, 4096, 4096).is_err(), "nothing is at address 0");
    }
}
