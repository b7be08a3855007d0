//! What RDMA devices and peers do seldom, forced by a fake filler of the function table: no torn frame is handed out, a
//! link ends with a reason and in seconds, pages and objects are free afterwards.

mod abilities;
mod devices;
mod peers;
mod raw;
#[path = "../conformance/support.rs"]
#[allow(dead_code, reason = "shared with the conformance suite, which needs all of it")]
mod support;

use std::net::{IpAddr, Ipv4Addr};

use pagecast_verbs::fake::Fake;
use support::Link;

const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))];

/// Two devices and a link between them.
fn world() -> (Fake, Link) {
    let fake = Fake::new(&ADDRESSES);
    let link = Link::new(support::rdma(&fake.verbs(), ADDRESSES, support::clear));
    (fake, link)
}

/// Nothing is left of a link that is gone, and nothing went wrong on the way.
fn assert_clean(fake: &Fake) {
    assert_eq!(fake.violations(), Vec::<String>::new());
    assert_eq!((fake.registrations(), fake.objects()), (0, 0));
}
