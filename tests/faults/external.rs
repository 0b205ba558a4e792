//! Zones of the world outside: resolvers far away, asked by UDP, named by a resolv.conf.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::beside_others;
use super::client::{tcp, udp};
use super::load::Load;
use super::loopback;
use super::message::{ask, bit};
use super::scripted::{Scripted, answer};
use super::server::{Doorstep, Setup, replace};
use super::upstream::{Asked, Step};

fn start(upstream: SocketAddr) -> (SocketAddr, Doorstep) {
    let address = loopback::fresh_dns();
    let ip = address.ip();
    let text = format!(". {{\n bind {ip}\n cache\n forward . {upstream} {{\n prefer_udp\n }}\n}}\n");
    (address, Doorstep::start(ip, &text))
}

/// RFC 5452 §9.2 wants source ports and ids that nobody can guess.
#[test]
fn source_ports_and_ids_are_random() {
    let _turn = beside_others();
    const COUNT: usize = 1000;
    let upstream = Scripted::start(answer);
    let (address, _server) = start(upstream.address);
    Load::new(address, loopback::fresh(), 500, Duration::from_secs(2)).run(|_| ());
    let asked = upstream.asked();
    assert_eq!(asked.len(), COUNT);
    let ports: Vec<u32> = asked.iter().map(|asked| u32::from(asked.peer.port())).collect();
    let ids: Vec<u32> = asked
        .iter()
        .map(|asked| u32::from(u16::from_be_bytes([asked.message[0], asked.message[1]])))
        .collect();
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let range: Vec<u32> = range.split_whitespace().map(|bound| bound.parse().unwrap()).collect();
    expect_random("ports", &ports, range[0], range[1] + 1);
    expect_random("ids", &ids, 0, 1 << 16);
}

/// Checks what 1000 draws from `low..high` show: few repetitions, an even spread, no steps.
#[track_caller]
fn expect_random(what: &str, draws: &[u32], low: u32, high: u32) {
    let (count, size) = (draws.len() as f64, f64::from(high - low));
    let distinct = draws.iter().collect::<HashSet<_>>().len() as f64;
    // Each pair is the same with probability 1/size; ten times as many would be a small set.
    let repetitions = count * count / 2.0 / size;
    assert!(count - distinct < 10.0 * repetitions + 10.0, "{what}: {distinct} of {count} distinct");
    let mut bins = [0.0; 16];
    for &draw in draws {
        assert!((low..high).contains(&draw), "{what}: {draw}");
        bins[(u64::from(draw - low) * 16 / u64::from(high - low)) as usize] += 1.0;
    }
    let expected = count / 16.0;
    let chi_square: f64 = bins.iter().map(|bin| (bin - expected) * (bin - expected) / expected).sum();
    // 15 degrees of freedom: one run of fair draws in a million is above.
    assert!(chi_square < 56.5, "{what}: {bins:?}");
    let near = draws.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 8).count();
    assert!((near as f64) < 10.0 + 10.0 * count * 17.0 / size, "{what}: {near} follow their predecessor");
}

#[test]
fn a_truncated_datagram_is_fetched_whole_by_tcp() {
    let _turn = beside_others();
    let upstream = Scripted::start(|asked| {
        let mut truncated = asked.reply(0);
        truncated[2] |= 2;
        vec![Step::Send(if asked.udp { truncated } else { asked.answer() })]
    });
    let (address, _server) = start(upstream.address);
    for (way, name) in [(udp as fn(_, &_) -> _, "a.test"), (tcp, "b.test")] {
        let answer = way(address, &ask(name));
        assert_eq!((answer.section(1).len(), answer.has(bit::TC)), (1, false), "{name}");
        assert_eq!(upstream.count(&format!("{name}.")), 2);
    }
}

/// Says FORMERR to whatever has an OPT, as servers older than EDNS do.
fn without_edns(asked: &Asked) -> Vec<Step> {
    match asked.message[11] {
        0 => vec![Step::Send(asked.answer())],
        _ => vec![Step::Send(asked.reply(1))],
    }
}

#[test]
fn a_resolver_without_edns_is_asked_with_it_once() {
    let _turn = beside_others();
    let upstream = Scripted::start(without_edns);
    let (address, _server) = start(upstream.address);
    for number in 0..10 {
        let answer = udp(address, &ask(&format!("{number}.test")).edns(1232));
        assert_eq!((answer.rcode(), answer.section(1).len()), (0, 1));
        assert!(answer.opt().is_some(), "our clients' EDNS is between them and us");
    }
    let with_opt = upstream.asked().iter().filter(|asked| asked.message[11] > 0).count();
    assert_eq!((with_opt, upstream.asked().len()), (1, 11));
}

#[test]
fn a_changed_resolv_conf_is_taken_up_and_the_cache_stays() {
    let _turn = beside_others();
    let resolver = |ip: IpAddr| Scripted::start_at(SocketAddr::new(ip, 53), answer);
    let [old, new] = [loopback::fresh(), loopback::fresh()].map(resolver);
    let address = loopback::fresh_dns();
    let setup = Setup::bare(address.ip());
    let resolv_conf = setup.path("resolv.conf");
    let name = |upstream: &Scripted| format!("search x.test\nnameserver {}\n", upstream.address.ip());
    replace(&resolv_conf, &name(&old));
    let text = format!(
        ". {{\n bind {}\n cache\n reload 2s 0s\n forward . {}\n}}\n",
        address.ip(),
        resolv_conf.display()
    );
    std::fs::write(setup.corefile(), text).unwrap();
    let server = setup.start();
    assert_eq!(udp(address, &ask("a.test")).rcode(), 0);
    // A file that is being written, and names nobody, changes nothing.
    replace(&resolv_conf, "# nothing yet\n");
    server.wait_for_log("the old configuration serves on");
    assert_eq!(udp(address, &ask("b.test")).rcode(), 0);
    replace(&resolv_conf, &name(&new));
    server.wait_for_log_times("running configuration", 2);
    for name in ["a.test", "b.test", "c.test"] {
        assert_eq!(udp(address, &ask(name)).rcode(), 0);
    }
    let names =
        |upstream: &Scripted| upstream.asked().into_iter().map(|asked| asked.name).collect::<Vec<_>>();
    assert_eq!(names(&old), ["a.test.", "b.test."], "the cache is kept");
    assert_eq!(names(&new), ["c.test."]);
}
