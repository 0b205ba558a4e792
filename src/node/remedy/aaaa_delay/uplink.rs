//! The delay where flannel-tc put it: in the queue by which packets leave the node. Conntrack has
//! confirmed them by then, so for the race of two endpoints this comes too late; it is here to show it.
//!
//! The class is chosen by our classifier, not by flannel-tc's mark of iptables.

use std::fs;

use rustix::io::Errno;
use tracing::warn;

use super::traffic::{self, Fate, Filter, ROOT};
use super::{Config, HANDLE, LIMIT, PRIORITY, classifier};
use crate::node::monitor::Change;
use crate::node::netlink::{self, Connection};
use crate::node::remedy::links::{PodLink, Selection};
use crate::node::remedy::{Refusal, Remedy};
use crate::node::{Drift, Error, Kept};

/// The queue with two bands, its class for AAAA, and the queue in that one.
const BANDS: u32 = 0xd005_0000;
const SLOW_CLASS: u32 = BANDS | 1;
const SLOW_QUEUE: u32 = 0xd006_0000;

/// Queues that others hang in, which the kernel does not list with them.
const CLASSFUL: [&str; 10] = ["cbq", "drr", "ets", "hfsc", "htb", "mq", "mqprio", "multiq", "prio", "qfq"];

/// The remedy at the uplink, at work from its first [`Kept::reconcile`].
#[derive(Debug)]
pub struct OnUplink {
    delay: i64,
    links: Selection,
    program: Vec<u8>,
    /// Links with our queue, and the one that was there before; `None`: the kernel's choice.
    at: Vec<(PodLink, Option<traffic::Object>)>,
    started: bool,
}

impl OnUplink {
    /// The remedy at the links that `config` names, or else at those with a default route. Nothing is
    /// done yet.
    pub fn new(config: &Config) -> Result<OnUplink, Refusal> {
        let links = match &config.links {
            Selection::Pods => {
                let table = fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
                Selection::Named(default_links(&table))
            }
            named => named.clone(),
        };
        if links == Selection::Named(Vec::new()) {
            return Err(Refusal::Unknown { remedy: "aaaa-delay -on-uplink", flag: "-links".into() });
        }
        warn!("aaaa-delay: at the uplink conntrack has seen both packets; without -on-uplink it is a cure");
        let delay = i64::try_from(config.delay.as_nanos()).unwrap_or(i64::MAX);
        Ok(OnUplink { delay, links, program: classifier::octets(), at: Vec::new(), started: false })
    }

    fn ensure(&mut self, connection: &mut Connection) -> Result<usize, Error> {
        let mut differed = 0;
        let links = self.links.read(connection)?;
        // One that is gone took its queue along.
        self.at.retain(|(known, _)| links.iter().any(|link| link.index == known.index));
        for link in links {
            differed += usize::from(self.ensure_queue(connection, &link)?);
        }
        Ok(differed)
    }

    fn ensure_queue(&mut self, connection: &mut Connection, link: &PodLink) -> Result<bool, Error> {
        let queues = traffic::queues(connection).map_err(Error::InterfaceCheck)?;
        let present = |parent, handle| {
            queues
                .iter()
                .find(|queue| (queue.link, queue.parent, queue.handle) == (link.index, parent, handle))
        };
        let slow = present(SLOW_CLASS, SLOW_QUEUE);
        let complete = present(ROOT, BANDS).is_some()
            && (self.delay == 0 || slow.and_then(traffic::netem_delay) == Some(self.delay))
            && self.has_filter(connection, link.index)?;
        let known = self.at.iter().any(|(known, _)| known.index == link.index);
        if !known {
            let earlier = queues.iter().find(|queue| (queue.link, queue.parent) == (link.index, ROOT));
            let earlier = earlier.filter(|queue| queue.handle != 0 && queue.handle != BANDS).cloned();
            if let Some(queue) = &earlier
                && CLASSFUL.contains(&queue.kind().as_str())
            {
                let kind = queue.kind();
                let operation =
                    format!("replace the {kind} queue of {}: its classes could not be restored", link.name);
                return Err(Error::InterfaceAdd(netlink::Error::Refused { operation, errno: Errno::BUSY }));
            }
            self.at.push((link.clone(), earlier));
        }
        if complete {
            return Ok(false);
        }
        let root = (link.index, ROOT, BANDS);
        traffic::replace_queue(connection, root, "prio", traffic::two_bands())
            .map_err(Error::InterfaceAdd)?;
        if self.delay > 0 {
            let slow = (link.index, SLOW_CLASS, SLOW_QUEUE);
            let options = traffic::netem(self.delay, LIMIT);
            traffic::replace_queue(connection, slow, "netem", options).map_err(Error::InterfaceAdd)?;
        }
        let filter = filter(link.index);
        traffic::set_filter(connection, &filter, &self.program, Fate::Class(SLOW_CLASS))
            .map_err(Error::InterfaceAdd)?;
        Ok(known)
    }

    fn has_filter(&self, connection: &mut Connection, link: u32) -> Result<bool, Error> {
        let found = traffic::filters(connection, link, BANDS).map_err(Error::InterfaceCheck)?;
        let ours = |found: &&traffic::Object| filter(link).is(found);
        let fate = Fate::Class(SLOW_CLASS);
        Ok(found.iter().filter(ours).any(|found| traffic::does(found, &self.program, fate)))
    }
}

impl Kept for OnUplink {
    fn reconcile(&mut self) -> Drift {
        let outcome =
            Connection::route().map_err(Error::InterfaceCheck).and_then(|mut c| self.ensure(&mut c));
        super::drift(outcome, &mut self.started)
    }

    fn concerned_by(&self, change: Change<'_>) -> bool {
        matches!(change, Change::Route(message) if self.links.concerned_by(message))
    }
}

impl Remedy for OnUplink {
    fn name(&self) -> &'static str {
        "aaaa-delay"
    }

    fn undo(&mut self) -> Vec<Error> {
        let mut connection = match Connection::route() {
            Ok(connection) => connection,
            Err(e) => return vec![Error::InterfaceCheck(e)],
        };
        let restore = |(link, earlier): (PodLink, Option<traffic::Object>)| {
            let outcome = match earlier {
                Some(queue) => {
                    let place = (link.index, ROOT, queue.handle);
                    traffic::replace_queue(&mut connection, place, &queue.kind(), queue.options())
                }
                // The kernel puts its own choice there.
                None => traffic::delete_queue(&mut connection, (link.index, ROOT, BANDS)),
            };
            outcome.err().map(Error::InterfaceAdd)
        };
        std::mem::take(&mut self.at).into_iter().filter_map(restore).collect()
    }
}

fn filter(link: u32) -> Filter {
    Filter { link, parent: BANDS, priority: PRIORITY, handle: HANDLE }
}

/// The links of default routes, from `/proc/net/route`.
fn default_links(table: &str) -> Vec<String> {
    let link = |line: &str| {
        let mut words = line.split_whitespace();
        let (link, destination) = (words.next()?, words.next()?);
        let mask = words.nth(5)?;
        (destination == "00000000" && mask == "00000000").then(|| link.to_owned())
    };
    let mut links: Vec<String> = table.lines().filter_map(link).collect();
    links.sort();
    links.dedup();
    links
}

/// Removes what a killed remedy left; what was there before it nobody knows any more.
pub(super) fn clean(connection: &mut Connection, queues: &[traffic::Object]) -> Result<(), Error> {
    let ours = queues.iter().filter(|queue| (queue.parent, queue.handle) == (ROOT, BANDS));
    for queue in ours {
        traffic::delete_queue(connection, (queue.link, ROOT, BANDS)).map_err(Error::InterfaceAdd)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_name_the_uplink() {
        let table = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0002A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
eth1\t00000000\t00000000\t0001\t0\t0\t100\t00000080\t0\t0\t0
";
        assert_eq!(default_links(table), ["eth0"]);
        assert!(default_links("").is_empty());
    }
}
