//! Queries, answers and replies, against hickory-proto as the second opinion.

use hickory_proto::op::{
    Edns as HickoryEdns, Message, MessageType, OpCode, Query as HickoryQuery, ResponseCode,
};
use hickory_proto::rr::rdata::{A, CNAME, NS, SOA};
use hickory_proto::rr::{Name as HickoryName, RData, Record, RecordType};
use proptest::prelude::*;

use super::*;

fn hickory_name(text: &str) -> HickoryName {
    HickoryName::from_ascii(text).unwrap()
}

fn query_octets(name: &str, edns: Option<u16>) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 0x1234;
    message.metadata.recursion_desired = true;
    message.add_query(HickoryQuery::query(hickory_name(name), RecordType::A));
    if let Some(size) = edns {
        let mut opt = HickoryEdns::new();
        opt.set_max_payload(size);
        message.set_edns(opt);
    }
    message.to_vec().unwrap()
}

fn a_record(owner: &str, ttl: u32, last: u8) -> Record {
    Record::from_rdata(hickory_name(owner), ttl, RData::A(A::new(192, 0, 2, last)))
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let names = (hickory_name("ns.test."), hickory_name("hostmaster.test."));
    Record::from_rdata(
        hickory_name("test."),
        ttl,
        RData::SOA(SOA::new(names.0, names.1, 1, 2, 3, 4, minimum)),
    )
}

/// A response to `query` that `fill` completes.
fn response(query: &[u8], fill: impl FnOnce(&mut Message)) -> Vec<u8> {
    let asked = Message::from_vec(query).unwrap();
    let mut message = Message::response(asked.metadata.id, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.recursion_available = true;
    message.add_queries(asked.queries.clone());
    fill(&mut message);
    message.to_vec().unwrap()
}

fn scan(query: &[u8], response: &[u8]) -> (Answer, Lifetime) {
    Answer::scan(response, Query::parse(query).unwrap().question()).unwrap()
}

/// How many records stand in `answer`.
fn records(answer: &Answer) -> usize {
    answer.outline().offsets() / 2
}

fn reply(query: &[u8], answer: &Answer, ttl: Option<u32>, limit: usize) -> Vec<u8> {
    let mut out = vec![0; REPLY_ROOM];
    let terms = Terms { ttl, authoritative: true, extended_error: None };
    let len = Reply::from_answer(&mut out, &Query::parse(query).unwrap(), answer, terms, None, limit);
    out.truncate(len);
    out
}

#[test]
fn a_plain_query_is_read() {
    let octets = query_octets("Www.Example.", Some(1232));
    let query = Query::parse(&octets).unwrap();
    assert_eq!(query.id(), [0x12, 0x34]);
    assert_eq!(query.name(), b"\x03Www\x07Example\0");
    assert_eq!((query.qtype(), query.qclass()), (1, 1));
    assert_eq!(query.udp_limit(), 1232);
    assert!(query.is_cacheable());
    assert_eq!(Key::of(&query).name(), b"\x03www\x07example\0");
}

#[test]
fn case_does_not_make_a_key_and_type_class_and_flags_do() {
    let plain = query_octets("a.test.", None);
    let key = |octets: &[u8]| Key::of(&Query::parse(octets).unwrap());
    let same = |other: &[u8]| key(&plain).to_stored() == key(other).to_stored();
    assert!(same(&query_octets("A.TEST.", None)));
    assert!(same(&query_octets("a.test.", Some(4096))));
    assert!(!same(&query_octets("b.test.", None)));
    for (at, octet) in [(2, 0x00), (3, 0x10), (plain.len() - 3, 28), (plain.len() - 1, 3)] {
        let mut other = plain.clone();
        other[at] = octet;
        assert!(!same(&other), "octet {at}");
    }
}

#[test]
fn what_is_not_a_query_is_told_apart() {
    let good = query_octets("a.test.", Some(1232));
    let with = |at: usize, octet: u8| {
        let mut octets = good.clone();
        octets[at] = octet;
        octets
    };
    let rejected = |octets: &[u8]| Query::parse(octets).unwrap_err();
    assert_eq!(rejected(&good[..11]), Rejected::TooShort);
    assert_eq!(rejected(&with(2, 0x80)), Rejected::Response);
    assert_eq!(rejected(&with(2, 0x28)), Rejected::NotImplemented);
    assert!(Query::parse(&with(2, 0x20)).is_ok(), "NOTIFY");
    assert_eq!(rejected(&with(5, 0)), Rejected::Malformed, "no question");
    assert_eq!(rejected(&with(5, 2)), Rejected::Malformed, "two questions");
    assert_eq!(rejected(&with(7, 2)), Rejected::Malformed, "two answers");
    assert_eq!(rejected(&with(9, 2)), Rejected::Malformed, "two authorities");
    assert_eq!(rejected(&with(11, 3)), Rejected::Malformed, "three additionals");
    assert_eq!(rejected(&with(12, 0xc0)), Rejected::Malformed, "a compressed name");
    assert_eq!(rejected(&with(12, 0x40)), Rejected::Malformed, "an extended label type");
    assert_eq!(rejected(&good[..good.len() - 1]), Rejected::Malformed, "cut OPT");
    let opt = good[good.len() - 11..].to_vec();
    assert_eq!(rejected(&[with(11, 2), opt].concat()), Rejected::Malformed, "two OPTs");
    let mut owned = query_octets("a.test.", None);
    owned[11] = 1;
    owned.extend_from_slice(b"\x01x\0\0\x29\x04\xd0\0\0\0\0\0\0");
    assert_eq!(rejected(&owned), Rejected::Malformed, "an OPT with an owner");
    let mut lying = good.clone();
    let end = lying.len();
    lying[end - 1] = 4;
    lying.extend_from_slice(&[0, 10, 0, 8]);
    assert_eq!(rejected(&lying), Rejected::Malformed, "an option that overruns its OPT");
}

#[test]
fn a_name_may_have_255_octets_and_no_more() {
    let message = |labels: &[usize]| {
        let mut octets = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for &len in labels {
            octets.push(len as u8);
            octets.extend(std::iter::repeat_n(b'x', len));
        }
        octets.extend_from_slice(&[0, 0, 1, 0, 1]);
        octets
    };
    assert!(Query::parse(&message(&[63, 63, 63, 61])).is_ok());
    assert_eq!(Query::parse(&message(&[63, 63, 63, 62])).unwrap_err(), Rejected::Malformed);
}

#[test]
fn edns_of_the_client_stays_here_and_ours_goes_upstream() {
    let mut octets = query_octets("a.test.", None);
    octets[11] = 1;
    // DO, a cookie and a client subnet.
    octets.extend_from_slice(b"\0\0\x29\xff\xff\0\0\x80\0\0\x17");
    octets.extend_from_slice(b"\0\x0a\0\x08cookie!!\0\x08\0\x07\0\x01\x18\0\x0a\0\0");
    let sent = Query::parse(&octets).unwrap().upstream_message(1232);
    let read = Message::from_vec(&sent).unwrap();
    let edns = read.edns.as_ref().unwrap();
    assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (1232, true));
    assert!(edns.options().as_ref().is_empty());
    assert!(read.metadata.authentic_data && read.metadata.recursion_desired);
    assert_eq!(read.queries.len(), 1);
    assert_eq!(read.additionals.len(), 0);
}

#[test]
fn records_beside_the_opt_go_upstream_and_make_the_answer_private() {
    let mut octets = query_octets("a.test.", None);
    octets[9] = 1;
    octets.extend_from_slice(
        b"\xc0\x0c\0\x06\0\x01\0\0\0\0\0\x16\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    );
    let query = Query::parse(&octets).unwrap();
    assert!(!query.is_cacheable());
    let read = Message::from_vec(&query.upstream_message(1232)).unwrap();
    assert_eq!(read.authorities.len(), 1);
    assert!(read.edns.is_some());
}

/// CoreDNS's listener refuses a query with three additional records; ours would be the third.
#[test]
fn an_opt_of_ours_goes_upstream_only_where_there_is_room_for_it() {
    let mut octets = query_octets("a.test.", None);
    for count in 1..=2 {
        octets[11] = count;
        octets.extend_from_slice(b"\xc0\x0c\0\x10\0\x01\0\0\0\0\0\x02\x01x");
        let sent = Query::parse(&octets).unwrap().upstream_message(1232);
        assert!(Query::parse(&sent).is_ok(), "{count}");
        let read = Message::from_vec(&sent).unwrap();
        assert_eq!((read.additionals.len(), read.edns.is_some()), (count.into(), count == 1));
    }
}

#[test]
fn kinds_and_lifetimes() {
    let query = query_octets("a.test.", None);
    let kind = |fill: &dyn Fn(&mut Message)| {
        let (answer, lifetime) = scan(&query, &response(&query, fill));
        (answer.kind(), lifetime.min_ttl, lifetime.soa_minimum)
    };
    let success = |message: &mut Message| {
        message.add_answer(a_record("a.test.", 300, 1));
        message.add_answer(a_record("a.test.", 60, 2));
    };
    assert_eq!(kind(&success), (Kind::Success, Some(60), None));
    let denial = |message: &mut Message| {
        message.add_authority(soa(3600, 30));
    };
    assert_eq!(kind(&denial), (Kind::NoData, Some(3600), Some(30)));
    let nxdomain = |message: &mut Message| {
        message.metadata.response_code = ResponseCode::NXDomain;
        message.add_authority(soa(3600, 30));
    };
    assert_eq!(kind(&nxdomain), (Kind::NxDomain, Some(3600), Some(30)));
    let delegation = |message: &mut Message| {
        let ns = RData::NS(NS(hickory_name("ns.test.")));
        message.add_authority(Record::from_rdata(hickory_name("test."), 60, ns));
    };
    assert_eq!(kind(&delegation), (Kind::Delegation, Some(60), None));
    assert_eq!(kind(&|_| {}), (Kind::Empty, None, None));
    let code = |code| move |message: &mut Message| message.metadata.response_code = code;
    assert_eq!(kind(&code(ResponseCode::ServFail)).0, Kind::ServerFailure);
    assert_eq!(kind(&code(ResponseCode::NotImp)).0, Kind::ServerFailure);
    assert_eq!(kind(&code(ResponseCode::Refused)).0, Kind::Other);
    assert_eq!(kind(&code(ResponseCode::NXDomain)).0, Kind::Other, "without an SOA");
    let huge = |message: &mut Message| {
        message.add_answer(a_record("a.test.", 0x8000_0000, 1));
    };
    assert_eq!(kind(&huge).1, Some(0), "RFC 2181 §8");
}

#[test]
fn an_answer_to_another_question_is_a_mismatch() {
    let (asked, other) = (query_octets("a.test.", None), query_octets("b.test.", None));
    let question = Query::parse(&asked).unwrap().question();
    assert_eq!(Answer::scan(&response(&other, |_| {}), question).unwrap_err(), Unscannable::Mismatch);
    assert!(Answer::scan(&response(&query_octets("A.TEST.", None), |_| {}), question).is_ok());
}

#[test]
fn an_error_without_question_gets_it_back() {
    let query = query_octets("a.test.", None);
    let bare = [0x12, 0x34, 0x81, 0x82, 0, 0, 0, 0, 0, 0, 0, 0];
    let (answer, _) = scan(&query, &bare);
    let read = Message::from_vec(&reply(&query, &answer, None, 512)).unwrap();
    assert_eq!(read.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(read.queries.len(), 1);
}

#[test]
fn an_error_without_question_but_with_a_record_is_left_alone() {
    let asked = query_octets("a.test.", None);
    // NS data that points to the owner, which the question would push away.
    let record = [0, 0, 2, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12];
    let message = [&[0, 0, 0x80, 2, 0, 0, 0, 0, 0, 0, 0, 1][..], &record].concat();
    let question = Query::parse(&asked).unwrap().question();
    assert_eq!(Answer::scan(&message, question).unwrap_err(), Unscannable::Malformed);
}

#[test]
fn a_reply_has_the_clients_id_spelling_and_ttl() {
    let asked = query_octets("a.test.", None);
    let (answer, _) = scan(
        &asked,
        &response(&asked, |message| {
            let cname = RData::CNAME(CNAME(hickory_name("b.test.")));
            message.add_answer(Record::from_rdata(hickory_name("a.test."), 300, cname));
            message.add_answer(a_record("b.test.", 60, 1));
        }),
    );
    let mut shouted = query_octets("A.tEsT.", None);
    shouted[0] = 0xab;
    let octets = reply(&shouted, &answer, Some(42), 512);
    assert_eq!(octets[12..20], *b"\x01A\x04tEsT\0");
    let read = Message::from_vec(&octets).unwrap();
    assert_eq!(read.metadata.id, 0xab34);
    assert!(read.answers.iter().all(|record| record.ttl == 42));
    assert_eq!(read.answers.len(), 2);
    assert!(read.metadata.authoritative && read.edns.is_none());
}

#[test]
fn authentic_data_is_for_those_who_asked() {
    let asked = query_octets("a.test.", None);
    let (answer, _) = scan(&asked, &response(&asked, |message| message.metadata.authentic_data = true));
    let authentic = |query: &[u8]| Flags::of(&reply(query, &answer, None, 512)).has(Flags::AD);
    assert!(!authentic(&asked));
    let mut with_ad = asked.clone();
    with_ad[3] |= 0x20;
    assert!(authentic(&with_ad));
}

#[test]
fn the_upstreams_opt_is_taken_out_and_the_client_gets_its_own() {
    let asked = query_octets("a.test.", Some(1400));
    let upstream = response(&asked, |message| {
        message.add_answer(a_record("a.test.", 60, 1));
        message.set_edns(HickoryEdns::new());
    });
    let (answer, _) = scan(&asked, &upstream);
    let with = Message::from_vec(&reply(&asked, &answer, None, 512)).unwrap();
    assert_eq!(with.edns.unwrap().max_payload(), 1400);
    let without = Message::from_vec(&reply(&query_octets("a.test.", None), &answer, None, 512)).unwrap();
    assert!(without.edns.is_none());
    assert_eq!(without.answers.len(), 1);
}

#[test]
fn an_opt_in_the_middle_moves_nothing_that_points_behind_it() {
    let asked = query_octets("a.test.", None);
    let mut message = asked.clone();
    message[2] = 0x81;
    message[11] = 2;
    message.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    let at = message.len() as u8;
    message.extend_from_slice(b"\x01x\0\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
    let (answer, _) = scan(&asked, &message);
    let read = Message::from_vec(&reply(&asked, &answer, Some(9), 512)).unwrap();
    assert_eq!((read.additionals.len(), read.additionals[0].ttl), (1, 9));
    message[11] = 3;
    message.extend_from_slice(&[0xc0, at, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4]);
    let question = Query::parse(&asked).unwrap().question();
    assert_eq!(Answer::scan(&message, question).unwrap_err(), Unscannable::Malformed);
}

/// Answers of `count` A records.
fn many(query: &[u8], count: u8) -> Answer {
    let filled = response(query, |message| {
        (0..count).for_each(|last| {
            message.add_answer(a_record("a.test.", 60, last));
        });
    });
    scan(query, &filled).0
}

#[test]
fn too_long_is_cut_to_whole_records_and_an_exact_fit_is_not() {
    let query = query_octets("a.test.", None);
    let answer = many(&query, 40);
    // 12 + 12 octets of header and question, 16 for each record.
    assert_eq!(answer.outline().records(), 40 * 16);
    let whole = reply(&query, &answer, Some(5), 664);
    assert!(!Flags::of(&whole).has(Flags::TC));
    let cut = reply(&query, &answer, Some(5), 663);
    assert!(Flags::of(&cut).has(Flags::TC));
    let read = Message::from_vec(&cut).unwrap();
    assert_eq!(read.answers.len(), 39);
    assert!(read.answers.iter().all(|record| record.ttl == 5));
}

#[test]
fn the_opt_counts_when_a_reply_is_cut() {
    let query = query_octets("a.test.", Some(512));
    let answer = many(&query, 40);
    let cut = reply(&query, &answer, None, 512);
    let read = Message::from_vec(&cut).unwrap();
    assert!(cut.len() <= 512 && read.edns.is_some());
    assert_eq!(read.answers.len(), (512 - 24 - 11) / 16);
}

#[test]
fn losing_only_additional_records_is_not_truncation() {
    let query = query_octets("a.test.", None);
    let filled = response(&query, |message| {
        message.add_answer(a_record("a.test.", 60, 1));
        for last in 0..40 {
            message.add_additional(a_record("b.test.", 60, last));
        }
    });
    let cut = reply(&query, &scan(&query, &filled).0, None, 512);
    let read = Message::from_vec(&cut).unwrap();
    assert!(!read.metadata.truncation);
    assert_eq!(read.answers.len(), 1);
    assert!(read.additionals.len() < 40);
}

#[test]
fn rdata_of_any_shape_comes_through_octet_for_octet() {
    let asked = query_octets("a.test.", None);
    let mut message = asked.clone();
    message[2] = 0x81;
    message[7] = 4;
    // An empty RDATA, an unknown type, a label with a dot and high octets, a compressed CNAME.
    message.extend_from_slice(b"\xc0\x0c\0\x2a\0\x01\0\0\0\x3c\0\0");
    message.extend_from_slice(b"\xc0\x0c\xff\x01\0\x01\0\0\0\x3c\0\x03\xc0\xff\0");
    message.extend_from_slice(b"\x03a.\xff\xc0\x0c\0\x10\0\x01\0\0\0\x3c\0\x02\x01x");
    message.extend_from_slice(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x02\xc0\x0e");
    let (answer, _) = scan(&asked, &message);
    let mut expected = message.clone();
    expected[0..4].copy_from_slice(&[0x12, 0x34, 0x85, 0x00]);
    assert_eq!(reply(&asked, &answer, Some(60), 512), expected);
}

#[test]
fn errors_carry_question_and_opt() {
    let octets = query_octets("a.test.", Some(1232));
    let query = Query::parse(&octets).unwrap();
    let mut out = [0; 512];
    let len = Reply::error(&mut out, &query, Rcode::BADVERS, None);
    let read = Message::from_vec(&out[..len]).unwrap();
    // 16 is BADVERS and BADSIG alike; which of the two hickory prints does not matter.
    assert_eq!(u16::from(read.metadata.response_code), 16);
    assert_eq!(read.metadata.message_type, MessageType::Response);
    assert_eq!(read.queries.len(), 1);
}

#[test]
fn rejections_are_headers_and_responses_are_never_answered() {
    let mut out = [0xff; 64];
    let packet = b"\x12\x34\x29\0\xff\xff\xff\xff\xff\xff\xff\xff";
    assert_eq!(Reply::reject(&mut out, packet, Rejected::Malformed), Some(12));
    assert_eq!(out[..12], *b"\x12\x34\x81\x01\0\0\0\0\0\0\0\0");
    assert_eq!(Reply::reject(&mut out, packet, Rejected::NotImplemented), Some(12));
    assert_eq!(out[2..4], [0xa9, 4]);
    assert_eq!(Reply::reject(&mut out, packet, Rejected::Response), None);
}

#[test]
fn what_nobody_can_walk_is_passed_on() {
    let octets = query_octets("a.test.", None);
    let query = Query::parse(&octets).unwrap();
    let mut broken = octets.clone();
    broken[2] = 0x81;
    broken[7] = 9;
    broken.extend_from_slice(b"rubbish");
    let mut out = [0; REPLY_ROOM];
    let len = Reply::opaque(&mut out, &query, &broken, 512);
    assert_eq!(out[..len], broken);
    broken.resize(600, 0);
    let len = Reply::opaque(&mut out, &query, &broken, 512);
    assert!(len < 512 && Flags::of(&out).has(Flags::TC));
    let len = Reply::opaque(&mut out, &query, &broken[..8], 512);
    assert_eq!(Message::from_vec(&out[..len]).unwrap().metadata.response_code, ResponseCode::ServFail);
}

/// A response whose parts are arbitrary but whose frame is right.
fn any_response() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let record = (0u8..4, any::<u16>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..40));
    (prop::collection::vec(record, 0..40), any::<[u8; 2]>(), prop::option::of(512u16..4096)).prop_map(
        |(records, flags, edns)| {
            let query = query_octets("a.test.", edns);
            let mut message = query_octets("a.test.", None);
            message[2] = 0x80 | flags[0] & 7;
            message[3] = flags[1];
            let mut counts = [0u16; 3];
            let mut sorted = records;
            sorted.sort_by_key(|record| record.0.min(2));
            for (section, rtype, ttl, rdata) in sorted {
                counts[usize::from(section.min(2))] += 1;
                message.extend_from_slice(b"\xc0\x0c");
                message.extend_from_slice(&if rtype == 41 { 42 } else { rtype }.to_be_bytes());
                message.extend_from_slice(b"\0\x01");
                message.extend_from_slice(&ttl.to_be_bytes());
                message.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
                message.extend_from_slice(&rdata);
            }
            for (index, count) in counts.into_iter().enumerate() {
                message[6 + 2 * index..8 + 2 * index].copy_from_slice(&count.to_be_bytes());
            }
            (query, message)
        },
    )
}

proptest! {
    #[test]
    fn no_packet_panics(packet in prop::collection::vec(any::<u8>(), 0..300), reject in any::<bool>()) {
        let mut out = vec![0; REPLY_ROOM];
        match Query::parse(&packet) {
            Ok(query) => {
                prop_assert!(Query::parse(&query.upstream_message(1232)).is_ok());
                let len = Reply::error(&mut out, &query, Rcode::SERVFAIL, None);
                prop_assert!(len >= HEADER);
            }
            Err(rejected) if reject => { let _ = Reply::reject(&mut out, &packet, rejected); }
            Err(_) => {}
        }
    }

    #[test]
    fn no_response_panics_and_replies_keep_to_their_limit((query, message) in any_response(), limit in 512usize..1500) {
        let asked = Query::parse(&query).unwrap();
        let (answer, _) = Answer::scan(&message, asked.question()).unwrap();
        let octets = reply(&query, &answer, Some(7), limit);
        prop_assert!(octets.len() <= limit);
        prop_assert_eq!(&octets[..2], &query[..2]);
        // Whatever the reply holds can be walked again, to the same number of records.
        let (again, _) = Answer::scan(&octets, asked.question()).unwrap();
        prop_assert!(records(&again) <= records(&answer));
        if !Flags::of(&octets).has(Flags::TC) && !Flags::of(&message).has(Flags::TC) && octets.len() + 100 < limit {
            prop_assert_eq!(records(&again), records(&answer));
        }
    }

    #[test]
    fn a_cut_or_bent_response_never_panics((query, message) in any_response(), at in any::<prop::sample::Index>(), octet in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bent = message;
        let index = at.index(bent.len());
        bent[index] = octet;
        bent.truncate(cut.index(bent.len()) + 1);
        let asked = Query::parse(&query).unwrap();
        if let Ok((answer, _)) = Answer::scan(&bent, asked.question()) {
            prop_assert!(reply(&query, &answer, Some(7), 512).len() <= 512);
        }
    }
}
