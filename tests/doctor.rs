//! `doorstep doctor` names what is wrong with a node, and nothing on one that is well: machines written down
//! in files, machines made in network namespaces, and the command line. Needs root, `ip`, `iptables` and
//! `nft`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here fails the test")]

#[path = "doctor/command_line.rs"]
mod command_line;
mod common;
#[path = "doctor/kernel.rs"]
mod kernel;
#[path = "doctor/node.rs"]
mod node;
#[path = "doctor/page.rs"]
mod page;
#[path = "doctor/written.rs"]
mod written;
