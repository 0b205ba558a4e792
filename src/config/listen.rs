//! Addresses to listen on, as Go's `net.Listen` takes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Reads `IP:PORT`, `[IPV6]:PORT`, `localhost:PORT`, or `:PORT` for every address of both families.
///
/// `None` when the text is none of these.
pub fn listen_addresses(text: &str) -> Option<Vec<SocketAddr>> {
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let addresses: Vec<IpAddr> = match host {
        "" => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        "localhost" => vec![Ipv4Addr::LOCALHOST.into()],
        _ => {
            let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
            vec![match inner {
                Some(v6) => IpAddr::V6(v6.parse().ok()?),
                None => IpAddr::V4(host.parse().ok()?),
            }]
        }
    };
    let socket = |ip| SocketAddr::new(ip, port);
    Some(addresses.into_iter().map(socket).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for (text, expected) in [
            (":9253", Some("[0.0.0.0:9253, [::]:9253]")),
            ("localhost:9153", Some("[127.0.0.1:9153]")),
            ("10.0.0.1:80", Some("[10.0.0.1:80]")),
            ("[::1]:80", Some("[[::1]:80]")),
            ("::1:80", None),
            ("10.0.0.1", None),
            ("host:80", None),
            (":65536", None),
        ] {
            let found = listen_addresses(text).map(|list| format!("{list:?}"));
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}
