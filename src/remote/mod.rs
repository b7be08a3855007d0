//! Subscribers on other hosts.
//!
//! A remote link is a pair of bridges, one in each process. Towards its own process each is the other end of an
//! ordinary local link, over a socket pair: the publisher's bridge (`egress`) is one more subscriber, the
//! subscriber's (`ingress`) a publisher with pages of its own. So policies, budgets, stickies, late joiners
//! and reconnecting are what they are on one host, and are written once.

mod carrier;
mod dial;
mod egress;
mod hub;
mod ingress;
mod meter;
mod outlet;
mod serving;
mod staging;
mod times;

pub use meter::{RemoteFigures, RoundTripFigures};
use pagecast_ipc::socket::Uri;
pub use pagecast_remote::network::NotANetwork;
pub use pagecast_remote::secure::{self, Fingerprint, Identity, IdentityError, Trusted};
pub use pagecast_remote::tcp::ConnectError;
use pagecast_remote::tcp::Destination;
pub use pagecast_remote::{AllowList, Network};

use pagecast_remote::Security;

pub(crate) use dial::{Cause, Way};
pub(crate) use hub::{Ends, Hub};
pub(crate) use meter::Meter;

/// What holds for links to other hosts.
#[derive(Clone, Debug, Default)]
pub struct RemoteOptions {
    /// Who may come where this end listens; by default only processes of this host.
    pub networks: AllowList,
    /// What this end shows of itself, and whom it believes: with it links are mutual TLS. Who listens lets processes of
    /// this host speak clear text, too.
    pub identity: Option<Identity>,
    /// Whether links to other hosts may be in clear text, which excludes an identity.
    pub insecure: bool,
}

impl RemoteOptions {
    fn security(&self) -> Result<Security, ConnectError> {
        Ok(Security::new(self.identity.clone(), self.insecure)?)
    }
}

/// The other end that a URI names.
fn destination(uri: &Uri, options: &RemoteOptions) -> Result<Destination, ConnectError> {
    let (host, port) = uri.host().unwrap_or_default();
    Ok(Destination { host: host.to_owned(), port, from: uri.from, security: options.security()? })
}

/// How a link came to a publisher that did not accept it itself.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// What is known of it.
    pub(crate) meter: Meter,
}
