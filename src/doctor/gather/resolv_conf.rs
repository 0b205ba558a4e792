//! `resolv.conf(5)`, as far as it matters here.

use std::net::IpAddr;

use super::super::facts::ResolvConf;
use super::Host;

/// Reads a file; `None` if that cannot be done.
pub fn read(host: &dyn Host, path: &str) -> Option<ResolvConf> {
    host.text(path).ok().map(|text| parse(&text))
}

fn parse(text: &str) -> ResolvConf {
    let mut found = ResolvConf::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                found.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()))
            }
            Some("search") => found.search = words.map(str::to_owned).collect(),
            Some("options") => {
                let mut ndots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                found.ndots = ndots.next_back().or(found.ndots);
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_kubelet_writes_it() {
        let text = "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5 edns0\n";
        let read = parse(text);
        assert_eq!(read.servers, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
        assert_eq!((read.search.len(), read.ndots), (2, Some(5)));
        assert_eq!(parse("# nothing\nnameserver x\noptions ndots:\n"), ResolvConf::default());
    }
}
