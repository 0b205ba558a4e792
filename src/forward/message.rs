//! The little this module reads of a DNS message: enough to tell an answer from noise.

/// Octets of a DNS header (RFC 1035 §4.1.1).
pub(super) const HEADER: usize = 12;

const RESPONSE: u8 = 0x80;
const TRUNCATED: u8 = 0x02;
const TYPE_OPT: u16 = 41;

const FORMERR: u16 = 1;
const SERVFAIL: u16 = 2;
const NOTIMP: u16 = 4;
const REFUSED: u16 = 5;

/// A query to be sent upstream, with what is needed to recognise its answer.
pub(super) struct Query<'a> {
    message: &'a [u8],
    /// Name, type and class as sent.
    question: &'a [u8],
    /// Where its OPT record begins; the record is the message's last.
    opt: Option<usize>,
}

impl<'a> Query<'a> {
    /// `None` unless the message has exactly one question, written without compression.
    pub(super) fn new(message: &'a [u8]) -> Option<Query<'a>> {
        if count(message, 4)? != 1 {
            return None;
        }
        let end = name_end(message, HEADER)? + 4;
        let question = message.get(HEADER..end)?;
        Some(Query { message, question, opt: trailing_opt(message, end) })
    }

    pub(super) fn message(&self) -> &'a [u8] {
        self.message
    }

    /// Whether `reply`, whose id is already known to be right, answers this query (RFC 5452 §9.1).
    ///
    /// The name is compared without regard to case: some servers answer in their own.
    pub(super) fn is_answered_by(&self, reply: &[u8]) -> bool {
        if reply.len() < HEADER || reply[2] & RESPONSE == 0 {
            return false;
        }
        match count(reply, 4) {
            Some(1) => self.same_question(&reply[HEADER..]),
            // Servers that cannot or will not read the query leave the question out.
            Some(0) => matches!(rcode(reply), FORMERR | SERVFAIL | NOTIMP | REFUSED),
            _ => false,
        }
    }

    fn same_question(&self, section: &[u8]) -> bool {
        let Some(theirs) = section.get(..self.question.len()) else {
            return false;
        };
        // Type and class are numbers whose octets may look like letters; length octets never do.
        let name = self.question.len() - 4;
        theirs[..name].eq_ignore_ascii_case(&self.question[..name]) && theirs[name..] == self.question[name..]
    }

    /// Whether `reply` comes from a server that does not know EDNS (RFC 6891 §7).
    pub(super) fn edns_is_rejected_by(&self, reply: &[u8]) -> bool {
        self.opt.is_some() && matches!(rcode(reply), FORMERR | NOTIMP) && !has_opt(reply)
    }

    /// The same message without its OPT record.
    pub(super) fn without_opt(&self) -> Vec<u8> {
        let mut message = self.message[..self.opt.unwrap_or(self.message.len())].to_vec();
        if self.opt.is_some()
            && let Some(additional) = count(self.message, 10)
        {
            message[10..HEADER].copy_from_slice(&(additional - 1).to_be_bytes());
        }
        message
    }
}

/// The message's id; 0 if there is none.
pub(super) fn id(message: &[u8]) -> u16 {
    count(message, 0).unwrap_or_default()
}

/// Overwrites the message's id.
pub(super) fn set_id(message: &mut [u8], id: u16) {
    if let Some(field) = message.get_mut(..2) {
        field.copy_from_slice(&id.to_be_bytes());
    }
}

/// The header's response code, without the four bits EDNS adds.
pub(super) fn rcode(message: &[u8]) -> u16 {
    message.get(3).map_or(0, |octet| u16::from(octet & 0x0f))
}

/// Whether this is a reply and not a query.
pub(super) fn is_response(message: &[u8]) -> bool {
    message.get(2).is_some_and(|octet| octet & RESPONSE != 0)
}

/// Whether TC is set.
pub(super) fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|octet| octet & TRUNCATED != 0)
}

/// The 16-bit number at `offset`.
fn count(message: &[u8], offset: usize) -> Option<u16> {
    let octets = message.get(offset..offset + 2)?;
    Some(u16::from_be_bytes([octets[0], octets[1]]))
}

/// Where the name at `at` ends. Compression pointers are skipped, never followed.
fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            len @ 1..=63 => at += 1 + usize::from(len),
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// The end of the record at `at`, and its type if the owner is the root.
fn record(message: &[u8], at: usize) -> Option<(usize, Option<u16>)> {
    let owner_end = name_end(message, at)?;
    let kind = count(message, owner_end)?;
    let end = owner_end + 10 + usize::from(count(message, owner_end + 8)?);
    let is_root = message[at] == 0;
    (end <= message.len()).then_some((end, is_root.then_some(kind)))
}

fn record_count(message: &[u8]) -> Option<u32> {
    [6, 8, 10].iter().try_fold(0, |sum, &offset| Some(sum + u32::from(count(message, offset)?)))
}

/// Where the OPT record begins that ends the message; `at` is the end of the question.
fn trailing_opt(message: &[u8], mut at: usize) -> Option<usize> {
    if count(message, 10)? == 0 {
        return None;
    }
    for _ in 1..record_count(message)? {
        at = record(message, at)?.0;
    }
    let (end, kind) = record(message, at)?;
    (kind == Some(TYPE_OPT) && end == message.len()).then_some(at)
}

/// Whether any record of `message` is an OPT; a message that cannot be walked has none.
fn has_opt(message: &[u8]) -> bool {
    let find = || {
        let mut at = HEADER;
        for _ in 0..count(message, 4)? {
            at = name_end(message, at)? + 4;
        }
        for _ in 0..record_count(message)? {
            let (end, kind) = record(message, at)?;
            if kind == Some(TYPE_OPT) {
                return Some(true);
            }
            at = end;
        }
        None
    };
    find().unwrap_or(false)
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
    fn an_opt_that_does_not_end_the_message_stays() {
        let sent = message(0x0100, b"name", 1, 2, &[OPT, OPT].concat());
        assert_eq!(Query::new(&sent).unwrap().without_opt().len(), sent.len() - OPT.len());
        for tail in [&OPT[..10], &[0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]] {
            let sent = message(0x0100, b"name", 1, 1, tail);
            assert_eq!(Query::new(&sent).unwrap().without_opt(), sent);
        }
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
