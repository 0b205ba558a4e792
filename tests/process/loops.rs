//! `loop`: an upstream that is ourselves.

use super::client::udp;
use super::loopback;
use super::message::ask;
use super::metric;
use super::scripted::{Scripted, answer};
use super::server::Doorstep;

#[test]
fn a_loop_stops_its_block_and_not_the_process() {
    let upstream = Scripted::start(answer);
    let address = loopback::fresh_dns();
    let ip = address.ip();
    let text =
        super::block("looping.test", ip, address, "loop") + &super::block(".", ip, upstream.address, "loop");
    let mut server = Doorstep::start(ip, &text);
    server.wait_for_log("[ERROR] plugin/loop: zone looping.test. sends its queries back to itself");
    let gauge = |zone| metric(server.metrics(), "doorstep_loop_detected", Some(("zone", zone)));
    assert_eq!((gauge("looping.test."), gauge(".")), (Some(1.0), Some(0.0)));
    assert_eq!(udp(address, &ask("a.looping.test")).rcode(), 2);
    assert_eq!(udp(address, &ask("a.test")).rcode(), 0);
    assert!(server.is_running());
    // A configuration without the loop serves again.
    server.rewrite(&super::block(".", ip, upstream.address, "loop"));
    server.signal(rustix::process::Signal::USR1);
    server.wait_for_log_times("running configuration", 2);
    assert_eq!(udp(address, &ask("a.looping.test")).rcode(), 0);
}

/// Probes are repeated while nobody answers; an upstream that is late to start is no loop.
#[test]
fn an_upstream_that_is_silent_is_no_loop() {
    let is_probe =
        |asked: &super::upstream::Asked| asked.name.starts_with(|first: char| first.is_ascii_digit());
    let upstream = Scripted::start(move |asked| if is_probe(asked) { Vec::new() } else { answer(asked) });
    let address = loopback::fresh_dns();
    let mut server =
        Doorstep::start(address.ip(), &super::block(".", address.ip(), upstream.address, "loop"));
    let probes = || upstream.asked().iter().filter(|asked| is_probe(asked)).count();
    // Each may be asked twice, so this is the fourth at least.
    assert!(super::server::wait(std::time::Duration::from_secs(30), || probes() > 7));
    assert_eq!(udp(address, &ask("a.test")).rcode(), 0);
    assert!(server.is_running());
}
