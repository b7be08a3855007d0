//! What both elements are told of links to other hosts.

use pagecast::RemoteOptions;
use pagecast::remote::{AllowList, Identity};

/// The properties `networks`, `identity` and `insecure`.
pub(crate) fn options(
    networks: &str,
    identity: Option<&str>,
    insecure: bool,
) -> Result<RemoteOptions, String> {
    let identity = identity.filter(|folder| !folder.is_empty()).map(Identity::open).transpose();
    Ok(RemoteOptions {
        networks: AllowList::parse(networks).map_err(|error| error.to_string())?,
        identity: identity.map_err(|error| error.to_string())?,
        insecure,
    })
}
