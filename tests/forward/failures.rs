//! What upstreams do wrong, and what a query makes of it.

use super::*;
use crate::upstream::framed;

/// The first query of each connection is answered, the second meets `then`.
fn once_then(then: Step) -> impl Fn(&Asked) -> Vec<Step> {
    move |asked| match asked.turn {
        0 => answer(asked),
        _ => vec![then.clone()],
    }
}

#[test]
fn a_reused_connection_that_breaks_is_replaced_unseen() {
    for then in [Step::Close, Step::Reset] {
        run(async {
            let server = Upstream::start(once_then(then)).await;
            let client = Client::new(&[force_tcp(&[&server])]);
            assert_answered(client.tcp("first").await);
            let started = Instant::now();
            assert_answered(client.tcp("second").await);
            assert!(started.elapsed() < Duration::from_millis(150));
            assert_eq!((server.connections(), server.asked().len()), (2, 3));
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!((server.probes(), client.counts.retried.get()), (0, 1));
        });
    }
}

/// Behind a Service's address, each connection may lead to another backend.
#[test]
fn a_broken_backend_is_left_for_a_connection_that_works() {
    for then in [Step::Close, Step::Reset] {
        run(async {
            let server = Upstream::start(move |asked| match (asked.connection, asked.name.as_str()) {
                (0, "slow.") => vec![Step::Wait(Duration::from_millis(60)), Step::Send(asked.answer())],
                // It looks well when it is tried out.
                (0, _) | (_, ".") => answer(asked),
                _ => vec![then.clone()],
            })
            .await;
            let client = Client::new(&[force_tcp(&[&server])]);
            assert_answered(client.tcp("first").await);
            // The second connection comes about because the first one is busy, and not with a stream of
            // answers.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let (slow, fast) = tokio::join!(client.tcp("slow"), client.tcp("fast"));
            assert_answered(slow);
            assert_answered(fast);
            assert_eq!(server.asked().len(), 4);
        });
    }
}

#[test]
fn a_connection_closed_while_idle_costs_no_retry() {
    run(async {
        let server = Upstream::start(|asked| vec![Step::Send(asked.answer()), Step::Close]).await;
        let client = Client::new(&[force_tcp(&[&server])]);
        for _ in 0..3 {
            assert_answered(client.tcp("a").await);
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        assert_eq!((server.connections(), server.asked().len()), (3, 3));
    });
}

#[test]
fn a_connection_that_died_silently_is_hedged_with_a_fresh_one() {
    run(async {
        let server = Upstream::start(|asked| match (asked.connection, asked.turn) {
            (0, 1..) => Vec::new(),
            _ => answer(asked),
        })
        .await;
        let client = Client::new(&[force_tcp(&[&server])]);
        assert_answered(client.tcp("first").await);
        let started = Instant::now();
        assert_answered(client.tcp("second").await);
        let elapsed = started.elapsed();
        assert!((80..1000).contains(&elapsed.as_millis()), "{elapsed:?}");
        assert_eq!((server.asked().len(), client.counts.hedged.get()), (3, 1));
        // The next one avoids the silent connection from the start.
        let started = Instant::now();
        assert_answered(client.tcp("third").await);
        assert!(started.elapsed() < Duration::from_millis(150));
    });
}

/// A backend that takes connections and says nothing: a new connection may lead to it just as well, so
/// the second message waits for one that shows a sign of life.
#[test]
fn a_dead_backend_gets_one_message_and_no_more() {
    run(async {
        let dead = Rc::new(Cell::new(false));
        let dies = Rc::clone(&dead);
        let server = Upstream::start(move |asked| match dies.get() && asked.connection != 3 {
            true => Vec::new(),
            false => answer(asked),
        })
        .await;
        let client = Client::new(&[force_tcp(&[&server])]);
        assert_answered(client.tcp("first").await);
        dead.set(true);
        // The connection that is there is dead, and so are the next two.
        let started = Instant::now();
        assert_answered(client.tcp("second").await);
        let elapsed = started.elapsed();
        assert!(elapsed < Duration::from_millis(700), "{elapsed:?}");
        assert_eq!((server.asked().len(), server.connections()), (3, 4));
    });
}

#[test]
fn silence_sends_the_query_to_the_other_upstream() {
    run(async {
        let (dead, good) = (Upstream::start(silence).await, Upstream::start(answer).await);
        for config in [forward_to(&[&dead, &good]), force_tcp(&[&dead, &good])] {
            let client = Client::new(&[config]);
            let started = Instant::now();
            assert_answered(client.udp("a").await);
            assert!(started.elapsed() < Duration::from_secs(2));
            // While the silent one is probed, it stands behind the other.
            let started = Instant::now();
            assert_answered(client.udp("b").await);
            assert!(started.elapsed() < Duration::from_millis(150));
        }
        assert_eq!(dead.asked().len(), 2);
    });
}

#[test]
fn a_late_answer_is_still_an_answer() {
    run(async {
        let server = Upstream::start(|asked| {
            vec![Step::Wait(Duration::from_millis(2500)), Step::Send(asked.answer())]
        })
        .await;
        let client = Client::new(&[forward_to(&[&server])]);
        assert_answered(client.udp("a").await);
        assert_eq!(server.asked().len(), 2);
    });
}

#[test]
fn silence_ends_in_a_timeout() {
    run(async {
        let server = Upstream::start(silence).await;
        let client = Client::new(&[forward_to(&[&server]), force_tcp(&[&server])]);
        let started = Instant::now();
        let error = client.udp("a").await.unwrap_err();
        let elapsed = started.elapsed();
        assert!((3900..4500).contains(&elapsed.as_millis()), "{elapsed:?}");
        let text = format!("read udp {}: i/o timeout", server.address);
        assert_eq!(error.to_string(), text);
        assert_eq!(server.asked().len(), 2);
    });
}

#[test]
fn a_closed_port_is_passed_over_at_once() {
    run(async {
        let good = Upstream::start(answer).await;
        for transport in [Transport::ForceTcp, Transport::PreferUdp] {
            let mut config = forward_to(&[&good]);
            config.transport = transport;
            config.to.insert(0, Target::plain(closed_port()));
            let client = Client::new(&[config]);
            let started = Instant::now();
            assert_answered(client.tcp("a").await);
            assert!(started.elapsed() < Duration::from_millis(150));
        }
    });
}

#[test]
fn only_closed_ports_end_in_an_error() {
    run(async {
        let port = closed_port();
        for transport in [Transport::ForceTcp, Transport::PreferUdp] {
            let config = Config { transport, ..Config::new(Name::root(), vec![Target::plain(port)]) };
            let client = Client::new(&[config]);
            let started = Instant::now();
            let error = client.tcp("a").await.unwrap_err().to_string();
            assert!(started.elapsed() < Duration::from_secs(2));
            assert!(error.ends_with("connection refused"), "{error}");
            assert!(error.contains(&port.to_string()), "{error}");
        }
    });
}

#[test]
fn a_port_that_opens_while_the_query_waits_answers_it() {
    run(async {
        let port = closed_port();
        let config =
            Config { transport: Transport::ForceTcp, ..Config::new(Name::root(), vec![Target::plain(port)]) };
        let client = Client::new(&[config]);
        let late = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Upstream::start_at(port, answer).await
        };
        let (reply, server) = tokio::join!(client.tcp("a"), late);
        assert_answered(reply);
        assert_eq!(server.asked().len(), 1);
    });
}

#[test]
fn max_connect_attempts_bounds_the_tries() {
    run(async {
        let config = Config {
            transport: Transport::ForceTcp,
            max_connect_attempts: 2,
            ..Config::new(Name::root(), vec![Target::plain(closed_port())])
        };
        let client = Client::new(&[config]);
        client.tcp("a").await.unwrap_err();
        assert_eq!(client.counts.opened.get(), 2);
    });
}

#[test]
fn stray_datagrams_are_ignored() {
    run(async {
        let server = Upstream::start(|asked| {
            let with = |change: fn(&mut Vec<u8>)| {
                let mut reply = asked.answer();
                // Another address than the true answer's.
                *reply.last_mut().unwrap() = 66;
                change(&mut reply);
                Step::Send(reply)
            };
            vec![
                with(|reply| reply[0] ^= 1),
                with(|reply| reply[13] ^= 1),
                with(|reply| reply[18] = 3),
                with(|reply| reply[16] = 28),
                with(|reply| reply[2] &= 0x7f),
                with(|reply| reply.truncate(5)),
                with(|reply| reply.clear()),
                Step::Send(b"\x16\x03\x01 this is no DNS message, is it?".to_vec()),
                Step::Send(asked.answer()),
            ]
        })
        .await;
        let client = Client::new(&[forward_to(&[&server])]);
        // The name is one label of one octet: type at 15, class at 17.
        assert_answered(client.udp("a").await);
        assert_eq!(server.asked().len(), 1);
    });
}

#[test]
fn a_flood_of_datagrams_ends_the_attempt() {
    run(async {
        let server = Upstream::start(|_| vec![Step::Send(vec![0; 40]); 200]).await;
        let client = Client::new(&[forward_to(&[&server])]);
        let started = Instant::now();
        let error = client.udp("a").await.unwrap_err().to_string();
        assert!(started.elapsed() < Duration::from_secs(2));
        assert!(error.ends_with("not a DNS message"), "{error}");
        assert_eq!(server.asked().len(), 2);
    });
}

#[test]
fn a_frame_under_an_unknown_id_is_ignored() {
    run(async {
        let server = Upstream::start(|asked| {
            let mut other = asked.answer();
            other[0] ^= 1;
            vec![Step::Send(other), Step::Send(asked.answer())]
        })
        .await;
        let client = Client::new(&[force_tcp(&[&server])]);
        assert_answered(client.tcp("a").await);
        assert_eq!((server.asked().len(), server.connections()), (1, 1));
    });
}

type Script = fn(&Asked) -> Vec<Step>;

/// What a broken server may put on a connection instead of an answer.
fn broken_streams() -> Vec<(&'static str, Script)> {
    vec![
        ("garbage", |_| vec![Step::Raw(b"\0\x05HTTP/1.1 400\r\n".to_vec())]),
        ("empty frames", |_| vec![Step::Raw(vec![0; 64])]),
        ("stray frames", |_| vec![Step::Raw(framed(&[0; 12]).repeat(5000))]),
        ("wrong question", |asked| {
            let mut reply = asked.answer();
            reply[13] ^= 1;
            vec![Step::Send(reply)]
        }),
        ("an echo", |asked| vec![Step::Send(asked.message.clone())]),
        ("lying length", |asked| {
            let mut frame = framed(&asked.answer());
            frame[0] = 0xff;
            vec![Step::Raw(frame)]
        }),
        ("half a frame", |asked| {
            let frame = framed(&asked.answer());
            vec![Step::Raw(frame[..20].to_vec()), Step::Close]
        }),
        ("early close", |_| vec![Step::Close]),
        ("early reset", |_| vec![Step::Reset]),
    ]
}

#[test]
fn a_broken_stream_costs_two_attempts_at_most() {
    run(async {
        let one = |what: &'static str, script: Script| async move {
            let server = Upstream::start(script).await;
            let client = Client::new(&[force_tcp(&[&server])]);
            let started = Instant::now();
            client.tcp("a").await.unwrap_err();
            assert!(started.elapsed() < Duration::from_millis(4500), "{what}");
            // What is merely silent gets no second message without a sign of life.
            assert!((1..=2).contains(&server.asked().len()), "{what}");
        };
        join_all(broken_streams().into_iter().map(|(what, script)| one(what, script))).await;
    });
}

#[test]
fn a_broken_stream_is_passed_over() {
    run(async {
        let good = Upstream::start(answer).await;
        for (what, script) in broken_streams() {
            let server = Upstream::start(script).await;
            let client = Client::new(&[force_tcp(&[&server, &good])]);
            let started = Instant::now();
            assert_answered(client.tcp("a").await);
            assert!(started.elapsed() < Duration::from_secs(1), "{what}");
            assert_eq!(server.asked().len(), 1, "{what}");
        }
    });
}

#[test]
fn a_server_that_closes_after_each_answer_is_usable() {
    run(async {
        let server = Upstream::start(|asked| vec![Step::Send(asked.answer()), Step::Close]).await;
        let client = Client::new(&[force_tcp(&[&server])]);
        for _ in 0..20 {
            assert_answered(client.tcp("a").await);
        }
        assert!(server.asked().len() <= 40);
    });
}

#[test]
fn an_answer_to_another_question_costs_its_neighbours_nothing() {
    run(async {
        let server = Upstream::start(|asked| {
            let mut wrong = asked.answer();
            wrong[13] ^= 1;
            match (asked.name.as_str(), asked.connection) {
                ("odd.", 0) => vec![Step::Send(wrong)],
                ("corrected.", _) => vec![Step::Send(wrong), Step::Send(asked.answer())],
                _ => vec![Step::Wait(Duration::from_millis(50)), Step::Send(asked.answer())],
            }
        })
        .await;
        let client = Client::new(&[force_tcp(&[&server])]);
        assert_answered(client.tcp("warm").await);
        let (odd, corrected, one, two) =
            tokio::join!(client.tcp("odd"), client.tcp("corrected"), client.tcp("one"), client.tcp("two"));
        // On its connection `odd` gets no answer: the hedge on another one does.
        for reply in [odd, corrected, one, two] {
            assert_answered(reply);
        }
        assert!(client.counts.unrelated.get() >= 1);
        assert_eq!(client.counts.retried.get(), 0);
    });
}

#[test]
fn hedges_keep_to_their_budget_while_the_upstream_answers_others() {
    const SLOW: usize = 900;
    run(async {
        let upstream = async || {
            Upstream::start(|asked| {
                let wait = if asked.name.starts_with("slow") { 1500 } else { 0 };
                vec![Step::Wait(Duration::from_millis(wait)), Step::Send(asked.answer())]
            })
            .await
        };
        let (one, two) = (upstream().await, upstream().await);
        let client = Client::new(&[force_tcp(&[&one, &two])]);
        let names: Vec<String> = (0..SLOW).map(|n| format!("slow{n}")).collect();
        // In waves, so that the fast ones have their turn before the slow ones are hedged.
        let slow = join_all(names.iter().zip(0..).map(|(name, number): (_, u64)| {
            let client = &client;
            async move {
                tokio::time::sleep(Duration::from_millis(number / 50 * 25)).await;
                client.tcp(name).await
            }
        }));
        let fast = async {
            for _ in 0..200 {
                assert_answered(client.tcp("fast").await);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let (replies, ()) = tokio::join!(slow, fast);
        replies.into_iter().for_each(assert_answered);
        let (hedged, withheld) = (client.counts.hedged.get(), client.counts.withheld.get());
        assert!((100..=600).contains(&hedged), "{hedged} hedges");
        assert!(withheld >= 300, "{withheld} withheld");
    });
}

#[test]
fn chains_with_the_same_upstream_share_its_connections() {
    run(async {
        let server = Upstream::start(answer).await;
        let directory = doorstep::forward::Directory::new(Rc::new(Counts::default()));
        let config = force_tcp(&[&server]);
        let chains = [0, 1, 2].map(|_| Chain::shared(std::slice::from_ref(&config), &directory).unwrap());
        for chain in &chains {
            assert_answered(chain.resolve(&query(4711, "a"), b"\x01a\0", ClientTransport::Tcp).await);
        }
        assert_eq!(server.connections(), 1);
    });
}
