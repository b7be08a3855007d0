//! Ways to bring frames from one producer to many consumers.

use serde::{Deserialize, Serialize};

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// The source alone, in a program without GStreamer: the baseline of the next two.
    Source,
    /// The least that can be sent: pages mapped once, one small message and one acknowledgement per frame.
    Seqpacket,
    /// The library.
    Pagecast,
    /// The library, over TCP.
    PagecastTcp,
    /// The library, by RDMA.
    PagecastRdma,
    /// The least that TCP can do: a loop that sends and one that receives, over as many buffers.
    TcpLoop,
    /// The same with the send buffer that links of ours to the same host have.
    TcpLoopNear,
    /// The program, its own bytes and figures.
    Iperf3,
    /// The program, its own bytes and figures.
    IbWriteBw,
    /// The source alone, in a pipeline: the baseline of all that follow.
    GstSource,
    /// pagecastsink and pagecastsrc.
    GstPagecast,
    /// shmsink and shmsrc.
    GstShm,
    /// unixfdsink and unixfdsrc.
    GstUnixfd,
    /// tee and queue, all in one process.
    GstTee,
    /// tcpserversink and tcpclientsrc.
    GstTcp,
}

/// How a consumer in a pipeline takes frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A thread of its own pulls them from appsink.
    Appsink,
    /// appsink calls it in the pipeline's thread.
    Callback,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contender {
    pub(crate) transport: Transport,
    pub(crate) kind: Option<Kind>,
    /// 0 where nobody listens.
    pub(crate) consumers: u32,
}

impl Transport {
    /// Whether it runs in pipelines.
    pub(crate) fn is_gst(self) -> bool {
        matches!(
            self,
            Self::GstSource
                | Self::GstPagecast
                | Self::GstShm
                | Self::GstUnixfd
                | Self::GstTee
                | Self::GstTcp
        )
    }

    /// Whether it is our own.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Pagecast | Self::PagecastTcp | Self::PagecastRdma | Self::GstPagecast)
    }

    /// Whether it crosses a network.
    pub(crate) fn is_remote(self) -> bool {
        matches!(
            self,
            Self::PagecastTcp
                | Self::PagecastRdma
                | Self::TcpLoop
                | Self::TcpLoopNear
                | Self::Iperf3
                | Self::IbWriteBw
                | Self::GstTcp
        )
    }

    /// Whether it is the least that can be.
    pub(crate) fn is_floor(self) -> bool {
        matches!(self, Self::Seqpacket | Self::TcpLoop | Self::TcpLoopNear)
    }

    /// Whether it is a program that has one receiver and brings its own bytes.
    pub(crate) fn has_one_receiver(self) -> bool {
        matches!(self, Self::Iperf3 | Self::IbWriteBw)
    }

    /// Whether it is no transport, but what others are compared with.
    pub(crate) fn is_baseline(self) -> bool {
        matches!(self, Self::Source | Self::GstSource)
    }

    /// What runs where it is left out.
    pub(crate) fn baseline(self) -> Transport {
        if self.is_gst() { Self::GstSource } else { Self::Source }
    }

    /// Whether its consumers are processes of their own.
    pub(crate) fn has_processes(self) -> bool {
        self != Self::GstTee && !self.is_baseline()
    }

    /// What it is called in tables.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Source => "bare source",
            Self::Seqpacket => "SEQPACKET floor",
            Self::Pagecast => "pagecast library",
            Self::PagecastTcp => "pagecast tcp://",
            Self::PagecastRdma => "pagecast rdma://",
            Self::TcpLoop => "send/recv loop",
            Self::TcpLoopNear => "send/recv loop, near",
            Self::Iperf3 => "iperf3",
            Self::IbWriteBw => "ib_write_bw",
            Self::GstSource => "bare source (gst)",
            Self::GstPagecast => "pagecastsink/src",
            Self::GstShm => "shmsink/src",
            Self::GstUnixfd => "unixfdsink/src",
            Self::GstTee => "tee (one process)",
            Self::GstTcp => "tcpserversink/clientsrc",
        }
    }
}

impl Contender {
    /// What it is called in tables.
    pub(crate) fn label(&self) -> String {
        let kind = match self.kind {
            Some(Kind::Appsink) => ", appsink",
            Some(Kind::Callback) => ", callback",
            None => "",
        };
        format!("{}{kind}", self.transport.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_baseline_is_its_own_baseline() {
        for transport in [Transport::Source, Transport::GstSource] {
            assert!(transport.is_baseline() && transport.baseline() == transport);
        }
        assert_eq!(Transport::GstShm.baseline(), Transport::GstSource);
        assert_eq!(Transport::Pagecast.baseline(), Transport::Source);
    }
}
