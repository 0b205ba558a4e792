//! Which transport a query takes, and how one leads to another.

use std::cell::RefCell;
use std::collections::HashSet;

use super::*;
use crate::upstream::query_edns;

fn truncated(asked: &Asked) -> Vec<u8> {
    let mut reply = asked.reply(0);
    reply[2] |= 2;
    reply
}

#[test]
fn transports_follow_the_directive() {
    run(async {
        let server = Upstream::start(answer).await;
        for (transport, by_udp, by_tcp) in [
            (Transport::AsClient, true, false),
            (Transport::PreferUdp, true, true),
            (Transport::ForceTcp, false, false),
        ] {
            let client = Client::new(&[Config { transport, ..forward_to(&[&server]) }]);
            assert_answered(client.udp("a").await);
            assert_eq!(server.asked().last().unwrap().udp, by_udp, "{transport:?}");
            assert_answered(client.tcp("a").await);
            assert_eq!(server.asked().last().unwrap().udp, by_tcp, "{transport:?}");
        }
    });
}

#[test]
fn a_truncated_datagram_is_followed_up_over_tcp() {
    run(async {
        let server = Upstream::start(|asked| {
            let full = asked.answer();
            vec![Step::Send(if asked.udp { truncated(asked) } else { full })]
        })
        .await;
        let client = Client::new(&[forward_to(&[&server])]);
        assert_answered(client.udp("a").await);
        assert_eq!(server.asked().len(), 2);
    });
}

#[test]
fn the_truncated_reply_is_handed_over_when_tcp_fails() {
    run(async {
        let server = Upstream::start(|asked| match asked.udp {
            true => vec![Step::Send(truncated(asked))],
            false => vec![Step::Reset],
        })
        .await;
        let client = Client::new(&[forward_to(&[&server])]);
        let reply = client.udp("a").await.unwrap();
        assert_eq!((reply[2] & 2, server.asked().len()), (2, 2));
    });
}

#[test]
fn each_datagram_has_a_port_of_its_own() {
    run(async {
        let server = Upstream::start(answer).await;
        let client = Client::new(&[forward_to(&[&server])]);
        for reply in join_all((0..50).map(|_| client.udp("a"))).await {
            assert_answered(reply);
        }
        assert_eq!(server.asked().len(), 50);
        assert_eq!(client.counts.opened.get(), 50);
    });
}

/// More of them than hedges are saved up for.
#[test]
fn a_lost_datagram_is_sent_again_where_many_are_lost() {
    const LOST: usize = 900;
    run(async {
        let seen = RefCell::new(HashSet::new());
        let server = Upstream::start(move |asked| {
            let is_lost = asked.name.starts_with("lost") && seen.borrow_mut().insert(asked.name.clone());
            if is_lost { Vec::new() } else { answer(asked) }
        })
        .await;
        let client = Client::new(&[forward_to(&[&server])]);
        let began = Instant::now();
        // In waves, or the server's socket would lose more.
        let lost = join_all((0..LOST).map(async |number| {
            tokio::time::sleep(Duration::from_millis(number as u64 / 50 * 25)).await;
            client.udp(&format!("lost{number}")).await
        }));
        let others = async {
            while began.elapsed() < Duration::from_secs(2) {
                assert_answered(client.udp("there").await);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let (replies, ()) = tokio::join!(lost, others);
        replies.into_iter().for_each(assert_answered);
        assert!(began.elapsed() < Duration::from_millis(3800), "{:?}", began.elapsed());
        assert!(client.counts.withheld.get() >= 300, "{} withheld", client.counts.withheld.get());
        let asked = server.asked().iter().filter(|asked| asked.name.starts_with("lost")).count();
        assert_eq!(asked, 2 * LOST);
    });
}

#[test]
fn a_server_without_edns_is_asked_without() {
    run(async {
        // As old servers do: FORMERR, and nothing but a header.
        let server = Upstream::start(|asked| match asked.message[11] {
            0 => vec![Step::Send(asked.answer())],
            _ => {
                let mut bare = asked.reply(1)[..12].to_vec();
                bare[5] = 0;
                vec![Step::Send(bare)]
            }
        })
        .await;
        let client = Client::new(&[forward_to(&[&server])]);
        for by in [ClientTransport::Udp, ClientTransport::Tcp] {
            assert_answered(client.send(&query_edns(4711, "a"), by).await);
        }
        // The first query needs a second message, and then it is known.
        assert_eq!((server.asked().len(), server.connections()), (3, 1));
    });
}

#[test]
fn formerr_to_a_plain_query_is_the_answer() {
    run(async {
        let server = Upstream::start(refuse(1)).await;
        let client = Client::new(&[forward_to(&[&server])]);
        assert_rcode(client.udp("a").await, 1);
        assert_rcode(client.send(&query_edns(4711, "a"), ClientTransport::Udp).await, 1);
        assert_eq!(server.asked().len(), 3);
    });
}

#[test]
fn the_reply_is_kept_octet_by_octet() {
    run(async {
        let odd = |asked: &Asked| {
            let mut reply = asked.reply(0);
            reply[12..].make_ascii_uppercase();
            reply[7] = 9;
            reply.extend(b"no record at all");
            reply
        };
        let server = Upstream::start(move |asked| vec![Step::Send(odd(asked))]).await;
        let client = Client::new(&[forward_to(&[&server])]);
        for reply in [client.udp("abc").await, client.tcp("abc").await] {
            let mut sent = odd(&server.asked().pop().unwrap());
            sent[..2].copy_from_slice(&4711_u16.to_be_bytes());
            assert_eq!(reply.unwrap(), sent);
        }
    });
}
