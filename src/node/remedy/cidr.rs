//! A range of addresses: a network and the length of its prefix.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address range such as `10.244.0.0/16`, without bits beyond the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    network: IpAddr,
    length: u8,
}

impl Cidr {
    /// The range of `length` bits that `address` is in; `None` if it has fewer bits.
    pub fn new(address: IpAddr, length: u8) -> Option<Cidr> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let beyond = u32::from(bits - length.min(bits));
        let network = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(beyond).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(beyond).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        };
        (length <= bits).then_some(Cidr { network, length })
    }

    /// The range of this one address.
    pub fn host(address: IpAddr) -> Cidr {
        let length = if address.is_ipv4() { 32 } else { 128 };
        Cidr { network: address, length }
    }

    /// The first address.
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// The prefix's length in bits.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether it is IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.network.is_ipv4()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

impl FromStr for Cidr {
    type Err = String;

    /// Takes what stands beyond the prefix for zero, as `ip` and `iptables` do.
    fn from_str(text: &str) -> Result<Cidr, String> {
        let wrong = || format!("{text:?} is no address range: write one such as 10.244.0.0/16 or fd00::/48");
        let (address, length) = text.trim().split_once('/').ok_or_else(wrong)?;
        let (address, length) = (address.parse().map_err(|_| wrong())?, length.parse().map_err(|_| wrong())?);
        Cidr::new(address, length).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_shown() {
        for (text, shown) in [
            ("10.244.1.7/16", "10.244.0.0/16"),
            ("10.244.1.7/32", "10.244.1.7/32"),
            ("10.244.1.7/0", "0.0.0.0/0"),
            ("fd00:1:2:3::9/64", "fd00:1:2:3::/64"),
            ("fd00::9/0", "::/0"),
            (" 10.0.0.0/9 ", "10.0.0.0/9"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), shown);
        }
        for wrong in ["10.244.0.0", "10.244.0.0/33", "fd00::/129", "10.244/16", "", "/", "a/8", "10.0.0.0/x"]
        {
            assert!(wrong.parse::<Cidr>().unwrap_err().contains("no address range"), "{wrong}");
        }
    }
}
