//! The link that carries the local addresses.
//!
//! It is never set UP. A local address is answered from its route in the table `local`, whatever
//! device it is on and whatever that device's state; a link that stays DOWN gets no link-local
//! address, sends no multicast and offers no route of its own.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rustix::io::Errno;
use tracing::{info, warn};

use super::Error;
use super::netlink::{self, Connection};

use crate::route_message::RouteMessage;

/// The alias (`ip link` shows it) by which a later process knows that Doorstep made the link.
const MARK: &str = "doorstep";

/// The wanted link and its addresses.
#[derive(Debug, Clone)]
pub struct Link {
    name: String,
    addresses: Vec<IpAddr>,
    index: Option<u32>,
}

/// What [`Link::ensure`] changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// The link was created.
    pub created: bool,
    /// Addresses added.
    pub added: usize,
    /// Addresses removed.
    pub removed: usize,
}

/// An existing link.
struct Found {
    index: u32,
    ours: bool,
}

/// An address on the link, and whether it can be used.
struct Assigned {
    address: IpAddr,
    usable: bool,
    message: AddressMessage,
}

impl Link {
    /// The link called `name` with `addresses`; nothing is done yet.
    pub fn new(name: &str, addresses: &[IpAddr]) -> Link {
        Link { name: name.into(), addresses: addresses.to_vec(), index: None }
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index when it was last ensured.
    pub fn index(&self) -> Option<u32> {
        self.index
    }

    /// Creates what is missing. On a link that Doorstep made, addresses that are not wanted go if `surplus_goes`.
    ///
    /// Every address is tried; the first failure is returned. All addresses can be bound at once;
    /// the local route of an IPv6 one follows within milliseconds, from a work queue of the kernel.
    pub fn ensure(&mut self, surplus_goes: bool) -> Result<Changes, Error> {
        let mut connection = Connection::route().map_err(Error::InterfaceCheck)?;
        let mut changes = Changes::default();
        let link = match self.find(&mut connection)? {
            Some(link) => link,
            None => {
                changes.created = self.create(&mut connection)?;
                self.find(&mut connection)?.ok_or_else(|| self.vanished())?
            }
        };
        self.index = Some(link.index);
        let assigned = self.assigned(&mut connection, link.index)?;
        let mut first_failure = None;
        for present in &assigned {
            let wanted = self.addresses.contains(&present.address);
            let surplus = surplus_goes && link.ours && !wanted && !is_link_local_v6(present.address);
            if !(surplus || wanted && !present.usable) {
                continue;
            }
            match self.delete_address(&mut connection, present) {
                Ok(()) => changes.removed += usize::from(surplus),
                Err(e) => first_failure = first_failure.or(Some(e)),
            }
        }
        for &address in &self.addresses {
            if assigned.iter().any(|a| a.address == address && a.usable) {
                continue;
            }
            match self.add_address(&mut connection, link.index, address) {
                Ok(()) => changes.added += 1,
                Err(e) => first_failure = first_failure.or(Some(e)),
            }
        }
        first_failure.map_or(Ok(changes), Err)
    }

    /// Deletes the link, whoever made it, and with it all its addresses. Returns whether it was there.
    pub fn remove(&mut self) -> Result<bool, Error> {
        self.index = None;
        let mut connection = Connection::route().map_err(Error::InterfaceCheck)?;
        let message = RouteMessage::DelLink(self.by_name());
        match connection.request(&format!("delete link {}", self.name), message, 0) {
            Ok(_) => Ok(true),
            Err(e) if e.refusal() == Some(Errno::NODEV) => Ok(false),
            Err(e) => Err(Error::InterfaceAdd(e)),
        }
    }

    fn by_name(&self) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(self.name.clone())];
        message
    }

    fn find(&self, connection: &mut Connection) -> Result<Option<Found>, Error> {
        let message = RouteMessage::GetLink(self.by_name());
        match connection.request(&format!("read link {}", self.name), message, 0) {
            Ok(answer) => Ok(answer.into_iter().find_map(|object| match object {
                RouteMessage::NewLink(link) => Some(Found {
                    index: link.header.index,
                    ours: link.attributes.contains(&LinkAttribute::IfAlias(MARK.into())),
                }),
                _ => None,
            })),
            Err(e) if e.refusal() == Some(Errno::NODEV) => Ok(None),
            Err(e) => Err(Error::InterfaceCheck(e)),
        }
    }

    /// Creates the link: a dummy, or where the kernel has no such driver a bridge without ports,
    /// which is as inert while it is DOWN. Returns false when someone else was faster.
    fn create(&self, connection: &mut Connection) -> Result<bool, Error> {
        let outcome = self.create_kind(connection, InfoKind::Dummy).or_else(|e| match e.refusal() {
            Some(Errno::OPNOTSUPP | Errno::NODEV) => {
                warn!(link = self.name, "this kernel has no dummy driver, a bridge without ports stands in");
                self.create_kind(connection, InfoKind::Bridge)
            }
            _ => Err(e),
        });
        match outcome {
            Ok(()) => {}
            Err(e) if e.refusal() == Some(Errno::EXIST) => return Ok(false),
            Err(e) => return Err(Error::InterfaceAdd(e)),
        }
        info!(link = self.name, "link created");
        // The kernel ignores an alias in the creating request.
        let mut message = self.by_name();
        message.attributes.push(LinkAttribute::IfAlias(MARK.into()));
        let operation = format!("mark link {}", self.name);
        connection.request(&operation, RouteMessage::SetLink(message), 0).map_err(Error::InterfaceAdd)?;
        Ok(true)
    }

    fn create_kind(&self, connection: &mut Connection, kind: InfoKind) -> Result<(), netlink::Error> {
        let operation = format!("create {kind} link {}", self.name);
        let mut message = self.by_name();
        let info = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]);
        message.attributes.push(info);
        let message = RouteMessage::NewLink(message);
        connection.request(&operation, message, NLM_F_CREATE | NLM_F_EXCL).map(|_| ())
    }

    fn assigned(&self, connection: &mut Connection, index: u32) -> Result<Vec<Assigned>, Error> {
        let operation = format!("read the addresses of link {}", self.name);
        let message = RouteMessage::GetAddress(AddressMessage::default());
        let all = connection.dump(&operation, message).map_err(Error::InterfaceCheck)?;
        let on_this_link = all.into_iter().filter_map(|object| match object {
            RouteMessage::NewAddress(message) if message.header.index == index => assigned(message),
            _ => None,
        });
        Ok(on_this_link.collect())
    }

    fn add_address(&self, connection: &mut Connection, index: u32, address: IpAddr) -> Result<(), Error> {
        let operation = format!("add address {address} to link {}", self.name);
        let message = RouteMessage::NewAddress(address_message(index, address));
        match connection.request(&operation, message, NLM_F_CREATE | NLM_F_EXCL) {
            Ok(_) => Ok(()),
            Err(e) if e.refusal() == Some(Errno::EXIST) => Ok(()),
            Err(e) => Err(Error::InterfaceAdd(e)),
        }
    }

    fn delete_address(&self, connection: &mut Connection, present: &Assigned) -> Result<(), Error> {
        let operation = format!("delete address {} from link {}", present.address, self.name);
        let message = RouteMessage::DelAddress(present.message.clone());
        match connection.request(&operation, message, 0) {
            Ok(_) => Ok(()),
            Err(e) if e.refusal() == Some(Errno::ADDRNOTAVAIL) => Ok(()),
            Err(e) => Err(Error::InterfaceAdd(e)),
        }
    }

    fn vanished(&self) -> Error {
        Error::InterfaceCheck(netlink::Error::Refused {
            operation: format!("read link {} that was just created", self.name),
            errno: Errno::NODEV,
        })
    }
}

/// A host prefix, in the form in which the kernel wants to add it.
fn address_message(index: u32, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    (message.header.family, message.header.prefix_len) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    if address.is_ipv6() {
        // Duplicate address detection waits for a carrier that never comes; until it has ended the
        // address is tentative: no local route, no bind (RFC 4862 §5.4). Without it the address
        // works on a link that is DOWN, as IPv4 does.
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}

fn assigned(message: AddressMessage) -> Option<Assigned> {
    let find = |pick: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(pick);
    // IFA_LOCAL is the address itself, IFA_ADDRESS the peer's where there is one; IPv6 may have
    // the latter alone.
    let address = find(|a| match a {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    })
    .or_else(|| {
        find(|a| match a {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    let flags = message
        .attributes
        .iter()
        .find_map(|a| match a {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        })
        .unwrap_or(AddressFlags::empty());
    Some(Assigned {
        address,
        usable: !flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
        message,
    })
}

/// Whether the kernel itself assigned the address, as it does once a link goes UP.
fn is_link_local_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
