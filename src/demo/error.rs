//! Why the try-it cluster could not be built or asked.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::node::netlink;

/// A failed step of the demonstration. What became of the queries is never an error: see
/// [`Report::failures`](super::Report::failures).
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Namespaces, mounts and netfilter need the capabilities of root.
    #[error("the demo builds network namespaces: run it as root (`sudo doorstep demo`)")]
    NotRoot,
    /// The same, after an attempt to be root in a user namespace.
    #[error(
        "the demo builds network namespaces: run it as root (`sudo doorstep demo`), or let users make \
         namespaces of their own (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
         kernel.apparmor_restrict_unprivileged_userns): {action}"
    )]
    NoUserNamespace {
        /// The step that failed, as an infinitive.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another process holds the cluster of this prefix.
    #[error("a cluster with the prefix `{0}` is up already: stop the other demo first")]
    Busy(String),
    /// A namespace could not be made, entered or bound to its name.
    #[error("network namespace `{name}`: cannot {action}")]
    Namespace {
        /// Name below `/run/netns`.
        name: String,
        /// The step, as an infinitive.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A link, address or route was refused.
    #[error("cannot {step}")]
    Link {
        /// The step, as an infinitive.
        step: String,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// nf_tables or conntrack refused a request, or answered something unreadable.
    #[error("cannot {step}")]
    Netfilter {
        /// The step, as an infinitive.
        step: &'static str,
        /// What the kernel said.
        source: netlink::Error,
    },
    /// Anything else that the operating system refused.
    #[error("cannot {step}")]
    Io {
        /// The step, as an infinitive.
        step: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A query got no usable answer.
    #[error("lookup of {name} at {server}")]
    Query {
        /// The name asked for.
        name: String,
        /// The server asked.
        server: std::net::SocketAddr,
        /// Timeout, refusal or an unreadable answer.
        source: io::Error,
    },
    /// The program under demonstration ended before it answered.
    #[error("{program} ended with {status} before it answered; its log ends with:\n{log}")]
    Ended {
        /// The program.
        program: PathBuf,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The last lines it wrote.
        log: String,
    },
    /// The program under demonstration runs but does not answer.
    #[error("no answer from {server} within {waited:?}; the log ends with:\n{log}")]
    NotReady {
        /// Where it should answer.
        server: std::net::SocketAddr,
        /// How long it was given.
        waited: Duration,
        /// The last lines it wrote.
        log: String,
    },
    /// SIGINT or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

impl DemoError {
    /// Names the step that an I/O error ended.
    pub(super) fn io(step: impl Into<String>) -> impl FnOnce(io::Error) -> DemoError {
        let step = step.into();
        move |source| DemoError::Io { step, source }
    }
}
