//! What kubelet tells pods to ask.

use std::net::IpAddr;

use serde_json::Value;

use super::super::facts::Process;
use super::{Host, Unread};

const CONFIGURATION: &str = "/var/lib/kubelet/config.yaml";

/// `clusterDNS` of its configuration, else `--cluster-dns`; flags lose no more than that: kubelet lets them win,
/// so they come first.
pub fn cluster_dns(host: &dyn Host, kubelet: Option<&Process>, unread: &mut Unread) -> Vec<IpAddr> {
    if let Some(list) = kubelet.and_then(|kubelet| kubelet.flag("cluster-dns")) {
        return list.split(',').filter_map(|ip| ip.trim().parse().ok()).collect();
    }
    let path = kubelet.and_then(|kubelet| kubelet.flag("config")).unwrap_or(CONFIGURATION.to_owned());
    let here = host.text(&path);
    // From a container, the file is where kubelet sees it.
    let text = match (&here, kubelet) {
        (Err(_), Some(kubelet)) => host.text(&format!("/proc/{}/root{path}", kubelet.pid)),
        _ => here,
    };
    unread.take("kubelet's configuration", text).map(|text| parse(&text)).unwrap_or_default()
}

/// The addresses below `clusterDNS:`, in either of YAML's ways to write a list, or in JSON, which is YAML as well.
fn parse(text: &str) -> Vec<IpAddr> {
    if let Ok(Value::Object(members)) = serde_json::from_str(text) {
        let list = members.get("clusterDNS").and_then(Value::as_array).into_iter().flatten();
        return list.filter_map(|address| address.as_str()?.parse().ok()).collect();
    }
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim_end());
    let mut lines = lines.filter(|line| !line.is_empty());
    let Some(first) = lines.find_map(|line| line.strip_prefix("clusterDNS:")) else {
        return Vec::new();
    };
    let below = lines.map_while(|line| line.trim_start().strip_prefix("- "));
    let inline = first.trim().trim_matches(['[', ']']).split(',');
    let plain = |word: &str| word.trim().trim_matches(['"', '\'']).parse().ok();
    inline.chain(below).filter_map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_kind_of_list() {
        let ten: Vec<IpAddr> = vec!["10.96.0.10".parse().unwrap()];
        assert_eq!(parse("a: 1\nclusterDNS:\n- 10.96.0.10\nclusterDomain: cluster.local\n"), ten);
        assert_eq!(parse("clusterDNS:\n  - \"10.96.0.10\"\nb:\n  - 1.1.1.1\n"), ten);
        assert_eq!(parse("clusterDNS: ['10.96.0.10']\n"), ten);
        assert_eq!(parse("clusterDNS: # of kube-dns\n# old: 10.96.0.9\n- 10.96.0.10 # new\n"), ten);
        assert_eq!(parse("clusterDomain: cluster.local\n"), Vec::<IpAddr>::new());
    }

    /// As Amazon's images have it.
    #[test]
    fn json_is_yaml_too() {
        let text =
            "{\n  \"kind\": \"KubeletConfiguration\",\n  \"clusterDNS\": [\n    \"10.96.0.10\"\n  ]\n}\n";
        assert_eq!(parse(text), ["10.96.0.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(parse("{}"), Vec::<IpAddr>::new());
    }
}
