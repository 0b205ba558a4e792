//! What guardian and worker, and two guardians, say to each other.
//!
//! A message is text: a verb on the first line, then lines of a key and its value. Lines that begin
//! with `@` stand for the files that come along, in their order. Keys that a process does not know it
//! passes by, so that two versions understand each other.

mod lines;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::str::FromStr;
use std::time::Duration;

use crate::sockets::Listen;
use lines::{Fields, Writer};

/// A cache's memory.
#[derive(Debug)]
pub struct CacheFile {
    /// What its owner calls it, one line; means nothing here.
    pub label: String,
    /// The memory.
    pub file: OwnedFd,
}

/// A number for `/metrics` that is counted outside the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Of what.
    pub what: String,
    /// Of which kind.
    pub label: String,
    /// The total.
    pub total: u64,
}

/// What a worker that answers says of itself.
#[derive(Debug, Default)]
pub struct Standing {
    /// Port of the health check in the Corefile.
    pub health_port: Option<u16>,
    /// How long to go on after the signal to end.
    pub lameduck: Duration,
    /// Where queries go while no worker stands, the best first.
    pub relays: Vec<SocketAddr>,
    /// Addresses it serves whose queries wait meanwhile, for what an upstream says there may be wrong.
    pub unrelayed: Vec<SocketAddr>,
    /// Its caches.
    pub caches: Vec<CacheFile>,
}

/// One message.
#[derive(Debug)]
pub enum Message {
    /// Worker: the sockets it needs, and those it could do without.
    Want {
        /// Without one of these there is nothing to serve.
        needed: Vec<Listen>,
        /// These may fail.
        optional: Vec<Listen>,
    },
    /// Worker: every address answers.
    Standing(Standing),
    /// Worker: still alive.
    Pulse,
    /// Worker: there is a new configuration, and it is good.
    Reload,
    /// Worker or predecessor: takes no more queries.
    Quiet {
        /// What it has counted.
        totals: Option<OwnedFd>,
    },

    /// To a worker: what it asked for.
    Sockets {
        /// Those that could be had.
        sockets: Vec<(Listen, OwnedFd)>,
        /// Whether another worker answers on them meanwhile.
        beside: bool,
        /// The caches of the worker before.
        caches: Vec<CacheFile>,
    },
    /// To a worker, or to a successor: there is nothing for you, and why.
    Refused(String),
    /// To a worker: rules are in place, the node is served.
    Serve {
        /// The socket that owns the nftables table, to hold until the process ends: no answer is ever sent
        /// without rules, even if the guardian dies first.
        lease: Option<OwnedFd>,
    },
    /// To a worker: look for a new configuration now.
    Look,
    /// To a worker: the one before takes no more queries, its caches are final.
    CatchUp {
        /// What that one has counted.
        totals: Option<OwnedFd>,
    },
    /// To a worker: the new configuration did not stand, and why.
    Stay(String),
    /// To a worker: numbers for `/metrics`.
    Counts(Vec<Count>),
    /// To a worker: take no more queries, answer those there are, end.
    Retire {
        /// Serve the open TCP connections for as long as their clients may think them usable.
        linger: bool,
    },

    /// Successor: may it take over?
    Ask {
        /// Its version.
        version: String,
        /// What it is, as far as the node knows it: the pod.
        identity: String,
        /// Its network namespace, by inode.
        namespace: u64,
        /// What it is to serve.
        listens: Vec<Listen>,
    },
    /// To a successor: all that is to be had.
    Offer {
        /// Version of the predecessor.
        version: String,
        /// What the predecessor is, as in [`Message::Ask`], and those it took over from; words.
        identity: String,
        /// Its sockets.
        sockets: Vec<(Listen, OwnedFd)>,
        /// The socket that owns the nftables table.
        lease: Option<OwnedFd>,
        /// Its worker's caches.
        caches: Vec<CacheFile>,
    },
    /// To a successor that was taken over from: wait until this process ends.
    Wait,
    /// Successor: its worker answers, and it keeps the node's state from now on.
    Taken,
}

/// What came is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a message: {0}")]
pub struct Malformed(String);

impl Malformed {
    pub(super) fn new(why: impl Into<String>) -> Malformed {
        Malformed(why.into())
    }
}

impl Message {
    fn verb(&self) -> &'static str {
        match self {
            Message::Want { .. } => "want",
            Message::Standing(_) => "standing",
            Message::Pulse => "pulse",
            Message::Reload => "reload",
            Message::Quiet { .. } => "quiet",
            Message::Sockets { .. } => "sockets",
            Message::Refused(_) => "refused",
            Message::Serve { .. } => "serve",
            Message::Look => "look",
            Message::CatchUp { .. } => "catch-up",
            Message::Stay(_) => "stay",
            Message::Counts(_) => "counts",
            Message::Retire { .. } => "retire",
            Message::Ask { .. } => "ask",
            Message::Offer { .. } => "offer",
            Message::Wait => "wait",
            Message::Taken => "taken",
        }
    }

    /// Its text and its files.
    pub(super) fn encode(&self) -> (String, Vec<BorrowedFd<'_>>) {
        let mut out = Writer::new(self.verb());
        match self {
            Message::Want { needed, optional } => {
                needed.iter().for_each(|listen| out.listen("needed", listen));
                optional.iter().for_each(|listen| out.listen("optional", listen));
            }
            Message::Standing(standing) => standing.encode(&mut out),
            Message::Sockets { sockets, beside, caches } => {
                out.sockets(sockets);
                out.line("beside", &beside.to_string());
                out.caches(caches);
            }
            Message::Quiet { totals } | Message::CatchUp { totals } => {
                totals.iter().for_each(|file| out.file("totals", "", file));
            }
            Message::Serve { lease } => lease.iter().for_each(|file| out.file("lease", "", file)),
            Message::Retire { linger } => out.line("linger", &linger.to_string()),
            Message::Refused(why) | Message::Stay(why) => out.line("why", why),
            Message::Counts(counts) => {
                for Count { what, label, total } in counts {
                    out.line("count", &format!("{total} {what} {label}"));
                }
            }
            Message::Ask { version, identity, namespace, listens } => {
                out.line("version", version);
                out.line("identity", identity);
                out.line("namespace", &namespace.to_string());
                listens.iter().for_each(|listen| out.listen("needed", listen));
            }
            Message::Offer { version, identity, sockets, lease, caches } => {
                out.line("version", version);
                out.line("identity", identity);
                out.sockets(sockets);
                lease.iter().for_each(|file| out.file("lease", "", file));
                out.caches(caches);
            }
            Message::Pulse | Message::Reload | Message::Look | Message::Wait | Message::Taken => {}
        }
        out.finish()
    }

    /// The message that `text` and `files` are.
    pub(super) fn decode(text: &str, files: Vec<OwnedFd>) -> Result<Message, Malformed> {
        let (verb, rest) = text.split_once('\n').ok_or_else(|| Malformed::new("no verb"))?;
        let mut fields = Fields::read(rest, files)?;
        Ok(match verb {
            "want" => Message::Want { needed: fields.needed, optional: fields.optional },
            "standing" => Message::Standing(Standing {
                health_port: fields.one("health-port")?,
                lameduck: Duration::from_millis(fields.one("lameduck-ms")?.unwrap_or(0)),
                relays: fields.all("relay")?,
                unrelayed: fields.all("unrelayed")?,
                caches: fields.caches,
            }),
            "pulse" => Message::Pulse,
            "reload" => Message::Reload,
            "quiet" => Message::Quiet { totals: fields.totals },
            "sockets" => Message::Sockets {
                beside: fields.one("beside")?.unwrap_or(false),
                sockets: fields.sockets,
                caches: fields.caches,
            },
            "refused" => Message::Refused(fields.text("why")),
            "serve" => Message::Serve { lease: fields.lease.take() },
            "look" => Message::Look,
            "catch-up" => Message::CatchUp { totals: fields.totals },
            "stay" => Message::Stay(fields.text("why")),
            "counts" => Message::Counts(fields.all("count")?),
            "retire" => Message::Retire { linger: fields.one("linger")?.unwrap_or(false) },
            "ask" => Message::Ask {
                version: fields.text("version"),
                identity: fields.text("identity"),
                namespace: fields.one("namespace")?.unwrap_or(0),
                listens: fields.needed,
            },
            "offer" => Message::Offer {
                version: fields.text("version"),
                identity: fields.text("identity"),
                sockets: fields.sockets,
                lease: fields.lease.take(),
                caches: fields.caches,
            },
            "wait" => Message::Wait,
            "taken" => Message::Taken,
            verb => return Err(Malformed::new(format!("no verb `{verb}`"))),
        })
    }
}

impl Standing {
    fn encode<'a>(&'a self, out: &mut Writer<'a>) {
        if let Some(port) = self.health_port {
            out.line("health-port", &port.to_string());
        }
        out.line("lameduck-ms", &self.lameduck.as_millis().to_string());
        self.relays.iter().for_each(|relay| out.line("relay", &relay.to_string()));
        self.unrelayed.iter().for_each(|address| out.line("unrelayed", &address.to_string()));
        out.caches(&self.caches);
    }
}

impl FromStr for Count {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Count, Malformed> {
        let mut words = text.splitn(3, ' ');
        let mut word = || words.next().ok_or_else(|| Malformed::new(text));
        let total = word()?.parse().map_err(|_| Malformed::new(text))?;
        Ok(Count { total, what: word()?.to_owned(), label: word()?.to_owned() })
    }
}

/// Copies of `caches` with files of their own.
pub(super) fn share(caches: &[CacheFile]) -> std::io::Result<Vec<CacheFile>> {
    let copy =
        |cache: &CacheFile| Ok(CacheFile { label: cache.label.clone(), file: cache.file.try_clone()? });
    caches.iter().map(copy).collect()
}
