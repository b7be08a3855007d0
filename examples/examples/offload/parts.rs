//! The pipelines: what each host does in each mode, as gst-launch lines.

use std::fmt;
use std::str::FromStr;

/// What host 2 does for host 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing: host 1 decodes and encodes.
    None,
    /// It decodes; raw video comes back.
    Decode,
    /// It encodes; raw video goes there.
    Encode,
    /// It decodes and encodes.
    Full,
}

impl Mode {
    pub(crate) const ALL: [Self; 4] = [Self::None, Self::Decode, Self::Encode, Self::Full];
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Decode => "decode",
            Self::Encode => "encode",
            Self::Full => "full",
        })
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|mode| mode.to_string() == text);
        found.ok_or_else(|| format!("{text}: a mode is none, decode, encode or full"))
    }
}

/// What lies between the hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Our elements, at an address with this scheme.
    Pagecast(String),
    /// tcpserversink and tcpclientsrc, with gdppay for caps and times.
    TcpServerSink,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pagecast(scheme) => scheme,
            Self::TcpServerSink => "tcpserversink",
        })
    }
}

impl FromStr for Link {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tcp" | "rdma" | "remote" => Ok(Self::Pagecast(text.to_owned())),
            "tcpserversink" => Ok(Self::TcpServerSink),
            _ => Err(format!("{text}: a link is tcp, rdma, remote or tcpserversink")),
        }
    }
}

impl Link {
    /// Serves at `host`, for those of a network.
    fn sink(&self, host: &str, port: u16, network: &str) -> String {
        match self {
            // What is lost of a coded stream spoils more than itself: wait.
            Self::Pagecast(scheme) => format!(
                "pagecastsink uri={scheme}://{host}:{port} networks={network} insecure=true \
                 wait-for-clients=1 policy=block block-deadline=60000000000 sync=false async=false"
            ),
            Self::TcpServerSink => {
                format!(
                    "gdppay ! tcpserversink host={host} port={port} sync=false async=false sync-method=latest-keyframe"
                )
            }
        }
    }

    fn source(&self, host: &str, port: u16) -> String {
        match self {
            Self::Pagecast(scheme) => format!("pagecastsrc uri={scheme}://{host}:{port} insecure=true"),
            Self::TcpServerSink => format!("tcpclientsrc host={host} port={port} ! gdpdepay"),
        }
    }
}

/// Addresses and ports of one run.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) host_1: String,
    pub(crate) host_2: String,
    /// Who may come from the other host.
    pub(crate) network: String,
    /// Where the camera sends to, and the viewer listens, on host 1.
    pub(crate) camera: u16,
    pub(crate) viewer: u16,
    /// Where host 1 serves host 2, and host 2 host 1.
    pub(crate) there: u16,
    pub(crate) back: u16,
    /// Bits per second of what is encoded, in thousands.
    pub(crate) kilobits: u32,
}

/// The pipelines of one mode, in the order in which they can be started.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) host_1: Vec<String>,
    pub(crate) host_2: Vec<String>,
}

const RTP: &str = "application/x-rtp,media=video,clock-rate=90000,encoding-name=H264,payload=96";
/// One thread: more would hold back pictures.
const DECODE: &str = "avdec_h264 max-threads=1";

/// H.264 from RTP at a port of this host. Without h264parse: it calls key frames headers, and tcpserversink does not
/// send headers but keeps them for newcomers.
pub(crate) fn from_udp(port: u16) -> String {
    format!(
        "udpsrc address=127.0.0.1 port={port} buffer-size=4000000 caps={RTP} ! rtph264depay \
         ! video/x-h264,stream-format=byte-stream,alignment=au"
    )
}

/// H.264 as RTP to a port of this host.
pub(crate) fn to_udp(port: u16) -> String {
    format!(
        "h264parse ! rtph264pay config-interval=-1 aggregate-mode=zero-latency ! udpsink host=127.0.0.1 port={port} sync=false async=false"
    )
}

pub(crate) fn encode(kilobits: u32) -> String {
    format!("x264enc tune=zerolatency speed-preset=ultrafast threads=1 key-int-max=30 bitrate={kilobits}")
}

/// What the hosts run.
pub(crate) fn parts(mode: Mode, link: &Link, place: &Place) -> Parts {
    let (from, to) = (from_udp(place.camera), to_udp(place.viewer));
    let (decode, encode) = (DECODE, encode(place.kilobits));
    let there = link.sink(&place.host_1, place.there, &place.network);
    let at_2 = link.source(&place.host_1, place.there);
    let back = link.sink(&place.host_2, place.back, &place.network);
    let at_1 = link.source(&place.host_2, place.back);
    let (host_1, host_2) = match mode {
        Mode::None => (vec![format!("{from} ! {decode} ! {encode} ! {to}")], Vec::new()),
        Mode::Decode => (
            vec![format!("{from} ! {there}"), format!("{at_1} ! {encode} ! {to}")],
            vec![format!("{at_2} ! {decode} ! {back}")],
        ),
        Mode::Encode => (
            vec![format!("{from} ! {decode} ! {there}"), format!("{at_1} ! {to}")],
            vec![format!("{at_2} ! {encode} ! {back}")],
        ),
        Mode::Full => (
            vec![format!("{from} ! {there}"), format!("{at_1} ! {to}")],
            vec![format!("{at_2} ! {decode} ! {encode} ! {back}")],
        ),
    };
    Parts { host_1, host_2 }
}
