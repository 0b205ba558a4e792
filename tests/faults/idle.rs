//! Connections whose peer vanished while nobody used them.

use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::client::udp;
use super::fault::Fault;
use super::load::Load;
use super::message::ask;
use super::netns::isolated;
use super::rig::{CLIENT, NODE, Rig, Setting};
use super::{beside_others, side_by_side};

/// Longer than CoreDNS keeps an idle connection; the rig's `expire` keeps ours.
const PAUSE: Duration = Duration::from_secs(11);
/// What the first query may take after it.
const MAX_FIRST: Duration = Duration::from_millis(300);

/// The pauses pass side by side; what is timed does not.
static TURN: Mutex<()> = Mutex::new(());

/// How long the first query takes after a pause in which `fault` happened to the first upstream.
fn first_after_pause((setting, fault): (Setting, Fault)) -> (u16, Duration) {
    isolated(|| {
        let mut rig = Rig::new(setting);
        let turn = TURN.lock().unwrap();
        // More at once than one connection is given.
        let outcome = Load::new(NODE, CLIENT, 5000, Duration::from_millis(20)).run(|_| ());
        assert_eq!(outcome.with(0), outcome.sent);
        rig.inflict(0, fault, Duration::ZERO);
        drop(turn);
        sleep(PAUSE);
        let _turn = TURN.lock().unwrap();
        let started = Instant::now();
        let answer = udp(NODE, &ask("first.test"));
        (answer.rcode(), started.elapsed())
    })
}

#[test]
fn a_pool_that_died_silently_costs_one_query_less_than_300_ms() {
    let _turn = beside_others();
    let settings = [Setting::TwoTcp, Setting::VipTcp];
    let faults = [Fault::Silence, Fault::Blackhole, Fault::PowerOff];
    // Whom the first query meets is chance: several tries of each.
    let tries = settings.into_iter().flat_map(|setting| faults.map(|fault| (setting, fault)));
    let tries: Vec<_> = tries.flat_map(|one| [one; 2]).collect();
    let results = side_by_side(tries.len(), tries.clone(), first_after_pause);
    let report: Vec<_> =
        tries.iter().zip(&results).map(|(one, result)| format!("{one:?}: {result:?}")).collect();
    let holds = results.iter().all(|(rcode, time)| *rcode == 0 && *time < MAX_FIRST);
    assert!(holds, "{}", report.join("\n"));
}
