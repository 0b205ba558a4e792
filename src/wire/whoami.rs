//! The reply that tells a client who it is.

use std::net::{IpAddr, SocketAddr};

use super::header::{Flags, HEADER, Rcode, record_type};
use super::name::MAX_NAME;
use super::query::Query;
use super::reply::Reply;

/// Points to the question's name (RFC 1035 §4.1.4).
const TO_QUESTION: [u8; 2] = [0xc0, HEADER as u8];

impl Reply {
    /// Writes the reply to `query` that has, as additional records, the address of `peer`, who asks, and its
    /// port: an SRV record of `_transport` below the name, if there is such a name. `out` has
    /// [`REPLY_ROOM`](super::REPLY_ROOM).
    pub fn whoami(out: &mut [u8], query: &Query<'_>, peer: SocketAddr, transport: &str) -> usize {
        let question = query.question();
        let class = query.qclass().to_be_bytes();
        let (address_type, address) = match peer.ip() {
            IpAddr::V4(v4) => (record_type::A, v4.octets().to_vec()),
            IpAddr::V6(v6) => (record_type::AAAA, v6.octets().to_vec()),
        };
        let flags = Flags::QR | Flags::AA | query.flags().0 & (Flags::OPCODE | Flags::RD | Flags::CD);
        let label = [b"_", transport.as_bytes()].concat();
        let srv = [&[0; 4], &peer.port().to_be_bytes()[..], &[0]].concat();
        let record = |rtype: u16, rdata: &[u8]| {
            [&rtype.to_be_bytes(), &class, &[0; 5][..], &[rdata.len() as u8], rdata].concat()
        };
        let mut reply = [
            &query.id(),
            &flags.to_be_bytes(),
            &[0, 1, 0, 0, 0, 0, 0, 1][..],
            question,
            &TO_QUESTION,
            &record(address_type, &address),
        ]
        .concat();
        // The longest names have no room for a label in front.
        if 1 + label.len() + query.name().len() <= MAX_NAME {
            reply[HEADER - 1] = 2;
            reply.extend(
                [&[label.len() as u8], &label[..], &TO_QUESTION, &record(record_type::SRV, &srv)].concat(),
            );
        }
        let Some(room) = out.get_mut(..reply.len()) else { return 0 };
        room.copy_from_slice(&reply);
        match query.edns() {
            Some(edns) => Reply::append_opt(out, reply.len(), edns, Rcode::NOERROR, None),
            None => reply.len(),
        }
    }
}
