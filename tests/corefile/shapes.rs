//! Corefiles in the shapes that public distributions give them.

/// NodeLocal DNSCache's manifest after the operator's `sed` and before node-cache's template.
pub const STOCK: &str = "\
cluster.local:53 {
    errors
    cache {
            success 9984 30
            denial 9984 5
    }
    reload
    loop
    bind 169.254.20.10 __PILLAR__DNS__SERVER__
    forward . __PILLAR__CLUSTER__DNS__ {
            force_tcp
    }
    prometheus :9253
    health 169.254.20.10:8080
    }
in-addr.arpa:53 {
    errors
    cache 30
    reload
    loop
    bind 169.254.20.10
    forward . __PILLAR__CLUSTER__DNS__ {
            force_tcp
    }
    prometheus :9253
    }
ip6.arpa:53 {
    errors
    cache 30
    reload
    loop
    bind 169.254.20.10
    forward . __PILLAR__CLUSTER__DNS__ {
            force_tcp
    }
    prometheus :9253
    }
.:53 {
    errors
    cache 30
    reload
    loop
    bind 169.254.20.10
    forward . __PILLAR__UPSTREAM__SERVERS__
    prometheus :9253
    }
";

/// A Corefile, how many blocks it has, and how many upstreams these have together.
pub struct Shape {
    pub name: &'static str,
    pub blocks: usize,
    pub upstreams: usize,
    pub text: &'static str,
}

/// Shapes that are served whole.
pub const SERVED: &[Shape] = &[
    Shape {
        name: "kubespray: node address from a variable, external zones",
        blocks: 4,
        upstreams: 6,
        text: "corp.example internal.example {
    errors
    cache 30
    bind 169.254.25.10
    forward . 10.1.1.1 10.1.1.2 {
      prefer_udp
    }
}
cluster.local:53 {
    errors
    cache {
        success 9984 30
        denial 9984 5
    }
    reload
    loop
    bind 169.254.25.10
    forward . 10.233.0.3 {
        force_tcp
    }
    prometheus {$MY_HOST_IP}:9253
    health {$MY_HOST_IP}:9254
}
in-addr.arpa:53 ip6.arpa:53 {
    errors
    cache 30
    reload
    loop
    bind 169.254.25.10
    forward . 10.233.0.3 {
        force_tcp
    }
    prometheus {$MY_HOST_IP}:9253
}
.:53 {
    errors
    cache 30
    reload
    bind 169.254.25.10
    forward . 8.8.8.8 /etc/resolv.conf {
        policy sequential
    }
    prometheus {$MY_HOST_IP}:9253
}
",
    },
    Shape {
        name: "kops: other health port, everything to kube-dns",
        blocks: 2,
        upstreams: 2,
        text: "cluster.local:53 {
  errors
  cache {
    success 9984 30
    denial 9984 5
  }
  reload
  loop
  bind 169.254.20.10
  forward . 100.64.0.10 {
    force_tcp
  }
  prometheus :9253
  health 169.254.20.10:3989
}
.:53 {
  errors
  cache 30
  reload
  bind 169.254.20.10
  forward . 100.64.0.10
  prometheus :9253
}
",
    },
    Shape {
        name: "gardener: imports that match nothing, or a comment",
        blocks: 2,
        upstreams: 3,
        text: "cluster.local:53 {
    loop
    bind 169.254.20.10 100.64.0.10
    forward . 100.104.0.10 {
            prefer_udp
    }
    prometheus :9253
    health 169.254.20.10:8099
    import custom/*.override
    errors
    cache {
            success 9984 30
            denial 9984 5
    }
    reload
    }
.:53 {
    errors
    cache 30
    reload
    loop
    bind 169.254.20.10 100.64.0.10
    forward . 1.1.1.1 1.0.0.1
    prometheus :9253
    import generated/*.override
    }
    import nothing/custom-*.server
",
    },
    Shape {
        name: "deliveryhero without IPv6 look-ups",
        blocks: 1,
        upstreams: 1,
        text: ".:53 {
    template IN AAAA . {
        rcode NOERROR
    }
    cache 30
    forward . /etc/resolv.conf { }
}
",
    },
    Shape {
        name: "deliveryhero: empty option block, prefetch, stale",
        blocks: 2,
        upstreams: 2,
        text: "cluster.local:53 {
    errors
    cache {
      success 9984 30
      denial 9984 5
      prefetch 3 30s 20%
      serve_stale 3600s verify
    }
    reload
    loop
    bind 0.0.0.0
    forward . 172.20.0.10 {
      force_tcp
    }
    prometheus :9253
    health
}
.:53 {
    errors
    cache 30
    reload
    loop
    bind 0.0.0.0
    forward . /etc/resolv.conf { }
    prometheus :9253
}
",
    },
    Shape {
        name: "lablabs: quoted log format without braces",
        blocks: 1,
        upstreams: 1,
        text: ".:53 {
    log . \"combined\" {
        class denial error
    }
    errors
    cache 30
    reload
    loop
    bind 169.254.20.10
    forward . /etc/resolv.conf {
        prefer_udp
        expire 10s
        max_fails 3
    }
    prometheus :9253
    health 169.254.20.10:8080
}
",
    },
    Shape {
        name: "RKE2 with Cilium: every address, ready",
        blocks: 1,
        upstreams: 1,
        text: ".:53 {
    errors
    cache {
        success 9984 30
        denial 9984 5
    }
    reload
    loop
    bind 0.0.0.0
    forward . 10.43.0.10 {
        force_tcp
    }
    prometheus :9253
    health
    ready :8181
}
",
    },
    Shape {
        name: "AKS: long cache, immediate stale, nsid",
        blocks: 2,
        upstreams: 2,
        text: ".:53 {
    errors
    bind 169.254.10.10
    forward . 168.63.129.16 {
        policy sequential
        max_concurrent 1000
    }
    ready 169.254.10.10:8181
    cache 3600 {
        success 9984
        denial 9984
        serve_stale 3600s immediate
        servfail 0
    }
    loop
    nsid localdns
    prometheus :9253
}
cluster.local:53 {
    errors
    bind 169.254.10.10
    forward . 10.0.0.10 {
        force_tcp
        policy sequential
        max_concurrent 1000
    }
    cache 3600 {
        success 9984
        denial 9984
        serve_stale 3600s immediate
        servfail 0
    }
    loop
    nsid localdns-pod
    prometheus :9253
}
",
    },
    Shape {
        name: "Deckhouse: consolidated errors, large cache",
        blocks: 1,
        upstreams: 1,
        text: ". {
    errors {
        consolidate 10s \".* i/o timeout$\" warning
        consolidate 30s \"^Failed to .+\" error show_first
    }
    bind 169.254.20.10
    cache {
        success 39936 30 5
        denial 9984 5 5
        prefetch 10 1m 25%
        serve_stale 1h immediate
        servfail 0
    }
    forward . 10.222.0.10 {
        prefer_udp
        expire 10s
        max_fails 0
        health_check 300ms no_rec domain kubernetes.default.svc.cluster.local
        max_age 5m
    }
    health 127.0.0.1:9225 {
        lameduck 5s
    }
    prometheus 127.0.0.1:4224
    reload 2s 1s
}
",
    },
    Shape {
        name: "Tencent: extra zones, comments, commas",
        blocks: 2,
        upstreams: 3,
        text: "# zones of the provider
tencentyun.com:53, internal:53 {   # two
    errors
    cache 30
    bind 169.254.20.10
    forward . 183.60.83.19 183.60.82.98 {
        policy sequential
    }
    prometheus :9253
}
.:53 {
    cache {
        success 9984 30
        denial 9984 5
        prefetch 10 1m 10%
    }
    bind 169.254.20.10
    forward . 10.96.0.10 {
        max_concurrent 1000
        health_check 5s
        except internal.example
    }
    prometheus :9253
}
",
    },
    Shape {
        name: "snippets, reverse prefix, DNS over TLS, failover",
        blocks: 2,
        upstreams: 4,
        text: "(common) {
    errors
    cache {args[0]}
    bind 169.254.20.10
    debug
}
10.0.0.0/15:53 dns://example.org {
    import common 60
    forward . tls://9.9.9.9%dns.quad9.net tls://149.112.112.112%dns.quad9.net:853 {
        failover SERVFAIL REFUSED
        failfast_all_unhealthy_upstreams
    }
}
. {
    import common 30
    forward example.com 10.0.0.1 {
        next NXDOMAIN
        max_connect_attempts 3
    }
    forward . tls://1.1.1.1 {
        tls
        tls_servername cloudflare-dns.com
        source_address 10.0.0.2
    }
    multisocket 2
    bufsize
    timeouts {
        read 10s
        idle 20s
    }
}
",
    },
    Shape { name: "no braces", blocks: 1, upstreams: 1, text: ".:53\nforward . 10.0.0.1\ncache\n" },
];
