//! The testbed's devices, and a look at them from outside.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::common::Scene;

/// Where the testbed's two devices are.
pub(crate) const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2))];

/// The library, where there are the two devices; else a skip. One test at a time: they count registrations and packets of the
/// whole machine.
pub(crate) fn testbed() -> Option<Scene> {
    static ONE: Mutex<()> = Mutex::new(());
    let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    Scene::find(ADDRESSES, Some(alone))
}

/// A registration, as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    name: String,
    pub(crate) length: u64,
}

/// All registrations of processes: `rdma resource show mr`.
pub(crate) fn regions_seen_from_outside() -> Vec<Region> {
    let output = Command::new("rdma").args(["resource", "show", "mr"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip_while(|word| *word != "mrlen");
            let length = words.nth(1)?.parse().ok()?;
            Some(Region { name: line.split(" mrlen ").next()?.into(), length })
        })
        .collect()
}
