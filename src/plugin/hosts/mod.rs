//! Names from a file like `/etc/hosts` (the semantics of CoreDNS's `hosts`).

mod file;
mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use super::Outcome;
use super::config::Hosts as Config;
use super::draft::{Draft, Section, record};
use crate::metrics::{AnsweredBy, Registry};
use crate::wire::{MAX_MESSAGE, Query, Rcode, record_type};
use file::HostsFile;
use table::{Table, reversed};

pub(super) use table::address;

/// Records that a message can hold, however short: an owner of two octets, ten fixed ones and an address.
const MOST: usize = MAX_MESSAGE / 16;

/// `hosts` of one block.
pub(super) struct Hosts {
    settings: Arc<Config>,
    inline: Table,
    file: HostsFile,
}

impl Hosts {
    /// Reads the file.
    pub fn new(settings: &Config, registry: &Registry) -> Hosts {
        let settings = Arc::new(settings.clone());
        let text = settings.inline.join("\n");
        let inline = Table::parse(text.as_bytes(), &settings.zones, settings.reverse);
        let file = HostsFile::new(&settings, inline.len(), registry);
        Hosts { settings, inline, file }
    }

    /// What becomes of `message`, a whole query for `name` (folded wire octets); `None`: what comes after is
    /// to be asked.
    pub async fn reply(&self, message: &[u8], name: &[u8]) -> Option<Outcome> {
        let query = Query::parse(message).ok()?;
        let is_pointer = query.qtype() == record_type::PTR;
        let concerned = self.settings.zones.iter().any(|zone| zone.contains(name));
        if !concerned && !is_pointer {
            return None;
        }
        let file = self.file.table().await;
        let records = if is_pointer {
            // Whoever is asked next knows addresses that are not here, `fallthrough` or not.
            self.pointers(&file, name).filter(|records| !records.is_empty())?
        } else {
            match self.addresses(&file, name, query.qtype()) {
                Some(records) => records,
                None if self.settings.fallthrough.iter().any(|zone| zone.contains(name)) => return None,
                // As in CoreDNS: without an SOA there is no NXDOMAIN to be had (RFC 2308 §3).
                None => return Some(Outcome::Failed(None)),
            }
        };
        let mut draft = Draft::new(&query, Rcode::NOERROR);
        for rdata in records {
            draft.add(Section::Answer, &record(name, query.qtype(), self.settings.ttl, &rdata));
        }
        Some(Outcome::Reply { message: draft.finish(), by: AnsweredBy::Hosts, told: None })
    }

    fn pointers(&self, file: &Table, name: &[u8]) -> Option<Vec<Vec<u8>>> {
        let address: IpAddr = reversed(name)?;
        let names = [file, &self.inline].into_iter().flat_map(|table| table.names(address));
        Some(names.take(MOST).map(|name| name.as_wire().to_vec()).collect())
    }

    /// The data of the records of this type; `None`: nobody knows the name.
    fn addresses(&self, file: &Table, name: &[u8], qtype: u16) -> Option<Vec<Vec<u8>>> {
        let found: Vec<_> =
            [file, &self.inline].into_iter().filter_map(|table| table.addresses(name)).collect();
        if found.is_empty() {
            return None;
        }
        let all = found.into_iter();
        Some(match qtype {
            record_type::A => {
                all.flat_map(|addresses| &addresses.v4).take(MOST).map(|v4| v4.octets().to_vec()).collect()
            }
            record_type::AAAA => {
                all.flat_map(|addresses| &addresses.v6).take(MOST).map(|v6| v6.octets().to_vec()).collect()
            }
            _ => Vec::new(),
        })
    }
}
