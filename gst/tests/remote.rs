//! The elements over `tcp://`.

mod source;

use gst::prelude::*;
use pagecast_tests::hosts::{FIRST, Hosts};
use pagecast_tests::ids::Ids;
use source::launch::Launched;
use source::*;

const CAPS: &str = "video/x-raw,format=I420,width=320,height=240,framerate=50/1";

/// A port that nobody listens on now.
fn port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

#[test]
fn local_and_remote_sources_receive_the_same_bytes() {
    let place = Place::new();
    let (tcp, plain) = (format!("tcp://127.0.0.1:{}", port()), place.file("plain"));
    Pipeline::playing(&format!(
        "videotestsrc num-buffers=40 pattern=ball ! {CAPS} ! filesink location={plain}"
    ))
    .wait();
    let receive = |uri: &str, file: &str| {
        let file = place.file(file);
        Pipeline::playing(&format!("pagecastsrc uri={uri} ! {CAPS} ! filesink location={file}"))
    };
    // They may come before the publisher.
    let sources = [receive(&place.uri(), "local"), receive(&tcp, "remote")];
    let uris = format!("{} {tcp}", place.uri());
    let publisher = Pipeline::playing(&format!(
        "videotestsrc num-buffers=40 pattern=ball ! {CAPS} ! pagecastsink wait-for-clients=2 uri=\"{uris}\""
    ));
    publisher.wait();
    sources.iter().for_each(Pipeline::wait);
    let plain = std::fs::read(plain).expect("a file");
    assert_eq!(plain.len() % 40, 0);
    for file in ["local", "remote"] {
        let received = std::fs::read(place.file(file)).expect("a file");
        assert_eq!(received.len(), plain.len(), "{file}");
        assert!(received == plain, "{file} is not the same");
    }
}

#[test]
fn who_joins_a_coded_stream_late_gets_a_frame_to_begin_with() {
    coded::joined_late(&Place::new(), &format!("tcp://127.0.0.1:{}", port()));
}

#[test]
fn elements_of_two_hosts_know_each_other_by_their_identities() {
    let place = Place::new();
    let hosts = match Hosts::new() {
        Ok(hosts) => hosts,
        Err(why) => return pagecast_tests::skip(&why),
    };
    let folder = pagecast_tests::Place::new();
    let ids = Ids::new(&folder, &["p", "s", "stranger"], &["p", "s"]);
    ids.trust("stranger", "p");
    let (uri, made) = (format!("tcp://{FIRST}:7302"), "videotestsrc num-buffers=40 pattern=ball");
    let (plain, received) = (place.file("plain"), place.file("received"));
    Pipeline::playing(&format!("{made} ! {CAPS} ! filesink location={plain}")).wait();
    let source = |who: &str, more: &str| {
        let line =
            format!("pagecastsrc uri={uri} {more} {} ! filesink location={received}.{who}", ids.of(who));
        Launched::on(&hosts, 1, &place.file(who), &line)
    };
    let sink = format!("pagecastsink wait-for-clients=1 uri={uri} networks=10.79.0.0/24 {}", ids.of("p"));
    let sink = pagecast_tests::patient(&sink);
    let mut publisher =
        Launched::on(&hosts, 0, &place.file("publisher"), &format!("{made} ! {CAPS} ! {sink}"));
    // One who is not known gets nothing, and is told why.
    eventually("somebody unknown is told so", || {
        let mut stranger = source("stranger", "reconnect=false");
        assert!(!stranger.status().success(), "{}", stranger.said());
        stranger.said().contains("does not trust the certificate of this end")
    });
    source("s", "").wait();
    publisher.wait();
    let (plain, received) = (std::fs::read(plain).expect("a file"), std::fs::read(format!("{received}.s")));
    assert!(received.expect("a file") == plain, "not the same");
}

#[test]
fn another_host_needs_to_be_allowed_at_both_ends() {
    init();
    for element in ["pagecastsink", "pagecastsrc"] {
        let made = gst::ElementFactory::make(element).build().expect(element);
        assert!(!made.property::<bool>("insecure"), "{element}");
        made.set_property("networks", "10.0.0.0/8 no-network");
        made.set_property("uri", "tcp://127.0.0.1:1");
        assert!(made.set_state(gst::State::Paused).is_err(), "{element} takes what is no network");
        let _ = made.set_state(gst::State::Null);
    }
    let sink = gst::ElementFactory::make("pagecastsink").property("uri", "tcp://0.0.0.0:0").build();
    let sink = sink.expect("a sink");
    assert!(sink.set_state(gst::State::Paused).is_err(), "everybody would be served in clear text");
    let _ = sink.set_state(gst::State::Null);
    sink.set_property("insecure", true);
    assert!(sink.set_state(gst::State::Paused).is_ok());
    let _ = sink.set_state(gst::State::Null);
}

/// What applications show: the message, without what is for debugging.
fn first_error(pipeline: &str) -> String {
    let pipeline = Pipeline::new(pipeline);
    let _ = pipeline.0.set_state(gst::State::Playing);
    match pipeline.message(&[gst::MessageType::Error]).view() {
        gst::MessageView::Error(error) => error.error().to_string(),
        _ => unreachable!("only errors were asked for"),
    }
}

#[test]
fn messages_say_what_is_wrong_and_what_to_do() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("its address");
    let free = port();
    let sink = "videotestsrc num-buffers=1 ! pagecastsink uri=";
    for (uri, says) in [
        ("tpc://127.0.0.1".to_owned(), ["tpc", "remote://HOST:PORT"]),
        ("tcp://127.0.0.1:99999".to_owned(), ["65535", "tcp://HOST:PORT"]),
        ("rdma://127.0.0.1".to_owned(), ["does not work here", "tcp:// needs no RDMA device"]),
        ("tcp://10.77.99.99".to_owned(), ["clear text", "insecure"]),
    ] {
        for pipeline in [format!("{sink}{uri}"), format!("pagecastsrc reconnect=false uri={uri} ! fakesink")]
        {
            let told = first_error(&pipeline);
            assert!(says.iter().all(|words| told.contains(words)), "{pipeline}: {told}");
        }
    }
    let told = first_error(&format!("{sink}tcp://{taken}"));
    assert!(told.contains("in use"), "{told}");
    let told = first_error(&format!("pagecastsrc reconnect=false uri=tcp://127.0.0.1:{free} ! fakesink"));
    assert!(told.contains("refused") && told.contains("start the publisher"), "{told}");
}
