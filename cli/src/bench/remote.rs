//! `pagecast bench remote`: what is measured of links to other hosts.

use clap::{Args, ValueEnum};

use super::contender::{Contender, Transport};
use super::iperf;
use super::report::Bench;
use super::series::{Pace, Plan, Series};
use super::size::FrameSize;
use crate::exit::Outcome;

const MAX_SUBSCRIBERS: i64 = 16;

/// What carries frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Link {
    Tcp,
}

/// What to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Against {
    /// A bare loop of send and recv over as many buffers: the floor.
    TcpLoop,
    /// The same with the send buffer that links of ours to the same host have.
    TcpLoopNear,
    /// iperf3; it sends bytes, not frames, to one subscriber.
    Iperf3,
    /// tcpserversink and tcpclientsrc; pictures only.
    Tcpserversink,
}

/// Measure links to other hosts, over the loopback: throughput, CPU of sender and receivers, latency.
///
/// The source writes 8 bytes into every 4 KiB page of every frame; subscribers compare them all. A run with a
/// frame that was lost or has wrong bytes does not count. Every run measures all contenders in turn, from a
/// warm-up frame on; the table shows the median and the extremes. GB are 10^9 bytes of frames that arrived;
/// bytes on the wire are those of all network interfaces: let nothing else use them meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pagecast bench remote --runs 3 --frames 100
  pagecast bench remote --size 1080p,4k --against tcp-loop,iperf3,tcpserversink --json result.json
  pagecast bench remote --subscribers 1,2,4,8
  pagecast bench remote --pace live --fps 60

The targets below the table are the project's own; whether they are met never changes the exit code.")]
pub(crate) struct Remote {
    /// What carries frames.
    #[arg(long, value_enum, default_value = "tcp")]
    link: Link,
    /// Sizes of frames: 1080p, 4k, WIDTHxHEIGHT (NV12), or bytes.
    #[arg(long, value_delimiter = ',', default_value = "1080p")]
    size: Vec<FrameSize>,
    /// Numbers of subscribers, 1 to 16.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..=MAX_SUBSCRIBERS))]
    subscribers: Vec<u32>,
    /// Live or free running.
    #[arg(long, value_enum, default_value = "free")]
    pace: Pace,
    /// What else to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tcp-loop")]
    against: Vec<Against>,
    #[command(flatten)]
    series: Series,
}

impl Remote {
    pub(crate) fn run(self) -> Outcome {
        let mut notes = Vec::new();
        let peers = self.peers(&mut notes);
        let mut contenders = Vec::new();
        for &consumers in &self.subscribers {
            let fit = peers.iter().filter(|peer| consumers == 1 || **peer != Transport::Iperf3);
            let all = fit.copied().chain([self.ours()]);
            contenders.extend(all.map(|transport| Contender { transport, kind: None, consumers }));
        }
        let host = "127.0.0.1".to_owned();
        let (sizes, pace) = (self.size.clone(), self.pace);
        self.series.run(Plan { bench: Bench::Remote, contenders, sizes, pace, host, notes })
    }

    fn ours(&self) -> Transport {
        match self.link {
            Link::Tcp => Transport::PagecastTcp,
        }
    }

    /// What else can be measured here.
    fn peers(&self, notes: &mut Vec<String>) -> Vec<Transport> {
        let mut peers = Vec::new();
        for against in &self.against {
            match against {
                Against::TcpLoop => peers.push(Transport::TcpLoop),
                Against::TcpLoopNear => peers.push(Transport::TcpLoopNear),
                Against::Iperf3 if !iperf::is_installed() => left_out(notes, "iperf3 is not installed"),
                Against::Iperf3 if self.pace == Pace::Live => left_out(notes, "iperf3 sends no frames"),
                Against::Iperf3 => {
                    if self.subscribers.iter().any(|subscribers| *subscribers > 1) {
                        notes.push("iperf3 has one receiver: it is measured with one subscriber".to_owned());
                    }
                    peers.push(Transport::Iperf3);
                }
                Against::Tcpserversink => match self.tcpserversink() {
                    Ok(peer) => peers.push(peer),
                    Err(why) => left_out(notes, &why),
                },
            }
        }
        peers
    }

    #[cfg(feature = "gstreamer")]
    fn tcpserversink(&self) -> Result<Transport, String> {
        super::gstreamer::init()?;
        for element in ["tcpserversink", "tcpclientsrc", "rawvideoparse"] {
            if gst::ElementFactory::find(element).is_none() {
                return Err(format!("{element} is not installed"));
            }
        }
        match self.size.iter().all(|size| size.is_picture()) {
            true => Ok(Transport::GstTcp),
            false => Err("tcpserversink is compared by pictures only".to_owned()),
        }
    }

    #[cfg(not(feature = "gstreamer"))]
    fn tcpserversink(&self) -> Result<Transport, String> {
        Err("built without GStreamer".to_owned())
    }
}

fn left_out(notes: &mut Vec<String>, why: &str) {
    notes.push(format!("{why}: it is left out"));
}
