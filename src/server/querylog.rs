//! The lines of `log`.

use std::fmt::{self, Display, Write};
use std::net::IpAddr;

use hickory_proto::rr::{DNSClass, RecordType};

use super::client::Client;
use super::config::{LogClass, QueryLog};
use crate::metrics::Transport;
use crate::wire::{self, Flags, HEADER, Kind, MAX_MESSAGE, Query, Rcode, write_text};

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
    /// `{/LABEL}` of a plugin's metadata: there are none.
    Metadata,
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
        let all = rule.classes.is_empty() || rule.classes.contains(&LogClass::All);
        if all || rule.classes.contains(&class(answered)) {
            tracing::info!("{}", line(pieces, answered));
        }
    }
}

/// Splits `format` at its `{placeholders}`.
fn pieces(format: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = format;
    // The innermost brace begins a placeholder: `{{type}}` is one in braces.
    while let Some((before, after)) = rest.split_once('}') {
        let (text, field) = match before.rsplit_once('{') {
            Some((text, placeholder)) => (text, field(placeholder)),
            None => (before, None),
        };
        match field {
            Some(field) => pieces.extend([Piece::Text(text.to_owned()), Piece::Field(field)]),
            // What nobody knows stays as it is.
            None => pieces.push(Piece::Text(format!("{before}}}"))),
        }
        rest = after;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    pieces
}

fn field(placeholder: &str) -> Option<Field> {
    Some(match placeholder {
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
        _ if placeholder.starts_with('/') => Field::Metadata,
        _ => return None,
    })
}

/// Without records, NOERROR is a denial only with an SOA (RFC 2308 §2.2).
fn class(answered: &Answered<'_>) -> LogClass {
    let denies = || {
        let scanned = wire::Answer::scan(answered.reply, answered.query.question());
        scanned.is_ok_and(|(answer, _)| answer.kind() == Kind::NoData)
    };
    match answered.rcode {
        Rcode::NXDOMAIN => LogClass::Denial,
        Rcode::NOERROR if denies() => LogClass::Denial,
        Rcode::NOERROR => LogClass::Success,
        _ => LogClass::Error,
    }
}

/// A type's name, `TYPE65280` without one (RFC 3597 §5).
pub(super) struct TypeName(pub u16);

impl Display for TypeName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match RecordType::from(self.0) {
            RecordType::Unknown(number) => write!(out, "TYPE{number}"),
            known => write!(out, "{known}"),
        }
    }
}

fn write_class(line: &mut String, class: u16) -> fmt::Result {
    match DNSClass::from(class) {
        DNSClass::Unknown(number) => write!(line, "CLASS{number}"),
        known => write!(line, "{known}"),
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

fn write_field(line: &mut String, field: Field, answered: &Answered<'_>) -> fmt::Result {
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
        Field::Type => write!(line, "{}", TypeName(query.qtype())),
        Field::Class => write_class(line, query.qclass()),
        Field::Name => write_text(answered.name, line),
        Field::Proto => line.write_str(match client.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        }),
        Field::Size => write!(line, "{}", query.len()),
        Field::DnssecOk => write!(line, "{}", query.dnssec_ok()),
        Field::BufferSize => match client.transport {
            Transport::Udp => write!(line, "{}", query.udp_limit()),
            Transport::Tcp => write!(line, "{MAX_MESSAGE}"),
        },
        Field::Rcode => write!(line, "{}", answered.rcode),
        Field::ReplyFlags => write_flags(line, answered.reply),
        Field::ReplySize => write!(line, "{}", answered.reply.len()),
        Field::Duration => write!(line, "{:.9}s", answered.duration_ns as f64 / 1e9),
        Field::Metadata => line.write_char('-'),
    }
}

/// IPv6 in brackets (RFC 3986 §3.2.2).
fn write_address(line: &mut String, address: IpAddr) -> fmt::Result {
    match address {
        IpAddr::V4(v4) => write!(line, "{v4}"),
        IpAddr::V6(v6) => write!(line, "[{v6}]"),
    }
}

fn write_flags(line: &mut String, reply: &[u8]) -> fmt::Result {
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
