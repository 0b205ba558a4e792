//! The names and addresses of a hosts file.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::Name;

/// Which name has which addresses, and the other way round, in the file's order. What stands in it twice is
/// in it twice.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    names: HashMap<Name, Addresses, foldhash::fast::RandomState>,
    addresses: HashMap<IpAddr, Vec<Name>, foldhash::fast::RandomState>,
    entries: usize,
    /// What could not be read.
    pub broken: Broken,
}

/// Lines with something in them that is no entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Broken {
    /// The number of the first, from 1, and what it is about.
    pub first: Option<(usize, String)>,
    /// How many there are besides.
    pub others: usize,
}

/// The addresses of a name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    pub v4: Vec<Ipv4Addr>,
    pub v6: Vec<Ipv6Addr>,
}

impl Table {
    /// Reads lines `ADDRESS NAME...`; `#` begins a comment. Names outside `zones` are left out, and so is what
    /// is neither address nor name.
    pub fn parse(text: &[u8], zones: &[Name], reverse: bool) -> Table {
        let mut table = Table::default();
        for (number, line) in (1..).zip(text.split(|octet| *octet == b'\n')) {
            let line = line.split(|octet| *octet == b'#').next().unwrap_or_default();
            let read = match std::str::from_utf8(line) {
                Ok(line) => table.read(line, zones, reverse),
                Err(_) => Err("it is not UTF-8".to_owned()),
            };
            if let Err(reason) = read {
                match table.broken.first {
                    Some(_) => table.broken.others += 1,
                    None => table.broken.first = Some((number, reason)),
                }
            }
        }
        table
    }

    /// Reads a line; `Err` says what in it is left out.
    fn read(&mut self, line: &str, zones: &[Name], reverse: bool) -> Result<(), String> {
        let is_not = |word: &str, what: &str| {
            let word: String = word.chars().take(64).collect();
            format!("`{word}` is not {what}")
        };
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { return Ok(()) };
        let address = address(first).ok_or_else(|| is_not(first, "an address"))?;
        let mut result = Ok(());
        for word in words {
            match Name::from_text(word) {
                Ok(name) if zones.iter().any(|zone| zone.contains(name.as_wire())) => {
                    self.insert(address, name, reverse);
                }
                Ok(_) => {}
                Err(_) => result = result.and_then(|()| Err(is_not(word, "a name"))),
            }
        }
        result
    }

    fn insert(&mut self, address: IpAddr, name: Name, reverse: bool) {
        self.entries += 1;
        if reverse {
            self.entries += 1;
            self.addresses.entry(address).or_default().push(name.clone());
        }
        let addresses = self.names.entry(name).or_default();
        match address {
            IpAddr::V4(v4) => addresses.v4.push(v4),
            IpAddr::V6(v6) => addresses.v6.push(v6),
        }
    }

    /// The addresses of `name`, folded wire octets; `None`: it is not there.
    pub fn addresses(&self, name: &[u8]) -> Option<&Addresses> {
        self.names.get(name)
    }

    /// The names of `address`.
    pub fn names(&self, address: IpAddr) -> &[Name] {
        self.addresses.get(&address).map(Vec::as_slice).unwrap_or_default()
    }

    /// Addresses of names and names of addresses.
    pub fn len(&self) -> usize {
        self.entries
    }
}

/// An address less its IPv6 zone; one that stands for IPv4 (RFC 4291 §2.5.5.2) is one.
pub(in crate::plugin) fn address(text: &str) -> Option<IpAddr> {
    let text = text.split('%').next()?;
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// The address whose reverse name is `name`, folded wire octets (RFC 1035 §3.5, RFC 3596 §2.5).
pub(super) fn reversed(name: &[u8]) -> Option<IpAddr> {
    let mut labels = Vec::new();
    let mut at = 0;
    while let length @ 1.. = usize::from(*name.get(at)?) {
        labels.push(std::str::from_utf8(name.get(at + 1..at + 1 + length)?).ok()?);
        at += 1 + length;
    }
    let text = match labels.as_slice() {
        [d, c, b, a, "in-addr", "arpa"] => [*a, *b, *c, *d].join("."),
        [nibbles @ .., "ip6", "arpa"] if nibbles.len() == 32 => {
            let groups = nibbles.rchunks(4).map(|group| group.iter().rev().copied().collect::<String>());
            groups.collect::<Vec<_>>().join(":")
        }
        _ => return None,
    };
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        Table::parse(text.as_bytes(), &[Name::root()], true)
    }

    fn name(text: &str) -> Name {
        Name::from_text(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn order_and_repetitions_stay() {
        let table = table("10.0.0.2 a.test\n10.0.0.1\tA.test. b.test # two\r\n10.0.0.2 a.test");
        let found = table.addresses(name("a.test").as_wire()).map(|addresses| addresses.v4.clone());
        assert_eq!(found, Some([[10, 0, 0, 2], [10, 0, 0, 1], [10, 0, 0, 2]].map(Ipv4Addr::from).to_vec()));
        assert_eq!(table.names([10, 0, 0, 1].into()), [name("a.test"), name("b.test")]);
        assert_eq!(table.len(), 8);
    }

    #[test]
    fn addresses_in_other_spellings() {
        let table =
            table("::ffff:10.0.0.1 mapped\nfe80::1%eth0 scoped\n010.0.0.1 octal\nname 10.0.0.1\n10.0.0.9");
        assert_eq!(table.addresses(name("mapped").as_wire()).map(|found| found.v4.len()), Some(1));
        assert_eq!(table.addresses(name("scoped").as_wire()).map(|found| found.v6.len()), Some(1));
        assert_eq!(table.len(), 4);
    }

    #[test]
    fn what_is_no_entry_is_named() {
        let broken = table("\n# a\n10.0.0.1\nno a\n10.0.0.1 a..b c\n10.0.0.2 a\n10.0.0.3 \\1 \\2").broken;
        assert_eq!(broken, Broken { first: Some((4, "`no` is not an address".into())), others: 2 });
        assert_eq!(table("10.0.0.2 a\n\r\n").broken, Broken::default());
        let octets = Table::parse(b"10.0.0.1 a\xff b", &[Name::root()], false);
        assert_eq!((octets.len(), octets.broken.first.is_some()), (0, true));
    }

    #[test]
    fn names_elsewhere_are_left_out() {
        let table = Table::parse(b"10.0.0.1 a.test a.elsewhere", &[name("test")], false);
        assert_eq!((table.len(), table.names([10, 0, 0, 1].into())), (1, &[][..]));
    }

    #[test]
    fn reverse_names() {
        let of = |text: &str| reversed(name(text).as_wire());
        assert_eq!(of("4.3.2.1.in-addr.arpa"), Some([1, 2, 3, 4].into()));
        let v6 = Name::reverse("2001:db8::1".parse().unwrap_or(IpAddr::from([0; 16])), 128);
        assert_eq!(v6.and_then(|name| reversed(name.as_wire())), "2001:db8::1".parse().ok());
        let mapped = Name::reverse("::ffff:1.2.3.4".parse().unwrap_or(IpAddr::from([0; 16])), 128);
        assert_eq!(mapped.and_then(|name| reversed(name.as_wire())), Some([1, 2, 3, 4].into()));
        for text in ["3.2.1.in-addr.arpa", "5.4.3.2.1.in-addr.arpa", "256.3.2.1.in-addr.arpa", "a.test"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
