//! What goes wrong with an upstream.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::upstream::{Asked, Step, framed};

/// A fault of one upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Healthy,
    /// Closes the connection at each query, in order.
    Fin,
    /// The same with RST.
    Reset,
    /// Accepts connections and queries and says nothing.
    Silence,
    /// Packets to it vanish on the way.
    Blackhole,
    /// Its address is gone from one moment to the next, open connections included.
    PowerOff,
    /// Answers late.
    Slow(Duration),
    /// Not DNS.
    Garbage,
    WrongId,
    WrongQuestion,
    WrongClass,
    /// Half of each answer.
    Truncated,
    /// Gone for a second, with all its connections, and back.
    Restart,
}

pub const SLOW: Fault = Fault::Slow(Duration::from_millis(200));
pub const SLOWER: Fault = Fault::Slow(Duration::from_secs(2));

/// All of them.
pub const FAULTS: [Fault; 13] = [
    Fault::Fin,
    Fault::Reset,
    Fault::Silence,
    Fault::Blackhole,
    Fault::PowerOff,
    SLOW,
    SLOWER,
    Fault::Garbage,
    Fault::WrongId,
    Fault::WrongQuestion,
    Fault::WrongClass,
    Fault::Truncated,
    Fault::Restart,
];

impl Fault {
    pub fn name(self) -> String {
        match self {
            Fault::Healthy => "none".into(),
            Fault::Fin => "FIN".into(),
            Fault::Reset => "RST".into(),
            Fault::Silence => "silence".into(),
            Fault::Blackhole => "dropped route".into(),
            Fault::PowerOff => "power off".into(),
            Fault::Slow(delay) => format!("slow {delay:?}"),
            Fault::Garbage => "garbage".into(),
            Fault::WrongId => "wrong id".into(),
            Fault::WrongQuestion => "wrong question".into(),
            Fault::WrongClass => "wrong class".into(),
            Fault::Truncated => "truncated frame".into(),
            Fault::Restart => "restart".into(),
        }
    }

    /// Whether it can happen to datagrams.
    pub fn concerns_udp(self) -> bool {
        !matches!(self, Fault::Fin | Fault::Reset)
    }

    /// What an upstream with this fault does with a query.
    pub fn steps(self, asked: &Asked) -> Vec<Step> {
        let spoilt = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut reply = asked.answer();
            change(&mut reply);
            vec![Step::Send(reply)]
        };
        let class = asked.reply(0).len() - 1;
        match self {
            // The network's doing, not the server's.
            Fault::Healthy | Fault::Blackhole | Fault::PowerOff | Fault::Restart => spoilt(&|_| ()),
            Fault::Fin => vec![Step::Close],
            Fault::Reset => vec![Step::Reset],
            Fault::Silence => Vec::new(),
            Fault::Slow(delay) => vec![Step::Wait(delay), Step::Send(asked.answer())],
            Fault::Garbage => vec![Step::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".repeat(3))],
            Fault::WrongId => spoilt(&|reply| reply[0] ^= 0x55),
            // The root's name has no octet to change.
            Fault::WrongQuestion if asked.name == "." => spoilt(&|reply| reply[class - 2] ^= 1),
            Fault::WrongQuestion => spoilt(&|reply| reply[13] ^= 1),
            Fault::WrongClass => spoilt(&|reply| reply[class] = 3),
            Fault::Truncated if asked.udp => spoilt(&|reply| reply.truncate(reply.len() / 2)),
            Fault::Truncated => vec![Step::Raw(framed(&asked.answer())[..20].to_vec())],
        }
    }
}

/// A fault that can change while the upstream runs.
#[derive(Clone)]
pub struct Switch(Arc<Mutex<Fault>>);

impl Switch {
    pub fn new(fault: Fault) -> Switch {
        Switch(Arc::new(Mutex::new(fault)))
    }

    pub fn set(&self, fault: Fault) {
        *self.0.lock().unwrap() = fault;
    }

    pub fn get(&self) -> Fault {
        *self.0.lock().unwrap()
    }
}
