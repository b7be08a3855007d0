//! `pagecast bench remote`: what is measured of links to other hosts.

use std::net::IpAddr;

use clap::{Args, ValueEnum};

use super::contender::{Contender, Transport};
use super::report::Bench;
use super::route::Route;
use super::series::{Pace, Plan, Series};
use super::size::FrameSize;
use super::{iperf, perftest, program};
use crate::exit::{Failure, Outcome};

const MAX_SUBSCRIBERS: i64 = 16;

/// What carries frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Link {
    /// TCP, over the loopback.
    Tcp,
    /// RDMA, from one device of this machine to another, or to itself.
    Rdma,
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
    /// ib_write_bw of perftest; it writes the same bytes again and again, to one subscriber.
    #[value(name = "ib_write_bw")]
    IbWriteBw,
}

impl Against {
    /// The links that it can be compared with.
    fn link(self) -> Link {
        if self == Self::IbWriteBw { Link::Rdma } else { Link::Tcp }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Measure links to other hosts, within this one: throughput, CPU of sender and receivers, latency.
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
  pagecast bench remote --link rdma --size 640x480,65536 --against ib_write_bw

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
    /// What else to measure; tcp-loop, or ib_write_bw with --link rdma, unless given.
    #[arg(long, value_enum, value_delimiter = ',')]
    against: Vec<Against>,
    /// With --link rdma: addresses of the devices that send and receive; the first two that are here, unless given.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', num_args = 1..=2)]
    addresses: Vec<IpAddr>,
    #[command(flatten)]
    series: Series,
}

impl Remote {
    pub(crate) fn run(self) -> Outcome {
        self.check()?;
        let mut notes = Vec::new();
        let route = self.route(&mut notes)?;
        let peers = self.peers(&mut notes);
        let mut contenders = Vec::new();
        for &consumers in &self.subscribers {
            let fit = peers.iter().filter(|peer| consumers == 1 || !peer.has_one_receiver());
            let all = fit.copied().chain([self.ours()]);
            contenders.extend(all.map(|transport| Contender { transport, kind: None, consumers }));
        }
        let (sizes, pace) = (self.size.clone(), self.pace);
        self.series.run(Plan { bench: Bench::Remote, contenders, sizes, pace, route, notes })
    }

    fn ours(&self) -> Transport {
        match self.link {
            Link::Tcp => Transport::PagecastTcp,
            Link::Rdma => Transport::PagecastRdma,
        }
    }

    /// What can be said without looking at the machine.
    fn check(&self) -> Result<(), Failure> {
        if let Some(other) = self.against.iter().find(|against| against.link() != self.link) {
            let link = other.link().to_possible_value();
            let link = link.as_ref().map_or("", |link| link.get_name());
            let name = other.name();
            return Err(Failure::usage(format_args!(
                "{name} is no peer of this link: it needs --link {link}"
            )));
        }
        match self.addresses.len() {
            0 => Ok(()),
            _ if self.link != Link::Rdma => Err(Failure::usage("--addresses needs --link rdma")),
            1 | 2 => Ok(()),
            _ => Err(Failure::usage("--addresses takes two: the sender's, and the receivers'")),
        }
    }

    fn route(&self, notes: &mut Vec<String>) -> Result<Route, Failure> {
        if self.link == Link::Tcp {
            return Ok(Route::LOOPBACK);
        }
        let (route, words) = Route::by_rdma(&self.addresses).map_err(Failure::failed)?;
        notes.push(words);
        Ok(route)
    }

    fn against(&self) -> Vec<Against> {
        match (self.against.is_empty(), self.link) {
            (false, _) => self.against.clone(),
            (true, Link::Tcp) => vec![Against::TcpLoop],
            (true, Link::Rdma) => vec![Against::IbWriteBw],
        }
    }

    /// What else can be measured here.
    fn peers(&self, notes: &mut Vec<String>) -> Vec<Transport> {
        let mut peers = Vec::new();
        for against in self.against() {
            match against {
                Against::TcpLoop => peers.push(Transport::TcpLoop),
                Against::TcpLoopNear => peers.push(Transport::TcpLoopNear),
                Against::Iperf3 => peers.extend(self.program(iperf::PROGRAM, Transport::Iperf3, notes)),
                Against::IbWriteBw => {
                    peers.extend(self.program(perftest::PROGRAM, Transport::IbWriteBw, notes));
                }
                Against::Tcpserversink => match self.tcpserversink() {
                    Ok(peer) => peers.push(peer),
                    Err(why) => left_out(notes, &why),
                },
            }
        }
        peers
    }

    /// A program of others, if it is here and fits.
    fn program(&self, name: &str, transport: Transport, notes: &mut Vec<String>) -> Option<Transport> {
        if !program::is_installed(name) {
            left_out(notes, &format!("{name} is not installed"));
            return None;
        }
        if self.pace == Pace::Live {
            left_out(notes, &format!("{name} sends no frames"));
            return None;
        }
        if self.subscribers.iter().any(|subscribers| *subscribers > 1) {
            notes.push(format!("{name} has one receiver: it is measured with one subscriber"));
        }
        Some(transport)
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
