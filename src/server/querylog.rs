//! The lines of `log`.

use std::fmt::Write;
use std::net::IpAddr;

use hickory_proto::rr::{DNSClass, RecordType};

use super::client::Client;
use super::config::{LogClass, QueryLog};
use crate::metrics::Transport;
use crate::wire::{Flags, HEADER, Query, Rcode, write_text};

/// The `log` rules of a block, ready to be filled in.
#[derive(Default)]
pub struct QueryLogger {
    rules: Vec<(QueryLog, Vec<Piece>)>,
}

enum Piece {
    Text(String),
    Field(Field),
}

#[derive(Clone, Copy)]
enum Field {
    Remote,
    Port,
    Local,
    Id,
    Opcode,
    Type,
    Class,
    Name,
    Proto,
    Size,
    DnssecOk,
    BufferSize,
    Rcode,
    ReplyFlags,
    ReplySize,
    Duration,
    Unknown,
}

/// One answered query.
pub struct Answered<'a> {
    /// Who asked.
    pub client: Client,
    /// What.
    pub query: &'a Query<'a>,
    /// The name in lower case, wire octets.
    pub name: &'a [u8],
    /// What was sent back.
    pub reply: &'a [u8],
    /// Its full response code.
    pub rcode: Rcode,
    /// From arrival to reply.
    pub duration_ns: u64,
}

impl QueryLogger {
    /// Prepares the rules.
    pub fn new(rules: &[QueryLog]) -> QueryLogger {
        let prepared = rules.iter().map(|rule| (rule.clone(), pieces(&rule.format))).collect();
        QueryLogger { rules: prepared }
    }

    /// Whether nothing is ever logged.
    #[inline]
    pub fn is_off(&self) -> bool {
        self.rules.is_empty()
    }

    /// Logs `answered` by the first rule in whose scope it is.
    #[cold]
    pub fn log(&self, answered: &Answered<'_>) {
        let Some((rule, pieces)) = self.rules.iter().find(|(rule, _)| rule.scope.contains(answered.name))
        else {
            return;
        };
        let class = class(answered.reply, answered.rcode);
        let wanted = |wanted: &LogClass| *wanted == LogClass::All || *wanted == class;
        if rule.classes.is_empty() || rule.classes.iter().any(wanted) {
            tracing::info!("{}", line(pieces, answered));
        }
    }
}

/// Splits `format` at its `{placeholders}`.
fn pieces(format: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = format;
    while let Some((text, after)) = rest.split_once('{') {
        let Some((placeholder, after)) = after.split_once('}') else { break };
        pieces.push(Piece::Text(text.to_owned()));
        pieces.push(Piece::Field(field(placeholder)));
        rest = after;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    pieces
}

fn field(placeholder: &str) -> Field {
    match placeholder {
        "remote" => Field::Remote,
        "port" => Field::Port,
        "local" => Field::Local,
        ">id" => Field::Id,
        ">opcode" => Field::Opcode,
        "type" => Field::Type,
        "class" => Field::Class,
        "name" => Field::Name,
        "proto" => Field::Proto,
        "size" => Field::Size,
        ">do" => Field::DnssecOk,
        ">bufsize" => Field::BufferSize,
        "rcode" => Field::Rcode,
        ">rflags" => Field::ReplyFlags,
        "rsize" => Field::ReplySize,
        "duration" => Field::Duration,
        _ => Field::Unknown,
    }
}

fn class(reply: &[u8], rcode: Rcode) -> LogClass {
    let has_answer = reply.get(6..8).is_some_and(|count| count != [0, 0]);
    match rcode {
        Rcode::NOERROR if has_answer => LogClass::Success,
        Rcode::NOERROR | Rcode::NXDOMAIN => LogClass::Denial,
        _ => LogClass::Error,
    }
}

fn line(pieces: &[Piece], answered: &Answered<'_>) -> String {
    let mut line = String::with_capacity(160);
    for piece in pieces {
        let written = match piece {
            Piece::Text(text) => line.write_str(text),
            Piece::Field(field) => write_field(&mut line, *field, answered),
        };
        // A String takes everything.
        debug_assert!(written.is_ok());
    }
    line
}

fn write_field(line: &mut String, field: Field, answered: &Answered<'_>) -> std::fmt::Result {
    let Answered { client, query, .. } = answered;
    match field {
        Field::Remote => write_address(line, client.peer.ip()),
        Field::Port => write!(line, "{}", client.peer.port()),
        Field::Local => match client.local {
            Some(local) => write_address(line, local),
            None => line.write_char('-'),
        },
        Field::Id => write!(line, "{}", u16::from_be_bytes(query.id())),
        Field::Opcode => write!(line, "{}", query.flags().opcode().0),
        Field::Type => write!(line, "{}", RecordType::from(query.qtype())),
        Field::Class => write!(line, "{}", DNSClass::from(query.qclass())),
        Field::Name => write_text(answered.name, line),
        Field::Proto => line.write_str(match client.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        }),
        Field::Size => write!(line, "{}", query.len()),
        Field::DnssecOk => write!(line, "{}", query.dnssec_ok()),
        Field::BufferSize => write!(line, "{}", query.udp_limit()),
        Field::Rcode => write!(line, "{}", answered.rcode),
        Field::ReplyFlags => write_flags(line, answered.reply),
        Field::ReplySize => write!(line, "{}", answered.reply.len()),
        Field::Duration => write!(line, "{:.9}s", answered.duration_ns as f64 / 1e9),
        Field::Unknown => line.write_char('-'),
    }
}

/// IPv6 in brackets (RFC 3986 §3.2.2).
fn write_address(line: &mut String, address: IpAddr) -> std::fmt::Result {
    match address {
        IpAddr::V4(v4) => write!(line, "{v4}"),
        IpAddr::V6(v6) => write!(line, "[{v6}]"),
    }
}

fn write_flags(line: &mut String, reply: &[u8]) -> std::fmt::Result {
    if reply.len() < HEADER {
        return line.write_char('-');
    }
    let flags = Flags::of(reply);
    let names = [
        (Flags::QR, "qr"),
        (Flags::AA, "aa"),
        (Flags::TC, "tc"),
        (Flags::RD, "rd"),
        (Flags::RA, "ra"),
        (Flags::AD, "ad"),
        (Flags::CD, "cd"),
    ];
    let set: Vec<&str> = names.iter().filter(|(bit, _)| flags.has(*bit)).map(|(_, name)| *name).collect();
    line.write_str(&set.join(","))
}
