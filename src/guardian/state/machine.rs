//! The arrows between the states.

use std::collections::BTreeMap;

use super::{Action, Cause, Event, Id, State};
use crate::clock::Moment;

/// A worker that was silent for this long is replaced, milliseconds. At 20 000 queries a second, its sockets hold
/// what comes meanwhile. One that was only slow is retired like any other.
const SILENCE_MS: u64 = 400;
/// One that is busy is given this long, milliseconds: under a flood its main thread has much to do, and on a node
/// that is short of CPUs little to do it with.
const BUSY_MS: u64 = 3_000;
/// And is looked at again after this, milliseconds.
const AGAIN_MS: u64 = 100;
/// A worker that does not answer this long after its start is given up, milliseconds.
const START_MS: u64 = 20_000;
/// The relay begins when a worker takes longer than this to come back, milliseconds.
const PATIENCE_MS: u64 = 500;
/// A worker that lived shorter than this is no recovery, milliseconds.
pub(super) const SHORT_LIFE_MS: u64 = 250;
/// So many of those in a row, and the relay answers before the next attempt.
pub(super) const SHORT_LIVES: u32 = 4;
/// Pause before an attempt after a failed one; doubles each time.
const PAUSE_MS: u64 = 100;
const LONGEST_PAUSE_MS: u64 = 12_800;
/// A retired worker ends by itself within an upstream exchange and a TCP connection's idle time; one
/// that does not is killed, milliseconds.
const RETIREMENT_MS: u64 = 20_000;

/// The guardian's mind.
#[derive(Debug)]
pub struct Machine {
    state: State,
    started: Id,
    failures: u32,
    relaying: bool,
    /// When the worker that answers last spoke by itself.
    spoke: Moment,
    /// Told to end, and when they are killed.
    retired: BTreeMap<Id, Moment>,
}

/// A second signal, or one that asks for no grace, ends the process with this.
pub(super) const INTERRUPTED: i32 = 2;

impl Machine {
    /// A guardian that starts its first worker, and what is to be done for that.
    pub fn start(now: Moment) -> (Machine, Vec<Action>) {
        let state = State::Starting { worker: 1, since: now };
        let retired = BTreeMap::new();
        let machine = Machine { state, started: 1, failures: 0, relaying: false, spoke: now, retired };
        (machine, vec![Action::Spawn(1, Cause::Start)])
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes note of `event`, and says what is to be done, in this order.
    pub fn on(&mut self, event: Event, now: Moment) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Standing(id) => self.standing(id, now, &mut actions),
            Event::Pulse(id) => {
                if self.hear(id, now) {
                    self.spoke = now;
                }
            }
            Event::Busy(id) if now.since(self.spoke) < BUSY_MS => {
                self.hear(id, Moment(now.0.saturating_sub(SILENCE_MS - AGAIN_MS)));
            }
            Event::Busy(_) => {}
            Event::Reload(id) => self.reload(id, now, &mut actions),
            Event::Quiet(id) => self.quiet(id, &mut actions),
            Event::Ended(id, status) => self.ended(id, status, now, &mut actions),
            Event::Taken => self.taken(now, &mut actions),
            Event::SuccessorGone => self.successor_gone(now, &mut actions),
            Event::Terminate { lameduck_ms } => self.terminate(lameduck_ms, now, &mut actions),
            Event::Quit => self.end(0, &mut actions),
            Event::Tick => self.tick(now, &mut actions),
        }
        actions
    }

    /// When [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Moment> {
        let own = match self.state {
            State::Starting { since, .. } => Some(since.plus_ms(START_MS)),
            State::Serving { heard, .. } => Some(heard.plus_ms(SILENCE_MS)),
            State::Replacing { since, .. } => Some(since.plus_ms(START_MS)),
            State::Recovering { since, .. } if !self.relaying => Some(since.plus_ms(PATIENCE_MS)),
            State::Recovering { since, .. } => Some(since.plus_ms(START_MS)),
            State::Relaying { until } | State::Leaving { worker: Some(_), until } => Some(until),
            State::Leaving { worker: None, .. } | State::Yielding | State::Ended => None,
        };
        own.into_iter().chain(self.retired.values().copied()).min()
    }

    fn spawn(&mut self, cause: Cause, actions: &mut Vec<Action>) -> Id {
        self.started += 1;
        actions.push(Action::Spawn(self.started, cause));
        self.started
    }

    fn recover(&mut self, cause: Cause, now: Moment, actions: &mut Vec<Action>) {
        let worker = self.spawn(cause, actions);
        self.state = State::Recovering { worker, since: now };
    }

    fn relay(&mut self, on: bool, actions: &mut Vec<Action>) {
        if self.relaying != on {
            self.relaying = on;
            actions.push(Action::Relay(on));
        }
    }

    fn retire(&mut self, worker: Id, linger: bool, now: Moment, actions: &mut Vec<Action>) {
        self.retired.insert(worker, now.plus_ms(RETIREMENT_MS));
        actions.push(Action::Retire { worker, linger });
    }

    /// Nobody answers, and the next attempt has to wait.
    fn pause(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let pause = PAUSE_MS << self.failures.saturating_sub(1).min(16);
        self.relay(true, actions);
        self.state = State::Relaying { until: now.plus_ms(pause.min(LONGEST_PAUSE_MS)) };
    }

    fn standing(&mut self, id: Id, now: Moment, actions: &mut Vec<Action>) {
        let serving = State::Serving { worker: id, since: now, heard: now };
        let spoke = std::mem::replace(&mut self.spoke, now);
        match self.state {
            State::Starting { worker, .. } if worker == id => actions.push(Action::Serve(id)),
            State::Recovering { worker, .. } if worker == id => {
                self.relay(false, actions);
                actions.extend([Action::Serve(id), Action::CatchUp(id)]);
            }
            State::Replacing { old, heard, new, .. } if new == id => {
                actions.push(Action::Serve(id));
                if now.since(heard) > SILENCE_MS {
                    actions.extend([Action::Kill(old), Action::CatchUp(id)]);
                } else {
                    self.retire(old, true, now, actions);
                }
            }
            // One that was given up on, and has been killed.
            _ => {
                self.spoke = spoke;
                return;
            }
        }
        self.state = serving;
    }

    /// Whether that is the one that answers.
    fn hear(&mut self, id: Id, when: Moment) -> bool {
        match &mut self.state {
            State::Serving { worker, heard, .. } | State::Replacing { old: worker, heard, .. }
                if *worker == id =>
            {
                *heard = when.max(*heard);
                true
            }
            _ => false,
        }
    }

    fn reload(&mut self, id: Id, now: Moment, actions: &mut Vec<Action>) {
        if let State::Serving { worker, heard, .. } = self.state
            && worker == id
        {
            self.replace(worker, heard, Cause::Reload, now, actions);
        }
    }

    fn replace(&mut self, old: Id, heard: Moment, cause: Cause, now: Moment, actions: &mut Vec<Action>) {
        let new = self.spawn(cause, actions);
        self.state = State::Replacing { old, heard, new, since: now, cause };
    }

    fn quiet(&mut self, id: Id, actions: &mut Vec<Action>) {
        if !self.retired.contains_key(&id) {
            return;
        }
        match self.state {
            State::Serving { worker, .. } | State::Replacing { old: worker, .. } => {
                actions.push(Action::CatchUp(worker));
            }
            State::Yielding => actions.push(Action::TellQuiet),
            _ => {}
        }
    }

    fn ended(&mut self, id: Id, status: Option<i32>, now: Moment, actions: &mut Vec<Action>) {
        if self.retired.remove(&id).is_some() {
            self.end_if_nobody_is_left(actions);
            return;
        }
        match self.state {
            // Its own message says why; there is nothing to fall back on.
            State::Starting { worker, .. } if worker == id => self.end(status.unwrap_or(1), actions),
            State::Serving { worker, since, .. } if worker == id => {
                let short = now.since(since) < SHORT_LIFE_MS;
                self.failures = if short { self.failures + 1 } else { 0 };
                if self.failures > SHORT_LIVES {
                    self.pause(now, actions);
                } else {
                    self.recover(Cause::Crash, now, actions);
                }
            }
            State::Replacing { old, new, since, .. } if old == id => {
                self.state = State::Recovering { worker: new, since };
            }
            State::Replacing { new, .. } if new == id => self.keep_old(now, actions),
            State::Recovering { worker, .. } if worker == id => {
                self.failures += 1;
                self.pause(now, actions);
            }
            State::Leaving { worker: Some(worker), .. } if worker == id => {
                actions.push(Action::Release);
                self.state = State::Leaving { worker: None, until: now };
                self.end_if_nobody_is_left(actions);
            }
            _ => {}
        }
    }

    /// The new worker came to nothing.
    fn keep_old(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let State::Replacing { old, heard, cause, .. } = self.state else { return };
        if now.since(heard) > SILENCE_MS {
            // Neither of them answers.
            actions.push(Action::Kill(old));
            self.failures += 1;
            self.pause(now, actions);
            return;
        }
        if cause == Cause::Reload {
            actions.push(Action::Stay(old));
        }
        self.state = State::Serving { worker: old, since: Moment(0), heard };
    }

    /// Whoever answers is told to end, whoever does not yet is killed.
    fn dismiss(&mut self, linger: bool, now: Moment, actions: &mut Vec<Action>) {
        match self.state {
            State::Starting { worker, .. } | State::Recovering { worker, .. } => {
                actions.push(Action::Kill(worker));
            }
            State::Serving { worker, .. } => self.retire(worker, linger, now, actions),
            State::Replacing { old, new, .. } => {
                actions.push(Action::Kill(new));
                self.retire(old, linger, now, actions);
            }
            State::Leaving { worker: Some(worker), .. } => self.retire(worker, linger, now, actions),
            _ => {}
        }
    }

    fn taken(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if matches!(self.state, State::Starting { .. } | State::Yielding | State::Ended) {
            return;
        }
        actions.push(Action::Disown);
        self.relay(false, actions);
        self.dismiss(true, now, actions);
        self.state = State::Yielding;
        self.end_if_nobody_is_left(actions);
    }

    fn successor_gone(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if self.state == State::Yielding {
            actions.push(Action::Own);
            self.recover(Cause::TakeBack, now, actions);
        }
    }

    fn terminate(&mut self, lameduck_ms: u64, now: Moment, actions: &mut Vec<Action>) {
        let worker = match self.state {
            State::Serving { worker, .. } => Some(worker),
            State::Replacing { old, new, .. } => {
                actions.push(Action::Kill(new));
                Some(old)
            }
            State::Starting { .. } | State::Recovering { .. } | State::Relaying { .. } => None,
            // It ends as soon as the last query is answered.
            State::Yielding => return,
            // The operator insists.
            State::Leaving { .. } | State::Ended => return self.end(INTERRUPTED, actions),
        };
        let Some(worker) = worker else {
            actions.push(Action::Release);
            self.relay(false, actions);
            self.dismiss(false, now, actions);
            self.state = State::Leaving { worker: None, until: now };
            return self.end_if_nobody_is_left(actions);
        };
        self.state = State::Leaving { worker: Some(worker), until: now.plus_ms(lameduck_ms) };
        self.tick(now, actions);
    }

    fn end_if_nobody_is_left(&mut self, actions: &mut Vec<Action>) {
        let waits = matches!(self.state, State::Yielding | State::Leaving { worker: None, .. });
        if waits && self.retired.is_empty() {
            self.end(0, actions);
        }
    }

    fn end(&mut self, status: i32, actions: &mut Vec<Action>) {
        self.state = State::Ended;
        actions.push(Action::End(status));
    }

    fn tick(&mut self, now: Moment, actions: &mut Vec<Action>) {
        // The end of their processes is told by another event.
        for (worker, deadline) in &mut self.retired {
            if *deadline <= now {
                *deadline = now.plus_ms(RETIREMENT_MS);
                actions.push(Action::Kill(*worker));
            }
        }
        let late = |since: Moment| now.since(since) >= START_MS;
        match self.state {
            State::Starting { worker, since } if late(since) => {
                actions.push(Action::Kill(worker));
                self.end(1, actions);
            }
            State::Serving { worker, heard, .. } if now.since(heard) >= SILENCE_MS => {
                self.replace(worker, heard, Cause::Silence, now, actions);
            }
            State::Replacing { new, since, .. } if late(since) => {
                actions.push(Action::Kill(new));
                self.keep_old(now, actions);
            }
            State::Recovering { worker, since } if late(since) => {
                actions.push(Action::Kill(worker));
                self.failures += 1;
                self.pause(now, actions);
            }
            State::Recovering { since, .. } if now.since(since) >= PATIENCE_MS => {
                self.relay(true, actions);
            }
            State::Relaying { until } if until <= now => self.recover(Cause::Crash, now, actions),
            State::Leaving { worker: Some(_), until } if until <= now => {
                actions.push(Action::Release);
                self.dismiss(false, now, actions);
                self.state = State::Leaving { worker: None, until };
            }
            _ => {}
        }
    }
}
