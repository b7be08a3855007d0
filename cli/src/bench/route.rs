//! Between which addresses of this machine links to other hosts run.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use pagecast::RemoteOptions;
use pagecast::remote::AllowList;
use pagecast::verbs::{Device, DeviceError, Gid, GidKind, PortState, Verbs};
use serde::{Deserialize, Serialize};

/// The two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) publisher: IpAddr,
    pub(crate) subscriber: IpAddr,
}

impl Route {
    pub(crate) const LOOPBACK: Self =
        Self { publisher: IpAddr::V4(Ipv4Addr::LOCALHOST), subscriber: IpAddr::V4(Ipv4Addr::LOCALHOST) };

    /// From one RDMA device to another where there are two, else from one to itself; and what that is, in words.
    /// `given` are addresses of devices, the sender's first.
    ///
    /// # Errors
    /// Why there is no such way here, and what to do.
    pub(super) fn by_rdma(given: &[IpAddr]) -> Result<(Self, String), String> {
        let wrong = |error: &dyn std::fmt::Display| format!("RDMA cannot be measured here: {error}");
        let verbs = Verbs::open().map_err(|error| wrong(&error))?;
        let found = match given {
            [] => addresses(&verbs).map_err(|error| wrong(&error))?,
            given => given.to_vec(),
        };
        let &publisher = found.first().ok_or_else(|| wrong(&DeviceError::NoDevice))?;
        let route = Self { publisher, subscriber: found.get(1).copied().unwrap_or(publisher) };
        let end = |address| match verbs.device_for(address) {
            Ok((device, gid)) => {
                let mtu = device.port(gid.port).map_or(0, |port| port.mtu.bytes());
                Ok(format!("{} ({address}, MTU {mtu})", device.name()))
            }
            Err(error) => Err(wrong(&error)),
        };
        Ok((route, format!("RDMA from {} to {}", end(publisher)?, end(route.subscriber)?)))
    }

    /// Where a publisher of ours listens.
    pub(super) fn listen(&self, scheme: &str) -> String {
        format!("{scheme}://{}", SocketAddr::new(self.publisher, 0))
    }

    /// What a subscriber of ours connects to.
    pub(super) fn connect(&self, uri: &str) -> String {
        match self.subscriber.is_loopback() {
            true => uri.to_owned(),
            false => format!("{uri}?from={}", self.subscriber),
        }
    }

    /// Only the subscribers of this measurement may come; what they get is in clear text.
    pub(super) fn options(&self) -> RemoteOptions {
        // An address is a network of one.
        let networks = AllowList::parse(&self.subscriber.to_string()).unwrap_or_default();
        RemoteOptions { networks, insecure: true, ..RemoteOptions::default() }
    }
}

/// One address of each device that can be used, IPv4 where there is one.
fn addresses(verbs: &Verbs) -> Result<Vec<IpAddr>, DeviceError> {
    let (mut found, mut closed) = (Vec::new(), None);
    for name in verbs.devices()? {
        match verbs.open_device(&name) {
            Ok(device) => found.extend(address(&device)),
            Err(error) => closed = Some(error),
        }
    }
    match closed {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

fn address(device: &Device) -> Option<IpAddr> {
    let ports = 1..=device.attributes().ok()?.ports;
    let active = |port: &u8| device.port(*port).is_ok_and(|port| port.state == PortState::Active);
    let gids = ports.filter(active).flat_map(|port| device.gids(port).unwrap_or_default());
    let mut addresses: Vec<IpAddr> = gids.filter_map(|gid: Gid| usable(&gid)).collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.first().copied()
}

/// Link-local addresses name no way.
fn usable(gid: &Gid) -> Option<IpAddr> {
    let address = gid.address();
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    (gid.kind == GidKind::RoceV2 && !link_local && !address.is_unspecified()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_uris_want_them() {
        let route = |publisher: &str, subscriber: &str| Route {
            publisher: publisher.parse().unwrap(),
            subscriber: subscriber.parse().unwrap(),
        };
        assert_eq!(Route::LOOPBACK.listen("tcp"), "tcp://127.0.0.1:0");
        assert_eq!(Route::LOOPBACK.connect("tcp://127.0.0.1:9"), "tcp://127.0.0.1:9");
        let two = route("10.77.0.1", "10.77.0.2");
        assert_eq!(two.connect(&two.listen("rdma")), "rdma://10.77.0.1:0?from=10.77.0.2");
        assert_eq!(route("fd00::1", "fd00::2").listen("rdma"), "rdma://[fd00::1]:0");
        assert!(
            two.options().networks.admits(two.subscriber) && !two.options().networks.admits(two.publisher)
        );
    }
}
