//! The query pair that this project is about: A and AAAA at once, by two threads, from one socket.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use doorstep::demo::network::{KUBE_DNS_VIP, NODE_LOCAL, POD};
use doorstep::demo::{dns_entries, flush};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use super::rig::{KUBERNETES, Rig};

const PAIRS: usize = 300;
/// Long for an answer, short for 300 that do not come.
const TIMEOUT: Duration = Duration::from_secs(2);

fn query(id: u16, name: &str, record_type: RecordType) -> Vec<u8> {
    let mut query = Message::query();
    query.metadata.id = id;
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).expect("a name"), record_type));
    query.to_vec().expect("a query")
}

/// Whether both of a pair are answered with NOERROR.
fn pair(server: SocketAddr, name: &str) -> io::Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let start = Barrier::new(2);
    let send = |id, record_type| {
        let packet = query(id, name, record_type);
        start.wait();
        socket.send(&packet)
    };
    thread::scope(|scope| {
        let second = scope.spawn(|| send(2, RecordType::AAAA));
        send(1, RecordType::A)?;
        second.join().expect("no panic").map(drop)
    })?;
    let mut answered = [false; 2];
    let mut packet = [0; 1500];
    while answered != [true; 2] {
        let length = match socket.recv(&mut packet) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            received => received?,
        };
        let message = Message::from_vec(&packet[..length]).expect("an answer");
        assert_eq!(message.metadata.response_code, ResponseCode::NoError);
        answered[usize::from(message.metadata.id) - 1] = true;
    }
    Ok(true)
}

/// Pairs of the pod that lost an answer.
fn lost(rig: &Rig, server: Ipv4Addr, name: impl Fn(usize) -> String + Sync) -> usize {
    let server = SocketAddr::from((server, 53));
    let race = || (0..PAIRS).filter(|&n| !pair(server, &name(n)).expect("sent")).count();
    rig.cluster.pod().run(race).expect("entered")
}

/// What conntrack counted on all processors.
fn statistics(rig: &Rig, counter: &str) -> u64 {
    let table = rig.node("conntrack -S");
    let values = table.split_whitespace().filter_map(|word| word.strip_prefix(counter)?.strip_prefix('='));
    values.map(|value| value.parse::<u64>().expect("a count")).sum()
}

#[test]
fn no_pair_loses_an_answer_or_clashes() {
    let rig = Rig::new("pairs");
    let daemon = rig.serve(&[]);
    flush(rig.cluster.node()).expect("an empty table");
    let counters = ["clash_resolve", "insert_failed", "drop"];
    let before = counters.map(|counter| statistics(&rig, counter));
    let hits = |_| KUBERNETES.to_owned();
    assert_eq!(lost(&rig, NODE_LOCAL, hits), 0, "{}", daemon.log());
    assert_eq!(lost(&rig, KUBE_DNS_VIP, hits), 0, "{}", daemon.log());
    let misses = |n| format!("slow-0.{n}.cluster.local.");
    assert_eq!(lost(&rig, NODE_LOCAL, misses), 0, "{}", daemon.log());
    assert_eq!(counters.map(|counter| statistics(&rig, counter)), before, "{counters:?}");
    let entries = dns_entries(rig.cluster.node()).expect("the table");
    assert!(entries.iter().all(|entry| entry.tcp && !entry.involves(POD)), "{entries:?}");
    // 600 misses went over a few connections.
    assert!(entries.len() < 20, "{entries:?}");
    daemon.stop();
}

/// What the same pairs leave where nobody is in between.
#[test]
fn without_us_every_pair_is_tracked() {
    let rig = Rig::new("plain");
    flush(rig.cluster.node()).expect("an empty table");
    lost(&rig, KUBE_DNS_VIP, |_| KUBERNETES.to_owned());
    assert!(dns_entries(rig.cluster.node()).expect("the table").len() > PAIRS / 2);
}
