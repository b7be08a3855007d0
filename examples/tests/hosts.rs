//! Runs every example of two-hosts/README.md as it stands there, in two network namespaces joined by a cable, and
//! looks at what host 2 received.

mod hosts {
    pub(crate) mod page;
    pub(crate) mod run;
}

use hosts::page::Section;
use hosts::run::{Hosts, skip, unavailable};
use pagecast_examples::draw;

/// Runs one section; the folder with what its lines wrote, and what they printed. `None` where there can be no
/// namespaces.
fn run(title: &str) -> Option<(Hosts, String)> {
    if let Some(why) = unavailable() {
        skip(why);
        return None;
    }
    let section = Section::titled(title);
    let hosts = Hosts::new();
    let printed = hosts.run(&section.host_1, &section.host_2);
    Some((hosts, printed.unwrap_or_else(|error| panic!("{error}"))))
}

/// What a pipeline writes without any link.
fn plain(hosts: &Hosts, pipeline: &str, file: &str) -> Vec<u8> {
    let line = format!("gst-launch-1.0 {pipeline} ! filesink location={file}");
    hosts.run(&line, "").unwrap_or_else(|error| panic!("{error}"));
    hosts.read(file)
}

#[test]
fn raw_video_arrives_as_it_was_made() {
    let Some((hosts, _)) = run("Raw video") else { return };
    let caps = "video/x-raw,format=I420,width=320,height=240,framerate=30/1";
    let plain = plain(&hosts, &format!("videotestsrc num-buffers=90 pattern=ball ! {caps}"), "plain");
    assert_eq!(plain.len(), 90 * 320 * 240 * 3 / 2);
    for file in ["here.i420", "there.i420"] {
        assert!(hosts.read(file) == plain, "{file} is not the same: {} bytes", hosts.read(file).len());
    }
}

#[test]
fn raw_video_from_rust_arrives_as_it_was_drawn() {
    let Some((_, printed)) = run("Raw video from Rust") else { return };
    let mut picture = vec![0; 320 * 240];
    let sum = |number| {
        draw(&mut picture, 320, number);
        picture.iter().map(|byte| u64::from(*byte)).sum::<u64>()
    };
    let sum = (0..60).map(sum).sum::<u64>();
    let expected = format!("frames 60, dropped 0, bytes {}, sum {sum}", 60 * 320 * 240);
    assert!(printed.contains(&expected), "{expected}:\n{printed}");
}

#[test]
fn metadata_arrives_with_the_picture_that_it_is_about() {
    let Some((_, printed)) = run("Video with inference metadata") else { return };
    assert!(printed.contains("frames 60, regions 60, wrong 0"), "{printed}");
}

#[test]
fn audio_arrives_sample_by_sample() {
    let Some((hosts, _)) = run("Audio") else { return };
    let caps = "audio/x-raw,format=S16LE,rate=48000,channels=2";
    let source = format!("audiotestsrc num-buffers=200 samplesperbuffer=480 wave=ticks ! {caps}");
    let plain = plain(&hosts, &format!("{source} ! wavenc"), "plain.wav");
    assert!(plain.len() > 200 * 480 * 4 && plain.iter().skip(44).any(|byte| *byte != 0));
    assert!(hosts.read("there.wav") == plain, "{} bytes", hosts.read("there.wav").len());
}

/// The negative control: what is spoilt is found out.
#[test]
fn a_line_that_does_not_work_is_found_out() {
    if let Some(why) = unavailable() {
        return skip(why);
    }
    let metadata = Section::titled("Video with inference metadata");
    let hosts = Hosts::new();
    // Nobody is let in from this network.
    let closed = metadata.host_1.replace("10.77.0.0/24", "10.78.0.0/24");
    let until_told = format!("{} & until [ -e told ]; do sleep 0.05; done; kill %1", closed.trim());
    let tells = format!("{} || {{ touch told; exit 3; }}", metadata.host_2.trim());
    let refused = hosts.run(&until_told, &tells).expect_err("it was let in");
    assert!(refused.contains("10.77.0.2 is not in the networks"), "{refused}");
    assert!(refused.contains("exit status: 3") && !refused.contains("frames"), "{refused}");
    let open = metadata.host_2.replace("--insecure", "");
    let told = hosts.run("true", &open).expect_err("clear text without being told so");
    assert!(told.contains("insecure"), "{told}");
    let nobody = hosts
        .run("true", "gst-launch-1.0 pagecastsrc uri=tcp://$HOST_1 insecure=true reconnect=false ! fakesink");
    assert!(nobody.expect_err("there is nobody").contains("refused"));
    let taken = "metadata detect --uri tcp://$HOST_1 --insecure --frames 1";
    let listens = "until (: </dev/tcp/$HOST_1/7174) 2>/dev/null; do sleep 0.05; done";
    let in_use = hosts.run(&format!("{taken} & {listens}; {taken}"), "").expect_err("a port twice");
    assert!(in_use.to_lowercase().contains("in use"), "{in_use}");
}

#[test]
fn host_2_goes_on_when_host_1_is_killed_and_started_again() {
    if let Some(why) = unavailable() {
        return skip(why);
    }
    let hosts = Hosts::new();
    let live = "gst-launch-1.0 videotestsrc is-live=true pattern=ball ! video/x-raw,format=GRAY8,width=64,height=48 \
                ! pagecastsink uri=tcp://$HOST_1 networks=10.77.0.0/24 insecure=true";
    let killed = format!(
        "{live} & until [ -e half ]; do sleep 0.05; done; kill -9 %1; wait %1 || true
         {live} & until [ -e done ]; do sleep 0.05; done; kill -INT %2 || kill -INT %1; wait"
    );
    let received = "gst-launch-1.0 pagecastsrc uri=tcp://$HOST_1 insecure=true num-buffers=5 ! filesink location=first
         gst-launch-1.0 pagecastsrc uri=tcp://$HOST_1 insecure=true num-buffers=60 ! filesink buffer-mode=unbuffered \
         location=second & until [ $(stat -c %s second 2>/dev/null || echo 0) -gt 30000 ]; do sleep 0.05; done
         touch half; wait %1; touch done";
    hosts.run(&killed, received).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(hosts.read("second").len(), 60 * 64 * 48);
}
