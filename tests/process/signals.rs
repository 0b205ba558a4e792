//! Signals, and the traces the process leaves.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::client::{PATIENCE, Tcp, Udp, udp};
use super::loopback;
use super::message::{Answer, ask};
use super::scripted::{Scripted, answer};
use super::server::{Doorstep, Setup, wait};
use super::upstream::Step;

/// Far less than any grace period.
const QUICK: Duration = Duration::from_secs(2);

/// An upstream that takes its time for everything.
fn slow(time: Duration) -> Scripted {
    Scripted::start(move |asked| vec![Step::Wait(time), Step::Send(asked.answer())])
}

#[test]
fn terminated_interrupted_or_quit_it_ends_well_and_at_once() {
    let upstream = Scripted::start(answer);
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let address = loopback::fresh_dns();
        let mut server =
            Doorstep::start(address.ip(), &super::block(".", address.ip(), upstream.address, ""));
        assert_eq!(udp(address, &ask("a.test")).rcode(), 0);
        server.signal(signal);
        assert_eq!(server.exit(QUICK).code(), Some(0), "{signal:?}");
    }
}

#[test]
fn queries_under_way_are_answered_before_the_end() {
    let upstream = slow(Duration::from_millis(150));
    let address = loopback::fresh_dns();
    let mut server = Doorstep::start(address.ip(), &super::block(".", address.ip(), upstream.address, ""));
    let datagrams = Udp::to(address);
    let mut stream = Tcp::to(address);
    datagrams.send(&ask("a.test").build());
    stream.send(&ask("b.test").build());
    assert!(wait(PATIENCE, || upstream.asked().len() == 2));
    server.signal(Signal::TERM);
    assert_eq!(Answer::read(&datagrams.receive()).section(1).len(), 1);
    assert_eq!(Answer::read(&stream.receive()).section(1).len(), 1);
    assert_eq!(server.exit(QUICK).code(), Some(0));
}

#[test]
fn a_second_interrupt_waits_for_nobody() {
    let upstream = Scripted::start(|_| vec![]);
    let address = loopback::fresh_dns();
    let mut server = Doorstep::start(address.ip(), &super::block(".", address.ip(), upstream.address, ""));
    let client = Udp::to(address);
    client.send(&ask("stuck.test").build());
    assert!(wait(PATIENCE, || !upstream.asked().is_empty()));
    server.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(200));
    assert!(server.is_running(), "it waits for the query under way");
    let start = Instant::now();
    server.signal(Signal::INT);
    assert_eq!(server.exit(PATIENCE).code(), Some(2));
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_hangup_changes_nothing() {
    let upstream = Scripted::start(answer);
    let address = loopback::fresh_dns();
    let mut server = Doorstep::start(address.ip(), &super::block(".", address.ip(), upstream.address, ""));
    for signal in [Signal::HUP, Signal::USR2, Signal::PIPE] {
        server.signal(signal);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(udp(address, &ask("a.test")).rcode(), 0);
        assert!(server.is_running(), "{signal:?}");
    }
    assert_eq!(server.log().matches("running configuration").count(), 1);
}

#[test]
fn the_pid_file_names_the_process_while_it_serves() {
    let upstream = Scripted::start(answer);
    let address = loopback::fresh_dns();
    let setup = Setup::new(address.ip(), &super::block(".", address.ip(), upstream.address, ""));
    let path = setup.path("pid");
    let mut server = setup.flag(format!("-pidfile={}", path.display())).start();
    let written = fs::read_to_string(&path).unwrap();
    assert_eq!(written.trim(), server.pid().as_raw_nonzero().to_string());
    server.signal(Signal::TERM);
    server.exit(QUICK);
    assert!(!path.exists());
}

/// `health { lameduck }`: it goes on serving that long after it was asked to end.
#[test]
fn a_lame_duck_still_answers() {
    let upstream = Scripted::start(answer);
    let address = loopback::fresh_dns();
    let ip = address.ip();
    let health = format!("health {ip}:8080 {{\n lameduck 1s\n }}");
    let mut server = Doorstep::start(ip, &super::block(".", ip, upstream.address, &health));
    let start = Instant::now();
    server.signal(Signal::TERM);
    server.wait_for_log("lameduck");
    assert_eq!(udp(address, &ask("a.test")).rcode(), 0);
    assert_eq!(super::ports::get((ip, 8080).into(), "/health").0, 200);
    assert_eq!(server.exit(PATIENCE).code(), Some(0));
    assert!(start.elapsed() >= Duration::from_millis(900));
}
