//! Worlds of two fake devices.

use std::net::{IpAddr, Ipv4Addr};

use pagecast_verbs::fake::Fake;

use crate::common::Scene;

/// Two devices on loopback addresses.
pub(crate) const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))];

/// A world, and its verbs.
pub(crate) fn world() -> (Fake, Scene) {
    let fake = Fake::new(&ADDRESSES);
    let scene = Scene { verbs: fake.verbs(), addresses: ADDRESSES, _alone: None };
    (fake, scene)
}

/// A world that lasts as long as the process.
pub(crate) fn scene() -> Option<Scene> {
    let (fake, scene) = world();
    std::mem::forget(fake);
    Some(scene)
}

/// Nothing is left, and nothing went wrong.
pub(crate) fn assert_clean(fake: &Fake) {
    assert_eq!(fake.violations(), Vec::<String>::new());
    assert_eq!((fake.registrations(), fake.objects()), (0, 0));
}
