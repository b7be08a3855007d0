//! Memories of GStreamer, as an RDMA device addresses them. It needs the testbed's devices; elsewhere it is skipped.

use std::net::{IpAddr, Ipv4Addr};

use gstpagecast::memory::{from_lease, registered};
use pagecast::verbs::{Access, ProtectionDomain, Verbs};
use pagecast::{Pool, PoolOptions};

#[test]
fn a_memory_and_its_parts_say_where_they_are_for_a_device() {
    gst::init().expect("GStreamer");
    let address = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
    let found = Verbs::open().map_err(|error| error.to_string());
    let device = match found.and_then(|verbs| verbs.device_for(address).map_err(|error| error.to_string())) {
        Ok((device, _)) => device,
        Err(why) => return pagecast_tests::skip(&why),
    };
    let domain = ProtectionDomain::new(&device).expect("a domain");
    let pool = Pool::new(PoolOptions::default());
    let plain = from_lease(pool.acquire(10_000).expect("a buffer"), 0, 10_000).expect("a memory");
    assert!(registered(&plain, &domain).is_none(), "not registered yet");
    pool.register(&domain, Access::Source).expect("registered");
    let memory = from_lease(pool.acquire(10_000).expect("a buffer"), 16, 9_000).expect("a memory");
    let whole = registered(&memory, &domain).expect("registered");
    let start = memory.map_readable().expect("mapped").as_ptr() as u64;
    assert_eq!((whole.address, whole.length), (start, 9_000));
    let part = registered(&memory.share(100..300), &domain).expect("registered");
    assert_eq!((part.address, part.length), (start + 100, 200));
    assert_eq!((part.region.lkey(), part.region.rkey()), (whole.region.lkey(), whole.region.rkey()));
    let foreign = gst::Memory::from_slice(vec![0_u8; 100]);
    assert!(registered(&foreign, &domain).is_none(), "memory of somebody else");
}
