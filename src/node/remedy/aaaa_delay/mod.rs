//! flannel-tc's cure, moved to where it works: queries for AAAA wait a few milliseconds, so the A query
//! of the same socket has its conntrack entry confirmed before the other one looks for it.
//!
//! The wait must come before PREROUTING. What pods send enters at the host sides of their veths, and is
//! sent on a detour there: a classifier picks the AAAA queries, a redirection takes them to an ifb, a
//! netem queue holds them, and the ifb hands them back to the link that they came from. Nothing else
//! leaves its way.
//!
//! flannel-tc put the queue at the node's uplink, where packets pass after conntrack has confirmed them:
//! [`Place::Uplink`] is there for comparison.
//!
//! What a killed process leaves goes on delaying and harms nobody.

mod classifier;
mod traffic;
mod uplink;

use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rustix::io::Errno;
use tracing::info;

use super::links::{PodLink, Selection};
use super::{Refusal, Remedy};
use crate::node::monitor::Change;
use crate::node::netlink::{self, Connection};
use crate::node::{Drift, Error, Kept};
use crate::route_message::RouteMessage;
use traffic::{CLSACT, EGRESS, Fate, Filter, INGRESS, ROOT};

pub use classifier::{Instruction, program};
pub use uplink::OnUplink;

/// The link on which AAAA queries wait.
pub const IFB: &str = "doorstep-aaaa";
/// flannel-tc's delay.
pub const DELAY: Duration = Duration::from_millis(4);
/// Longer, and a resolver that waits for both answers is slowed down for nothing.
pub const LONGEST: Duration = Duration::from_millis(100);
/// Packets that may wait: 25 000 queries a second at 4 ms.
const LIMIT: u32 = 100_000;
/// Our filter among others of its place: the number of AAAA, and a number nobody else is likely to have.
const PRIORITY: u16 = 28;
const HANDLE: u32 = 0xd005;
const IFB_HANDLE: u32 = 0x0001_0000;

/// Where queries wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Place {
    /// Where they enter the node from pods.
    #[default]
    Pods,
    /// Where they leave the node, after conntrack.
    Uplink,
}

/// What the operator says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `-delay`, [`LONGEST`] at most; zero: the detour without a wait.
    pub delay: Duration,
    /// `-links`.
    pub links: Selection,
    /// `-on-uplink`.
    pub place: Place,
}

impl Default for Config {
    fn default() -> Config {
        Config { delay: DELAY, links: Selection::default(), place: Place::default() }
    }
}

/// The remedy at the pods' links, at work from its first [`Kept::reconcile`].
#[derive(Debug)]
pub struct AaaaDelay {
    delay: Duration,
    links: Selection,
    program: Vec<u8>,
    /// Links with our filter, and whether the queue that it hangs in is ours.
    at: Vec<(PodLink, bool)>,
    started: bool,
}

/// Prepares the remedy at the place that `config` names; nothing is changed yet.
pub(super) fn start(config: &Config) -> Result<Box<dyn Remedy>, Refusal> {
    info!("aaaa-delay: queries for AAAA wait {:?}", config.delay);
    Ok(match config.place {
        Place::Pods => Box::new(AaaaDelay::new(config)),
        Place::Uplink => Box::new(OnUplink::new(config)?),
    })
}

impl AaaaDelay {
    /// The remedy that `config` asks for; nothing is done yet.
    pub fn new(config: &Config) -> AaaaDelay {
        AaaaDelay {
            delay: config.delay,
            links: config.links.clone(),
            program: classifier::octets(),
            at: Vec::new(),
            started: false,
        }
    }

    /// Makes the ifb, its queue, and the filters that lead there. Returns how much of it differed on
    /// links that had been set up.
    fn ensure(&mut self, connection: &mut Connection) -> Result<usize, Error> {
        let (ifb, mut differed) = ensure_ifb(connection)?;
        differed += usize::from(self.ensure_queue(connection, ifb)?);
        let links = self.links.read(connection)?;
        self.at.retain(|(link, _)| links.iter().any(|present| present.index == link.index));
        let mut first_failure = None;
        for link in links.into_iter().filter(|link| link.name != IFB) {
            match self.ensure_filter(connection, &link, ifb) {
                Ok(changed) => differed += usize::from(changed),
                Err(e) => first_failure = first_failure.or(Some(Error::InterfaceAdd(e))),
            }
        }
        first_failure.map_or(Ok(differed), Err)
    }

    fn ensure_queue(&self, connection: &mut Connection, ifb: u32) -> Result<bool, Error> {
        let wanted = i64::try_from(self.delay.as_nanos()).unwrap_or(i64::MAX);
        if wanted == 0 {
            return Ok(false);
        }
        let queues = traffic::queues(connection).map_err(Error::InterfaceCheck)?;
        let is_right = |queue: &traffic::Object| {
            queue.link == ifb
                && queue.parent == ROOT
                && queue.kind() == "netem"
                && traffic::netem_delay(queue) == Some(wanted)
        };
        if queues.iter().any(is_right) {
            return Ok(false);
        }
        let options = traffic::netem(wanted, LIMIT);
        let place = (ifb, ROOT, IFB_HANDLE);
        traffic::replace_queue(connection, place, "netem", options).map_err(Error::InterfaceAdd)?;
        Ok(true)
    }

    /// Returns whether somebody had changed what was set.
    fn ensure_filter(
        &mut self,
        connection: &mut Connection,
        link: &PodLink,
        ifb: u32,
    ) -> Result<bool, netlink::Error> {
        let filter = filter(link.index);
        let fate = Fate::Detour(ifb);
        let present = traffic::filters(connection, link.index, INGRESS)?;
        let found = present.iter().find(|found| filter.is(found));
        let known = self.at.iter().position(|(known, _)| known.index == link.index);
        if found.is_some_and(|found| traffic::does(found, &self.program, fate)) {
            if known.is_none() {
                // A killed predecessor's; the queue is its too if nobody else's filter is in it.
                let alone =
                    present.len() == 1 && traffic::filters(connection, link.index, EGRESS)?.is_empty();
                self.at.push((link.clone(), alone));
            }
            return Ok(false);
        }
        if found.is_some() {
            // One that exists cannot be given another action.
            filter.delete(connection)?;
        }
        let made = match traffic::make_clsact(connection, link.index) {
            // The pod ended meanwhile.
            Err(e) if e.refusal() == Some(Errno::NODEV) => return Ok(false),
            made => made?,
        };
        // Before the filter, which may be refused: the queue is to be undone all the same.
        match known {
            Some(at) => self.at[at].1 |= made,
            None => self.at.push((link.clone(), made)),
        }
        traffic::set_filter(connection, &filter, &self.program, fate)?;
        Ok(known.is_some())
    }
}

/// What `outcome`, links that differed, means: the first time they differ because nothing was set up yet.
fn drift(outcome: Result<usize, Error>, started: &mut bool) -> Drift {
    let mut drift = Drift::default();
    match outcome {
        Ok(differed) => drift.links = if *started { differed } else { 0 },
        Err(e) => drift.errors.push(e),
    }
    *started = true;
    drift
}

impl Kept for AaaaDelay {
    fn reconcile(&mut self) -> Drift {
        let outcome =
            Connection::route().map_err(Error::InterfaceCheck).and_then(|mut c| self.ensure(&mut c));
        drift(outcome, &mut self.started)
    }

    fn concerned_by(&self, change: Change<'_>) -> bool {
        let Change::Route(message) = change else { return false };
        self.links.concerned_by(message) || Selection::Named(vec![IFB.into()]).concerned_by(message)
    }
}

impl Remedy for AaaaDelay {
    fn name(&self) -> &'static str {
        "aaaa-delay"
    }

    fn undo(&mut self) -> Vec<Error> {
        let mut connection = match Connection::route() {
            Ok(connection) => connection,
            Err(e) => return vec![Error::InterfaceCheck(e)],
        };
        let mut errors = Vec::new();
        for (link, made) in std::mem::take(&mut self.at) {
            errors.extend(remove_filter(&mut connection, link.index, made).err());
        }
        // What waits comes out before the queue goes.
        std::thread::sleep(self.delay);
        errors.extend(remove_ifb(&mut connection).err());
        errors
    }
}

fn filter(link: u32) -> Filter {
    Filter { link, parent: INGRESS, priority: PRIORITY, handle: HANDLE }
}

/// Removes our filter, and the queue that it hangs in if that was made for it.
fn remove_filter(connection: &mut Connection, link: u32, made: bool) -> Result<(), Error> {
    filter(link).delete(connection).map_err(Error::InterfaceAdd)?;
    let mut is_empty = made;
    for parent in [INGRESS, EGRESS] {
        is_empty =
            is_empty && traffic::filters(connection, link, parent).map_err(Error::InterfaceCheck)?.is_empty();
    }
    match is_empty {
        true => traffic::delete_queue(connection, (link, CLSACT, 0xffff_0000)).map_err(Error::InterfaceAdd),
        false => Ok(()),
    }
}

/// Sees to it that the ifb is there and up. Returns its index and how much was not so.
fn ensure_ifb(connection: &mut Connection) -> Result<(u32, usize), Error> {
    let mut differed = 0;
    if find_ifb(connection)?.is_none() {
        let mut message = ifb();
        let info = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]);
        message.attributes.push(info);
        let request = RouteMessage::NewLink(message);
        let operation = format!("create link {IFB} (module ifb)");
        match connection.request(&operation, request, NLM_F_CREATE | NLM_F_EXCL) {
            Err(e) if e.refusal() != Some(Errno::EXIST) => return Err(Error::InterfaceAdd(e)),
            _ => differed += 1,
        }
    }
    let Some((index, is_up)) = find_ifb(connection)? else {
        let operation = format!("read link {IFB} that was just created");
        return Err(Error::InterfaceCheck(netlink::Error::Refused { operation, errno: Errno::NODEV }));
    };
    if !is_up {
        let mut message = ifb();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        let request = RouteMessage::SetLink(message);
        connection.request(&format!("set link {IFB} up"), request, 0).map_err(Error::InterfaceAdd)?;
        differed += 1;
    }
    Ok((index, differed))
}

fn ifb() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(IFB.into())];
    message
}

/// Index, and whether it is up.
fn find_ifb(connection: &mut Connection) -> Result<Option<(u32, bool)>, Error> {
    match connection.request(&format!("read link {IFB}"), RouteMessage::GetLink(ifb()), 0) {
        Ok(answer) => Ok(answer.into_iter().find_map(|object| match object {
            RouteMessage::NewLink(link) => {
                Some((link.header.index, link.header.flags.contains(LinkFlags::Up)))
            }
            _ => None,
        })),
        Err(e) if e.refusal() == Some(Errno::NODEV) => Ok(None),
        Err(e) => Err(Error::InterfaceCheck(e)),
    }
}

fn remove_ifb(connection: &mut Connection) -> Result<(), Error> {
    match connection.request(&format!("delete link {IFB}"), RouteMessage::DelLink(ifb()), 0) {
        Err(e) if e.refusal() != Some(Errno::NODEV) => Err(Error::InterfaceAdd(e)),
        _ => Ok(()),
    }
}

/// Removes what killed remedies of either place left: filters first, for a redirection to a link that is
/// gone drops.
pub(super) fn clean() -> Vec<Error> {
    let clean = || -> Result<(), Error> {
        let mut connection = Connection::route().map_err(Error::InterfaceCheck)?;
        let queues = traffic::queues(&mut connection).map_err(Error::InterfaceCheck)?;
        for queue in queues.iter().filter(|queue| queue.parent == CLSACT) {
            let present =
                traffic::filters(&mut connection, queue.link, INGRESS).map_err(Error::InterfaceCheck)?;
            if present.iter().any(|found| filter(queue.link).is(found)) {
                remove_filter(&mut connection, queue.link, true)?;
            }
        }
        uplink::clean(&mut connection, &queues)?;
        remove_ifb(&mut connection)
    };
    clean().err().into_iter().collect()
}
