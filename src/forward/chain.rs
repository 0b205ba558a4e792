//! The `forward` directives of one server block, in order.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::config::{ClientTransport, Config};
use super::directive::Directive;
use super::directory::Directory;
use super::error::{Error, ForwardError};
use super::message::{self, Query};
use super::metrics::Metrics;

/// A query ends within this, with an answer or an error: CoreDNS takes 5 s, which is when stub
/// resolvers stop listening.
pub const DEADLINE: Duration = Duration::from_millis(3900);

/// The directives of a block with their live upstreams: connections, health, estimates.
///
/// It belongs to one thread: neither it nor its futures are `Send`. Everything it starts goes to
/// the [`LocalSet`](tokio::task::LocalSet) that [`resolve`](Chain::resolve) must be called in.
/// A reload that leaves a block's [`Config`]s equal should keep the `Chain`.
pub struct Chain {
    directives: Vec<Directive>,
}

impl Chain {
    /// Sets the directives up; connects to nobody yet. Fails on TLS files and server names.
    pub fn new(configs: &[Config], metrics: Rc<dyn Metrics>) -> Result<Chain, Error> {
        Chain::shared(configs, &Directory::new(metrics))
    }

    /// The same, with upstreams from `directory` where it has them.
    pub fn shared(configs: &[Config], directory: &Directory) -> Result<Chain, Error> {
        let directive = |config| Directive::new(config, directory);
        let directives = configs.iter().map(directive).collect::<Result<_, _>>()?;
        Ok(Chain { directives })
    }

    /// Whether any directive is for `name`, folded wire octets.
    pub fn matches(&self, name: &[u8]) -> bool {
        self.directives.iter().any(|directive| directive.matches(name))
    }

    /// Asks the upstreams of the first directive that is for `name` and gives the reply's octets,
    /// under the query's id, otherwise as they came; whether they parse is not looked at.
    ///
    /// `query` is a complete message with one question; its id does not go upstream. `name` is its
    /// folded wire name. An OPT record, if any, must be the message's last record. A reply whose
    /// response code is among the directive's `next` hands the query to the next directive that is
    /// for `name`; without one the reply stands.
    ///
    /// Ends within [`DEADLINE`]. Dropping the future cancels the query.
    pub async fn resolve(
        &self,
        query: &[u8],
        name: &[u8],
        client: ClientTransport,
    ) -> Result<Vec<u8>, ForwardError> {
        let mut directives = self.directives.iter().filter(|directive| directive.matches(name));
        let mut directive = directives.next().ok_or(ForwardError::NotForwarded)?;
        let query = Query::new(query).ok_or(ForwardError::Malformed)?;
        let mut now = Instant::now();
        let deadline = now + DEADLINE;
        loop {
            let reply = directive.resolve(&query, client, now, deadline).await?;
            if !directive.config.next.contains(&message::rcode(&reply)) {
                return Ok(reply);
            }
            match directives.next() {
                Some(next) => (directive, now) = (next, Instant::now()),
                None => return Ok(reply),
            }
        }
    }
}
