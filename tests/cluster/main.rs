//! The node's side of Doorstep, end to end: the real program in the cluster of network namespaces
//! that `doorstep demo` builds, watched with the kernel's own tools.
//!
//! Needs root, nf_tables with nat, `ip`, `nft`, `iptables` (both variants) and `conntrack`; every
//! test fails without.
//!
//! | file | what |
//! |---|---|
//! | `rig` | a cluster, the program in it, and a look at the node |
//! | `paths` | pods are answered without conntrack entries, through either backend |
//! | `traces` | what a stopped process leaves: nothing, or all of it with `-skipteardown` |
//! | `repair` | others change link and rules while we serve |
//! | `crash` | SIGKILL, what pods see then, and the next start over the leftovers |
//! | `order` | rules only while somebody answers; `/ready` only after the rules |
//! | `flags` | names, addresses of others, pidfile, interval |
//! | `pairs` | A and AAAA at once from one socket |
//! | `swap` | beside a node-cache that is about to end, or to serve again |
//! | `demo` | `doorstep demo` itself |
#![cfg(feature = "demo")]
#![allow(clippy::expect_used, reason = "clippy exempts test functions, not their helpers")]

mod crash;
mod demo;
mod flags;
mod order;
mod pairs;
mod paths;
mod repair;
mod rig;
mod swap;
mod traces;
