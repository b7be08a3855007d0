//! How a remote link ends.

use std::io;

use pagecast_ipc::wire::WireError;

use crate::secure::Fingerprint;

/// What a peer did that it must not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerFault {
    /// It speaks something else.
    #[error("it does not speak the protocol of Pagecast")]
    NotPagecast,
    /// It speaks another version of the framing.
    #[error(
        "it speaks version {theirs} of the framing and we speak {ours}: use the same release at both ends"
    )]
    Version {
        /// What it speaks.
        theirs: u16,
        /// What we speak.
        ours: u16,
    },
    /// Bytes that mean nothing.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// More of something than the protocol allows.
    #[error("{what} of {value}: the limit is {limit}")]
    OverLimit {
        /// What.
        what: &'static str,
        /// As sent.
        value: u64,
        /// As allowed.
        limit: u64,
    },
    /// It returned a frame that it does not hold.
    #[error("frame {0} was returned and is not held")]
    NotHeld(u64),
    /// It speaks clear text.
    #[error(
        "it speaks clear text, and this end TLS: give it an identity (`pagecast keygen` there, --identity), or both \
         ends --insecure on a network that you trust"
    )]
    ClearText,
    /// It speaks TLS.
    #[error(
        "it speaks TLS, and this end clear text: give this end an identity that it trusts (`pagecast keygen`, \
         --identity)"
    )]
    Tls,
    /// Its certificate is not trusted.
    #[error(
        "its certificate {fingerprint} is not trusted here: if it is the right one, put its certificate.pem into {place}"
    )]
    Untrusted {
        /// Which it showed.
        fingerprint: Fingerprint,
        /// The folder of those that are.
        place: String,
    },
    /// It does not trust ours.
    #[error(
        "it does not trust the certificate of this end, {0}: put this end's certificate.pem into the folder trusted \
         of its identity"
    )]
    NotTrustedThere(Fingerprint),
    /// It shows somebody else's certificate.
    #[error("it does not have the key of the certificate that it shows")]
    WrongKey,
    /// Its networks do not have this host.
    #[error("it lets nobody in from the network of this end: its --network says who may come")]
    NotAdmitted,
    /// TLS failed for another reason.
    #[error("TLS failed: {0}")]
    Encryption(String),
    /// A message that has no place here.
    #[error("{0} is out of place")]
    OutOfPlace(&'static str),
}

impl PeerFault {
    /// Whether the two ends do not agree on who may talk to whom: the same would happen the next time.
    pub fn is_about_trust(&self) -> bool {
        use PeerFault::{ClearText, NotAdmitted, NotTrustedThere, Tls, Untrusted, WrongKey};
        matches!(self, ClearText | Tls | Untrusted { .. } | NotTrustedThere(_) | WrongKey | NotAdmitted)
    }
}

/// As an error of the connection that it was found on; [`LinkError`] takes it out again.
impl From<PeerFault> for io::Error {
    fn from(fault: PeerFault) -> Self {
        Self::new(io::ErrorKind::InvalidData, fault)
    }
}

/// Why a link is at its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer closed it.
    #[error("the other end closed the connection")]
    Closed,
    /// The peer closed it, or is gone, in the middle of a frame, which is dropped.
    #[error("the connection ended in mid-frame, after {filled} of {size} bytes")]
    MidFrame {
        /// Bytes that had come.
        filled: usize,
        /// Bytes of the frame.
        size: usize,
    },
    /// Whoever the pages belong to took them back while they were sent: the frame was not completed.
    #[error("a frame was taken back while it was sent")]
    TakenBack,
    /// Nothing was heard of the peer, not even a heartbeat.
    #[error("nothing was heard of the other end for {0} seconds")]
    Silent(u64),
    /// The peer broke the protocol.
    #[error("the other end is at fault: {0}")]
    Peer(#[from] PeerFault),
    /// The other end of a `remote://` link is no such end.
    #[error("the other end listens for {0}:// alone: write {0}://HOST:PORT")]
    OtherScheme(&'static str),
    /// There is no place here for a frame: a matter of our own settings.
    #[error("{0}")]
    NoPages(String),
    /// The RDMA device, or the way over it.
    #[error(transparent)]
    Rdma(#[from] crate::rdma::RdmaError),
    /// The system, or the network between.
    #[error("{0}")]
    Io(io::Error),
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<PeerFault>() {
            Ok(fault) => Self::Peer(fault),
            Err(error) => Self::Io(error),
        }
    }
}

impl From<WireError> for LinkError {
    fn from(error: WireError) -> Self {
        Self::Peer(error.into())
    }
}
