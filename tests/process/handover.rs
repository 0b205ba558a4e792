//! From one process to the next, and what happens when either is not what it seems.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use doorstep::guardian::channel::{Channel, ReceiveError};
use doorstep::guardian::message::Message;
use doorstep::sockets::{Listen, Role};
use rustix::process::Signal;
use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

use super::client::udp;
use super::loopback;
use super::message::ask;
use super::scripted::{Scripted, answer};
use super::server::{Doorstep, Setup, wait};

/// Processes that find each other, on one address.
struct Line {
    directory: TempDir,
    upstream: Scripted,
    address: SocketAddr,
}

impl Line {
    fn new() -> Line {
        Line {
            directory: tempfile::tempdir().unwrap(),
            upstream: Scripted::start(answer),
            address: loopback::fresh_dns(),
        }
    }

    fn setup(&self) -> Setup {
        let ip = self.address.ip();
        let corefile = super::block(".", ip, self.upstream.address, &format!("prometheus {ip}:9253"));
        let directory = self.directory.path().join("handover");
        Setup::new(ip, &corefile).flag(format!("-handover={}", directory.display()))
    }

    fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("handover/doorstep.sock")
    }

    #[track_caller]
    fn answers(&self) {
        assert_eq!(udp(self.address, &ask("a.test")).rcode(), 0);
    }

    fn ask_to_take_over(&self) -> Message {
        use std::os::unix::fs::MetadataExt;
        Message::Ask {
            version: "9.9.9".to_owned(),
            identity: "another".to_owned(),
            namespace: std::fs::metadata("/proc/self/ns/net").unwrap().ino(),
            listens: vec![Listen { role: Role::DnsUdp, address: self.address, index: 0 }],
        }
    }
}

fn connect(path: &Path) -> Channel {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    // Whoever takes back what it gave opens its door again.
    let connected = || socket.connect(&SockAddr::unix(path).unwrap()).is_ok();
    assert!(wait(Duration::from_secs(10), connected), "nobody listens");
    Channel::new(socket.into())
}

#[test]
fn a_successor_takes_over_with_the_cache_and_the_counters() {
    let line = Line::new();
    let mut old = line.setup().start();
    line.answers();
    let new = line.setup().start();
    new.wait_for_log("taking over from doorstep");
    assert!(wait(Duration::from_secs(10), || !old.is_running()), "{}", old.log());
    line.answers();
    assert_eq!(line.upstream.asked().len(), 1, "the cache did not come along");
    // Its own metrics are answered once it has the old one's numbers.
    new.wait_for_log("running configuration");
    let starts = super::metric(new.metrics(), "doorstep_worker_starts_total", Some(("cause", "start")));
    assert_eq!(starts, Some(1.0));
    let shown = super::exposition::scrape(new.metrics());
    let requests = shown.lines().find(|line| line.starts_with("coredns_dns_requests_total{"));
    assert!(requests.is_some_and(|line| line.ends_with(" 2")), "{shown}");
}

#[test]
fn a_container_that_was_taken_over_from_waits_when_it_is_started_again() {
    let line = Line::new();
    let old = line.setup().variable("POD_UID", "old").start();
    let mut new = line.setup().variable("POD_UID", "new").start();
    drop(old);
    let again = line.setup().variable("POD_UID", "old").spawn();
    again.wait_for_log("waiting until it ends");
    assert!(new.is_running());
    // Nor does it take over from one that came after that.
    let mut newest = line.setup().variable("POD_UID", "newest").start();
    assert!(wait(Duration::from_secs(10), || !new.is_running()), "{}", new.log());
    again.wait_for_log_times("waiting until it ends", 2);
    assert!(newest.is_running());
    newest.signal(Signal::TERM);
    again.wait_for_log("doorstep 0.1.0 serves");
    line.answers();
}

#[test]
fn who_serves_other_addresses_is_left_alone() {
    let line = Line::new();
    let mut first = line.setup().start();
    let other = Line::new();
    let corefile = super::block(".", other.address.ip(), other.upstream.address, "");
    let directory = line.directory.path().join("handover");
    let second =
        Setup::new(other.address.ip(), &corefile).flag(format!("-handover={}", directory.display())).start();
    second.wait_for_log("it serves other addresses");
    second.wait_for_log("give each its own");
    assert!(first.is_running());
    line.answers();
    other.answers();
}

#[test]
fn a_directory_that_others_can_write_to_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let line = Line::new();
    let directory = line.directory.path().join("handover");
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).unwrap();
    let server = line.setup().start();
    server.wait_for_log("chmod 0700");
    line.answers();
    assert!(!line.socket().exists());
}

/// A successor that goes away after so many steps.
fn visit(line: &Line, steps: usize) {
    let visitor = connect(&line.socket());
    if steps > 0 {
        visitor.send(&line.ask_to_take_over()).unwrap();
    }
    if steps > 1 {
        let offer = visitor.receive().unwrap();
        let Message::Offer { sockets, caches, .. } = offer else { panic!("{offer:?}") };
        assert!(!sockets.is_empty() && !caches.is_empty());
    }
    if steps > 2 {
        visitor.send(&Message::Taken).unwrap();
    }
    if steps > 3 {
        let quiet = visitor.receive();
        assert!(matches!(quiet, Ok(Message::Quiet { totals: Some(_) })), "{quiet:?}");
    }
}

#[test]
fn a_successor_that_dies_at_any_step_leaves_the_old_one_serving() {
    let line = Line::new();
    let mut server = line.setup().start();
    // A connection that the old worker lingers for, so that the process is still there after its last step.
    let _open = std::net::TcpStream::connect(line.address).unwrap();
    for steps in 0..5 {
        if steps == 4 {
            // What was given at the third step has been taken back.
            server.wait_for_log_times("running configuration", 2);
        }
        visit(&line, steps);
        let served = wait(Duration::from_secs(10), || udp(line.address, &ask("a.test")).rcode() == 0);
        assert!(served, "after {steps} steps:\n{}", server.log());
        assert!(server.is_running(), "after {steps} steps:\n{}", server.log());
    }
    assert_eq!(line.upstream.asked().len(), 1, "the cache was lost");
    server.wait_for_log("this process serves again");
    // And it hands over to one that does come.
    let _open = std::net::TcpStream::connect(line.address).unwrap();
    let _new = line.setup().start();
    assert!(wait(Duration::from_secs(10), || !server.is_running()), "{}", server.log());
    line.answers();
}

/// What the predecessor does after so many steps is to end.
fn receive_visit(door: &Socket, steps: usize) {
    let visitor = Channel::new(door.accept().unwrap().0.into());
    if steps > 0 {
        assert!(matches!(visitor.receive(), Ok(Message::Ask { .. })));
    }
    if steps > 1 {
        let (sockets, lease, caches) = (Vec::new(), None, Vec::new());
        let version = "0.0.1".to_owned();
        visitor.send(&Message::Offer { version, identity: String::new(), sockets, lease, caches }).unwrap();
    }
    if steps > 2 {
        assert!(matches!(visitor.receive(), Ok(Message::Taken)));
    }
    if steps > 3 {
        visitor.send(&Message::Quiet { totals: None }).unwrap();
        assert!(matches!(visitor.try_receive(), Err(ReceiveError::Empty)));
    }
}

#[test]
fn a_predecessor_that_dies_at_any_step_is_succeeded_all_the_same() {
    for steps in 0..5 {
        let line = Line::new();
        let directory = line.socket().parent().unwrap().to_owned();
        std::fs::create_dir(&directory).unwrap();
        let door = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        door.bind(&SockAddr::unix(line.socket()).unwrap()).unwrap();
        door.listen(1).unwrap();
        let server = line.setup().spawn();
        receive_visit(&door, steps);
        drop(door);
        server.wait_for_log("doorstep 0.1.0 serves");
        line.answers();
        server.wait_for_log("running configuration");
    }
}

/// What no process of ours would say is refused or ignored, and harms nobody.
#[test]
fn nonsense_at_the_door_is_turned_away() {
    let line = Line::new();
    let mut server: Doorstep = line.setup().start();
    for message in [Message::Taken, Message::Pulse, Message::Retire { linger: false }] {
        let visitor = connect(&line.socket());
        visitor.send(&message).unwrap();
        assert!(matches!(visitor.receive(), Ok(Message::Refused(_))), "{message:?}");
    }
    let visitor = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    visitor.connect(&SockAddr::unix(line.socket()).unwrap()).unwrap();
    visitor.send(&[0xff; 100]).unwrap();
    drop(visitor);
    line.answers();
    assert!(server.is_running());
}
