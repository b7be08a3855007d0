//! Devices, and two ends that RDMA-CM connects.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pagecast_verbs::{Cm, CmError, Connection, Listener, Request, Standing, Timing};

use crate::common::{End, LONG, Scene, ends};

/// What the one who may come in has to say.
pub(crate) const TOKEN: [u8; 16] = *b"sixteen bytes...";

pub(crate) fn rxe() -> Option<Scene> {
    scene([10, 77, 0])
}

pub(crate) fn siw() -> Option<Scene> {
    scene([10, 78, 0])
}

/// The two devices of a network, or a skip.
fn scene([a, b, c]: [u8; 3]) -> Option<Scene> {
    let addresses = [1, 2].map(|last| IpAddr::V4(Ipv4Addr::new(a, b, c, last)));
    Scene::find(addresses, None)
}

/// Two ends and their connection.
pub(crate) struct Connected {
    pub(crate) a: End,
    pub(crate) b: End,
    pub(crate) at_a: Connection,
    pub(crate) at_b: Connection,
}

pub(crate) fn listener(scene: &Scene) -> (Cm, Listener) {
    let cm = scene.verbs.cm().unwrap();
    let listener = Listener::new(&cm, scene.addresses[1]).unwrap();
    assert_ne!(listener.port(), 0);
    (cm, listener)
}

/// A call of the first end to that port of the second.
pub(crate) fn call(scene: &Scene, cm: &Cm, port: u16, private: &[u8]) -> Connection {
    try_call(scene, cm, port, private, LONG).unwrap()
}

pub(crate) fn try_call(
    scene: &Scene,
    cm: &Cm,
    port: u16,
    private: &[u8],
    limit: Duration,
) -> Result<Connection, CmError> {
    let to = SocketAddr::new(scene.addresses[1], port);
    Connection::open(cm, (scene.addresses[0], to), private, Timing::default(), limit)
}

/// Waits for a moment, or until one of them is readable.
pub(crate) fn pause(fds: &[BorrowedFd<'_>]) {
    let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    poll(&mut fds, PollTimeout::from(100_u8)).unwrap();
}

/// The next request, while the caller goes on.
pub(crate) fn request(listener: &Listener, caller: &mut Connection, end: &mut End) -> Request {
    let deadline = Instant::now() + LONG;
    loop {
        assert_ne!(caller.step(&mut end.queue).unwrap(), Standing::Ended);
        if let Some(request) = listener.next_request().unwrap() {
            return request;
        }
        assert!(Instant::now() < deadline, "nobody came");
        pause(&[listener.fd(), caller.fd()]);
    }
}

/// How a call ends that does not come up.
pub(crate) fn failure(caller: &mut Connection, end: &mut End) -> CmError {
    let deadline = Instant::now() + 2 * LONG;
    loop {
        match caller.step(&mut end.queue) {
            Err(error) => return error,
            Ok(standing) => assert_eq!(standing, Standing::Coming),
        }
        assert!(Instant::now() < deadline, "no end");
        pause(&[caller.fd()]);
    }
}

/// Goes on at one end until it stands so.
pub(crate) fn until(connection: &mut Connection, end: &mut End, wanted: Standing) {
    let deadline = Instant::now() + LONG;
    while connection.step(&mut end.queue).unwrap() != wanted {
        assert!(Instant::now() < deadline, "never {wanted:?}");
        pause(&[connection.fd()]);
    }
}

/// Goes on at both ends until they are up.
pub(crate) fn come_up(pair: &mut Connected) {
    let deadline = Instant::now() + LONG;
    loop {
        let a = pair.at_a.step(&mut pair.a.queue).unwrap();
        let b = pair.at_b.step(&mut pair.b.queue).unwrap();
        if [a, b] == [Standing::Ready; 2] {
            return;
        }
        assert!(Instant::now() < deadline, "{a:?} {b:?}");
        pause(&[pair.at_a.fd(), pair.at_b.fd()]);
    }
}

/// Two ends, connected with the token.
pub(crate) fn connected(scene: &Scene) -> Connected {
    let (cm, listener) = listener(scene);
    let [mut a, mut b] = ends(scene);
    let mut at_a = call(scene, &cm, listener.port(), &TOKEN);
    let request = request(&listener, &mut at_a, &mut a);
    assert_eq!(&request.private_data()[..TOKEN.len()], TOKEN);
    assert_eq!(request.peer().ip(), scene.addresses[0]);
    let at_b = request.accept(&mut b.queue, Timing::default(), LONG).unwrap();
    let mut pair = Connected { a, b, at_a, at_b };
    come_up(&mut pair);
    pair
}
