//! Questions changed on their way to the upstream, and answers on their way back (the semantics of CoreDNS's
//! `rewrite`).
//!
//! What comes back is an answer to the client's own question, and is kept under it.

mod answer;
mod rule;

pub use rule::{Action, AnswerPart, AnswerRule, Matcher, OptionEdit, Rule};

use crate::wire::{Flags, Message, Name, Rcode, same_question, write_text};
use answer::Change;

/// What the rules made of a query.
pub(super) enum Outcome<'r> {
    /// Nothing: no rule concerns it.
    Same,
    /// Another query, or the same with something to do about its answer.
    Rewritten(Rewritten<'r>),
    /// There is no such query; and why.
    Impossible(String),
}

/// A query that is not the client's.
pub(super) struct Rewritten<'r> {
    /// To be asked.
    pub(super) message: Vec<u8>,
    /// Its name, in folded wire octets.
    pub(super) name: Vec<u8>,
    query: Message,
    changes: Vec<Change<'r>>,
}

/// What rules look at.
struct Question {
    /// In lower case, with its final dot.
    name: String,
    qtype: u16,
    qclass: u16,
    /// EDNS options, by number.
    options: Vec<(u16, Vec<u8>)>,
}

/// Applies `rules` to `message`, a whole query for `name` (folded wire octets), in order, up to the first that
/// concerns it and says that it is the last.
pub(super) fn rewrite<'r>(rules: &'r [Rule], message: &[u8], name: &[u8]) -> Outcome<'r> {
    let Some((query, mut question)) = Message::read(message).and_then(|query| {
        let question = Question::of(&query, name)?;
        Some((query, question))
    }) else {
        return Outcome::Same;
    };
    let mut changes = Vec::new();
    let mut concerned = false;
    for rule in rules {
        if !rule.apply(&mut question, &mut changes) {
            continue;
        }
        concerned = true;
        if rule.is_last {
            break;
        }
    }
    if !concerned {
        return Outcome::Same;
    }
    let Some((name, octets)) = question.to_wire() else {
        return Outcome::Impossible(format!("plugin/rewrite: there is no name `{}`", question.name));
    };
    let mut asked = Message { question: octets, ..query.clone() };
    asked.set_options(&question.options);
    match asked.to_octets() {
        Some(message) => Outcome::Rewritten(Rewritten { message, name, query, changes }),
        None => Outcome::Impossible("plugin/rewrite: the query is too long".to_owned()),
    }
}

impl Rewritten<'_> {
    /// The reply to the client's own question, given that to the other one.
    pub(super) fn restore(&self, reply: &[u8]) -> Vec<u8> {
        let restored = Message::read(reply).and_then(|mut reply| {
            if !same_question(&reply.question, &self.query.question) {
                // What was validated is another name's, or type's.
                reply.flags.0 &= !Flags::AD;
            }
            reply.question.clone_from(&self.query.question);
            answer::apply(&self.changes, &mut reply);
            reply.to_octets()
        });
        restored.unwrap_or_else(|| failure(&self.query))
    }
}

impl Question {
    fn of(query: &Message, name: &[u8]) -> Option<Question> {
        let (_, [type_high, type_low, class_high, class_low]) = query.question.split_last_chunk()?;
        let mut text = String::new();
        // A String takes everything.
        let _ = write_text(name, &mut text);
        Some(Question {
            name: text,
            qtype: u16::from_be_bytes([*type_high, *type_low]),
            qclass: u16::from_be_bytes([*class_high, *class_low]),
            options: Vec::new(),
        })
    }

    /// The name, and name, type and class.
    fn to_wire(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let name = Name::from_text(&self.name).ok()?.as_wire().to_vec();
        let question = [&name[..], &self.qtype.to_be_bytes(), &self.qclass.to_be_bytes()].concat();
        Some((name, question))
    }
}

fn failure(query: &Message) -> Vec<u8> {
    query.refusal(Rcode::SERVFAIL).to_octets().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The upstream has validated its answer, not ours (RFC 4035 §3.2.3).
    #[test]
    fn an_answer_to_another_question_is_not_authentic() {
        let rule = |action| [Rule { is_last: true, action }];
        let kind = rule(Action::Type { from: 1, to: 28 });
        let ttl = rule(Action::Ttl { names: Matcher::Exact("a.".into()), range: 1..=2 });
        let query = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
        for (rules, expected) in [(&kind, 0), (&ttl, Flags::AD)] {
            let Outcome::Rewritten(other) = rewrite(rules, query, b"\x01a\0") else { panic!("{rules:?}") };
            let mut reply = other.message.clone();
            reply[2..4].copy_from_slice(&[0x81, 0xa0]);
            let restored = other.restore(&reply);
            assert_eq!(Flags::of(&restored).0 & Flags::AD, expected);
            assert_eq!(restored[12..], query[12..]);
        }
    }
}
