//! What the hardware counts, from outside of the verbs: `/sys/class/infiniband`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Counters of a port by name: `hw_counters` (rxe: `sent_pkts`, `rcvd_pkts`, …) and, where the device has them, `counters`
/// (`port_xmit_data` in units of four bytes, …).
pub fn read(device: &str, port: u8) -> io::Result<BTreeMap<String, u64>> {
    read_below(&Path::new("/sys/class/infiniband").join(checked(device)?), port)
}

/// A name of a device is one component of a path.
fn checked(device: &str) -> io::Result<PathBuf> {
    let path = Path::new(device);
    match path.components().next() {
        Some(std::path::Component::Normal(name)) if name == path.as_os_str() => Ok(path.to_owned()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a name of a device")),
    }
}

fn read_below(device: &Path, port: u8) -> io::Result<BTreeMap<String, u64>> {
    let port = device.join("ports").join(port.to_string());
    let mut counters = BTreeMap::new();
    let found = add(&port.join("hw_counters"), &mut counters);
    add(&port.join("counters"), &mut counters).or(found)?;
    Ok(counters)
}

fn add(folder: &Path, counters: &mut BTreeMap<String, u64>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // some are write-only, and `lifespan` is a setting
        let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
        if let (Ok(value), Ok(name)) = (text.trim().parse(), entry.file_name().into_string()) {
            counters.insert(name, value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_folders_are_read_and_what_is_no_number_is_left_out() {
        let device = tempfile::tempdir().unwrap();
        let port = device.path().join("ports/1");
        for (file, text) in
            [("hw_counters/sent_pkts", "7\n"), ("hw_counters/odd", "x"), ("counters/port_xmit_data", "9")]
        {
            std::fs::create_dir_all(port.join(file).parent().unwrap()).unwrap();
            std::fs::write(port.join(file), text).unwrap();
        }
        let counters = read_below(device.path(), 1).unwrap();
        assert_eq!(
            counters.into_iter().collect::<Vec<_>>(),
            [("port_xmit_data".into(), 9), ("sent_pkts".into(), 7)]
        );
        assert!(read_below(device.path(), 2).is_err());
    }

    #[test]
    fn a_path_is_no_device() {
        for name in ["", "..", "../net", "a/b", "/etc"] {
            assert_eq!(read(name, 1).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }
}
