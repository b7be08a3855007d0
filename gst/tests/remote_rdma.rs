//! The elements over `rdma://` and `remote://`, beside all other addresses of one sink. It needs the testbed's two RDMA
//! devices; elsewhere it is skipped.

mod source;

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use pagecast::verbs::{Verbs, counters};
use source::*;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const FRAMES: usize = 30;
const CAPS: &str = "video/x-raw,format=I420,width=320,height=240,framerate=30/1";

/// Ports that nobody listens on now.
fn ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((OWN, 0)).expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("its address").port())
}

/// Packets that came to the device of the other address.
fn received() -> u64 {
    counters::read("rxe1", 1).expect("counters")["rcvd_pkts"]
}

/// The packet size of the testbed's devices, if they are there.
fn mtu() -> Result<u64, Box<dyn std::error::Error>> {
    let verbs = Verbs::open()?;
    verbs.device_for(IpAddr::V4(OTHER))?;
    let (device, gid) = verbs.device_for(IpAddr::V4(OWN))?;
    Ok(device.port(gid.port)?.mtu.bytes().into())
}

/// Streams to one source at each address; all must receive what was made, by the carrier that is named. Returns how many
/// bytes that were, and how many packets of RDMA came meanwhile.
fn stream(place: &Place, addresses: &[(String, &str)]) -> (u64, u64) {
    let made = format!("videotestsrc num-buffers={FRAMES} pattern=ball ! {CAPS}");
    let plain = place.file("plain");
    Pipeline::playing(&format!("{made} ! filesink location={plain}")).wait();
    let plain = std::fs::read(plain).expect("a file");
    assert_eq!(plain.len(), FRAMES * 320 * 240 * 3 / 2);
    let before = received();
    let source = |(number, (uri, _)): (usize, &(String, &str))| {
        let from = if uri.starts_with("unix:") { String::new() } else { format!("?from={OTHER}") };
        let file = place.file(&number.to_string());
        Pipeline::playing(&format!(
            "pagecastsrc name=src uri=\"{uri}{from}\" insecure=true ! {CAPS} ! filesink location={file}"
        ))
    };
    // They may come before the publisher.
    let sources: Vec<_> = addresses.iter().enumerate().map(source).collect();
    let uris: Vec<_> = addresses.iter().map(|(uri, _)| uri.as_str()).collect();
    let publisher = Pipeline::playing(&format!(
        "{made} ! pagecastsink name=sink policy=block wait-for-clients={} uri=\"{}\" networks={OWN}/24 insecure=true",
        uris.len(),
        uris.join(" ")
    ));
    publisher.wait();
    for (number, (uri, carrier)) in addresses.iter().enumerate() {
        sources[number].wait();
        let stats = sources[number].stats("src");
        assert_eq!(stats.get::<String>("transport").as_deref(), Ok(*carrier), "{uri}: {stats}");
        let bytes = std::fs::read(place.file(&number.to_string())).expect("a file");
        assert!(bytes == plain, "{uri}: not the same, {} bytes of {}", bytes.len(), plain.len());
    }
    let copied = publisher.stats("sink").get::<u64>("copied").expect("copied");
    assert_eq!(copied, 0, "every frame goes out from where it was written");
    (plain.len() as u64, received() - before)
}

#[test]
fn one_sink_serves_sources_by_rdma_by_tcp_and_on_this_host_with_the_same_bytes() {
    let mtu = match mtu() {
        Ok(mtu) => mtu,
        Err(why) => return pagecast_tests::skip(&why.to_string()),
    };
    let place = Place::new();
    let [rdma, remote, tcp, alone] = ports();
    let (bytes, packets) = stream(
        &place,
        &[
            (place.uri(), "unix"),
            (format!("rdma://{OWN}:{rdma}"), "rdma"),
            (format!("remote://{OWN}:{remote}"), "rdma"),
            (format!("tcp://{OWN}:{tcp}"), "tcp"),
        ],
    );
    // Two of them by RDMA, says the kernel.
    assert!(packets >= 2 * bytes / mtu, "{packets} packets of {mtu} for twice {bytes}");
    // The control: what TCP carries does not count as RDMA.
    let (bytes, packets) = stream(&place, &[(format!("tcp://{OWN}:{alone}"), "tcp")]);
    assert!(packets < bytes / mtu, "{packets} packets");
}
