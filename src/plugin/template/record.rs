//! A record's text to wire octets.

use std::fmt;

use domain::base::record::ComposeRecord;
use domain::base::{Message, Name, ParsedName, iana::Class};
use domain::rdata::AllRecordData;
use domain::zonefile::inplace::{Entry, Zonefile};

/// Why a text is not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A zone file would not have it.
    #[error("{0}")]
    Syntax(String),
    /// Nothing but blanks and comments, or a directive of zone files.
    #[error("there is no record in it")]
    Missing,
}

/// The record that `text` spells as in a zone file (RFC 1035 §5.1), uncompressed. Names are absolute with or
/// without a final dot; class IN and a TTL of 3600 seconds may be left out.
pub(super) fn record(text: &str) -> Result<Vec<u8>, RecordError> {
    read(text).or_else(|error| match in_seconds(text) {
        Some(text) => read(&text),
        None => Err(error),
    })
}

fn read(text: &str) -> Result<Vec<u8>, RecordError> {
    // What the strict reading forbids is records of several classes in one file.
    let mut file = Zonefile::with_capacity(text.len() + 1).allow_invalid();
    file.set_origin(Name::root_bytes());
    file.set_default_class(Class::IN);
    file.extend_from_slice(text.as_bytes());
    file.extend_from_slice(b"\n");
    let entry = file.next_entry().map_err(|error| RecordError::Syntax(reason(&error)))?;
    let Some(Entry::Record(record)) = entry else { return Err(RecordError::Missing) };
    let mut wire = Vec::new();
    record.compose_record(&mut wire).map_err(|error| RecordError::Syntax(reason(&error)))?;
    if !is_whole(&wire) {
        return Err(RecordError::Syntax("a name with an empty label".into()));
    }
    Ok(wire)
}

/// `text` with times like `1h30m` in seconds, as BIND and CoreDNS take them and the library does not; `None`
/// without any.
fn in_seconds(text: &str) -> Option<String> {
    let mut found = false;
    let words = text.split(' ').enumerate().map(|(index, word)| match seconds(word) {
        Some(seconds) if index > 0 => {
            found = true;
            seconds.to_string()
        }
        _ => word.to_owned(),
    });
    let words: Vec<String> = words.collect();
    found.then(|| words.join(" "))
}

/// Numbers each with a unit.
fn seconds(word: &str) -> Option<u32> {
    let (mut total, mut rest) = (0_u32, word);
    while !rest.is_empty() {
        let (number, after) = rest.split_at_checked(rest.find(|c: char| !c.is_ascii_digit())?)?;
        let unit = match after.bytes().next()?.to_ascii_lowercase() {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u32>().ok()?.checked_mul(unit)?)?;
        rest = &after[1..];
    }
    (!word.is_empty()).then_some(total)
}

/// Whether `wire` reads as what was written. The library lets empty labels through, behind which octets would be
/// taken for something else.
fn is_whole(wire: &[u8]) -> bool {
    let header = [0, 0, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let again = || {
        let message = Message::from_octets([&header, wire].concat()).ok()?;
        let record = message.answer().ok()?.next()?.ok()?;
        let record = record.to_any_record::<AllRecordData<_, ParsedName<_>>>().ok()?;
        let mut again = Vec::new();
        record.compose_record(&mut again).ok()?;
        Some(again)
    };
    again().is_some_and(|again| again == wire)
}

/// Without the place, which counts in a file that nobody has.
fn reason(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let place = text.split_once(": ").filter(|(place, _)| place.starts_with(|c: char| c.is_ascii_digit()));
    place.map_or(text.as_str(), |(_, reason)| reason).to_owned()
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
            ("a.test. 60 IN HTTPS 1 . alpn=h2", 65, &[0, 1, 0, 0, 1, 0, 3, 2, b'h', b'2']),
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
        ] {
            assert!(matches!(record(text), Err(RecordError::Syntax(_))), "{text}");
        }
        for text in ["", " ; only this", "$INCLUDE /etc/passwd", "$ORIGIN test."] {
            assert_eq!(record(text), Err(RecordError::Missing), "{text}");
        }
    }

    #[test]
    fn the_reason_has_no_place() {
        assert_eq!(record("a. 60 IN A x"), Err(RecordError::Syntax("expected IPv4 address".into())));
    }
}
