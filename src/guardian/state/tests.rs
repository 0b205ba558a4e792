use std::collections::BTreeSet;

use proptest::prelude::*;

use super::machine::{INTERRUPTED, SHORT_LIFE_MS, SHORT_LIVES};
use super::*;

fn at(ms: u64) -> Moment {
    Moment(1_000_000 + ms)
}

/// A guardian whose first worker answers at 0.
fn serving() -> Machine {
    let (mut machine, actions) = Machine::start(at(0));
    assert_eq!(actions, [Action::Spawn(1, Cause::Start)]);
    assert_eq!(machine.on(Event::Standing(1), at(0)), [Action::Serve(1)]);
    machine
}

#[test]
fn a_first_worker_that_ends_ends_the_process() {
    let (mut machine, _) = Machine::start(at(0));
    assert_eq!(machine.on(Event::Ended(1, Some(64)), at(1)), [Action::End(64)]);
}

#[test]
fn a_reload_retires_the_old_worker_once_the_new_one_answers() {
    let mut machine = serving();
    assert_eq!(machine.on(Event::Reload(1), at(10)), [Action::Spawn(2, Cause::Reload)]);
    assert_eq!(machine.on(Event::Reload(1), at(11)), []);
    let retire = Action::Retire { worker: 1, linger: true };
    assert_eq!(machine.on(Event::Standing(2), at(20)), [Action::Serve(2), retire]);
    assert_eq!(machine.on(Event::Quiet(1), at(21)), [Action::CatchUp(2)]);
    assert_eq!(machine.on(Event::Ended(1, Some(0)), at(22)), []);
    assert!(matches!(machine.state(), State::Serving { worker: 2, .. }));
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let mut machine = serving();
    machine.on(Event::Reload(1), at(10));
    assert_eq!(machine.on(Event::Ended(2, Some(64)), at(20)), [Action::Stay(1)]);
    assert!(matches!(machine.state(), State::Serving { worker: 1, .. }));
}

#[test]
fn a_death_is_mended_at_once_a_series_of_them_after_pauses() {
    let mut machine = serving();
    let mut worker = 1;
    for _ in 0..SHORT_LIVES {
        let spawned = Action::Spawn(worker + 1, Cause::Crash);
        assert_eq!(machine.on(Event::Ended(worker, None), at(10)), [spawned]);
        worker += 1;
        machine.on(Event::Standing(worker), at(10));
    }
    assert_eq!(machine.on(Event::Ended(worker, None), at(11)), [Action::Relay(true)]);
    let due = machine.deadline().unwrap();
    let spawned = Action::Spawn(worker + 1, Cause::Crash);
    assert_eq!(machine.on(Event::Tick, due), [spawned]);
    let back = [Action::Relay(false), Action::Serve(worker + 1), Action::CatchUp(worker + 1)];
    assert_eq!(machine.on(Event::Standing(worker + 1), due), back);
    // One that lived long is forgiven.
    let later = due.plus_ms(SHORT_LIFE_MS);
    assert_eq!(machine.on(Event::Ended(worker + 1, None), later), [Action::Spawn(worker + 2, Cause::Crash)]);
}

#[test]
fn silence_is_noticed_and_the_silent_one_is_killed_once_there_is_another() {
    let mut machine = serving();
    machine.on(Event::Pulse(1), at(500));
    assert_eq!(machine.on(Event::Tick, at(899)), []);
    assert_eq!(machine.on(Event::Tick, at(900)), [Action::Spawn(2, Cause::Silence)]);
    let done = [Action::Serve(2), Action::Kill(1), Action::CatchUp(2)];
    assert_eq!(machine.on(Event::Standing(2), at(920)), done);
}

#[test]
fn one_that_speaks_again_is_retired_like_any_other() {
    let mut machine = serving();
    machine.on(Event::Tick, at(400));
    machine.on(Event::Pulse(1), at(410));
    let retire = Action::Retire { worker: 1, linger: true };
    assert_eq!(machine.on(Event::Standing(2), at(420)), [Action::Serve(2), retire]);
}

#[test]
fn one_that_is_busy_is_given_more_time_and_not_for_ever() {
    let mut machine = serving();
    let mut now = at(0);
    while now < at(3_000) {
        now = machine.deadline().unwrap();
        machine.on(Event::Busy(1), now);
        if machine.on(Event::Tick, now) == [Action::Spawn(2, Cause::Silence)] {
            break;
        }
    }
    assert!(now >= at(3_000) && now < at(3_200), "{now:?}");
}

#[test]
fn a_worker_that_does_not_come_back_soon_is_stood_in_for() {
    let mut machine = serving();
    machine.on(Event::Ended(1, None), at(1_000));
    assert_eq!(machine.on(Event::Tick, machine.deadline().unwrap()), [Action::Relay(true)]);
    let late = machine.deadline().unwrap();
    assert_eq!(machine.on(Event::Tick, late), [Action::Kill(2)]);
    assert!(matches!(machine.state(), State::Relaying { .. }));
}

#[test]
fn the_end_is_in_order() {
    let mut machine = serving();
    assert_eq!(machine.on(Event::Terminate { lameduck_ms: 5_000 }, at(10)), []);
    let retire = Action::Retire { worker: 1, linger: false };
    assert_eq!(machine.on(Event::Tick, at(5_010)), [Action::Release, retire]);
    assert_eq!(machine.on(Event::Ended(1, Some(0)), at(5_020)), [Action::End(0)]);
}

#[test]
fn an_operator_who_insists_is_obeyed() {
    let mut machine = serving();
    machine.on(Event::Terminate { lameduck_ms: 5_000 }, at(10));
    assert_eq!(machine.on(Event::Terminate { lameduck_ms: 5_000 }, at(20)), [Action::End(INTERRUPTED)]);
}

#[test]
fn a_successor_is_yielded_to_and_stood_in_for() {
    let mut machine = serving();
    let retire = Action::Retire { worker: 1, linger: true };
    assert_eq!(machine.on(Event::Taken, at(10)), [Action::Disown, retire]);
    assert_eq!(machine.on(Event::Quiet(1), at(11)), [Action::TellQuiet]);
    let back = [Action::Own, Action::Spawn(2, Cause::TakeBack)];
    assert_eq!(machine.on(Event::SuccessorGone, at(12)), back);
    assert_eq!(machine.on(Event::Ended(1, Some(0)), at(13)), []);
    machine.on(Event::Standing(2), at(20));
    machine.on(Event::Taken, at(30));
    assert_eq!(machine.on(Event::Ended(2, Some(0)), at(40)), [Action::End(0)]);
}

/// What a guardian has done so far, as seen from outside.
#[derive(Default)]
struct World {
    alive: BTreeSet<Id>,
    told_to_end: BTreeSet<Id>,
    relaying: bool,
    disowned: bool,
    released: bool,
    ended: bool,
}

impl World {
    fn apply(&mut self, actions: &[Action]) {
        for action in actions {
            match *action {
                Action::Spawn(id, _) => assert!(self.alive.insert(id), "{id} twice"),
                Action::Serve(id) | Action::Stay(id) | Action::CatchUp(id) => {
                    assert!(self.alive.contains(&id), "{action:?}");
                    assert!(!self.told_to_end.contains(&id), "{action:?}");
                }
                Action::Retire { worker, .. } => {
                    assert!(self.told_to_end.insert(worker), "{worker} is told twice");
                }
                Action::Kill(id) => drop(self.told_to_end.insert(id)),
                Action::Relay(on) => self.relaying = on,
                Action::Disown => self.disowned = true,
                Action::Own => self.disowned = false,
                Action::TellQuiet => assert!(self.disowned),
                Action::Release => self.released = true,
                Action::End(_) => self.ended = true,
            }
        }
    }

    /// Somebody answers or is on the way up, or the node's rules do not send anybody here.
    fn is_served(&self) -> bool {
        let up = self.alive.difference(&self.told_to_end).next().is_some();
        up || self.relaying || self.disowned || self.released || self.ended
    }
}

fn events() -> impl Strategy<Value = Vec<(u8, u8, u16)>> {
    proptest::collection::vec((0..11u8, any::<u8>(), 0..2_000u16), 1..80)
}

proptest! {
    /// Whatever happens in whatever order, nobody is left in the dark, and no dead worker is spoken to.
    #[test]
    fn nothing_that_happens_leaves_the_node_unserved(events in events()) {
        let (mut machine, actions) = Machine::start(at(0));
        let mut world = World::default();
        world.apply(&actions);
        let mut now = at(0);
        for (kind, which, ms) in events {
            now = now.plus_ms(u64::from(ms));
            let alive: Vec<Id> = world.alive.iter().copied().collect();
            let id = alive.get(usize::from(which) % alive.len().max(1)).copied().unwrap_or(u64::MAX);
            let event = match kind {
                0 | 1 if world.alive.contains(&id) => Event::Standing(id),
                2 => Event::Pulse(id),
                3 => Event::Busy(id),
                4 => Event::Reload(id),
                5 if world.told_to_end.contains(&id) => Event::Quiet(id),
                6 if world.alive.remove(&id) => Event::Ended(id, (which > 128).then_some(1)),
                7 => Event::Taken,
                8 => Event::SuccessorGone,
                9 if which < 32 => Event::Terminate { lameduck_ms: u64::from(which) * 10 },
                _ => Event::Tick,
            };
            world.apply(&machine.on(event, now));
            if world.ended {
                break;
            }
            prop_assert!(world.is_served(), "after {event:?}: {:?}", machine.state());
        }
    }
}

/// One of two guardians in a hand-over.
struct Side {
    machine: Machine,
    world: World,
    lives: bool,
}

impl Side {
    fn new() -> Side {
        let (machine, actions) = Machine::start(at(0));
        let mut world = World::default();
        world.apply(&actions);
        Side { machine, world, lives: true }
    }

    fn on(&mut self, event: Event, now: Moment) -> Vec<Action> {
        let actions = self.machine.on(event, now);
        self.world.apply(&actions);
        self.lives &= !self.world.ended;
        actions
    }

    /// Workers that were not told to end, or the relay.
    fn answers_or_will(&self) -> bool {
        let up = self.world.alive.difference(&self.world.told_to_end).next().is_some();
        self.lives && (up || self.world.relaying)
    }

    fn worker(&self, which: u8) -> Option<Id> {
        let alive: Vec<Id> = self.world.alive.iter().copied().collect();
        alive.get(usize::from(which) % alive.len().max(1)).copied()
    }

    fn worker_ends(&mut self, which: u8, now: Moment) {
        if let Some(id) = self.worker(which) {
            self.world.alive.remove(&id);
            self.on(Event::Ended(id, None), now);
        }
    }
}

proptest! {
    /// Two guardians and a death of either, or of any worker, at any step: there is always one that answers
    /// or is about to, unless both are dead.
    #[test]
    fn a_hand_over_survives_a_death_at_any_step(steps in proptest::collection::vec((0..9u8, any::<u8>(), 0..400u16), 1..60)) {
        let (mut old, mut new) = (Side::new(), Side::new());
        old.on(Event::Standing(1), at(0));
        // What is on its way from one to the other.
        let (mut offered, mut taken, mut gone) = (false, false, false);
        let mut now = at(0);
        for (step, which, ms) in steps {
            now = now.plus_ms(u64::from(ms));
            match step {
                0 if old.lives && new.lives && !offered => offered = true,
                // The successor's worker stands, and the successor says so once.
                1 | 2 if offered && new.lives => {
                    let first = matches!(new.machine.state(), State::Starting { .. });
                    if let Some(id) = new.worker(which) {
                        new.on(Event::Standing(id), now);
                        taken |= first && matches!(new.machine.state(), State::Serving { .. });
                    }
                }
                3 if taken && old.lives => {
                    taken = false;
                    old.on(Event::Taken, now);
                }
                4 if new.lives && offered => {
                    new.lives = false;
                    // What was sent before is read before the end.
                    if std::mem::take(&mut taken) && old.lives {
                        old.on(Event::Taken, now);
                    }
                    gone = true;
                }
                5 if which < 64 => old.lives = false,
                6 if old.lives => old.worker_ends(which, now),
                7 if new.lives => new.worker_ends(which, now),
                _ => {
                    for side in [&mut old, &mut new] {
                        if side.lives {
                            side.on(Event::Tick, now);
                        }
                    }
                }
            }
            if std::mem::take(&mut gone) && old.lives {
                old.on(Event::SuccessorGone, now);
            }
            let served = old.answers_or_will() || new.answers_or_will();
            let states = (old.machine.state(), new.machine.state());
            prop_assert!(served || !old.lives && !new.lives, "step {step}: {states:?}");
        }
    }
}
