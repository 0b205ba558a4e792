//! The names of the demonstration cluster and their answers. Pure: no socket, no clock.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::network::{KUBE_DNS_VIP, UPSTREAM_VIP};

/// TTL of every answer, seconds: what the `kubernetes` plugin gives in kubeadm clusters.
pub(super) const TTL: u32 = 30;
/// A `slow-` name waits no longer than this.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
const APEX: &str = "cluster.local.";
/// A zone of the Internet, which kube-dns would ask others for.
pub(super) const EXTERNAL: &str = "example.org.";
/// `slow-<ms>.<anything>` in either zone has these addresses.
pub(super) const SLOW: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 96, 0, 99)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x99)),
];
/// A Service of both address families.
pub(super) const DUAL: &str = "dual.default.svc.cluster.local.";
/// Its ClusterIPs.
pub(super) const DUAL_ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 96, 0, 20)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x20)),
];
/// Text about the client: its address, its port and the transport it came by.
const WHOAMI: &str = "whoami.cluster.local.";

/// Fixed addresses. `web` is a headless Service with three pods.
const ADDRESSES: [(&str, IpAddr); 8] = [
    ("kubernetes.default.svc.cluster.local.", IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1))),
    ("kube-dns.kube-system.svc.cluster.local.", IpAddr::V4(KUBE_DNS_VIP)),
    ("kube-dns-upstream.kube-system.svc.cluster.local.", IpAddr::V4(UPSTREAM_VIP)),
    ("web.default.svc.cluster.local.", IpAddr::V4(Ipv4Addr::new(10, 244, 0, 21))),
    ("web.default.svc.cluster.local.", IpAddr::V4(Ipv4Addr::new(10, 244, 0, 22))),
    ("web.default.svc.cluster.local.", IpAddr::V4(Ipv4Addr::new(10, 244, 0, 23))),
    (DUAL, DUAL_ADDRESSES[0]),
    (DUAL, DUAL_ADDRESSES[1]),
];

/// What to send, and when.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) delay: Duration,
    /// `None`: nothing is sent.
    pub(super) code: Option<ResponseCode>,
    pub(super) answers: Vec<Record>,
    /// The zone's SOA, for NXDOMAIN and NODATA (RFC 2308 §3).
    pub(super) soa: Option<Record>,
}

impl Answer {
    /// An RCODE and nothing else, at once.
    pub(super) fn failure(code: ResponseCode) -> Answer {
        Answer { delay: Duration::ZERO, code: Some(code), answers: Vec::new(), soa: None }
    }
}

/// Whoever asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub(super) address: SocketAddr,
    pub(super) transport: &'static str,
}

/// The answer for `name`: of the fixed names, of `slow-<milliseconds>.…`, `servfail.…`, `refused.…` and
/// `drop.…`, which is never answered. `name`
/// must be in lower case and end with a dot.
pub(super) fn answer(name: &str, record_type: RecordType, client: Client) -> Answer {
    if ![APEX, EXTERNAL].iter().any(|zone| is_at_or_below(name, zone)) {
        return Answer::failure(ResponseCode::Refused);
    }
    match name.split('.').next() {
        Some("servfail") => return Answer::failure(ResponseCode::ServFail),
        Some("refused") => return Answer::failure(ResponseCode::Refused),
        Some("drop") => return Answer { code: None, ..Answer::failure(ResponseCode::NoError) },
        _ => {}
    }
    let delay = delay_of(name);
    let data = records(name, delay.is_some(), client);
    let exists = !data.is_empty() || is_empty_non_terminal(name);
    let wanted =
        data.into_iter().filter(|data| record_type == RecordType::ANY || data.record_type() == record_type);
    let answers: Vec<Record> = match Name::from_str(name) {
        Ok(name) => wanted.map(|data| Record::from_rdata(name.clone(), TTL, data)).collect(),
        Err(_) => Vec::new(),
    };
    Answer {
        delay: delay.unwrap_or_default(),
        code: Some(if exists { ResponseCode::NoError } else { ResponseCode::NXDomain }),
        soa: if answers.is_empty() { soa() } else { None },
        answers,
    }
}

fn records(name: &str, slow: bool, client: Client) -> Vec<RData> {
    if slow {
        return SLOW.map(RData::from).to_vec();
    }
    if name == APEX {
        return soa().map(|record| record.data).into_iter().collect();
    }
    if name == WHOAMI {
        let text = format!("{} {}", client.transport, client.address);
        return vec![RData::TXT(TXT::new(vec![text]))];
    }
    let matching = ADDRESSES.iter().filter(|(owner, _)| *owner == name);
    matching.map(|(_, address)| RData::from(*address)).collect()
}

/// The wait that a first label `slow-<milliseconds>` asks for.
fn delay_of(name: &str) -> Option<Duration> {
    let (first, _) = name.split_once('.')?;
    let milliseconds = first.strip_prefix("slow-")?.parse().ok()?;
    Some(Duration::from_millis(milliseconds).min(LONGEST_DELAY))
}

/// A name that owns nothing but has names below it exists (RFC 8020 §2).
fn is_empty_non_terminal(name: &str) -> bool {
    let owners = ADDRESSES.iter().map(|(owner, _)| *owner);
    owners.chain([WHOAMI]).any(|owner| is_at_or_below(owner, name))
}

fn is_at_or_below(name: &str, zone: &str) -> bool {
    match name.strip_suffix(zone) {
        Some(rest) => rest.is_empty() || rest.ends_with('.'),
        None => false,
    }
}

fn soa() -> Option<Record> {
    let apex = Name::from_str(APEX).ok()?;
    let server = Name::from_str("ns.dns.cluster.local.").ok()?;
    let contact = Name::from_str("hostmaster.cluster.local.").ok()?;
    let negative_ttl = TTL;
    let soa = SOA::new(server, contact, 1, 7200, 1800, 86_400, negative_ttl);
    Some(Record::from_rdata(apex, TTL, RData::SOA(soa)))
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::A;

    use super::*;

    fn ask(name: &str, record_type: RecordType) -> Answer {
        let address = "10.244.0.11:4000".parse().expect("an address");
        let transport = "udp";
        answer(name, record_type, Client { address, transport })
    }

    #[test]
    fn a_service_and_a_headless_service() {
        let service = ask("kubernetes.default.svc.cluster.local.", RecordType::A);
        assert_eq!(service.code, Some(ResponseCode::NoError));
        assert_eq!(service.answers.len(), 1);
        assert_eq!(service.answers[0].data, RData::A(A::new(10, 96, 0, 1)));
        assert_eq!(service.answers[0].ttl, TTL);
        assert!(service.soa.is_none());
        let headless = ask("web.default.svc.cluster.local.", RecordType::A);
        assert_eq!(headless.answers.len(), 3);
    }

    #[test]
    fn no_data_and_no_such_name_carry_the_soa() {
        for (name, record_type, code) in [
            ("kubernetes.default.svc.cluster.local.", RecordType::AAAA, ResponseCode::NoError),
            ("svc.cluster.local.", RecordType::A, ResponseCode::NoError),
            ("nothing.default.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain),
            ("xsvc.cluster.local.", RecordType::A, ResponseCode::NXDomain),
        ] {
            let answer = ask(name, record_type);
            assert_eq!(answer.code, Some(code), "{name}");
            assert!(answer.answers.is_empty(), "{name}");
            assert!(answer.soa.is_some(), "{name}");
        }
    }

    #[test]
    fn slow_names_wait_but_not_for_ever() {
        let slow = ask("slow-250.anything.cluster.local.", RecordType::A);
        assert_eq!(slow.delay, Duration::from_millis(250));
        assert_eq!(slow.answers[0].data.ip_addr(), Some(SLOW[0]));
        assert_eq!(ask("slow-0.x.cluster.local.", RecordType::AAAA).answers[0].data.ip_addr(), Some(SLOW[1]));
        let endless = ask("slow-999999999.cluster.local.", RecordType::A);
        assert_eq!(endless.delay, LONGEST_DELAY);
        let plain = ask("slow-x.cluster.local.", RecordType::A);
        assert_eq!(plain.code, Some(ResponseCode::NXDomain));
        assert_eq!(plain.delay, Duration::ZERO);
    }

    #[test]
    fn whoami_tells_the_client() {
        let answer = ask("whoami.cluster.local.", RecordType::TXT);
        assert_eq!(answer.answers[0].data.to_string(), "udp 10.244.0.11:4000");
    }

    #[test]
    fn other_zones_are_refused() {
        for name in ["example.com.", "xcluster.local.", "."] {
            assert_eq!(ask(name, RecordType::A).code, Some(ResponseCode::Refused), "{name}");
        }
    }

    #[test]
    fn names_that_fail() {
        assert_eq!(ask("servfail.x.cluster.local.", RecordType::A).code, Some(ResponseCode::ServFail));
        assert_eq!(ask("refused.cluster.local.", RecordType::A).code, Some(ResponseCode::Refused));
        assert_eq!(ask("drop.x.cluster.local.", RecordType::AAAA).code, None);
    }
}
