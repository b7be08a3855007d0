//! Where a publisher is: `unix:NAME`, `unix:/path`, `tcp://host:port`, `rdma://host:port`, `remote://host:port`, with
//! `?mode=listen` or `?mode=connect`, and `?from=ADDRESS` where this end connects to another host.
//!
//! In a path, `%20` stands for a space, `%3F` for a question mark and `%25` for a per cent sign.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use super::name::{self, NameError, check_name};
use super::path::{PathTooLong, check_length};

/// URIs in one list.
pub const MAX_URIS: usize = 16;

/// The port of remote links where none is said.
pub const DEFAULT_PORT: u16 = 7174;

/// Longest name of a host, in bytes.
pub const MAX_HOST: usize = 253;

const SCHEMES: &str =
    "unix (unix:NAME or unix:/path), and for other hosts tcp, rdma or remote (remote://HOST:PORT)";
const OPTIONS: &str = "mode=listen, mode=connect, and for other hosts from=ADDRESS";

/// The way to the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// A Unix socket on this host.
    Unix,
    /// Frames copied over TCP.
    Tcp,
    /// Frames written by RDMA.
    Rdma,
    /// Whichever of the two works, said in the output.
    Remote,
}

impl Transport {
    /// The scheme's name.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tcp => "tcp",
            Self::Rdma => "rdma",
            Self::Remote => "remote",
        }
    }

    fn from_scheme(scheme: &str) -> Option<Self> {
        [Self::Unix, Self::Tcp, Self::Rdma, Self::Remote]
            .into_iter()
            .find(|transport| transport.scheme().eq_ignore_ascii_case(scheme))
    }
}

/// Which end waits for the other. Without it a publisher listens and a subscriber connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Wait for connections.
    Listen,
    /// Connect to the other end.
    Connect,
}

/// Why a text is no URI.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// No scheme.
    #[error("{text:?} has no scheme: write unix:{text}")]
    NoScheme {
        /// The text as given.
        text: String,
    },
    /// A scheme that means nothing here.
    #[error("unknown scheme {scheme:?}: there is {SCHEMES}")]
    UnknownScheme {
        /// The scheme as given.
        scheme: String,
    },
    /// `unix://host/path`: a Unix socket has no host.
    #[error("{text:?} names a host: write unix:NAME, unix:/path or unix:///path")]
    HasHost {
        /// The text as given.
        text: String,
    },
    /// `tcp:` without two slashes, a host that is none, or a port that is none.
    #[error(
        "{text:?} names no host, or a port above 65535: write {scheme}://HOST:PORT, and an IPv6 address as [::1]"
    )]
    BadHost {
        /// The text as given.
        text: String,
        /// Its scheme.
        scheme: &'static str,
    },
    /// An option that means nothing here.
    #[error("unknown option {option:?}: there is {OPTIONS}")]
    UnknownOption {
        /// The option as given.
        option: String,
    },
    /// `from=` without an address of this host, or where this end does not connect.
    #[error(
        "{option:?}: write from=ADDRESS, an address of this host, where this end connects to another host"
    )]
    BadFrom {
        /// The option as given.
        option: String,
    },
    /// An option given twice.
    #[error("option {option:?} is given twice")]
    OptionTwice {
        /// Its name.
        option: String,
    },
    /// A per cent sign that two hexadecimal digits do not follow, or that makes no text.
    #[error("{text:?} has a bad escape: write %25 for a per cent sign")]
    BadEscape {
        /// The text as given.
        text: String,
    },
    /// The address is neither a name nor a path.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The path is too long.
    #[error(transparent)]
    PathTooLong(#[from] PathTooLong),
    /// A list without a URI.
    #[error("no URI is given: there is {SCHEMES}")]
    Empty,
    /// More than [`MAX_URIS`] in one list.
    #[error("{0} URIs in one list, at most {MAX_URIS}")]
    TooMany(usize),
}

/// One address with its options. Printed, it reads as it is parsed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Uri {
    /// The way to the other end.
    pub transport: Transport,
    /// A name, or a path that begins with `/`; without escapes. For other transports `HOST:PORT`.
    pub address: String,
    /// Which end waits, where it is said.
    pub mode: Option<Mode>,
    /// The address of this host that a connection to another one leaves from, where it is said. It chooses the network
    /// interface, and with it the RDMA device.
    pub from: Option<IpAddr>,
}

impl Uri {
    /// The Unix socket `address`, a name or a path.
    pub fn unix(address: &str) -> Result<Self, UriError> {
        if address.starts_with('/') {
            check_length(address.as_ref())?;
            if address.contains('\0') {
                return Err(NameError::BadName { name: address.to_owned() }.into());
            }
        } else {
            check_name(address)?;
        }
        Ok(Self { transport: Transport::Unix, address: address.to_owned(), mode: None, from: None })
    }

    /// The host and port of another transport than Unix; an IPv6 address without its brackets.
    pub fn host(&self) -> Option<(&str, u16)> {
        if self.transport == Transport::Unix {
            return None;
        }
        let (host, port) = self.address.rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        Some((bare.unwrap_or(host), port.parse().ok()?))
    }

    /// The socket's path, for a subscriber ([`name::resolve`]).
    pub fn path(&self) -> Result<PathBuf, NameError> {
        name::resolve(&self.address)
    }
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let whole = || text.to_owned();
        // A scheme ends before anything that belongs to a path or an option.
        let scheme_end = text.find([':', '/', '?']).filter(|end| text[*end..].starts_with(':'));
        let (scheme, rest) = match scheme_end {
            Some(end) => (&text[..end], &text[end + 1..]),
            None if text.is_empty() => return Err(UriError::Empty),
            None => return Err(UriError::NoScheme { text: whole() }),
        };
        let transport = match Transport::from_scheme(scheme) {
            Some(transport) => transport,
            None => return Err(UriError::UnknownScheme { scheme: scheme.to_owned() }),
        };
        let (address, query) = match rest.split_once('?') {
            Some((address, query)) => (address, Some(query)),
            None => (rest, None),
        };
        let Options { mode, from } = query.map(parse_options).transpose()?.unwrap_or_default();
        if let Some(from) = from.filter(|_| transport == Transport::Unix || mode == Some(Mode::Listen)) {
            return Err(UriError::BadFrom { option: format!("from={from}") });
        }
        if transport != Transport::Unix {
            let bad = || UriError::BadHost { text: whole(), scheme: transport.scheme() };
            let address = address.strip_prefix("//").and_then(host_and_port).ok_or_else(bad)?;
            return Ok(Self { transport, address, mode, from });
        }
        let address = match address.strip_prefix("//") {
            Some(path) if path.starts_with('/') => path,
            Some(_) => return Err(UriError::HasHost { text: whole() }),
            None => address,
        };
        let address = unescape(address).ok_or_else(|| UriError::BadEscape { text: whole() })?;
        Ok(Self { mode, ..Self::unix(&address)? })
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In a path two slashes would read as the beginning of a host.
        let has_host = self.transport != Transport::Unix;
        let host = if has_host || self.address.starts_with("//") { "//" } else { "" };
        write!(f, "{}:{host}", self.transport.scheme())?;
        for character in self.address.chars() {
            if character.is_whitespace() || character.is_control() || "%?#".contains(character) {
                let mut utf8 = [0; 4];
                character.encode_utf8(&mut utf8).bytes().try_for_each(|byte| write!(f, "%{byte:02X}"))?;
            } else {
                f.write_char(character)?;
            }
        }
        let mode = self.mode.map(|mode| match mode {
            Mode::Listen => "mode=listen".to_owned(),
            Mode::Connect => "mode=connect".to_owned(),
        });
        let from = self.from.map(|from| format!("from={from}"));
        for (option, before) in mode.into_iter().chain(from).zip(["?", "&"]) {
            write!(f, "{before}{option}")?;
        }
        Ok(())
    }
}

/// What stands behind the question mark.
#[derive(Default)]
struct Options {
    mode: Option<Mode>,
    from: Option<IpAddr>,
}

fn parse_options(query: &str) -> Result<Options, UriError> {
    let mut options = Options::default();
    for option in query.split('&') {
        let unknown = || UriError::UnknownOption { option: option.to_owned() };
        let (name, value) = option.split_once('=').ok_or_else(unknown)?;
        let twice = match (name, value) {
            ("mode", "listen") => options.mode.replace(Mode::Listen).is_some(),
            ("mode", "connect") => options.mode.replace(Mode::Connect).is_some(),
            ("from", address) => {
                let bad = |_| UriError::BadFrom { option: option.to_owned() };
                options.from.replace(address.parse().map_err(bad)?).is_some()
            }
            _ => return Err(unknown()),
        };
        if twice {
            return Err(UriError::OptionTwice { option: name.to_owned() });
        }
    }
    Ok(options)
}

/// `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`, with the port.
fn host_and_port(text: &str) -> Option<String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (&text[..host.len() + 2], if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = (1..=MAX_HOST).contains(&host.len()) && host.bytes().all(good);
    if !is_name && !host.starts_with('[') {
        return None;
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
    };
    Some(format!("{host}:{port}"))
}

/// `text` with its escapes replaced, `None` where one is bad.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            bytes.push((high * 16 + low) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Several URIs, separated by spaces.
pub fn parse_list(text: &str) -> Result<Vec<Uri>, UriError> {
    let count = text.split_whitespace().count();
    match count {
        0 => Err(UriError::Empty),
        1..=MAX_URIS => text.split_whitespace().map(Uri::from_str).collect(),
        _ => Err(UriError::TooMany(count)),
    }
}

#[cfg(test)]
#[path = "uri_tests.rs"]
mod tests;
