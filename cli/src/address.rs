//! Publishers as users write them: `unix:NAME`, `unix:/path`, `tcp://HOST:PORT`, `rdma://HOST:PORT`,
//! `remote://HOST:PORT`, `NAME` or `/path`.

use std::borrow::Cow;

use clap::Args;
use pagecast::RemoteOptions;
use pagecast::ipc::socket::{Uri, UriError};
use pagecast::remote::{AllowList, Network};

/// What holds for links to other hosts.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Remote {
    /// Let links to other hosts (tcp://) be in clear text.
    #[arg(long)]
    pub(crate) insecure: bool,
    /// From where others may come to tcp:// addresses, e.g. 10.0.0.0/8; this host only unless given.
    #[arg(long = "network", value_name = "NETWORK", value_delimiter = ',')]
    pub(crate) networks: Vec<Network>,
}

impl Remote {
    pub(crate) fn options(&self) -> RemoteOptions {
        RemoteOptions { networks: AllowList::new(self.networks.iter().copied()), insecure: self.insecure }
    }

    /// The networks as the elements take them.
    #[cfg(feature = "gstreamer")]
    pub(crate) fn networks(&self) -> Option<String> {
        let networks = self.networks.iter().map(Network::to_string).collect::<Vec<_>>();
        (!networks.is_empty()).then(|| networks.join(" "))
    }
}

/// A URI as users write it, for clap.
pub(crate) fn parse(text: &str) -> Result<String, UriError> {
    let text = complete(text);
    text.parse::<Uri>()?;
    Ok(text.into_owned())
}

/// With `unix:` where there is no scheme.
fn complete(text: &str) -> Cow<'_, str> {
    match text.parse::<Uri>() {
        Err(UriError::NoScheme { .. }) => Cow::Owned(format!("unix:{text}")),
        _ => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_need_no_scheme() {
        assert_eq!(parse("cam0").unwrap(), "unix:cam0");
        assert_eq!(parse("/run/cam0").unwrap(), "unix:/run/cam0");
        assert_eq!(parse("unix:cam0").unwrap(), "unix:cam0");
        assert_eq!(parse("tcp://h").unwrap(), "tcp://h");
        assert_eq!(parse("cam0?mode=listen").unwrap(), "unix:cam0?mode=listen");
        assert!(parse("").is_err());
        assert!(parse("a b").is_err());
        assert!(parse("ftp:cam0").is_err());
    }
}
