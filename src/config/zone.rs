//! Zones as a Corefile writes them: names, address prefixes, and labels with scheme and port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::{Name, NameError};

/// Why a text is not a zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// Not a domain name.
    #[error("not a domain name: {0}")]
    Name(#[from] NameError),
    /// An address followed by a length its family does not have.
    #[error("a prefix length beyond {0}")]
    PrefixLength(u8),
    /// A label for a protocol other than plain DNS.
    #[error("{0}:// is not served, only plain DNS over UDP and TCP")]
    Scheme(String),
    /// Digits after the colon that are no port.
    #[error("not a port: {0}")]
    Port(String),
}

/// The zones of `cluster.local`, or of an address prefix.
///
/// A prefix that ends inside a label (an octet in IPv4, a nibble in IPv6) stands for every zone it
/// covers: `10.0.0.0/15` is `0.10.in-addr.arpa.` and `1.10.in-addr.arpa.`.
pub fn parse(text: &str) -> Result<Vec<Name>, ZoneError> {
    let prefix = text
        .split_once('/')
        .and_then(|(address, length)| Some((address.parse().ok()?, length.parse().ok()?)));
    match prefix {
        Some((address, length)) => reverse(address, length),
        None if text.is_empty() => Ok(vec![Name::root()]),
        None => Ok(vec![Name::from_text(text)?]),
    }
}

/// The zones and port of a server block's label: `[dns://]ZONE[:PORT]`.
pub fn parse_label(text: &str, default_port: u16) -> Result<(Vec<Name>, u16), ZoneError> {
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("dns") => rest,
        Some((scheme, _)) => return Err(ZoneError::Scheme(scheme.to_owned())),
        None => text,
    };
    // The last colon of `2001:db8::/32` is followed by more than digits.
    let (zone, port) = match rest.rsplit_once(':') {
        Some((zone, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => {
            let port = port.parse().map_err(|_| ZoneError::Port(port.to_owned()))?;
            (zone, port)
        }
        _ => (rest, default_port),
    };
    Ok((parse(zone)?, port))
}

fn reverse(address: IpAddr, length: u8) -> Result<Vec<Name>, ZoneError> {
    let (label_bits, address_bits) = match address {
        IpAddr::V4(_) => (8, 32),
        IpAddr::V6(_) => (4, 128),
    };
    if length > address_bits {
        return Err(ZoneError::PrefixLength(address_bits));
    }
    let whole = length.next_multiple_of(label_bits);
    let count = 1u128 << (whole - length);
    // At /0 the shift is as wide as the address.
    let step = 1u128.checked_shl(u32::from(address_bits - whole)).unwrap_or(0);
    let bits = match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let host = count.saturating_mul(step).wrapping_sub(1);
    let first = if length == 0 { 0 } else { bits & !host };
    let zone = |index| {
        let bits = first | (index * step);
        let address = match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(0))),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        };
        Name::reverse(address, whole)
    };
    Ok((0..count).filter_map(zone).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let (zones, port) = parse_label(text, 53).unwrap();
        zones.iter().map(|zone| format!("{zone}:{port}")).collect()
    }

    #[test]
    fn labels() {
        for (text, expected) in [
            (".", vec![".:53"]),
            (".:5353", vec![".:5353"]),
            (":54", vec![".:54"]),
            ("Cluster.Local", vec!["cluster.local.:53"]),
            ("dns://a.b:1", vec!["a.b.:1"]),
            ("10.0.0.0/8", vec!["10.in-addr.arpa.:53"]),
            ("10.0.0.0/8:54", vec!["10.in-addr.arpa.:54"]),
            ("10.3.0.0/15", vec!["2.10.in-addr.arpa.:53", "3.10.in-addr.arpa.:53"]),
            ("0.0.0.0/0", vec!["in-addr.arpa.:53"]),
            ("::/0", vec!["ip6.arpa.:53"]),
            ("2001:db8::/32", vec!["8.b.d.0.1.0.0.2.ip6.arpa.:53"]),
            ("2001:db8::/32:54", vec!["8.b.d.0.1.0.0.2.ip6.arpa.:54"]),
            ("2001:db8::/31", vec!["8.b.d.0.1.0.0.2.ip6.arpa.:53", "9.b.d.0.1.0.0.2.ip6.arpa.:53"]),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
        assert_eq!(parse("10.128.0.0/9").unwrap().len(), 128);
        assert_eq!(parse("0.0.0.0/1").unwrap().len(), 128);
        assert_eq!(parse("128.0.0.0/1").unwrap()[0].to_string(), "128.in-addr.arpa.");
    }

    #[test]
    fn what_is_no_label() {
        use ZoneError::*;
        let error = |text| parse_label(text, 53).unwrap_err();
        assert_eq!(error("tls://."), Scheme("tls".into()));
        assert_eq!(error("a:65536"), Port("65536".into()));
        assert_eq!(error("10.0.0.0/33"), PrefixLength(32));
        assert_eq!(error("a..b"), Name(NameError::EmptyLabel));
    }
}
