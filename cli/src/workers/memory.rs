//! What processes hold of the machine's memory, as the kernel tells it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::statfs::{HUGETLBFS_MAGIC, statfs};
use serde::{Deserialize, Serialize};

/// A memory file that a process has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemoryFile {
    /// Which file it is.
    pub(crate) inode: u64,
    /// Bytes that it has.
    pub(crate) bytes: u64,
    /// Whether they are huge pages.
    pub(crate) huge: bool,
}

/// One process's memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Its share of private memory and program files.
    pub(crate) own: u64,
    /// Its share of the shared memory that is mapped.
    pub(crate) shared: u64,
    /// Memory files that it has open, mapped or not.
    pub(crate) files: Vec<MemoryFile>,
}

impl Memory {
    /// Of a process of ours; what cannot be read counts as nothing.
    pub(crate) fn of(pid: i32) -> Self {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        Self {
            own: field(&rollup, "Pss_Anon:") + field(&rollup, "Pss_File:"),
            shared: field(&rollup, "Pss_Shmem:"),
            files: memory_files(pid),
        }
    }

    /// Of this process.
    pub(crate) fn own() -> Self {
        Self::of(std::process::id() as i32)
    }
}

/// Bytes of all these processes together; shared pages count once.
pub(crate) fn total<'a>(all: impl IntoIterator<Item = &'a Memory>) -> u64 {
    let (mut own, mut shared, mut files) = (0, 0, BTreeMap::new());
    for memory in all {
        own += memory.own;
        shared += memory.shared;
        files.extend(memory.files.iter().map(|file| (file.inode, *file)));
    }
    let bytes = |huge| files.values().filter(|file| file.huge == huge).map(|file| file.bytes).sum::<u64>();
    // Mapped pages of memory files are in `shared` already; huge pages are not.
    own + shared.max(bytes(false)) + bytes(true)
}

/// The memory files that a process has open.
pub(crate) fn memory_files(pid: i32) -> Vec<MemoryFile> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let mut files = BTreeMap::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let named = fs::read_link(&path).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:"));
        if let (true, Ok(metadata)) = (named, fs::metadata(&path)) {
            let huge = statfs(&path).is_ok_and(|fs| fs.filesystem_type() == HUGETLBFS_MAGIC);
            let (inode, bytes) = (metadata.ino(), metadata.blocks() * 512);
            files.insert(inode, MemoryFile { inode, bytes, huge });
        }
    }
    files.into_values().collect()
}

/// Removes what a `shmsink` of a process that was killed has left: memory that has the process's number in its name, and
/// that only the element itself would have removed.
pub(crate) fn remove_left_by(pid: i32) {
    let name = format!("shmpipe.{pid:5}.");
    for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&name) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name));
    let kilobytes = line.and_then(|line| line[name.len()..].split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_shmsink_left_is_removed_and_nothing_else() {
        // Numbers that no process has.
        let numbers = [0, 1].map(|n| i32::MAX - 2 * std::process::id() as i32 - n);
        let paths = numbers.map(|pid| format!("/dev/shm/shmpipe.{pid:5}.    0"));
        paths.iter().for_each(|path| fs::write(path, "pages").unwrap());
        remove_left_by(numbers[0]);
        assert_eq!(paths.each_ref().map(|path| fs::exists(path).unwrap()), [false, true]);
        remove_left_by(numbers[1]);
        assert!(!fs::exists(&paths[1]).unwrap());
    }

    #[test]
    fn memory_files_of_this_process_are_seen_once_and_whole() {
        let pool = pagecast::Pool::new(pagecast::PoolOptions {
            backing: pagecast::BackingChoice::Memfd,
            ..pagecast::PoolOptions::default()
        });
        let lease = pool.acquire(1 << 20).unwrap();
        let (_, inode) = lease.buffer().identity().unwrap();
        let memory = Memory::own();
        let file = memory.files.iter().find(|file| file.inode == inode).unwrap();
        assert_eq!((file.bytes, file.huge), (1 << 20, false));
        assert!(memory.own > 0 && memory.shared >= 1 << 20, "{memory:?}");
        let twice = [memory.clone(), Memory { own: 0, shared: 0, ..memory.clone() }];
        assert_eq!(total(&twice), total([&memory]));
    }
}
