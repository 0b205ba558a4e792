//! Nobody is well: an answer all the same, in time, and no storm.

use std::time::Duration;

use super::client::udp;
use super::fault::{FAULTS, Fault, SLOW, SLOWER};
use super::load::Load;
use super::message::ask;
use super::netns::isolated;
use super::rig::{CLIENT, NODE, Rig, Setting};
use super::table::MAX_ATTEMPTS;
use super::{beside_others, side_by_side};

/// An answer comes within 4 s of reaching Doorstep. That the machine lets neither wait is not said.
const IN_TIME: Duration = Duration::from_millis(4200);
/// Runs at once; they do little but wait.
const RUNS: usize = 8;

/// What is wrong with how `fault`, of both upstreams, shows.
fn violations((setting, fault): (Setting, Fault)) -> Vec<String> {
    isolated(|| {
        let mut rig = Rig::new(setting);
        let load = Load::new(NODE, CLIENT, 100, Duration::from_millis(1500));
        let mut inflicted = false;
        let outcome = load.run(|now| {
            if !inflicted && now >= Duration::from_millis(200) {
                (0..2).for_each(|index| rig.inflict(index, fault, now));
                inflicted = true;
            }
            rig.attend(now);
        });
        let slowest = outcome.quantile(1000);
        let most = rig.attempts().into_values().max().unwrap();
        let failed = outcome.answered() - outcome.with(0);
        // A late answer is an answer.
        let passes = matches!(fault, SLOW | SLOWER);
        let mut violations = Vec::new();
        let mut check = |holds: bool, what: String| {
            if !holds {
                violations.push(format!("{} in {}: {what}", fault.name(), setting.name()));
            }
        };
        check(outcome.lost() == 0, format!("{} without an answer", outcome.lost()));
        check(slowest < IN_TIME + outcome.held_up, format!("an answer after {slowest:?}"));
        check(failed == outcome.with(2), format!("response codes {:?}", outcome.rcodes));
        check(!passes || failed == 0, format!("{failed} SERVFAIL"));
        check(most <= MAX_ATTEMPTS, format!("{most} attempts"));
        violations
    })
}

#[test]
fn only_broken_upstreams_end_in_an_answer_within_four_seconds() {
    let _turn = beside_others();
    let pairs = Setting::ALL.into_iter().flat_map(|setting| FAULTS.map(|fault| (setting, fault)));
    let runs = pairs.filter(|(setting, fault)| setting.knows(*fault)).collect();
    let violations: Vec<String> = side_by_side(RUNS, runs, violations).concat();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// RFC 8914: a client that speaks EDNS learns why, 22 No Reachable Authority or 23 Network Error.
#[test]
fn only_broken_upstreams_are_named_as_the_reason() {
    let _turn = beside_others();
    isolated(|| {
        let mut rig = Rig::new(Setting::TwoTcp);
        (0..2).for_each(|index| rig.inflict(index, Fault::Silence, Duration::ZERO));
        let answer = udp(NODE, &ask("why.test").edns(1232));
        assert_eq!(answer.rcode(), 2);
        let options = &answer.opt().expect("an OPT").rdata;
        assert_eq!(options[..2], [0, 15], "the option's code");
        let code = u16::from_be_bytes([options[4], options[5]]);
        assert!([22, 23].contains(&code), "{code}");
    });
}
