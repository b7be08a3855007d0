//! How much memory can still be had, so that a buffer too many is an error and not the OOM killer.

use std::fs;
use std::path::Path;

/// Bytes that can be allocated before the machine or this process's memory cgroup runs out; `None`
/// where nothing says.
pub(super) fn available() -> Option<u64> {
    match (machine(), cgroup()) {
        (Some(machine), Some(cgroup)) => Some(machine.min(cgroup)),
        (machine, cgroup) => machine.or(cgroup),
    }
}

/// Free, reclaimable and swap.
fn machine() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes = |name| field(&text, name);
    let total = kilobytes("MemAvailable:")? + kilobytes("SwapFree:").unwrap_or(0);
    Some(total << 10)
}

/// What is left below `memory.max` of this process's cgroup (v2).
fn cgroup() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    least_headroom(Path::new("/sys/fs/cgroup"), own)
}

/// What is left in the cgroup `own` below `root`, and in those above it.
fn least_headroom(root: &Path, own: &str) -> Option<u64> {
    let own = root.join(own);
    own.ancestors().take_while(|path| path.starts_with(root)).filter_map(headroom_of).min()
}

/// The limit less what is used and cannot be reclaimed; `None` where there is no limit.
fn headroom_of(cgroup: &Path) -> Option<u64> {
    let read = |name| fs::read_to_string(cgroup.join(name)).ok();
    let number = |name| read(name)?.trim().parse::<u64>().ok();
    let (max, used) = (number("memory.max")?, number("memory.current")?);
    let stat = read("memory.stat").unwrap_or_default();
    let reclaimable = ["inactive_file", "active_file", "slab_reclaimable"];
    let reclaimable: u64 = reclaimable.iter().filter_map(|name| field(&stat, name)).sum();
    Some(max.saturating_sub(used.saturating_sub(reclaimable)))
}

/// The number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_ascii_whitespace);
    lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.next())?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "MemTotal:  10 kB\nMemAvailable:   7 kB\ninactive_file 5\n";
        assert_eq!(field(text, "MemAvailable:"), Some(7));
        assert_eq!(field(text, "inactive_file"), Some(5));
        assert_eq!(field(text, "inactive"), None);
        assert_eq!(field("MemAvailable:", "MemAvailable:"), None);
    }

    #[test]
    fn the_tightest_cgroup_counts_and_caches_are_reclaimable() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("outer/inner");
        fs::create_dir_all(&inner).unwrap();
        let write = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
        assert_eq!(least_headroom(root.path(), "outer/inner"), None);
        write("outer/inner/memory.max", "1000\n");
        write("outer/inner/memory.current", "700\n");
        write("outer/inner/memory.stat", "anon 500\ninactive_file 50\nactive_file 30\n");
        assert_eq!(least_headroom(root.path(), "outer/inner"), Some(380));
        write("outer/memory.max", "2000\n");
        write("outer/memory.current", "1900\n");
        assert_eq!(least_headroom(root.path(), "outer/inner"), Some(100));
        write("outer/memory.max", "max\n");
        assert_eq!(least_headroom(root.path(), "outer/inner"), Some(380));
    }

    #[test]
    fn this_machine_has_some() {
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
