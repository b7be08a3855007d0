//! Real devices, where there are any.

use std::io::Write as _;
use std::net::IpAddr;
use std::sync::MutexGuard;

use pagecast_verbs::Verbs;

use crate::common::Scene;

impl Scene {
    /// The library, where there is a device at both addresses; else a skip.
    pub(crate) fn find(addresses: [IpAddr; 2], alone: Option<MutexGuard<'static, ()>>) -> Option<Self> {
        let found = Verbs::open().map_err(|error| error.to_string()).and_then(|verbs| {
            addresses
                .iter()
                .try_for_each(|address| verbs.device_for(*address).map(drop))
                .map_err(|error| error.to_string())?;
            Ok(verbs)
        });
        match found {
            Ok(verbs) => Some(Self { verbs, addresses, _alone: alone }),
            Err(why) => {
                assert!(std::env::var_os("PAGECAST_TESTBED").is_none(), "the testbed must not skip: {why}");
                let thread = std::thread::current();
                let line = format!("\nSKIP: {}: {why}\n", thread.name().unwrap_or("?"));
                std::io::stdout().write_all(line.as_bytes()).unwrap();
                None
            }
        }
    }
}
