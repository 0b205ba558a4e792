//! The little this module adds to [`wire`](crate::wire): telling an answer from noise.

use crate::wire::{self, Flags, HEADER, Rcode, same_question};

/// A query to be sent upstream, with what is needed to recognise its answer.
pub(super) struct Query<'a> {
    message: &'a [u8],
    parsed: wire::Query<'a>,
}

impl<'a> Query<'a> {
    /// `None` unless the message is a whole query.
    pub(super) fn new(message: &'a [u8]) -> Option<Query<'a>> {
        Some(Query { message, parsed: wire::Query::parse(message).ok()? })
    }

    pub(super) fn message(&self) -> &'a [u8] {
        self.message
    }

    /// Name, type and class.
    pub(super) fn question(&self) -> &'a [u8] {
        self.parsed.question()
    }

    /// Whether `reply`, whose id is already known to be right, answers this query.
    pub(super) fn is_answered_by(&self, reply: &[u8]) -> bool {
        answers(reply, self.question())
    }

    /// Whether `reply` comes from a server that does not know EDNS: an error without an OPT, for which
    /// no additional record at all speaks well enough (RFC 6891 §7).
    pub(super) fn edns_is_rejected_by(&self, reply: &[u8]) -> bool {
        self.parsed.edns().is_some()
            && [Rcode::FORMERR, Rcode::NOTIMP].contains(&Flags::of(reply).rcode())
            && reply.get(10..HEADER) == Some(&[0, 0])
    }

    /// The same message without its OPT record.
    pub(super) fn without_opt(&self) -> Vec<u8> {
        self.parsed.without_opt()
    }
}

/// Whether `reply`, whose id is already known to be right, answers `question` (RFC 5452 §9.1). Any
/// response answers an empty one.
///
/// The name is compared without regard to case: some servers answer in their own.
pub(super) fn answers(reply: &[u8], question: &[u8]) -> bool {
    if !is_response(reply) || question.is_empty() {
        return is_response(reply);
    }
    match reply.get(4..6) {
        Some([0, 1]) => {
            reply.get(HEADER..HEADER + question.len()).is_some_and(|theirs| same_question(theirs, question))
        }
        // Servers that cannot or will not read the query leave the question out.
        Some([0, 0]) => {
            let rcode = Flags::of(reply).rcode();
            [Rcode::FORMERR, Rcode::SERVFAIL, Rcode::NOTIMP, Rcode::REFUSED].contains(&rcode)
        }
        _ => false,
    }
}

/// The message's id; 0 if there is none.
pub(super) fn id(message: &[u8]) -> u16 {
    message.first_chunk().map_or(0, |id| u16::from_be_bytes(*id))
}

/// Overwrites the message's id.
pub(super) fn set_id(message: &mut [u8], id: u16) {
    if let Some(field) = message.first_chunk_mut() {
        *field = id.to_be_bytes();
    }
}

/// The header's response code, without the four bits EDNS adds.
pub(super) fn rcode(message: &[u8]) -> u16 {
    Flags::of(message).rcode().0
}

/// Whether this is a reply and not a query.
pub(super) fn is_response(message: &[u8]) -> bool {
    message.len() >= HEADER && Flags::of(message).has(Flags::QR)
}

/// Whether TC is set.
pub(super) fn is_truncated(message: &[u8]) -> bool {
    Flags::of(message).has(Flags::TC)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPT: [u8; 11] = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];

    /// A message about `name` (one label), with the given header words and tail.
    fn message(flags: u16, name: &[u8], kind: u16, additional: u16, tail: &[u8]) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd];
        for word in [flags, 1, 0, 0, additional] {
            message.extend(word.to_be_bytes());
        }
        message.push(u8::try_from(name.len()).unwrap());
        message.extend(name);
        message.push(0);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message.extend(tail);
        message
    }

    #[test]
    fn an_answer_repeats_the_question() {
        let sent = message(0x0100, b"name", 65, 0, &[]);
        let query = Query::new(&sent).unwrap();
        let reply = |name: &[u8], kind| message(0x8180, name, kind, 0, &[]);
        assert!(query.is_answered_by(&reply(b"name", 65)));
        assert!(query.is_answered_by(&reply(b"NaMe", 65)));
        assert!(!query.is_answered_by(&reply(b"nama", 65)));
        // 0x41 and 0x61 are `A` and `a`, but types 65 and 97.
        assert!(!query.is_answered_by(&reply(b"name", 97)));
        assert!(!query.is_answered_by(&message(0x0100, b"name", 65, 0, &[])));
        let mut chaos = reply(b"name", 65);
        *chaos.last_mut().unwrap() = 3;
        assert!(!query.is_answered_by(&chaos));
        assert!(!query.is_answered_by(&reply(b"name", 65)[..16]));
        assert!(!query.is_answered_by(&[]));
    }

    #[test]
    fn only_errors_may_leave_the_question_out() {
        let sent = message(0x0100, b"name", 1, 0, &[]);
        let query = Query::new(&sent).unwrap();
        let bare = |rcode| [0xab, 0xcd, 0x80, rcode, 0, 0, 0, 0, 0, 0, 0, 0];
        for rcode in 0..16 {
            let accepted = query.is_answered_by(&bare(rcode));
            assert_eq!(accepted, [1, 2, 4, 5].contains(&rcode), "{rcode}");
        }
    }

    #[test]
    fn the_opt_record_is_found_and_taken_off() {
        let sent = message(0x0100, b"name", 1, 1, &OPT);
        let query = Query::new(&sent).unwrap();
        assert_eq!(query.without_opt(), message(0x0100, b"name", 1, 0, &[]));
        let formerr = [0xab, 0xcd, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(query.edns_is_rejected_by(&formerr));
        assert!(!query.edns_is_rejected_by(&message(0x8181, b"name", 1, 1, &OPT)));
        assert!(!query.edns_is_rejected_by(&message(0x8180, b"name", 1, 0, &[])));
        let plain = message(0x0100, b"name", 1, 0, &[]);
        assert!(!Query::new(&plain).unwrap().edns_is_rejected_by(&formerr));
    }

    #[test]
    fn a_query_needs_one_plain_question() {
        let good = message(0x0100, b"name", 1, 0, &[]);
        for len in 0..good.len() {
            assert!(Query::new(&good[..len]).is_none(), "{len}");
        }
        let mut two = good.clone();
        two[5] = 2;
        assert!(Query::new(&two).is_none());
    }
}
