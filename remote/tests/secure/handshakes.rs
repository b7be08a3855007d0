//! Who is let in, and what the others are told.

use pagecast_remote::tcp::{Channel, TcpReceiver, TcpSender};
use pagecast_remote::{PeerFault, Security};
use rcgen::{CertificateParams, date_time_ymd};

use super::ends::*;

#[test]
fn ends_that_trust_each_other_talk() {
    let (a, b) = (Pair::new(), Pair::new());
    for _ in 0..3 {
        let outcome = meet(elsewhere(), &tls(a.trusting(&[&b])), &tls(b.trusting(&[&a])));
        assert_eq!(outcome.packet, Some(packet()), "{outcome:?}");
    }
}

#[test]
fn dates_names_and_authorities_do_not_count() {
    let mut past = CertificateParams::new(vec!["elsewhere.example".to_owned()]).expect("a name");
    past.not_before = date_time_ymd(1990, 1, 1);
    past.not_after = date_time_ymd(1991, 1, 1);
    past.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let (a, b) = (Pair::with(past), Pair::new());
    let outcome = meet(elsewhere(), &tls(a.trusting(&[&b])), &tls(b.trusting(&[&a])));
    assert_eq!(outcome.packet, Some(packet()), "a clock may be wrong: {outcome:?}");
}

#[test]
fn who_is_not_trusted_by_the_listener_is_refused_and_both_know_why() {
    let (a, b, other) = (Pair::new(), Pair::new(), Pair::new());
    let (listener, dialler) = (a.trusting(&[&other]), b.trusting(&[&a]));
    let theirs = dialler.fingerprint();
    let (listener, dialler) = meet(elsewhere(), &tls(listener), &tls(dialler)).faults();
    assert!(
        matches!(&listener, PeerFault::Untrusted { fingerprint, .. } if *fingerprint == theirs),
        "{listener}"
    );
    assert_eq!(dialler, PeerFault::NotTrustedThere(theirs));
    for text in [listener.to_string(), dialler.to_string()] {
        assert!(text.contains(&theirs.to_string()) && text.contains("certificate.pem"), "{text}");
    }
}

#[test]
fn a_listener_that_is_not_trusted_is_left_and_both_know_why() {
    let (a, b) = (Pair::new(), Pair::new());
    let (listener, dialler) = (a.trusting(&[&b]), b.trusting(&[&b]));
    let theirs = listener.fingerprint();
    let (listener, dialler) = meet(elsewhere(), &tls(listener), &tls(dialler)).faults();
    assert_eq!(listener, PeerFault::NotTrustedThere(theirs));
    assert!(
        matches!(&dialler, PeerFault::Untrusted { fingerprint, .. } if *fingerprint == theirs),
        "{dialler}"
    );
}

#[test]
fn a_certificate_that_another_trusted_one_signed_is_not_trusted() {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().expect("a key");
    let authority = parameters.self_signed(&authority_key).expect("a certificate").pem();
    let key = rcgen::KeyPair::generate().expect("a key");
    let issuer = rcgen::Issuer::new(parameters, authority_key);
    let signed = CertificateParams::default().signed_by(&key, &issuer).expect("a certificate").pem();
    let (a, b) = (Pair::new(), Pair { key: key.serialize_pem(), certificate: signed + &authority });
    let authority = Pair { key: String::new(), certificate: authority };
    let (listener, _) = meet(elsewhere(), &tls(a.trusting(&[&authority])), &tls(b.trusting(&[&a]))).faults();
    assert!(matches!(listener, PeerFault::Untrusted { .. }), "{listener}");
}

#[test]
fn clear_text_is_refused_where_tls_is_wanted_and_the_dialler_is_told() {
    let (a, b) = (Pair::new(), Pair::new());
    let listener = tls(a.trusting(&[&b]));
    let faults = meet(elsewhere(), &listener, &insecure()).faults();
    assert_eq!(faults, (PeerFault::ClearText, PeerFault::Tls));
    for text in [faults.0.to_string(), faults.1.to_string()] {
        assert!(text.contains("keygen") && text.contains("--identity"), "{text}");
    }
    // The control: without an identity at the listener the same goes through.
    assert_eq!(meet(elsewhere(), &insecure(), &insecure()).packet, Some(packet()));
    // Processes of this host may speak clear text.
    let here = "127.0.0.1:40000".parse().expect("an address");
    assert_eq!(meet(here, &listener, &Security::default()).packet, Some(packet()));
}

#[test]
fn tls_is_refused_where_there_is_no_identity_and_the_dialler_is_told() {
    let (a, b) = (Pair::new(), Pair::new());
    for listener in [insecure(), Security::default()] {
        let faults = meet(elsewhere(), &listener, &tls(b.trusting(&[&a]))).faults();
        assert_eq!(faults, (PeerFault::Tls, PeerFault::ClearText));
    }
}

#[test]
fn an_outsider_is_told_so_without_a_handshake() {
    let (a, b) = (Pair::new(), Pair::new());
    let (listener, dialler) = (tls(a.trusting(&[&b])), tls(b.trusting(&[&a])));
    let [far, near] = sockets();
    let channel = Channel::accepted(far, elsewhere(), &listener).expect("an end").of_outsider();
    let dialler = TcpReceiver::new(Channel::dialled(near, &dialler).expect("an end"));
    let (_, told) = converse(TcpSender::new(channel), dialler).faults();
    assert_eq!(told, PeerFault::NotAdmitted);
    assert!(told.to_string().contains("--network"), "{told}");
}

#[test]
fn an_end_without_identity_or_leave_deals_with_this_host_alone() {
    let (none, other) = (Security::default(), elsewhere());
    assert!(!none.allows(other.ip()) && none.allows("::ffff:127.0.0.1".parse().expect("an address")));
    let [far, near] = sockets();
    let sender = listening(far, other, &none);
    let outcome = converse(sender, TcpReceiver::new(Channel::dialled(near, &insecure()).expect("an end")));
    assert_eq!(outcome.faults(), (PeerFault::ClearText, PeerFault::Tls));
    assert!(
        Security::new(Some(Pair::new().trusting(&[&Pair::new()])), true).is_err(),
        "it is one or the other"
    );
}
