//! Queues and filters of links: traffic control over netlink, attributes as octets.
//!
//! The decoders of netlink-packet-route know few kinds of queues and fail at the options of others,
//! which every node has.

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NetlinkDeserializable,
    NetlinkHeader, NetlinkSerializable, Nla, NlasIterator, Parseable,
};
use rustix::io::Errno;

use crate::node::netlink::{Connection, Error};

const NEW_QDISC: u16 = 36;
const DEL_QDISC: u16 = 37;
const GET_QDISC: u16 = 38;
const NEW_FILTER: u16 = 44;
const DEL_FILTER: u16 = 45;
const GET_FILTER: u16 = 46;

/// `TCA_KIND`.
const KIND: u16 = 1;
/// `TCA_OPTIONS`.
const OPTIONS: u16 = 2;
/// `TCA_BPF_ACT`, `TCA_BPF_CLASSID`, `TCA_BPF_OPS_LEN`, `TCA_BPF_OPS`.
const BPF_ACTION: u16 = 1;
const BPF_CLASS: u16 = 3;
const BPF_LENGTH: u16 = 4;
const BPF_OPS: u16 = 5;
/// `TCA_ACT_KIND`, `TCA_ACT_OPTIONS`, `TCA_MIRRED_PARMS`.
const ACTION_KIND: u16 = 1;
const ACTION_OPTIONS: u16 = 2;
const MIRRED_PARMS: u16 = 2;
/// `TC_ACT_STOLEN`, `TCA_EGRESS_REDIR`.
const STOLEN: u32 = 4;
const REDIRECT: u32 = 1;
/// `TCA_NETEM_LATENCY64`, and the length of `struct tc_netem_qopt` before it.
const NETEM_LATENCY: u16 = 10;
const NETEM_HEAD: usize = 24;
const NESTED: u16 = 1 << 15;
/// `ETH_P_ALL` in network order, as the low half of a filter's info.
const EVERY_PROTOCOL: u32 = (3_u16.to_be()) as u32;

/// Where a queue hangs: at a link's output (`TC_H_ROOT`).
pub(super) const ROOT: u32 = 0xffff_ffff;
/// Where filters for incoming packets hang (`TC_H_CLSACT`).
pub(super) const CLSACT: u32 = 0xffff_fff1;
/// The same as a filter's parent (`TC_H_MIN_INGRESS`).
pub(super) const INGRESS: u32 = 0xffff_fff2;
/// And for outgoing ones (`TC_H_MIN_EGRESS`).
pub(super) const EGRESS: u32 = 0xffff_fff3;

/// A queue or a filter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Object {
    message: u16,
    /// The link.
    pub(super) link: u32,
    /// Its own number on the link.
    pub(super) handle: u32,
    /// Where it hangs.
    pub(super) parent: u32,
    /// Of a filter: priority and protocol.
    pub(super) info: u32,
    attributes: Vec<DefaultNla>,
}

impl Object {
    fn new(link: u32, parent: u32, handle: u32) -> Object {
        Object { link, parent, handle, ..Object::default() }
    }

    fn of_kind(mut self, kind: &str) -> Object {
        self.attributes.push(DefaultNla::new(KIND, [kind.as_bytes(), b"\0"].concat()));
        self
    }

    fn with_options(mut self, octets: Vec<u8>) -> Object {
        self.attributes.push(DefaultNla::new(OPTIONS, octets));
        self
    }

    /// `fq_codel`, `bpf` and so on.
    pub(super) fn kind(&self) -> String {
        let octets = attribute(&self.attributes, KIND).unwrap_or_default();
        String::from_utf8_lossy(&octets).trim_end_matches('\0').to_owned()
    }

    /// Its settings, in its kind's own form.
    pub(super) fn options(&self) -> Vec<u8> {
        attribute(&self.attributes, OPTIONS).unwrap_or_default()
    }

    /// Of a filter: its priority.
    pub(super) fn priority(&self) -> u32 {
        self.info >> 16
    }
}

impl NetlinkSerializable for Object {
    fn message_type(&self) -> u16 {
        self.message
    }

    fn buffer_len(&self) -> usize {
        20 + self.attributes.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let words = [0, self.link, self.handle, self.parent, self.info];
        for (place, word) in buffer.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        self.attributes.as_slice().emit(&mut buffer[20..]);
    }
}

impl NetlinkDeserializable for Object {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Object, DecodeError> {
        let at = |at: usize| payload.get(at..at + 4).map_or(0, word);
        let attributes = payload.get(20..).unwrap_or(&[]);
        Ok(Object {
            message: header.message_type,
            link: at(4),
            handle: at(8),
            parent: at(12),
            info: at(16),
            attributes: parts(attributes),
        })
    }
}

impl From<Object> for netlink_packet_core::NetlinkPayload<Object> {
    fn from(object: Object) -> Self {
        netlink_packet_core::NetlinkPayload::InnerMessage(object)
    }
}

fn word(octets: &[u8]) -> u32 {
    octets.try_into().map_or(0, u32::from_ne_bytes)
}

fn parts(octets: &[u8]) -> Vec<DefaultNla> {
    let all = NlasIterator::new(octets).map_while(Result::ok);
    all.filter_map(|part| DefaultNla::parse(&part).ok()).collect()
}

fn attribute(parts: &[DefaultNla], kind: u16) -> Option<Vec<u8>> {
    let part = parts.iter().find(|part| part.kind() & !NESTED == kind)?;
    let mut octets = vec![0; part.value_len()];
    part.emit_value(&mut octets);
    Some(octets)
}

/// What is found on the way through nested attributes.
fn nested(octets: &[u8], way: &[u16]) -> Option<Vec<u8>> {
    way.iter().try_fold(octets.to_vec(), |octets, kind| attribute(&parts(&octets), *kind))
}

fn nest(parts: &[DefaultNla]) -> Vec<u8> {
    let mut octets = vec![0; parts.buffer_len()];
    parts.emit(&mut octets);
    octets
}

/// All queues of all links.
pub(super) fn queues(connection: &mut Connection) -> Result<Vec<Object>, Error> {
    connection.dump("list queues", Object { message: GET_QDISC, ..Object::default() })
}

/// The filters at `parent` of `link`.
pub(super) fn filters(connection: &mut Connection, link: u32, parent: u32) -> Result<Vec<Object>, Error> {
    let request = Object { message: GET_FILTER, ..Object::new(link, parent, 0) };
    match connection.dump("list filters", request) {
        // No queue for filters there, or no such link any more.
        Err(e) if matches!(e.refusal(), Some(Errno::INVAL | Errno::NODEV | Errno::NOENT)) => Ok(Vec::new()),
        // The kernel tells of each priority before its filters, with the handle zero.
        found => found.map(|found| found.into_iter().filter(|filter| filter.handle != 0).collect()),
    }
}

/// Makes the place for filters of incoming packets. Returns false if there is one.
pub(super) fn make_clsact(connection: &mut Connection, link: u32) -> Result<bool, Error> {
    let queue = Object { message: NEW_QDISC, ..Object::new(link, CLSACT, 0xffff_0000).of_kind("clsact") };
    match connection.request("make a clsact queue (module sch_ingress)", queue, NLM_F_CREATE | NLM_F_EXCL) {
        Ok(_) => Ok(true),
        Err(e) if e.refusal() == Some(Errno::EXIST) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Makes a queue of `kind`, in the place of whatever is at its parent.
pub(super) fn replace_queue(
    connection: &mut Connection,
    (link, parent, handle): (u32, u32, u32),
    kind: &str,
    options: Vec<u8>,
) -> Result<(), Error> {
    let queue = Object::new(link, parent, handle).of_kind(kind).with_options(options);
    let operation = format!("make a {kind} queue (module sch_{kind})");
    let queue = Object { message: NEW_QDISC, ..queue };
    connection.request(&operation, queue, NLM_F_CREATE | NLM_F_REPLACE).map(|_| ())
}

/// Deletes a queue; one that is gone is no error.
pub(super) fn delete_queue(
    connection: &mut Connection,
    (link, parent, handle): (u32, u32, u32),
) -> Result<(), Error> {
    let queue = Object { message: DEL_QDISC, ..Object::new(link, parent, handle) };
    gone(connection.request("delete a queue", queue, 0))
}

/// What becomes of the packets that a filter matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// They leave through this link instead, and come back where they were.
    Detour(u32),
    /// They wait in this class of the queue.
    Class(u32),
}

/// Sets a filter that runs `program` at the place of `filter`, instead of the one with its handle.
pub(super) fn set_filter(
    connection: &mut Connection,
    filter: &Filter,
    program: &[u8],
    fate: Fate,
) -> Result<(), Error> {
    let count = u16::try_from(program.len() / 8).unwrap_or(u16::MAX);
    let mut options = vec![
        DefaultNla::new(BPF_LENGTH, count.to_ne_bytes().to_vec()),
        DefaultNla::new(BPF_OPS, program.to_vec()),
    ];
    options.push(match fate {
        Fate::Class(class) => DefaultNla::new(BPF_CLASS, class.to_ne_bytes().to_vec()),
        Fate::Detour(link) => DefaultNla::new(BPF_ACTION | NESTED, redirection(link)),
    });
    let object = Object { message: NEW_FILTER, ..filter.object() };
    let object = object.of_kind("bpf").with_options(nest(&options));
    let operation = "set a filter (modules cls_bpf and act_mirred)";
    connection.request(operation, object, NLM_F_CREATE | NLM_F_REPLACE).map(|_| ())
}

/// One action, `mirred egress redirect dev LINK`.
fn redirection(link: u32) -> Vec<u8> {
    let parameters = [0, 0, STOLEN, 0, 0, REDIRECT, link].map(u32::to_ne_bytes).concat();
    let options = nest(&[DefaultNla::new(MIRRED_PARMS, parameters)]);
    let action = nest(&[
        DefaultNla::new(ACTION_KIND, b"mirred\0".to_vec()),
        DefaultNla::new(ACTION_OPTIONS | NESTED, options),
    ]);
    nest(&[DefaultNla::new(1 | NESTED, action)])
}

/// The place of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) link: u32,
    pub(super) parent: u32,
    pub(super) priority: u16,
    pub(super) handle: u32,
}

impl Filter {
    fn object(&self) -> Object {
        let info = u32::from(self.priority) << 16 | EVERY_PROTOCOL;
        Object { info, ..Object::new(self.link, self.parent, self.handle) }
    }

    /// Whether `found` is the filter of this place.
    pub(super) fn is(&self, found: &Object) -> bool {
        found.handle == self.handle && found.priority() == u32::from(self.priority) && found.kind() == "bpf"
    }

    /// Deletes it; one that is gone is no error.
    pub(super) fn delete(&self, connection: &mut Connection) -> Result<(), Error> {
        let object = Object { message: DEL_FILTER, ..self.object() }.of_kind("bpf");
        gone(connection.request("delete a filter", object, 0))
    }
}

/// Whether `found` runs `program` and then does what `fate` says.
pub(super) fn does(found: &Object, program: &[u8], fate: Fate) -> bool {
    let options = found.options();
    let runs = nested(&options, &[BPF_OPS]).as_deref() == Some(program);
    runs && match fate {
        Fate::Class(class) => nested(&options, &[BPF_CLASS]).is_some_and(|octets| word(&octets) == class),
        Fate::Detour(link) => {
            let parameters = nested(&options, &[BPF_ACTION, 1, ACTION_OPTIONS, MIRRED_PARMS]);
            parameters.and_then(|octets| octets.get(24..28).map(word)) == Some(link)
        }
    }
}

/// The options of a queue that holds each packet for `nanoseconds`, and up to `limit` of them.
pub(super) fn netem(nanoseconds: i64, limit: u32) -> Vec<u8> {
    let mut options = [0, limit, 0, 0, 0, 0].map(u32::to_ne_bytes).concat();
    options.extend(nest(&[DefaultNla::new(NETEM_LATENCY, nanoseconds.to_ne_bytes().to_vec())]));
    options
}

/// For how many nanoseconds a netem queue holds packets.
pub(super) fn netem_delay(queue: &Object) -> Option<i64> {
    let options = queue.options();
    let octets = attribute(&parts(options.get(NETEM_HEAD..)?), NETEM_LATENCY)?;
    Some(i64::from_ne_bytes(octets.try_into().ok()?))
}

/// The options of a queue with two bands, all packets in the second unless a filter says otherwise.
pub(super) fn two_bands() -> Vec<u8> {
    [2_u32.to_ne_bytes().to_vec(), vec![1; 16]].concat()
}

fn gone(outcome: Result<Vec<Object>, Error>) -> Result<(), Error> {
    match outcome {
        Err(e) if matches!(e.refusal(), Some(Errno::NOENT | Errno::NODEV | Errno::INVAL)) => Ok(()),
        outcome => outcome.map(|_| ()),
    }
}
