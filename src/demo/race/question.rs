//! One query of a pair, and what a right answer to it is.

use std::io;
use std::net::IpAddr;
use std::str::FromStr;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

/// A name to ask for, and what the answers must say.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The name, with its final dot.
    pub name: String,
    /// What its A and AAAA records are.
    pub expected: Expected,
}

/// What makes an answer right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// NOERROR with these two addresses, IPv4 first.
    Addresses([IpAddr; 2]),
    /// NXDOMAIN.
    NoSuchName,
    /// NOERROR, whatever it holds: for names of others.
    NoError,
}

/// A query as it is sent.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) packet: Vec<u8>,
    message: Message,
    expected: ResponseCode,
    address: Option<IpAddr>,
}

/// What a packet is to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    NotMine,
    Right,
    Wrong,
}

impl Question {
    /// The A and the AAAA query for a name.
    pub(super) fn pair(subject: &Subject) -> io::Result<[Question; 2]> {
        let name = Name::from_str(&subject.name).map_err(invalid)?;
        let first = Question::new(&name, RecordType::A, subject.expected, 0)?;
        Ok([first, Question::new(&name, RecordType::AAAA, subject.expected, 1)?])
    }

    fn new(
        name: &Name,
        record_type: RecordType,
        expected: Expected,
        position: usize,
    ) -> io::Result<Question> {
        let mut message = Message::query();
        // Two queries of one socket must differ.
        message.metadata.id = (message.metadata.id & !1) | position as u16;
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name.clone(), record_type));
        let packet = message.to_vec().map_err(invalid)?;
        let (expected, address) = match expected {
            Expected::Addresses(addresses) => (ResponseCode::NoError, Some(addresses[position])),
            Expected::NoSuchName => (ResponseCode::NXDomain, None),
            Expected::NoError => (ResponseCode::NoError, None),
        };
        Ok(Question { packet, message, expected, address })
    }

    pub(super) fn judge(&self, packet: &[u8]) -> Judgement {
        // Most packets are decided by their first two octets, the id.
        if !packet.starts_with(&self.packet[..2]) {
            return Judgement::NotMine;
        }
        let Ok(answer) = Message::from_vec(packet) else { return Judgement::NotMine };
        let mine =
            answer.metadata.message_type == MessageType::Response && answer.queries == self.message.queries;
        let addressed = |address| answer.answers.iter().any(|record| record.data.ip_addr() == Some(address));
        if !mine {
            Judgement::NotMine
        } else if answer.metadata.response_code == self.expected && self.address.is_none_or(addressed) {
            Judgement::Right
        } else {
            Judgement::Wrong
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{RData, Record};

    use super::*;

    fn answer(question: &Question, code: ResponseCode, address: Option<IpAddr>) -> Vec<u8> {
        let mut answer = question.message.clone();
        answer.metadata.message_type = MessageType::Response;
        answer.metadata.response_code = code;
        let name = question.message.queries[0].name().clone();
        answer.answers.extend(address.map(|address| Record::from_rdata(name, 30, RData::from(address))));
        answer.to_vec().expect("a message")
    }

    #[test]
    fn only_the_right_answer_to_this_question_counts() {
        let addresses = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1])];
        let expected = Expected::Addresses(addresses);
        let [a, aaaa] = Question::pair(&Subject { name: "x.test.".into(), expected }).expect("a pair");
        let right = answer(&a, ResponseCode::NoError, Some(addresses[0]));
        assert_eq!(a.judge(&right), Judgement::Right);
        assert_eq!(aaaa.judge(&right), Judgement::NotMine);
        for wrong in [
            answer(&a, ResponseCode::ServFail, None),
            answer(&a, ResponseCode::NoError, None),
            answer(&a, ResponseCode::NoError, Some(IpAddr::from([10, 0, 0, 2]))),
        ] {
            assert_eq!(a.judge(&wrong), Judgement::Wrong);
        }
        assert_eq!(a.judge(&a.packet), Judgement::NotMine, "a query is no answer");
    }

    #[test]
    fn a_name_that_should_not_exist() {
        let expected = Expected::NoSuchName;
        let [a, _] = Question::pair(&Subject { name: "x.test.".into(), expected }).expect("a pair");
        assert_eq!(a.judge(&answer(&a, ResponseCode::NXDomain, None)), Judgement::Right);
        assert_eq!(a.judge(&answer(&a, ResponseCode::NoError, None)), Judgement::Wrong);
    }
}
