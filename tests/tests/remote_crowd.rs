//! A crowd from another host at one publisher: some keep up, some dawdle, some stop, half of them are killed, and others
//! send nonsense meanwhile. A subscriber on this host loses nothing, and memory and descriptors stay within limits.

use std::io::Write;
use std::net::TcpStream;

use nix::sys::signal::Signal;
use pagecast_tests::peers::Peer;
use pagecast_tests::random::Random;
use pagecast_tests::scene::Scene;
use pagecast_tests::{eventually, proc};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");
const CROWD: usize = 64;
const SIZE: u64 = 100_000;
const LIMIT: u64 = 256 << 20;
/// What the publisher's process takes beside its pages: with nobody, and more for each of the crowd.
const ALONE: u64 = 48 << 20;
const EACH: u64 = 1 << 20;
/// Descriptors of one of the crowd: its connection, the two ends of its bridge, and one to spare.
const FDS_EACH: usize = 4;

fn within_limits(scene: &Scene, fds_before: usize) {
    let fds = scene.fds();
    assert!(fds.memfd_bytes <= LIMIT, "pages over the limit: {fds:?}");
    assert!(fds.others <= fds_before + (CROWD + 64) * FDS_EACH, "{fds:?}, {fds_before} before");
    let private = proc::private_bytes(scene.publisher.pid());
    assert!(private <= ALONE + CROWD as u64 * EACH, "{private} bytes beside its pages");
}

/// Connections that say something random, most of them beginning like a link.
fn nonsense(address: &str, random: &mut Random) -> Vec<TcpStream> {
    let speak = |_| {
        let mut stream = TcpStream::connect(address).expect("a connection");
        let mut bytes: Vec<u8> = match random.below(4) {
            0 => Vec::new(),
            1 => vec![22, 3, 1],
            _ => b"PGCR\x01\0\0\0".to_vec(),
        };
        bytes.extend((0..random.below(5000)).map(|_| random.below(256) as u8));
        // It may have been cut off already.
        let _ = stream.write_all(&bytes);
        stream
    };
    (0..16).map(speak).collect()
}

#[test]
fn a_crowd_of_which_half_is_killed_costs_a_local_subscriber_nothing() {
    let options = [format!("size={SIZE}"), format!("limit={LIMIT}"), format!("max={}", CROWD + 8)];
    let mut scene = Scene::listening(PEER, "tcp://127.0.0.1:0", &options.each_ref().map(String::as_str));
    scene.admit(&scene.uri.clone(), &[]);
    scene.publish(4);
    let before = scene.fds();
    let uri = scene.remote.clone().expect("an address");
    let address = uri.trim_start_matches("tcp://");
    let kinds = ["slow=0", "slow=0", "slow=50", "hold=1000"];
    let mut crowd: Vec<Peer> = (0..CROWD)
        .map(|number| scene.join_at(&uri, &["subscriber", "quiet=true", kinds[number % 4]]))
        .collect();
    crowd.iter().for_each(|peer| drop(peer.expect("connected")));
    eventually("all are there", || scene.info().subscribers.len() == CROWD + 1);
    crowd[..8].iter().for_each(Peer::stop);
    let mut random = Random::new(7);
    for round in 0..8 {
        let speakers = nonsense(address, &mut random);
        scene.publish(16);
        within_limits(&scene, before.others);
        // Four at each moment of a burst.
        let victims = CROWD / 2 + round * 4;
        scene.publish_while(4, || crowd[victims..victims + 4].iter_mut().for_each(Peer::kill));
        drop(speakers);
    }
    let behind: u64 = scene.info().subscribers.iter().map(|subscriber| subscriber.dropped).sum();
    assert!(behind > 0, "nobody reached a limit");
    // Those who are left, and could keep up, do; those who stopped are back.
    crowd[..8].iter().for_each(|peer| peer.signal(Signal::SIGCONT));
    let published = scene.published();
    for at in [0, 1, 4, 5, 8, 9, 29] {
        scene.is_followed_by(&crowd[at], published);
    }
    within_limits(&scene, before.others);
    drop(crowd);
    scene.settles(&before);
    eventually("its memory is as it was", || proc::private_bytes(scene.publisher.pid()) <= ALONE);
}
