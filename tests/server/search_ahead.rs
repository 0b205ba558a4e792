//! `search_ahead` changes when a pod gets its answers, and nothing else: pods of namespace `default` with
//! `ndots:5` look names up at a server that has the directive and at one that has not.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::client::Udp;
use super::exposition::{parse, scrape};
use super::loopback;
use super::message::{Answer, Ask, ask, rr, wire_name};
use super::nsd::Nsd;
use super::scripted::Scripted;
use super::server::Doorstep;
use super::upstream::{Asked, Step};

/// Of a pod, in its order; the last is the node's own, which not every node has.
const SEARCH: [&str; 4] = ["default.svc.cluster.local", "svc.cluster.local", "cluster.local", "node.test"];
const NDOTS: usize = 5;
const NXDOMAIN: u16 = 3;

/// A server for the cluster and for the rest of the world.
struct Node {
    address: SocketAddr,
    _server: Doorstep,
    metrics: SocketAddr,
}

impl Node {
    fn start(cluster: SocketAddr, world: SocketAddr, directive: &str) -> Node {
        let address = loopback::fresh_dns();
        let ip = address.ip();
        let block = |zone: &str, upstream: SocketAddr, directive: &str| {
            let forward = format!("forward . {upstream} {{\n force_tcp\n }}");
            format!("{zone} {{\n bind {ip}\n errors\n cache\n {forward}\n {directive}\n}}\n")
        };
        let corefile = block("cluster.local", cluster, directive) + &block(".", world, "");
        let server = Doorstep::start(ip, &corefile);
        Node { address, metrics: server.metrics(), _server: server }
    }

    /// Queries it sent ahead.
    fn sent_ahead(&self) -> f64 {
        let families = parse(&scrape(self.metrics));
        let family = families.iter().find(|family| family.name == "doorstep_search_ahead_total").unwrap();
        family.samples[0].value
    }
}

/// A pod's resolver.
struct Pod {
    server: SocketAddr,
    search: &'static [&'static str],
    /// What its queries have besides the question.
    dress: fn(Ask) -> Ask,
}

/// What it asks for when a program looks `name` up, in its order.
fn path(name: &str, search: &[&str]) -> Vec<String> {
    let mut path: Vec<String> = search.iter().map(|domain| format!("{name}.{domain}")).collect();
    let as_it_is = if name.matches('.').count() < NDOTS { path.len() } else { 0 };
    path.insert(as_it_is, name.to_owned());
    path.retain(|name| wire_name(name).len() <= 255);
    path
}

/// Looks `name` up: asks for both addresses at once, and on until there is one. All replies, in the
/// order of the questions.
fn look_up(pod: &Pod, name: &str) -> Vec<Answer> {
    let client = Udp::to(pod.server);
    let mut replies = Vec::new();
    for (number, name) in (0..).step_by(2).zip(path(name, pod.search)) {
        for (id, qtype) in [(number, rr::A), (number + 1, rr::AAAA)] {
            client.send(&(pod.dress)(ask(&name).id(id).qtype(qtype)).build());
        }
        let mut pair = [(); 2].map(|()| Answer::read(&client.receive()));
        pair.sort_by_key(Answer::id);
        let found = pair.iter().any(|answer| !answer.section(1).is_empty());
        replies.extend(pair);
        if found {
            break;
        }
    }
    replies
}

/// The octets of a reply with every TTL zero.
fn essence(answer: &Answer) -> Vec<u8> {
    let mut octets = answer.octets.clone();
    let mut at = 12 + answer.question.len();
    for record in &answer.records {
        let ttl = at + record.owner.len() + 4;
        if record.rtype != rr::OPT {
            octets[ttl..ttl + 4].fill(0);
        }
        at = ttl + 6 + record.rdata.len();
    }
    octets
}

const SOA: &str = "$TTL 600\n@ SOA ns hostmaster 1 3600 600 86400 600\n@ NS ns\nns A 192.0.2.53\n";

/// Services, some with both addresses, and names in the middle of a search path.
fn cluster_zone() -> String {
    let mut zone =
        format!("{SOA}alias.default.svc CNAME web1.default.svc\noutside.svc CNAME host1.example.\n");
    for number in 0..50 {
        for owner in ["web*.default.svc", "db*.prod.svc", "mid*.svc", "low*"] {
            let owner = owner.replace('*', &number.to_string());
            writeln!(zone, "{owner} A 10.96.1.{number}").unwrap();
            if number % 3 == 0 {
                writeln!(zone, "{owner} AAAA fd00::{number}").unwrap();
            }
        }
        writeln!(zone, "_http._tcp.web{number}.default.svc SRV 0 1 80 web{number}.default.svc").unwrap();
    }
    zone
}

fn world_zone() -> String {
    let mut zone = format!("{SOA}*.wild.example A 192.0.2.1\nonly-text.example TXT text\n");
    for number in 0..200 {
        writeln!(zone, "host{number}.example A 192.0.2.{number}\nhost{number}.example AAAA 2001:db8::1")
            .unwrap();
        writeln!(zone, "corp{number}.node.test A 192.0.2.{number}").unwrap();
        writeln!(zone, "www{number}.example CNAME host{number}.example").unwrap();
    }
    zone
}

/// Name number `n` of those that programs look up; no two are the same.
fn name(n: usize) -> String {
    const SHAPES: [&str; 40] = [
        // Services of this namespace, of others, and names that exist further down the path.
        "web*",
        "web*.default",
        "WEB*",
        "db*.prod",
        "db*.prod.svc",
        "db*.prod.svc.cluster.local",
        "mid*",
        "low*",
        "corp*",
        "no*.prod",
        "no*.prod.svc.cluster.local",
        "web*.default.svc.cluster.local.svc",
        // The world.
        "host*.example",
        "www*.example",
        "Host*.EXAMPLE",
        "corp*.node.test",
        "any*.wild.example",
        "a.b.c.d.e*.wild.example",
        "a.b.c.d.e.f.no*.example",
        "any.*.wild.example",
        // Names that do not exist anywhere.
        "no*",
        "no*.example",
        "no*.such.domain",
        "a.b.c.d.no*",
        "a.b.c.d.e.no*",
        // Odd ones.
        "_http._tcp.web*",
        "_no*._tcp.db",
        r"dot\.in*.prod",
        r"dot\.in*",
        r"\000*.example",
        r"sp\032ace*",
        r"a\005local*",
        "*.default.svc.cluster.local",
        "*.svc.cluster.local",
        "*.svc",
        "10.0.0.*",
        "xn--bcher-kva*.example",
        "-*-",
        "LONG*.example",
        "LONG.LONG.LONG*",
    ];
    let shape = SHAPES[n % SHAPES.len()].replace('*', &(n / SHAPES.len()).to_string());
    shape.replace("LONG", &"l".repeat(60))
}

#[test]
fn no_reply_differs() {
    const NAMES: usize = 2000;
    let (cluster, world) = (Nsd::start("cluster.local", &cluster_zone()), Nsd::start(".", &world_zone()));
    let start = |directive| Node::start(cluster.address, world.address, directive);
    let (with, without) = (start("search_ahead node.test"), start(""));
    let dresses: [fn(Ask) -> Ask; 3] =
        [|ask| ask, |ask| ask.edns(1232), |ask| ask.opt(4096, 0, true, &[]).octet(3, 0x10)];
    let (mut replies, mut denied, mut names) = (0, 0, BTreeSet::new());
    for n in 0..NAMES {
        let (name, dress) = (name(n), dresses[n % 3]);
        let [found, expected] = [&with, &without]
            .map(|node| look_up(&Pod { server: node.address, search: &SEARCH, dress }, &name));
        assert!(names.insert(name.clone()), "{name} again");
        assert_eq!(
            found.iter().map(essence).collect::<Vec<_>>(),
            expected.iter().map(essence).collect::<Vec<_>>(),
            "{name}"
        );
        replies += found.len();
        denied += found.iter().filter(|answer| answer.rcode() == NXDOMAIN).count();
        assert!(found.iter().all(|answer| [0, NXDOMAIN].contains(&answer.rcode())), "{name}");
    }
    assert_eq!(without.sent_ahead(), 0.0);
    let ahead = with.sent_ahead();
    println!("{NAMES} names, {replies} replies, {denied} of them NXDOMAIN, {ahead} queries sent ahead");
    assert!(denied > NAMES * 2 && replies - denied > NAMES / 2 && ahead > NAMES as f64);
}

/// An upstream 2 ms away: a few names have an address, the others do not exist.
fn distant(asked: &Asked) -> Vec<Step> {
    const EXISTING: [&str; 3] = [".default.svc.cluster.local.", ".prod.svc.cluster.local.", ".example."];
    let exists = EXISTING.iter().any(|domain| {
        let service = asked.name.strip_suffix(domain);
        service.is_some_and(|service| !service.contains('.') && !service.starts_with("no"))
    });
    let is_a = asked.message[asked.reply(0).len() - 4..][..2] == [0, 1];
    let reply = if exists && is_a { asked.answer() } else { denial(asked, if exists { 0 } else { 3 }) };
    vec![Step::Wait(Duration::from_millis(2)), Step::Send(reply)]
}

/// A reply with the SOA of the root, to be kept for ten minutes.
fn denial(asked: &Asked, rcode: u8) -> Vec<u8> {
    let mut reply = asked.reply(rcode);
    reply[9] = 1;
    reply.extend([0, 0, 6, 0, 1, 0, 0, 2, 88, 0, 22, 0, 0]);
    reply.extend([0; 16]);
    reply.extend([0, 0, 2, 88]);
    reply
}

/// What looking names up costs at one server: median, and queries upstream for each name.
fn cost(node: &Node, upstream: &Scripted, names: &[String]) -> (Duration, f64) {
    let before = upstream.asked().len();
    let pod = Pod { server: node.address, search: &SEARCH[..3], dress: |ask| ask };
    let mut times: Vec<Duration> = Vec::new();
    for name in names {
        let start = Instant::now();
        look_up(&pod, name);
        times.push(start.elapsed());
    }
    // What is still on its way was caused by these names.
    std::thread::sleep(Duration::from_millis(50));
    times.sort_unstable();
    (times[times.len() / 2], (upstream.asked().len() - before) as f64 / names.len() as f64)
}

#[test]
fn what_a_look_up_costs() {
    const NAMES: usize = 200;
    let upstreams = [(); 2].map(|()| Scripted::start(distant));
    let start = |upstream: &Scripted, directive| Node::start(upstream.address, upstream.address, directive);
    let (without, with) = (start(&upstreams[0], ""), start(&upstreams[1], "search_ahead"));
    println!("A and AAAA at once, ndots:5, 3 search domains, upstream 2 ms away, {NAMES} names a line");
    println!("{:28} {:>19} {:>25}", "", "median of a look-up", "upstream queries of one");
    println!("{:28} {:>9} {:>9} {:>12} {:>12}", "a pod looks up", "without", "with", "without", "with");
    let mut costs = Vec::new();
    for (what, shape) in [
        ("a name outside", "host*.example"),
        ("a name that does not exist", "no*.example"),
        ("another namespace's service", "db*.prod"),
        ("its own namespace's service", "web*"),
    ] {
        let names: Vec<String> = (0..NAMES).map(|n| shape.replace('*', &n.to_string())).collect();
        let (slow, few) = cost(&without, &upstreams[0], &names);
        let (fast, many) = cost(&with, &upstreams[1], &names);
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        println!("{what:28} {:>9} {:>9} {few:>12.1} {many:>12.1}", ms(slow), ms(fast));
        costs.push((slow, fast, few, many));
    }
    // A hedge now and then is no cost of the directive.
    let about = |found: f64, expected: f64| (found - expected).abs() <= expected * 0.1;
    let [outside, missing, other, own] = costs[..] else { unreachable!() };
    for (slow, fast, ..) in [outside, missing] {
        assert!(fast < slow * 3 / 4, "{fast:?} with, {slow:?} without");
    }
    for ((.., few, many), expected) in
        [(outside, (8., 8.)), (missing, (8., 8.)), (other, (4., 8.)), (own, (2., 2.))]
    {
        assert!(about(few, expected.0), "{few} instead of {}", expected.0);
        assert!(about(many, expected.1), "{many} instead of {}", expected.1);
    }
}

#[test]
fn each_name_is_fetched_where_the_pods_query_would_be() {
    let [cluster, here, there] = [(); 3].map(|()| Scripted::start(distant));
    let [one, other] = [(); 2].map(|()| loopback::fresh_dns());
    let block = |zone: &str, bind: &str, upstream: &Scripted, directive: &str| {
        format!("{zone} {{\n bind {bind}\n cache\n forward . {}\n {directive}\n}}\n", upstream.address)
    };
    let [one_ip, other_ip] = [one, other].map(|address| address.ip().to_string());
    let corefile = [
        block("cluster.local", &format!("{one_ip} {other_ip}"), &cluster, "search_ahead"),
        block(".", &one_ip, &here, ""),
        block(".", &other_ip, &there, ""),
    ];
    let _server = Doorstep::start(one.ip(), &corefile.concat());
    for (address, name) in [(one, "host1.example"), (other, "host2.example")] {
        look_up(&Pod { server: address, search: &SEARCH[..3], dress: |ask| ask }, name);
    }
    let counts = |upstream: &Scripted| [1, 2].map(|n| upstream.count(&format!("host{n}.example.")));
    assert_eq!([counts(&cluster), counts(&here), counts(&there)], [[0, 0], [2, 0], [0, 2]]);
}
