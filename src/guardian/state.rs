//! What the guardian does next: a pure function of what happened and when.
//!
//! ```text
//!              standing
//!  Starting ─────────────► Serving ◄────────────────────────────┐
//!     │ ended                │   │ reload, silence              │ standing:
//!     ▼                died  │   ▼                              │ the old one retires,
//!   Ended                    │ Replacing ───────────────────────┤ or is killed if silent
//!                            │   │  old died                    │
//!                            ▼   ▼                              │
//!                          Recovering ──────────────────────────┤
//!                            │   ▲  time                        │
//!                 died, late ▼   │                              │
//!                          Relaying                             │
//!                                                               │
//!  any of these ── a successor has taken ──► Yielding ── it died┘ (by way of Recovering)
//!       │                                       │ last worker ended
//!       └── signal ──► Leaving ────────────► Ended
//! ```
//!
//! Whoever answers goes on answering until another does: no arrow leads from one that answers to
//! nobody, except for a death.

mod machine;
#[cfg(test)]
mod tests;

use crate::clock::Moment;

pub use machine::Machine;

/// Names a worker; never used twice.
pub type Id = u64;

/// A worker's main thread speaks up at least this often, milliseconds.
pub const PULSE_MS: u64 = 100;
/// Why a worker is started; a label of `doorstep_worker_starts_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The first one.
    Start,
    /// There is a new configuration.
    Reload,
    /// The one before died.
    Crash,
    /// The one before no longer speaks.
    Silence,
    /// A successor that had taken over died.
    TakeBack,
}

/// Where the guardian stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nobody answers yet.
    Starting {
        /// On its way up.
        worker: Id,
        /// When it was started.
        since: Moment,
    },
    /// One worker answers.
    Serving {
        /// It.
        worker: Id,
        /// Since when it answers.
        since: Moment,
        /// When it last spoke, or was found busy.
        heard: Moment,
    },
    /// One worker answers, or did before it fell silent; another is on its way up.
    Replacing {
        /// The one that answers.
        old: Id,
        /// When it last spoke.
        heard: Moment,
        /// The one on its way up.
        new: Id,
        /// When that was started.
        since: Moment,
        /// And why.
        cause: Cause,
    },
    /// Nobody answers, and a worker is on its way up.
    Recovering {
        /// It.
        worker: Id,
        /// When it was started.
        since: Moment,
    },
    /// Nobody but the relay answers.
    Relaying {
        /// The next attempt.
        until: Moment,
    },
    /// A successor answers.
    Yielding,
    /// The signal to end came.
    Leaving {
        /// Still answers; `None` once it was told to end.
        worker: Option<Id>,
        /// When it is told.
        until: Moment,
    },
    /// Nothing is left to do.
    Ended,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A worker answers on every address.
    Standing(Id),
    /// A worker spoke.
    Pulse(Id),
    /// A worker has not spoken for a while, but is at work or waits for a CPU.
    Busy(Id),
    /// A worker has found a new configuration.
    Reload(Id),
    /// A worker takes no more queries.
    Quiet(Id),
    /// A worker's process ended, with this status; `None`: by a signal.
    Ended(Id, Option<i32>),
    /// A successor's worker answers.
    Taken,
    /// A successor is gone.
    SuccessorGone,
    /// SIGTERM or SIGINT, and for how long to go on.
    Terminate {
        /// Milliseconds.
        lameduck_ms: u64,
    },
    /// SIGQUIT.
    Quit,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start a worker.
    Spawn(Id, Cause),
    /// It is the one that answers from now on: rules and readiness follow it.
    Serve(Id),
    /// The new configuration did not stand; this one serves on.
    Stay(Id),
    /// Take no more queries, answer those there are, end.
    Retire {
        /// Who.
        worker: Id,
        /// Whether open TCP connections are served to their end.
        linger: bool,
    },
    /// The one before is quiet: take over the rest of its cache.
    CatchUp(Id),
    /// SIGKILL.
    Kill(Id),
    /// Answer, or no longer, from the upstream, octet for octet.
    Relay(bool),
    /// The node's state is the successor's.
    Disown,
    /// The node's state is ours again.
    Own,
    /// Tell the successor that nobody here takes queries any more.
    TellQuiet,
    /// Take the rules away that bring queries here.
    Release,
    /// Undo what is left, and end with this status.
    End(i32),
}
