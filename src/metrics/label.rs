//! Label values that queries bring along, as slots of fixed tables.

use std::borrow::Cow;

/// How a query came in: label `proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A TCP stream.
    Tcp,
}

impl Transport {
    pub(super) const ALL: [Transport; 2] = [Transport::Udp, Transport::Tcp];

    /// Its name in labels, and in that of a service (RFC 2782).
    pub fn label(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        }
    }
}

/// The client's address family: label `family`, with IANA's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    pub(super) const ALL: [Family; 2] = [Family::V4, Family::V6];

    pub(super) fn label(self) -> &'static str {
        match self {
            Family::V4 => "1",
            Family::V6 => "2",
        }
    }
}

/// What produced a reply: label `plugin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnsweredBy {
    /// No directive: a refusal or an error of the server itself.
    Server,
    /// `cache`.
    Cache,
    /// `forward`.
    Forward,
    /// `hosts`.
    Hosts,
    /// `template`.
    Template,
    /// `rewrite`.
    Rewrite,
    /// `dns64`.
    Dns64,
    /// `whoami`.
    Whoami,
    /// `loop`.
    Loop,
    /// `acl`.
    Acl,
    /// `any`.
    Any,
    /// `chaos`.
    Chaos,
    /// `local`.
    Local,
}

impl AnsweredBy {
    pub(super) const COUNT: usize = AnsweredBy::LABELS.len();
    /// In the order of the variants.
    pub(super) const LABELS: [&'static str; 13] = [
        "", "cache", "forward", "hosts", "template", "rewrite", "dns64", "whoami", "loop", "acl", "any",
        "chaos", "local",
    ];
}

/// Which store of the cache: label `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheType {
    /// Positive answers.
    Success,
    /// Negative answers.
    Denial,
}

impl CacheType {
    pub(super) const ALL: [CacheType; 2] = [CacheType::Success, CacheType::Denial];

    /// `success` or `denial`.
    pub fn label(self) -> &'static str {
        match self {
            CacheType::Success => "success",
            CacheType::Denial => "denial",
        }
    }
}

/// The query types with a label of their own; the rest is `other` (the last slot).
const QTYPES: [(u16, &str); 18] = [
    (1, "A"),
    (28, "AAAA"),
    (5, "CNAME"),
    (48, "DNSKEY"),
    (43, "DS"),
    (65, "HTTPS"),
    (15, "MX"),
    (2, "NS"),
    (47, "NSEC"),
    (50, "NSEC3"),
    (12, "PTR"),
    (46, "RRSIG"),
    (6, "SOA"),
    (33, "SRV"),
    (16, "TXT"),
    (252, "AXFR"),
    (251, "IXFR"),
    (255, "ANY"),
];

/// How many slots [`qtype_slot`] has.
pub(super) const QTYPE_SLOTS: usize = QTYPES.len() + 1;

/// All types with a name are below 256, so one load finds the slot.
static QTYPE_SLOT: [u8; 256] = {
    let mut slots = [QTYPES.len() as u8; 256];
    let mut slot = 0;
    while slot < QTYPES.len() {
        slots[QTYPES[slot].0 as usize] = slot as u8;
        slot += 1;
    }
    slots
};

#[inline]
pub(super) fn qtype_slot(qtype: u16) -> usize {
    match QTYPE_SLOT.get(usize::from(qtype)) {
        Some(slot) => usize::from(*slot),
        None => QTYPE_SLOTS - 1,
    }
}

pub(super) fn qtype_label(slot: usize) -> &'static str {
    QTYPES.get(slot).map_or("other", |(_, name)| name)
}

/// How many response codes have a slot of their own: the assigned ones (RFC 6895 §2.3).
pub(super) const RCODES: usize = 24;

/// A response code as CoreDNS spells it: `NXDOMAIN`, `RCODE12`.
///
/// 16 is `BADSIG` even in an OPT record, where it means `BADVERS` (RFC 6891 §9).
pub fn rcode_name(rcode: u16) -> Cow<'static, str> {
    Cow::Borrowed(match rcode {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        11 => "DSOTYPENI",
        16 => "BADSIG",
        17 => "BADKEY",
        18 => "BADTIME",
        19 => "BADMODE",
        20 => "BADNAME",
        21 => "BADALG",
        22 => "BADTRUNC",
        23 => "BADCOOKIE",
        other => return Cow::Owned(format!("RCODE{other}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_slots_agree() {
        for (qtype, name) in QTYPES {
            assert_eq!(qtype_label(qtype_slot(qtype)), name);
        }
        for qtype in [0, 3, 41, 256, 257, 65535] {
            assert_eq!(qtype_label(qtype_slot(qtype)), "other");
        }
    }

    #[test]
    fn labels_follow_the_variants() {
        for (by, label) in [
            (AnsweredBy::Server, ""),
            (AnsweredBy::Forward, "forward"),
            (AnsweredBy::Dns64, "dns64"),
            (AnsweredBy::Local, "local"),
        ] {
            assert_eq!(AnsweredBy::LABELS[by as usize], label);
        }
    }
}
