//! Datagrams that are not the answer (RFC 5452 §9.1).

use std::time::Duration;

use super::beside_others;
use super::fault::Fault;
use super::load::Load;
use super::loopback;
use super::scripted::Scripted;
use super::server::Doorstep;
use super::upstream::{Asked, Step};

/// What comes before the right answer.
const STRAYS: [Fault; 5] =
    [Fault::Garbage, Fault::WrongId, Fault::WrongQuestion, Fault::WrongClass, Fault::Truncated];

fn strays_first(asked: &Asked) -> Vec<Step> {
    let strays = STRAYS.iter().flat_map(|fault| fault.steps(asked));
    let late = [Step::Wait(Duration::from_millis(5)), Step::Send(asked.answer())];
    strays.chain(late).collect()
}

#[test]
fn strays_are_ignored_and_the_right_answer_is_awaited() {
    let _turn = beside_others();
    let upstream = Scripted::start(strays_first);
    let address = loopback::fresh_dns();
    let ip = address.ip();
    let text = format!(". {{\n bind {ip}\n forward . {} {{\n prefer_udp\n }}\n}}\n", upstream.address);
    let _server = Doorstep::start(ip, &text);
    let outcome = Load::new(address, loopback::fresh(), 500, Duration::from_secs(1)).run(|_| ());
    assert_eq!((outcome.with(0), outcome.lost()), (outcome.sent, 0), "{:?}", outcome.rcodes);
    assert_eq!(upstream.asked().len(), outcome.sent, "nobody was asked twice");
}
