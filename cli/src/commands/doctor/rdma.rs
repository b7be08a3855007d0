//! RDMA: the library, devices and their ports, and whether pages can be registered.

use std::os::fd::AsFd;
use std::sync::Arc;

use pagecast::verbs::{
    Access, Device, Gid, GidKind, LinkLayer, MemoryRegion, PortAttributes, PortState, ProtectionDomain,
    RegisterError, Transport, Verbs,
};
use pagecast::{BackingChoice, FaceKind, Lease, Pool, PoolOptions, Wants};

use super::Check;

const PURPOSE: &str = "needed only to write frames to other hosts by RDMA";
const SIZE: usize = 1 << 16;

/// Bytes of a packet's payload that RoCE has at most.
const LARGEST_MTU: usize = 4096;

/// One check for the whole; one for each port and two for each device.
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
    checks.extend(registrations(device));
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
    if device.transport() == Transport::Iwarp {
        return of_iwarp(device, &port);
    }
    if port.link_layer == LinkLayer::Ethernet && routed.is_empty() {
        let remedy = format!("ip address add … dev …, so that it has a RoCEv2 address; {PURPOSE}");
        return Check::warn(NAME, detail, remedy);
    }
    if port.link_layer == LinkLayer::Ethernet && (port.mtu.bytes() as usize) < LARGEST_MTU {
        let remedy = format!(
            "ip link set … mtu 4200 at both ends (and on switches): packets of {LARGEST_MTU} bytes; {PURPOSE}"
        );
        return Check::warn(NAME, detail, remedy);
    }
    Check::pass(NAME, detail)
}

/// iWARP: no addresses of its own, and librdmacm is needed.
fn of_iwarp(device: &Device, port: &PortAttributes) -> Check {
    const NAME: &str = "rdma port";
    let detail = format!("{}/{}: active, iWARP, on TCP", device.name(), port.port);
    let cm = Verbs::open().and_then(|verbs| verbs.cm()).map_err(|error| error.to_string());
    match cm.and_then(|cm| cm.is_there().map_err(|error| error.to_string())) {
        Ok(()) => {
            let how = "rdma://ADDRESS comes up by RDMA-CM, and remote:// goes by TCP";
            Check::pass(NAME, format!("{detail}; {how}"))
        }
        Err(why) => Check::warn(NAME, format!("{detail}; {why}"), format!("iWARP needs RDMA-CM; {PURPOSE}")),
    }
}

/// The port as links will use it: rdma://ADDRESS takes the entry of that address, both ends the smaller MTU.
fn describe(port: &PortAttributes, routed: &[&Gid]) -> String {
    let state = if port.state == PortState::Active { "active" } else { "not active" };
    let gids: Vec<_> = routed.iter().map(|gid| format!("{}: {}", gid.index, gid.address())).collect();
    let gids = match gids.as_slice() {
        [] => "no RoCEv2 address".to_owned(),
        gids => format!("rdma://ADDRESS uses the GID of that address: {}", gids.join(", ")),
    };
    format!("{state}, MTU {} (the smaller of both ends counts), {gids}", port.mtu.bytes())
}

/// Registers pages, as a pool does, and tries the same with their dma-buf face.
fn registrations(device: &Arc<Device>) -> Vec<Check> {
    const NAME: &str = "mr face";
    let name = device.name();
    match registered(device) {
        Ok((domain, lease)) => vec![
            Check::pass(NAME, format!("{name}: pages of a pool can be registered")),
            dma_buf(name, &domain, &lease),
        ],
        Err(error) => vec![Check::warn(NAME, format!("{name}: {error}"), PURPOSE)],
    }
}

type Error = Box<dyn std::error::Error>;

/// A buffer of a pool that the device knows.
fn registered(device: &Arc<Device>) -> Result<(Arc<ProtectionDomain>, Lease), Error> {
    let domain = ProtectionDomain::new(device)?;
    let wants = Wants { offer_dma_buf: true, ..Wants::default() };
    let pool = Pool::new(PoolOptions { backing: BackingChoice::Memfd, limit: SIZE as u64, wants });
    pool.populate(SIZE, 1)?;
    pool.register(&domain, Access::Source)?;
    Ok((domain, pool.acquire(SIZE)?))
}

/// Whether the device registers dma-bufs, tried with the dma-buf face of the same pages, and what follows.
fn dma_buf(name: &str, domain: &Arc<ProtectionDomain>, lease: &Lease) -> Check {
    const NAME: &str = "dma-buf mr";
    let Some(face) = lease.buffer().face(FaceKind::DmaBuf) else {
        let remedy = "modprobe udmabuf, to find out: it decides only whether a camera's own frames go out by RDMA without a copy";
        return Check::warn(NAME, format!("{name}: unknown, there is no udmabuf to try it with"), remedy);
    };
    let (keeper, size) = (lease.buffer().clone(), SIZE as u64);
    let tried = MemoryRegion::register_dma_buf(domain, face.fd.as_fd(), 0, size, Access::Source, keeper);
    let remedy = "a camera's own frames are copied once into the pool before they go out by RDMA; frames in a pool are not. \
                  It takes a card whose driver registers dma-bufs (mlx5, efa, irdma; soft RDMA does not)";
    match tried {
        Ok(_) => {
            Check::pass(NAME, format!("{name}: yes, a camera's own frames go out by RDMA without a copy"))
        }
        Err(RegisterError::NoDmaBuf(errno)) => Check::warn(NAME, format!("{name}: no ({errno})"), remedy),
        Err(error) => Check::warn(NAME, format!("{name}: no ({error})"), remedy),
    }
}
