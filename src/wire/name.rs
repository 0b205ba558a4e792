//! An owned, case-folded domain name in wire format (RFC 1035 §3.1).

use std::borrow::Borrow;
use std::fmt;
use std::net::IpAddr;

/// Longest name in octets, length octets and root included (RFC 1035 §2.3.4).
pub const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;

/// A domain name in lower case, as uncompressed wire octets that end with the root label.
///
/// Two names are equal when they are equal under DNS's ASCII case folding (RFC 4343).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

/// Why a text is not a domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Two dots in a row, or a leading dot.
    #[error("an empty label")]
    EmptyLabel,
    /// A label of more than 63 octets.
    #[error("a label longer than 63 octets")]
    LabelTooLong,
    /// More than 255 octets in all.
    #[error("longer than 255 octets")]
    TooLong,
    /// A `\` that is followed neither by one character nor by three digits below 256.
    #[error("a broken \\ escape")]
    BadEscape,
}

impl Name {
    /// The root, `.`.
    pub fn root() -> Name {
        Name(Box::new([0]))
    }

    /// Reads presentation format (RFC 1035 §5.1): `cluster.local`, `cluster.local.`, `.`, with
    /// `\.` and `\065` escapes. The name is always taken as absolute.
    pub fn from_text(text: &str) -> Result<Name, NameError> {
        let mut wire = Vec::with_capacity(text.len() + 2);
        let mut label: Vec<u8> = Vec::with_capacity(MAX_LABEL);
        let mut octets = text.bytes();
        if text == "." {
            return Ok(Name::root());
        }
        while let Some(octet) = octets.next() {
            match octet {
                b'.' => push_label(&mut wire, &mut label)?,
                b'\\' => label.push(unescape(&mut octets)?),
                other => label.push(other.to_ascii_lowercase()),
            }
        }
        if !label.is_empty() {
            push_label(&mut wire, &mut label)?;
        }
        if wire.is_empty() {
            return Err(NameError::EmptyLabel);
        }
        wire.push(0);
        if wire.len() > MAX_NAME {
            return Err(NameError::TooLong);
        }
        Ok(Name(wire.into_boxed_slice()))
    }

    /// The reverse zone of an address prefix, cut to whole labels (RFC 1035 §3.5, RFC 3596 §2.5).
    ///
    /// `10.0.0.0/8` gives `10.in-addr.arpa.`. Returns `None` when `prefix_len` is not a whole number
    /// of labels (octets in IPv4, nibbles in IPv6) or longer than the address.
    pub fn reverse(address: IpAddr, prefix_len: u8) -> Option<Name> {
        let text = match address {
            IpAddr::V4(v4) => {
                if prefix_len > 32 || !prefix_len.is_multiple_of(8) {
                    return None;
                }
                let kept = &v4.octets()[..usize::from(prefix_len / 8)];
                let labels: Vec<String> = kept.iter().rev().map(u8::to_string).collect();
                [labels, vec!["in-addr.arpa".into()]].concat().join(".")
            }
            IpAddr::V6(v6) => {
                if prefix_len > 128 || !prefix_len.is_multiple_of(4) {
                    return None;
                }
                let nibbles: Vec<String> = v6
                    .octets()
                    .iter()
                    .flat_map(|octet| [octet >> 4, octet & 15])
                    .take(usize::from(prefix_len / 4))
                    .map(|nibble| format!("{nibble:x}"))
                    .collect();
                let labels: Vec<String> = nibbles.into_iter().rev().collect();
                [labels, vec!["ip6.arpa".into()]].concat().join(".")
            }
        };
        Name::from_text(&text).ok()
    }

    /// The wire octets of `labels` followed by `suffix`, which ends with the root; both are wire octets
    /// themselves. `None` if that is longer than a name may be.
    pub fn join(labels: &[u8], suffix: &[u8]) -> Option<Box<[u8]>> {
        (labels.len() + suffix.len() <= MAX_NAME).then(|| [labels, suffix].concat().into())
    }

    /// The wire octets, lower case, root label included.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// How many labels there are before the root.
    pub fn label_count(&self) -> usize {
        labels(&self.0).count()
    }

    /// Whether `name`, folded wire octets as a [`Query`](super::Query) gives them, is this name or
    /// below it.
    #[inline(always)]
    pub fn contains(&self, name: &[u8]) -> bool {
        let Some((above, tail)) =
            name.len().checked_sub(self.0.len()).and_then(|at| name.split_at_checked(at))
        else {
            return false;
        };
        same_octets(tail, &self.0) && on_label_boundary(above)
    }
}

/// So that a map by names can be asked with octets.
impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Whether two slices are equal, by the vector or word: for short ones a call of the C library's `memcmp`
/// costs more, and musl's takes an octet at a time.
#[inline(always)]
pub fn same_octets(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && same_by::<16>(one, other)
            .or_else(|| same_by::<8>(one, other))
            .unwrap_or_else(|| one.iter().zip(other).all(|(one, other)| one == other))
}

/// The answer of [`same_octets`], unless there are fewer than `N` octets. What does not fill `N` is compared
/// together with some before, and first: names that differ mostly do so at their ends.
#[inline(always)]
fn same_by<const N: usize>(one: &[u8], other: &[u8]) -> Option<bool> {
    let (one_last, other_last) = (one.last_chunk::<N>()?, other.last_chunk::<N>()?);
    let mut pairs = one.as_chunks::<N>().0.iter().zip(other.as_chunks::<N>().0);
    Some(one_last == other_last && pairs.all(|(one, other)| one == other))
}

/// Copies `from` to `to`, which is as long: names by two vectors or words that may overlap, for the same reasons.
#[inline(always)]
pub(super) fn copy_octets(to: &mut [u8], from: &[u8]) {
    if !copy_by::<32>(to, from)
        && !copy_by::<16>(to, from)
        && !copy_by::<64>(to, from)
        && !copy_by::<8>(to, from)
    {
        to.copy_from_slice(from);
    }
}

/// Does what [`copy_octets`] does if there are between `N` and two times `N` octets.
#[inline(always)]
fn copy_by<const N: usize>(to: &mut [u8], from: &[u8]) -> bool {
    if from.len() > 2 * N {
        return false;
    }
    let (Some(first), Some(last)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) else {
        return false;
    };
    let Some(to_first) = to.first_chunk_mut::<N>() else { return false };
    *to_first = *first;
    let Some(to_last) = to.last_chunk_mut::<N>() else { return false };
    *to_last = *last;
    true
}

/// Whether `above`, the front of an uncompressed name, ends with a whole label.
#[inline(always)]
fn on_label_boundary(above: &[u8]) -> bool {
    let mut at = 0;
    while let Some(len) = above.get(at) {
        at += 1 + usize::from(*len);
    }
    at == above.len()
}

/// The labels of an uncompressed wire name, without the root.
fn labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let len = usize::from(*wire.get(at)?);
        if len == 0 {
            return None;
        }
        let label = wire.get(at + 1..at + 1 + len)?;
        at += 1 + len;
        Some(label)
    })
}

fn push_label(wire: &mut Vec<u8>, label: &mut Vec<u8>) -> Result<(), NameError> {
    let len = match u8::try_from(label.len()) {
        Ok(0) => return Err(NameError::EmptyLabel),
        Ok(len) if usize::from(len) <= MAX_LABEL => len,
        _ => return Err(NameError::LabelTooLong),
    };
    wire.push(len);
    wire.append(label);
    Ok(())
}

fn unescape(octets: &mut std::str::Bytes<'_>) -> Result<u8, NameError> {
    let first = octets.next().ok_or(NameError::BadEscape)?;
    if !first.is_ascii_digit() {
        return Ok(first.to_ascii_lowercase());
    }
    let mut value = u16::from(first - b'0');
    for _ in 0..2 {
        let digit = octets.next().filter(u8::is_ascii_digit).ok_or(NameError::BadEscape)?;
        value = value * 10 + u16::from(digit - b'0');
    }
    let octet = u8::try_from(value).map_err(|_| NameError::BadEscape)?;
    Ok(octet.to_ascii_lowercase())
}

/// Writes an uncompressed wire name in presentation format, the final dot included.
///
/// Dots and backslashes inside a label and everything outside printable ASCII are escaped.
pub fn write_text(wire: &[u8], out: &mut impl fmt::Write) -> fmt::Result {
    let mut any = false;
    for label in labels(wire) {
        any = true;
        for &octet in label {
            match octet {
                b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                    out.write_char('\\')?;
                    out.write_char(char::from(octet))?;
                }
                b'!'..=b'~' => out.write_char(char::from(octet))?,
                _ => write!(out, "\\{octet:03}")?,
            }
        }
        out.write_char('.')?;
    }
    if any { Ok(()) } else { out.write_char('.') }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(&self.0, f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_text(text).unwrap()
    }

    #[test]
    fn text_round_trips_in_lower_case() {
        for (text, shown) in [
            (".", "."),
            ("Cluster.Local", "cluster.local."),
            ("cluster.local.", "cluster.local."),
            (r"a\.b.c", r"a\.b.c."),
            (r"\255x.\000", r"\255x.\000."),
        ] {
            assert_eq!(name(text).to_string(), shown);
            assert_eq!(name(&name(text).to_string()), name(text));
        }
    }

    #[test]
    fn broken_text_is_refused() {
        assert_eq!(Name::from_text(""), Err(NameError::EmptyLabel));
        assert_eq!(Name::from_text("a..b"), Err(NameError::EmptyLabel));
        assert_eq!(Name::from_text(".a"), Err(NameError::EmptyLabel));
        assert_eq!(Name::from_text(&"a".repeat(64)), Err(NameError::LabelTooLong));
        assert_eq!(Name::from_text(&"a.".repeat(128)), Err(NameError::TooLong));
        assert_eq!(Name::from_text(r"a\25"), Err(NameError::BadEscape));
        assert_eq!(Name::from_text(r"a\256"), Err(NameError::BadEscape));
    }

    #[test]
    fn octets_of_any_number_are_copied_and_compared() {
        let from: Vec<u8> = (0..=255).collect();
        for len in 0..from.len() {
            let mut to = vec![7; len];
            copy_octets(&mut to, &from[..len]);
            assert!(to == from[..len] && same_octets(&to, &from[..len]), "{len} octets");
            for at in 0..len {
                to[at] ^= 1;
                assert!(!same_octets(&to, &from[..len]), "octet {at} of {len}");
                to[at] ^= 1;
            }
        }
    }

    #[test]
    fn contains_respects_label_boundaries() {
        let zone = name("local.");
        assert!(zone.contains(name("cluster.local").as_wire()));
        assert!(zone.contains(name("local").as_wire()));
        assert!(!zone.contains(name("xlocal").as_wire()));
        assert!(!zone.contains(name("locals").as_wire()));
        // `\005local` as the tail of one label has the zone's octets but is not below the zone.
        assert!(!zone.contains(name(r"a\005local").as_wire()));
        assert!(Name::root().contains(name("a.b").as_wire()));
        assert!(Name::root().contains(&[0]));
    }

    #[test]
    fn reverse_zones() {
        let reverse = |ip: &str, len| Name::reverse(ip.parse().unwrap(), len).map(|n| n.to_string());
        assert_eq!(reverse("10.1.2.3", 8).unwrap(), "10.in-addr.arpa.");
        assert_eq!(reverse("10.1.2.3", 32).unwrap(), "3.2.1.10.in-addr.arpa.");
        assert_eq!(reverse("2001:db8::", 32).unwrap(), "8.b.d.0.1.0.0.2.ip6.arpa.");
        assert_eq!(reverse("10.0.0.0", 9), None);
    }
}
