//! Who may come over a network.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Networks in one list.
pub const MAX_NETWORKS: usize = 64;

/// Some text is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network: write an address, or one with a prefix as 10.0.0.0/8 or fd00::/8")]
pub struct NotANetwork(pub String);

/// An address with a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` is in it. An IPv4 address in the clothes of IPv6 is taken for what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = |bits: u8| u32::from(bits - self.prefix);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                let differ = net.to_bits() ^ address.to_bits();
                differ.checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                let differ = net.to_bits() ^ address.to_bits();
                differ.checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let wrong = || NotANetwork(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => whole,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|prefix| *prefix <= whole).ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
        };
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The networks from which somebody may come; while none is named, this host alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Vec<Network>);

impl AllowList {
    /// Those of these networks; at most [`MAX_NETWORKS`].
    pub fn new(networks: impl IntoIterator<Item = Network>) -> Self {
        Self(networks.into_iter().take(MAX_NETWORKS).collect())
    }

    /// The networks in a text, separated by spaces or commas.
    ///
    /// # Errors
    /// [`NotANetwork`] for the first that is none.
    pub fn parse(text: &str) -> Result<Self, NotANetwork> {
        let words = text.split([' ', ',']).filter(|word| !word.is_empty());
        Ok(Self::new(words.map(Network::from_str).collect::<Result<Vec<_>, _>>()?))
    }

    /// Whether somebody at `address` may come.
    pub fn admits(&self, address: IpAddr) -> bool {
        match self.0.is_empty() {
            true => address.to_canonical().is_loopback(),
            false => self.0.iter().any(|network| network.contains(address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(list: &[&str], address: &str) -> bool {
        let networks = list.iter().map(|text| text.parse().expect("a network"));
        AllowList::new(networks).admits(address.parse().expect("an address"))
    }

    #[test]
    fn without_a_network_only_this_host_may_come() {
        assert!(admits(&[], "127.0.0.1") && admits(&[], "::1") && admits(&[], "::ffff:127.9.9.9"));
        assert!(!admits(&[], "10.0.0.1") && !admits(&[], "fe80::1") && !admits(&[], "0.0.0.0"));
    }

    #[test]
    fn a_network_is_what_its_prefix_says() {
        assert!(admits(&["10.1.2.0/23"], "10.1.3.255") && !admits(&["10.1.2.0/23"], "10.1.4.0"));
        assert!(admits(&["10.1.2.3"], "10.1.2.3") && !admits(&["10.1.2.3"], "10.1.2.2"));
        assert!(admits(&["0.0.0.0/0"], "255.1.1.1") && !admits(&["0.0.0.0/0"], "::1"));
        assert!(admits(&["::/0"], "fd00::1") && !admits(&["::/0"], "1.2.3.4"));
        assert!(admits(&["fd00::/127"], "fd00::1") && !admits(&["fd00::/127"], "fd00::2"));
        assert!(admits(&["10.0.0.0/8"], "::ffff:10.1.1.1"), "as a socket of both kinds shows it");
        assert!(!admits(&["10.0.0.0/8"], "127.0.0.1"), "this host is not in every list");
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8", "host", "10.0.0/8"]
        {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        assert_eq!(AllowList::parse(""), Ok(AllowList::default()));
        assert!(AllowList::parse("10.0.0.0/8, ::1").unwrap().admits("::1".parse().unwrap()));
        assert_eq!(AllowList::parse("10.0.0.0/8 x"), Err(NotANetwork("x".to_owned())));
        assert_eq!("10.0.0.0/8".parse::<Network>().unwrap().to_string(), "10.0.0.0/8");
        assert_eq!("::1".parse::<Network>().unwrap().to_string(), "::1/128");
    }
}
