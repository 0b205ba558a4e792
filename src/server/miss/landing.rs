//! What came of a flight, and what each of its passengers gets.

use super::Miss;
use crate::metrics::AnsweredBy;
use crate::server::config::LoadBalance;
use crate::server::reply_to::ReplyTo;
use crate::server::responder::Sent;
use crate::wire::{Answer, ExtendedError, Flags, Kind, Query, Rcode, Reply, Terms};

/// What came of a flight.
pub(super) enum Landing {
    Answer {
        answer: Answer,
        ttl: Option<u32>,
        by: AnsweredBy,
        told: Option<ExtendedError>,
    },
    /// Nobody here can read it, but it is the answer.
    Opaque(Vec<u8>),
    Failed(Rcode, Option<ExtendedError>),
    /// Each client is told its own address: `whoami`.
    Whoami,
}

/// Writes what `landing` means for `miss`: its answer, or the stale one it brought along.
pub(super) fn write(
    out: &mut [u8],
    query: &Query<'_>,
    miss: &Miss,
    landing: &Landing,
    limit: usize,
) -> (usize, Sent) {
    let sent = |rcode, by| Sent { rcode, by, duration_ns: 0 };
    let balance = miss.zone.block.loadbalance.as_ref().map(LoadBalance::draw);
    if let Some(stale) = miss.stale.as_ref().filter(|_| landing.is_failure()) {
        miss.zone.miss_shard.cache_served_stale();
        let extended_error = Some(ExtendedError::of_stale(stale.rcode()));
        let terms = Terms { ttl: Some(0), authoritative: true, extended_error };
        let len = Reply::from_answer(out, query, stale, terms, balance, limit);
        return (len, sent(stale.rcode(), AnsweredBy::Cache));
    }
    match landing {
        Landing::Answer { answer, ttl, by, told } => {
            let terms = Terms { ttl: *ttl, authoritative: false, extended_error: *told };
            let len = Reply::from_answer(out, query, answer, terms, balance, limit);
            (len, sent(answer.rcode(), *by))
        }
        Landing::Opaque(response) => {
            let len = Reply::opaque(out, query, response, limit);
            (len, sent(Flags::of(out).rcode(), AnsweredBy::Forward))
        }
        Landing::Whoami => {
            let Some(client) = miss.reply_to.as_ref().map(ReplyTo::client) else {
                return (0, sent(Rcode::NOERROR, AnsweredBy::Whoami));
            };
            let len = Reply::whoami(out, query, client.peer, client.transport.label());
            (len, sent(Rcode::NOERROR, AnsweredBy::Whoami))
        }
        Landing::Failed(rcode, error) => {
            (Reply::error(out, query, *rcode, *error), sent(*rcode, AnsweredBy::Server))
        }
    }
}

impl Landing {
    /// Whether the name does not exist.
    pub(super) fn is_name_error(&self) -> bool {
        matches!(self, Landing::Answer { answer, .. } if answer.rcode() == Rcode::NXDOMAIN)
    }

    /// Whether a stale answer is better: anything but NOERROR and NXDOMAIN (CoreDNS's `verify`), and these
    /// when they say nothing.
    pub(super) fn is_failure(&self) -> bool {
        match self {
            Landing::Answer { answer, .. } => {
                !matches!(answer.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN)
                    || matches!(answer.kind(), Kind::Other | Kind::Empty)
            }
            Landing::Opaque(_) | Landing::Whoami => false,
            Landing::Failed(..) => true,
        }
    }
}
