//! RDMA: the library, devices and their ports, and whether pages can be registered.

use std::os::fd::AsFd;
use std::sync::Arc;

use pagecast::verbs::{
    Access, Device, Gid, GidKind, LinkLayer, MemoryRegion, PortAttributes, PortState, ProtectionDomain,
    RegisterError, Verbs,
};
use pagecast::{BackingChoice, FaceKind, Pool, PoolOptions, Wants};

use super::Check;

const PURPOSE: &str = "needed only to write frames to other hosts by RDMA";
const SIZE: usize = 1 << 16;

/// One check for the whole, two for each device.
pub(super) fn checks() -> Vec<Check> {
    const NAME: &str = "rdma";
    let verbs = match Verbs::open() {
        Ok(verbs) => verbs,
        Err(error) => return vec![Check::warn(NAME, error.to_string(), PURPOSE)],
    };
    let names = match verbs.devices() {
        Ok(names) if !names.is_empty() => names,
        Ok(_) => {
            let remedy = format!("{PURPOSE}; to try it in software: rdma link add rxe0 type rxe netdev eth0");
            return vec![Check::warn(NAME, "there is no RDMA device", remedy)];
        }
        Err(error) => return vec![Check::warn(NAME, error.to_string(), PURPOSE)],
    };
    let mut checks = vec![Check::pass(NAME, names.join(", "))];
    for name in names {
        match verbs.open_device(&name) {
            Ok(device) => checks.extend(of_device(&device)),
            Err(error) => {
                let remedy = format!("access to /dev/infiniband/uverbs*; {PURPOSE}");
                checks.push(Check::warn("rdma device", format!("{name}: {error}"), remedy));
            }
        }
    }
    checks
}

fn of_device(device: &Arc<Device>) -> Vec<Check> {
    let ports = device.attributes().map_or(0, |attributes| attributes.ports);
    let mut checks: Vec<_> = (1..=ports).map(|port| of_port(device, port)).collect();
    checks.push(registration(device));
    checks
}

fn of_port(device: &Device, number: u8) -> Check {
    const NAME: &str = "rdma port";
    let name = device.name();
    let port = match device.port(number) {
        Ok(port) => port,
        Err(error) => return Check::warn(NAME, format!("{name}/{number}: {error}"), PURPOSE),
    };
    let gids = device.gids(number).unwrap_or_default();
    let routed: Vec<_> = gids.iter().filter(|gid| gid.kind == GidKind::RoceV2).collect();
    let detail = format!("{name}/{number}: {}", describe(&port, &routed));
    if port.state != PortState::Active {
        return Check::warn(NAME, detail, format!("ip link set … up, or look at the cable; {PURPOSE}"));
    }
    if port.link_layer == LinkLayer::Ethernet && routed.is_empty() {
        let remedy = format!("ip address add … dev …, so that it has a RoCEv2 address; {PURPOSE}");
        return Check::warn(NAME, detail, remedy);
    }
    Check::pass(NAME, detail)
}

fn describe(port: &PortAttributes, routed: &[&Gid]) -> String {
    let state = if port.state == PortState::Active { "active" } else { "not active" };
    let gids: Vec<_> = routed.iter().map(|gid| format!("{}: {}", gid.index, gid.address())).collect();
    let gids =
        if gids.is_empty() { "no RoCEv2 address".to_owned() } else { format!("GIDs {}", gids.join(", ")) };
    format!("{state}, MTU {}, {gids}", port.mtu.bytes())
}

/// Registers pages, as a pool does, and tries the same with their dma-buf face.
fn registration(device: &Arc<Device>) -> Check {
    const NAME: &str = "mr face";
    let name = device.name();
    let warn = |error: &dyn std::fmt::Display| Check::warn(NAME, format!("{name}: {error}"), PURPOSE);
    let domain = match ProtectionDomain::new(device) {
        Ok(domain) => domain,
        Err(error) => return warn(&error),
    };
    let wants = Wants { offer_dma_buf: true, ..Wants::default() };
    let pool = Pool::new(PoolOptions { backing: BackingChoice::Memfd, limit: SIZE as u64, wants });
    if let Err(error) = pool.populate(SIZE, 1) {
        return warn(&error);
    }
    if let Err(error) = pool.register(&domain, Access::Source) {
        return warn(&error);
    }
    let lease = match pool.acquire(SIZE) {
        Ok(lease) => lease,
        Err(error) => return warn(&error),
    };
    let dma_buf = match lease.buffer().face(FaceKind::DmaBuf) {
        None => "no udmabuf to try dma-bufs with".to_owned(),
        Some(face) => {
            let keeper = lease.buffer().clone();
            let tried = MemoryRegion::register_dma_buf(
                &domain,
                face.fd.as_fd(),
                0,
                SIZE as u64,
                Access::Source,
                keeper,
            );
            match tried {
                Ok(_) => "dma-bufs can be registered, too".to_owned(),
                Err(RegisterError::NoDmaBuf(_)) => "no dma-bufs: a camera's frames need one copy".to_owned(),
                Err(error) => format!("no dma-bufs ({error})"),
            }
        }
    };
    Check::pass(NAME, format!("{name}: pages of a pool can be registered; {dma_buf}"))
}
