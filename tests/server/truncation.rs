//! Answers that do not fit: as many whole records as do, and TC.

use super::client::{tcp, udp};
use super::message::{Ask, ask, bit};
use super::upstream::Step;
use super::{Scripted, Served};

/// Octets of header and question for the names below.
const HEAD: usize = 12 + 11 + 4;
/// Octets of an OPT without options.
const OPT: usize = 11;
/// Octets of a record before its RDATA.
const FIXED: usize = 12;

/// A name of 11 octets for which the upstream has `count` records.
fn name(count: usize) -> String {
    format!("{count:04}.test")
}

/// Answers with as many records as the name says, of `rdata` octets each and numbered.
fn records(rdata: usize) -> Scripted {
    Scripted::start(move |asked| {
        let count: u16 = asked.name[..4].parse().unwrap();
        let mut reply = asked.reply(0);
        reply[6..8].copy_from_slice(&count.to_be_bytes());
        for number in 0..count {
            reply.extend([0xc0, 12, 0xff, 0, 0, 1, 0, 0, 0, 30]);
            reply.extend(u16::try_from(rdata).unwrap().to_be_bytes());
            reply.extend(number.to_be_bytes());
            reply.resize(reply.len() + rdata - 2, 0xaa);
        }
        vec![Step::Send(reply)]
    })
}

/// Without EDNS a client takes 512 octets.
fn query(name: &str, size: Option<u16>) -> Ask {
    match size {
        Some(size) => ask(name).edns(size),
        None => ask(name),
    }
}

#[test]
fn one_answer_is_fitted_to_each_client() {
    let upstream = records(100);
    let served = Served::start(upstream.address, "");
    let sizes = [Some(4096), None, Some(1232), Some(0), Some(512), Some(65535), Some(4096)];
    for count in [0, 1, 3, 4, 5, 10, 11, 36, 37, 400] {
        for size in sizes {
            let limit = usize::from(size.unwrap_or(512).max(512)).min(65507);
            let room = limit - HEAD - if size.is_some() { OPT } else { 0 };
            let fit = count.min(room / (FIXED + 100));
            let answer = udp(served.address, &query(&name(count), size));
            let case = format!("{count} records for {size:?}");
            assert!(answer.octets.len() <= limit, "{case}");
            assert_eq!(answer.section(1).len(), fit, "{case}");
            assert_eq!(answer.has(bit::TC), fit < count, "{case}");
            assert_eq!(answer.opt().is_some(), size.is_some(), "{case}");
            for (number, record) in answer.section(1).iter().enumerate() {
                assert_eq!(record.rdata[..2], u16::try_from(number).unwrap().to_be_bytes(), "{case}");
            }
        }
        assert_eq!(tcp(served.address, &ask(&name(count))).section(1).len(), count);
        assert_eq!(upstream.count(&format!("{}.", name(count))), 1);
    }
}

#[test]
fn what_fits_exactly_is_whole() {
    for (size, opt) in [(None, 0), (Some(512), OPT), (Some(1232), OPT), (Some(4096), OPT)] {
        let limit = usize::from(size.unwrap_or(512));
        for (excess, fits) in [(0, true), (1, false)] {
            let upstream = records(limit - HEAD - opt - FIXED + excess);
            let served = Served::start(upstream.address, "");
            // A miss, then a hit.
            for _ in 0..2 {
                let answer = udp(served.address, &query(&name(1), size));
                assert_eq!(answer.has(bit::TC), !fits, "{size:?} and {excess} more");
                assert_eq!(answer.section(1).len(), usize::from(fits));
            }
        }
    }
}

#[test]
fn the_longest_answer_comes_by_udp_as_far_as_a_datagram_goes() {
    // One octet more than the largest UDP payload of IPv4, and the longest message there is.
    for length in [65507, 65508, 65535] {
        let upstream = records(length - HEAD - OPT - FIXED);
        let served = Served::start(upstream.address, "");
        for _ in 0..2 {
            let answer = udp(served.address, &ask(&name(1)).edns(65535));
            assert_eq!(answer.has(bit::TC), length > 65507, "{length}");
        }
        assert_eq!(tcp(served.address, &ask(&name(1)).edns(65535)).octets.len(), length);
    }
}

#[test]
fn additional_records_go_without_a_word() {
    let upstream = Scripted::start(|asked| {
        let mut reply = asked.answer();
        reply[11] = 2;
        (0..2).for_each(|_| {
            reply.extend([0xc0, 12, 0xff, 0, 0, 1, 0, 0, 0, 30, 1, 0x2c]);
            reply.extend([7; 300]);
        });
        vec![Step::Send(reply)]
    });
    let served = Served::start(upstream.address, "");
    let answer = udp(served.address, &ask("a.test"));
    assert_eq!((answer.section(1).len(), answer.section(3).len()), (1, 1));
    // RFC 2181 §9: TC is for what the client needs.
    assert!(!answer.has(bit::TC));
}
