//! The rules in a table of our own, `inet nodelocaldns`, that dies with its owner.
//!
//! A table with the owner flag belongs to a netlink *socket*: nobody else can change it (`nft flush
//! ruleset` passes it by), and when the last descriptor of that socket is closed, by whatever kind
//! of death, the kernel removes it. Hence no rules without a process behind them, and a successor
//! that is handed the descriptor keeps them without a gap.
//!
//! An `accept` here ends the walk through this table's chain alone: a drop in another table, or in
//! iptables, still stands. Hosts whose firewall drops by default need the iptables backend.

mod contents;
mod expression;
pub mod leftovers;
pub mod survey;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ChainMessage, NfTablesMessage, RuleAttribute, RuleMessage, TableAttribute, TableFlags, TableMessage,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use rustix::io::Errno;
use tracing::{info, warn};

use super::netlink::{Connection, Error};
use super::rules::RuleSet;
use expression::from_kernel;

pub use contents::{BaseChain, Contents, ListedRule};
pub use expression::{Side, Step, port_steps, prefix_steps};

/// The table's name; its family is `inet`.
pub const TABLE: &str = "nodelocaldns";
/// The name of the table that exists inside one transaction only.
const PROBE: &str = "nodelocaldns-probe";

/// `NFTNL_UDATA_RULE_COMMENT`: the type that `nft` reads as a rule's comment.
const USERDATA_COMMENT: u8 = 0;

/// Whether the kernel ties the table's life to our socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// It does (Linux 5.12 and later).
    Owned,
    /// It does not: the table stays until somebody removes it.
    Plain,
}

/// The table, or rather the socket that owns it.
#[derive(Debug)]
pub struct Table {
    connection: Connection,
    name: &'static str,
    ownership: Ownership,
    held_elsewhere: bool,
}

/// A table as the kernel shows it.
struct Listing {
    owner: Option<u32>,
    dormant: bool,
    rules: Vec<ListedRule>,
}

impl AsFd for Table {
    /// The socket whose closing ends the table.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Table {
    /// Opens a socket that may own a table; none is made yet. `Owned` gives way to `Plain` on a
    /// kernel that has no owner flag.
    pub fn open(ownership: Ownership) -> Result<Table, Error> {
        Table::named(TABLE, ownership)
    }

    /// The same for a table of another name, in the family `inet` too.
    pub fn named(name: &'static str, ownership: Ownership) -> Result<Table, Error> {
        Connection::netfilter().map(|connection| Table { connection, name, ownership, held_elsewhere: false })
    }

    /// Takes over the socket of another process, and with it the table.
    pub fn adopt(socket: OwnedFd) -> Result<Table, Error> {
        Connection::adopt(socket).map(|connection| Table {
            connection,
            name: TABLE,
            ownership: Ownership::Owned,
            held_elsewhere: false,
        })
    }

    /// Whether the kernel ties the table to this socket.
    pub fn ownership(&self) -> Ownership {
        self.ownership
    }

    /// Whether [`Table::install`] found the rules in the hands of another process, and left them
    /// there. Their end, when that process dies, is announced to nobody.
    pub fn held_elsewhere(&self) -> bool {
        self.held_elsewhere
    }

    /// Makes the table hold exactly `rules`: [`Table::keep`].
    pub fn install(&mut self, rules: &RuleSet) -> Result<usize, Error> {
        self.keep(&Contents::of(rules))
    }

    /// Makes the table hold exactly `contents`, in one transaction. Returns how many rules were
    /// missing, or too many; 0: nothing was touched.
    ///
    /// A table with these very rules that another process owns is left to it. Replacing anything
    /// else that another process owns fails with `EPERM`.
    pub fn keep(&mut self, contents: &Contents) -> Result<usize, Error> {
        let present = self.list()?;
        let differences = match &present {
            Some(listing) => differences(listing, contents),
            None => contents.rules.len(),
        };
        let owner = present.as_ref().and_then(|listing| listing.owner);
        let leased = owner.is_some() || self.ownership == Ownership::Plain;
        self.held_elsewhere = self.is_of_another(owner);
        if present.is_some() && differences == 0 && leased {
            return Ok(0);
        }
        let mut outcome = self.replace(present.is_some(), contents);
        if self.ownership == Ownership::Owned
            && let Err(e) = &outcome
            && matches!(e.refusal(), Some(Errno::OPNOTSUPP | Errno::INVAL))
        {
            self.ownership = Ownership::Plain;
            outcome = self.replace(present.is_some(), contents);
            if outcome.is_ok() {
                warn!(
                    "this kernel has no owner flag for tables: after a crash the rules stay until \
                     the next start or `doorstep teardown`"
                );
            }
        }
        outcome.map(|()| differences.max(1))
    }

    /// Removes the table. Returns whether there was one; one that another process owns is not ours
    /// to remove and counts as none.
    pub fn remove(&mut self) -> Result<bool, Error> {
        let Some(listing) = self.list()? else {
            return Ok(false);
        };
        if self.is_of_another(listing.owner) {
            info!("table inet {} belongs to another process, left alone", self.name);
            return Ok(false);
        }
        self.delete()
    }

    fn is_of_another(&self, owner: Option<u32>) -> bool {
        owner.is_some_and(|owner| !self.connection.port().is_ok_and(|port| port == owner))
    }

    /// Removes the table; fails with `EPERM` if another process owns it.
    pub(super) fn delete(&mut self) -> Result<bool, Error> {
        let operation = format!("delete table inet {}", self.name);
        let deletion = NfTablesMessage::DeleteTable(table_message(self.name, TableFlags::empty()));
        match self.connection.transaction(&operation, vec![(inet(deletion), 0)]) {
            Ok(()) => Ok(true),
            Err(e) if e.refusal() == Some(Errno::NOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Whether the kernel takes `contents` (all modules are there, and we may): makes a table of
    /// another name with them and deletes it again, in one transaction.
    pub fn probe(&mut self, contents: &Contents) -> Result<(), Error> {
        let mut batch = creation(PROBE, TableFlags::empty(), contents);
        let deletion = table_message(PROBE, TableFlags::empty());
        batch.push((inet(NfTablesMessage::DeleteTable(deletion)), 0));
        self.connection.transaction("try out an nftables table", batch)
    }

    /// The names of all tables of all families.
    pub fn names(&mut self) -> Result<Vec<String>, Error> {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
        let attributes = Vec::new();
        let request = NfTablesMessage::GetTable(TableMessage { attributes });
        let tables = self.connection.dump("list tables", NetfilterMessage::new(header, request))?;
        let name = |message: NetfilterMessage| match message.inner {
            NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) => {
                table.attributes.into_iter().find_map(|a| match a {
                    TableAttribute::Name(name) => Some(name),
                    _ => None,
                })
            }
            _ => None,
        };
        Ok(tables.into_iter().filter_map(name).collect())
    }

    /// The chains of all tables that drop forwarded packets unless a rule of theirs says otherwise, as
    /// "TABLE CHAIN".
    pub fn forward_drops(&mut self) -> Result<Vec<String>, Error> {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
        let request = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
        let chains = self.connection.dump("list chains", NetfilterMessage::new(header, request))?;
        let name = |message: NetfilterMessage| match message.inner {
            NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(chain)) => {
                contents::forward_drop(&chain)
            }
            _ => None,
        };
        Ok(chains.into_iter().filter_map(name).collect())
    }

    /// Deletes the table if it is there and makes it anew, in one transaction.
    fn replace(&mut self, present: bool, contents: &Contents) -> Result<(), Error> {
        let flags = match self.ownership {
            Ownership::Owned => TableFlags::Owner,
            Ownership::Plain => TableFlags::empty(),
        };
        let mut batch = Vec::new();
        if present {
            let deletion = NfTablesMessage::DeleteTable(table_message(self.name, TableFlags::empty()));
            batch.push((inet(deletion), 0));
        }
        batch.extend(creation(self.name, flags, contents));
        let operation = format!("write table inet {}", self.name);
        self.connection.transaction(&operation, batch)
    }

    fn list(&mut self) -> Result<Option<Listing>, Error> {
        let operation = format!("read table inet {}", self.name);
        let request = NfTablesMessage::GetTable(table_message(self.name, TableFlags::empty()));
        let answer = match self.connection.request(&operation, inet(request), 0) {
            Ok(answer) => answer,
            Err(e) if e.refusal() == Some(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut listing = Listing { owner: None, dormant: false, rules: Vec::new() };
        for message in answer {
            let NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) = message.inner else {
                continue;
            };
            for attribute in table.attributes {
                match attribute {
                    TableAttribute::Owner(port) => listing.owner = Some(port),
                    TableAttribute::Flags(flags) => {
                        listing.dormant = flags.contains(TableFlags::Dormant);
                    }
                    _ => {}
                }
            }
        }
        let attributes = vec![RuleAttribute::Table(self.name.into())];
        let request = NfTablesMessage::GetRule(RuleMessage { attributes });
        let rules = self.connection.dump(&operation, inet(request))?;
        listing.rules = rules.into_iter().filter_map(|rule| listed_rule(rule, self.name)).collect();
        Ok(Some(listing))
    }
}

/// The messages that make a table with its chains and rules.
fn creation(name: &str, flags: TableFlags, contents: &Contents) -> Vec<(NetfilterMessage, u16)> {
    let table = NfTablesMessage::NewTable(table_message(name, flags));
    let mut messages = vec![(inet(table), NLM_F_CREATE)];
    for chain in &contents.chains {
        messages.push((inet(NfTablesMessage::NewChain(chain.message(name))), NLM_F_CREATE));
    }
    for rule in &contents.rules {
        let message = NfTablesMessage::NewRule(rule.message(name));
        messages.push((inet(message), NLM_F_CREATE | NLM_F_APPEND));
    }
    messages
}

/// How many rules are missing, plus how many are there that are not wanted.
fn differences(listing: &Listing, contents: &Contents) -> usize {
    let wanted = &contents.rules;
    let missing = wanted.iter().filter(|rule| !listing.rules.contains(rule)).count();
    let surplus = listing.rules.len().saturating_sub(wanted.len() - missing);
    missing + surplus + usize::from(listing.dormant)
}

fn inet(message: NfTablesMessage) -> NetfilterMessage {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
    NetfilterMessage::new(header, message)
}

fn table_message(name: &str, flags: TableFlags) -> TableMessage {
    let mut attributes = vec![TableAttribute::Name(name.into())];
    if !flags.is_empty() {
        attributes.push(TableAttribute::Flags(flags));
    }
    TableMessage { attributes }
}

/// `nft`'s own encoding: type, length, text with its NUL.
pub(super) fn comment_userdata(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    let mut bytes = vec![USERDATA_COMMENT, length];
    bytes.extend_from_slice(comment.as_bytes());
    bytes.push(0);
    bytes
}

fn listed_rule(message: NetfilterMessage, name: &str) -> Option<ListedRule> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) = message.inner else {
        return None;
    };
    let (mut table, mut chain, mut comment, mut steps) = (None, None, None, None);
    for attribute in rule.attributes {
        match attribute {
            RuleAttribute::Table(name) => table = Some(name),
            RuleAttribute::Chain(name) => chain = Some(name),
            RuleAttribute::Expressions(list) => steps = from_kernel(&list),
            RuleAttribute::UserData(bytes) => comment = comment_of(&bytes),
            _ => {}
        }
    }
    // Kernels before 4.13 do not filter the dump by table.
    (table.as_deref() == Some(name)).then_some(ListedRule { chain: chain?, comment, steps })
}

pub(super) fn comment_of(userdata: &[u8]) -> Option<String> {
    let (&[kind, length], text) = userdata.split_first_chunk()?;
    let text = text.get(..usize::from(length).checked_sub(1)?)?;
    (kind == USERDATA_COMMENT).then(|| String::from_utf8_lossy(text).into_owned())
}
