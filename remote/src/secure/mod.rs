//! Who is at the other end, and that nobody between reads or changes what is said.
//!
//! Links to other hosts are mutual TLS 1.3 between ends that know each other's certificates: no authority, no names, no
//! dates. An end's [`Identity`] is a folder with its key, its certificate and those that it trusts.

mod error;
mod fingerprint;
mod folder;
mod identity;
mod keygen;
mod session;
mod trusted;
mod verifier;

use std::net::IpAddr;

pub use error::IdentityError;
pub use fingerprint::Fingerprint;
pub use folder::{CERTIFICATE, KEY, TRUSTED};
pub use identity::Identity;
pub use keygen::{Made, generate};
pub(crate) use session::{NOT_ADMITTED, Session, TLS_ONLY, is_tls};
pub use trusted::{MAX_TRUSTED, Trusted};

/// How the links of one end are protected.
#[derive(Clone, Debug, Default)]
pub struct Security {
    identity: Option<Identity>,
    insecure: bool,
}

/// What an end dials with.
#[derive(Clone, Debug)]
pub(crate) enum Dialled {
    Tls(Identity),
    Clear,
}

/// An identity, and leave to do without: one of them is a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an identity and insecure (--insecure) exclude each other: TLS, or clear text")]
pub struct Contradiction;

impl Security {
    /// TLS with an identity; clear text to everywhere if `insecure`; with neither, clear text within this host.
    ///
    /// # Errors
    /// [`Contradiction`] if it is both.
    pub fn new(identity: Option<Identity>, insecure: bool) -> Result<Self, Contradiction> {
        if identity.is_some() && insecure { Err(Contradiction) } else { Ok(Self { identity, insecure }) }
    }

    /// Whether there can be a link to or from `address`.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.identity.is_some() || self.clear_text_with(address)
    }

    /// Whether somebody who came from `address` may speak clear text.
    pub(crate) fn clear_text_with(&self, address: IpAddr) -> bool {
        self.insecure || address.to_canonical().is_loopback()
    }

    /// With an identity, TLS to everywhere: what answers on this host may be a way to another.
    pub(crate) fn to_dial(&self) -> Dialled {
        self.identity.clone().map_or(Dialled::Clear, Dialled::Tls)
    }

    /// What it shows to those who come and speak TLS.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }
}
