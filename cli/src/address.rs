//! Publishers as users write them: `unix:NAME`, `unix:/path`, `tcp://HOST:PORT`, `rdma://HOST:PORT`,
//! `remote://HOST:PORT`, `NAME` or `/path`.

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use pagecast::RemoteOptions;
use pagecast::ipc::socket::{Uri, UriError};
use pagecast::remote::secure::KEY;
use pagecast::remote::{AllowList, Identity, Network};

use crate::exit::{Exit, Failure};

/// What holds for links to other hosts.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Remote {
    /// The identity of this end, for TLS with other hosts (see `pagecast keygen`); ~/.config/pagecast if it is there.
    #[arg(long, value_name = "DIR", conflicts_with = "insecure")]
    identity: Option<PathBuf>,
    /// Let links to other hosts be in clear text.
    #[arg(long)]
    pub(crate) insecure: bool,
    /// From where others may come to tcp:// addresses, e.g. 10.0.0.0/8; this host only unless given.
    #[arg(long = "network", value_name = "NETWORK", value_delimiter = ',')]
    pub(crate) networks: Vec<Network>,
}

impl Remote {
    /// For a command that deals with these addresses.
    pub(crate) fn options<'a>(
        &self,
        uris: impl IntoIterator<Item = &'a str>,
    ) -> Result<RemoteOptions, Failure> {
        let identity = self.identity(uris).map(Identity::open).transpose();
        Ok(RemoteOptions {
            networks: AllowList::new(self.networks.iter().copied()),
            identity: identity.map_err(|error| Failure::new(Exit::Usage, error))?,
            insecure: self.insecure,
        })
    }

    /// The folder of the identity: as given, or the user's own where another host may be at one of the addresses.
    pub(crate) fn identity<'a>(&self, uris: impl IntoIterator<Item = &'a str>) -> Option<PathBuf> {
        let own = || default_identity().filter(|folder| folder.join(KEY).exists());
        match &self.identity {
            Some(folder) => Some(folder.clone()),
            None if self.insecure || !uris.into_iter().any(is_elsewhere) => None,
            None => own(),
        }
    }

    /// The identity's folder as the elements take it.
    #[cfg(feature = "gstreamer")]
    pub(crate) fn identity_name<'a>(
        &self,
        uris: impl IntoIterator<Item = &'a str>,
    ) -> Result<Option<String>, Failure> {
        let utf8 = |folder: PathBuf| folder.into_os_string().into_string();
        let wrong = |folder| Failure::usage(format_args!("{folder:?} is not UTF-8"));
        self.identity(uris).map(utf8).transpose().map_err(wrong)
    }

    /// The networks as the elements take them.
    #[cfg(feature = "gstreamer")]
    pub(crate) fn networks(&self) -> Option<String> {
        let networks = self.networks.iter().map(Network::to_string).collect::<Vec<_>>();
        (!networks.is_empty()).then(|| networks.join(" "))
    }
}

/// Where the identity of this user is.
pub(crate) fn default_identity() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
    config.map(|config| config.join("pagecast"))
}

/// Whether another host may be there: everything but a plain address of this one.
fn is_elsewhere(uri: &str) -> bool {
    let Ok(uri) = complete(uri).parse::<Uri>() else { return false };
    let Some((host, _)) = uri.host() else { return false };
    let address = host.parse::<IpAddr>().map(|address| address.to_canonical().is_loopback());
    !address.unwrap_or(host == "localhost")
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
    fn an_identity_is_looked_for_where_another_host_may_be() {
        for here in ["cam0", "unix:/run/cam0", "tcp://127.0.0.1", "tcp://[::1]:1", "tcp://localhost:7174"] {
            assert!(!is_elsewhere(here), "{here}");
        }
        for elsewhere in
            ["tcp://10.0.0.5", "tcp://0.0.0.0", "tcp://[::]", "tcp://camera:7174", "tcp://localhost.example"]
        {
            assert!(is_elsewhere(elsewhere), "{elsewhere}");
        }
    }

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
