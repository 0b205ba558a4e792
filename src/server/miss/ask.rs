//! What an upstream is asked.

use std::fmt::Display;
use std::net::IpAddr;

use crate::forward::ClientTransport;
use crate::server::inflight::FlightKey;
use crate::server::querylog::TypeName;
use crate::server::zones::Block;
use crate::wire::{Edns, Query, Rcode, write_text};

/// What a flight asks.
pub(super) struct Ask {
    pub(super) message: Vec<u8>,
    pub(super) key: FlightKey,
    pub(super) transport: ClientTransport,
    /// The answer is for all who ask the same.
    pub(super) shared: bool,
    /// The client that may go on with the rest of its search path.
    pub(super) searcher: Option<IpAddr>,
}

impl Ask {
    /// In folded wire octets.
    pub(super) fn name(&self) -> &[u8] {
        self.key.question.name()
    }

    /// Logs that it failed.
    pub(super) fn report(&self, block: &Block, rcode: Rcode, error: &dyn Display) {
        let Some(log) = &block.errors else { return };
        let mut name = String::new();
        // A String takes everything.
        let _ = write_text(self.name(), &mut name);
        let qtype = Query::parse(&self.message).map_or(0, |asked| asked.qtype());
        log.report(&format!("{} {name} {}: {error}", rcode.0, TypeName(qtype)));
    }
}

/// The UDP payload size to offer upstream.
pub(super) fn upstream_size(block: &Block) -> u16 {
    block.bufsize.map_or(Edns::UPSTREAM_UDP_SIZE, |cap| cap.min(Edns::UPSTREAM_UDP_SIZE))
}
