//! A record's text to wire octets.

use domain::base::iana::{Class, Rtype};
use domain::base::scan::{IterScanner, Scanner, StrError, Symbols};
use domain::base::{Name, UnknownRecordData, rdata::ComposeRecordData};
use domain::rdata::{A, Aaaa, Caa, Cname, Dname, Ds, Hinfo, Mx, Naptr, Ns, Ptr, Soa, Srv, Sshfp, Tlsa, Txt};

use crate::plugin::draft;

/// Why a text is not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A zone file would not have it.
    #[error("{0}")]
    Syntax(String),
    /// A type that must be written in another way.
    #[error("data of type {0} must be written as \\# LENGTH HEXADECIMAL (RFC 3597)")]
    Type(Rtype),
    /// Nothing but blanks and comments.
    #[error("there is no record in it")]
    Missing,
}

impl From<StrError> for RecordError {
    fn from(error: StrError) -> RecordError {
        RecordError::Syntax(error.to_string())
    }
}

/// Where the library reads from.
type Words = IterScanner<std::vec::IntoIter<String>, Vec<u8>>;

/// When the text says nothing else, as in CoreDNS; seconds.
const TTL: u32 = 3600;

/// The record that `text` spells as in a zone file (RFC 1035 §5.1), uncompressed. Names are absolute with or
/// without a final dot; class IN and a TTL of 3600 seconds may be left out.
pub(super) fn record(text: &str) -> Result<Vec<u8>, RecordError> {
    let mut words =
        words(text).ok_or_else(|| syntax("quotes, parentheses or escapes are broken"))?.into_iter();
    let owner = words.next().ok_or(RecordError::Missing)?;
    let owner = if owner == "@" { ".".to_owned() } else { owner };
    let owner = IterScanner::<_, Vec<u8>>::new([owner]).scan_name()?;
    let (mut ttl, mut class) = (TTL, Class::IN);
    let rtype = loop {
        let word = words.next().ok_or_else(|| syntax("the type is missing"))?;
        if let Some(seconds) = seconds(&word) {
            ttl = seconds;
        } else if let Some(known) = Class::from_mnemonic(word.to_ascii_uppercase().as_bytes()) {
            class = known;
        } else {
            break word.parse::<Rtype>().map_err(|_| syntax("expected a type"))?;
        }
    };
    let rest: Vec<String> = words.collect();
    let data = if rest.first().is_some_and(|marker| marker == "\\#") {
        let mut scanner = Words::new(rest);
        composed(UnknownRecordData::scan(rtype, &mut scanner)?)
    } else {
        // Times in an SOA have units, too.
        let in_seconds = |word: String| match seconds(&word) {
            Some(seconds) if rtype == Rtype::SOA => seconds.to_string(),
            _ => word,
        };
        let mut scanner = Words::new(rest.into_iter().map(in_seconds).collect::<Vec<_>>());
        let data = data(rtype, &mut scanner)?;
        if scanner.continues() {
            return Err(syntax("too many words"));
        }
        data
    };
    Ok(draft::record_of(owner.as_slice(), rtype.to_int(), class.to_int(), ttl, &data))
}

/// The data of a record of type `rtype`.
fn data(rtype: Rtype, words: &mut Words) -> Result<Vec<u8>, RecordError> {
    Ok(match rtype {
        Rtype::A => composed(A::scan(words).map_err(|_| syntax("expected IPv4 address"))?),
        Rtype::AAAA => composed(Aaaa::scan(words).map_err(|_| syntax("expected IPv6 address"))?),
        Rtype::CAA => composed(Caa::scan(words)?),
        Rtype::CNAME => composed(Cname::<Name<Vec<u8>>>::scan(words)?),
        Rtype::DNAME => composed(Dname::<Name<Vec<u8>>>::scan(words)?),
        Rtype::DS => composed(Ds::scan(words)?),
        Rtype::HINFO => composed(Hinfo::scan(words)?),
        Rtype::MX => composed(Mx::scan(words)?),
        Rtype::NAPTR => composed(Naptr::scan(words)?),
        Rtype::NS => composed(Ns::<Name<Vec<u8>>>::scan(words)?),
        Rtype::PTR => composed(Ptr::<Name<Vec<u8>>>::scan(words)?),
        Rtype::SOA => composed(Soa::scan(words)?),
        Rtype::SRV => composed(Srv::scan(words)?),
        Rtype::SSHFP => composed(Sshfp::scan(words)?),
        Rtype::TLSA => composed(Tlsa::scan(words)?),
        Rtype::TXT => composed(Txt::scan(words)?),
        other => return Err(RecordError::Type(other)),
    })
}

fn composed(data: impl ComposeRecordData) -> Vec<u8> {
    let mut wire = Vec::new();
    // A Vec takes everything.
    let _ = data.compose_rdata(&mut wire);
    wire
}

fn syntax(reason: &str) -> RecordError {
    RecordError::Syntax(reason.to_owned())
}

/// The words of one record, quotes, parentheses and comments taken off; escapes stay. `None`: broken.
fn words(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word): (Vec<String>, Option<String>) = (Vec::new(), None);
    let (mut quoted, mut depth) = (false, 0_usize);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => word.get_or_insert_default().extend(['\\', rest.next()?]),
            '"' => {
                quoted = !quoted;
                words.extend(word.take());
                word = quoted.then(String::new);
            }
            _ if quoted => word.get_or_insert_default().push(c),
            ';' => {
                words.extend(word.take());
                rest.by_ref().find(|c| *c == '\n');
            }
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            _ if c.is_whitespace() => {}
            _ => {
                word.get_or_insert_default().push(c);
                continue;
            }
        }
        if !quoted && c != '\\' {
            words.extend(word.take());
        }
    }
    words.extend(word);
    let is_sound = |word: &String| {
        let mut symbols = Symbols::new(word.chars());
        symbols.by_ref().for_each(drop);
        word == "\\#" || symbols.ok().is_ok()
    };
    (!quoted && depth == 0 && words.iter().all(is_sound)).then_some(words)
}

/// Numbers each with a unit, of which the last may lack its own, as BIND and CoreDNS take them: `90`, `1h30m`,
/// `1m30`.
fn seconds(word: &str) -> Option<u32> {
    let (mut total, mut rest) = (0_u32, word);
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(digits)?;
        let unit = match after.bytes().next().map(|unit| unit.to_ascii_lowercase()) {
            None | Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3600,
            Some(b'd') => 86_400,
            Some(b'w') => 604_800,
            Some(_) => return None,
        };
        total = total.checked_add(number.parse::<u32>().ok()?.checked_mul(unit)?)?;
        rest = after.get(1..).unwrap_or_default();
        if rest.is_empty() {
            return Some(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_types_have_their_octets() {
        for (text, rtype, rdata) in [
            ("a.test. 60 IN A 1.2.3.4", 1, &[1, 2, 3, 4][..]),
            ("a.test 60 A 1.2.3.4 ; said so", 1, &[1, 2, 3, 4]),
            ("a.test 60 CNAME B_b.", 5, &[3, b'B', b'_', b'b', 0]),
            ("a.test. 60 IN TXT \"x y\" z", 16, &[3, b'x', b' ', b'y', 1, b'z']),
            ("a.test. 60 IN SRV 1 2 80 b", 33, &[0, 1, 0, 2, 0, 80, 1, b'b', 0]),
            ("a.test. 60 IN MX ( 10 b. )", 15, &[0, 10, 1, b'b', 0]),
            ("a.test. 60 IN TYPE65280 \\# 2 abcd", 65280, &[0xab, 0xcd]),
            ("a.test. 60 IN HTTPS \\# 10 000100000100030268 32", 65, &[0, 1, 0, 0, 1, 0, 3, 2, b'h', b'2']),
        ] {
            let wire = record(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let head: &[u8] = &[1, b'a', 4, b't', b'e', b's', b't', 0];
            let [high, low] = u16::to_be_bytes(rtype);
            let length = u8::try_from(rdata.len()).unwrap_or_default();
            assert_eq!(wire, [head, &[high, low, 0, 1, 0, 0, 0, 60, 0, length], rdata].concat(), "{text}");
        }
    }

    #[test]
    fn class_and_ttl_may_be_left_out() {
        assert_eq!(record("a CNAME b"), record("a. 3600 IN CNAME b."));
        assert_ne!(record("a CH CNAME b"), record("a CNAME b"));
        assert!(record("a CH TXT b").is_ok());
    }

    proptest::proptest! {
        /// Parts of it come from clients.
        #[test]
        fn no_text_is_too_strange(text in "(a[.]? 60 (A|TXT|CNAME|SOA|SVCB|CAA|NSEC|IPSECKEY|TYPE9) )?[ -~\\n\\t\"();\\\\$é]{0,60}") {
            let _ = record(&text);
        }

        #[test]
        fn every_name_is_a_name(labels in proptest::collection::vec(proptest::collection::vec(0..=255_u8, 1..=63), 0..4)) {
            let wire: Vec<u8> = labels.iter().flat_map(|label| [&[label.len() as u8], &label[..]].concat()).chain([0]).collect();
            proptest::prop_assume!(wire.len() <= 255);
            let mut name = String::new();
            let _ = crate::wire::write_text(&wire, &mut name);
            let made = record(&format!("{name} 60 IN CNAME {name}"));
            proptest::prop_assert_eq!(made, Ok(crate::plugin::draft::record(&wire, 5, 60, &wire)));
        }
    }

    #[test]
    fn times_may_have_units() {
        assert_eq!(record("a. 1h30m IN A 1.2.3.4"), record("a. 5400 IN A 1.2.3.4"));
        assert_eq!(record("a. 1m30 IN A 1.2.3.4"), record("a. 90 IN A 1.2.3.4"));
        assert_eq!(record("a. 5M SOA a. b. 1 1w 1D 3s 4"), record("a. 300 SOA a. b. 1 604800 86400 3 4"));
        assert_eq!(record("1h 5 CNAME 1h").ok().map(|wire| wire.len()), Some(18));
        for text in ["a. 1y A 1.2.3.4", "a. h A 1.2.3.4", "a. 9999999w A 1.2.3.4", "a. 1h A 1.2.3"] {
            assert!(record(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        for text in [
            "a. 60 IN A 1.2.3",
            "a. 60 IN A <no value>",
            "a. 60 IN NOTHING x",
            "a..b. A 1.2.3.4",
            "a. MX 1 b..c",
            "a. TXT \"",
            "a. MX (1 b",
            "a. TXT \\300",
            "a. A 1.2.3.4 5",
            "$INCLUDE /etc/passwd",
            "a",
        ] {
            assert!(matches!(record(text), Err(RecordError::Syntax(_))), "{text}");
        }
        for text in ["", " ; only this"] {
            assert_eq!(record(text), Err(RecordError::Missing), "{text}");
        }
        assert_eq!(record("a. 60 IN LOC 1"), Err(RecordError::Type(Rtype::LOC)));
    }
}
