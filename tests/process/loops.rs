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
