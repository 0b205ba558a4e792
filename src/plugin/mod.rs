//! What a block does between its cache and its upstreams: a file for each directive.
//!
//! ```text
//! message ─► template ─► hosts ─► upstream ─► reply
//! ```
//!
//! The order is that of CoreDNS, whatever order the Corefile has. Replies are whole messages, of which the
//! caller keeps and sends what it would of an upstream's.

mod config;
mod hosts;
mod reply;
mod template;

pub use config::{Config, Hosts, Template};

/// The steps of one block.
#[derive(Default)]
pub struct Steps {
    templates: Vec<Template>,
    hosts: Option<hosts::Hosts>,
}

impl Steps {
    /// Those that `config` names.
    pub fn new(config: &Config) -> Steps {
        let hosts = config.hosts.as_ref().map(hosts::Hosts::new);
        Steps { templates: config.templates.clone(), hosts }
    }

    /// The reply to `message`, a whole query: made here, or by `upstream`, which is given the message to answer
    /// and its name in folded wire octets, as is `name`.
    pub async fn resolve<E>(
        &self,
        message: &[u8],
        name: &[u8],
        mut upstream: impl AsyncFnMut(&[u8], &[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        if self.templates.is_empty() && self.hosts.is_none() {
            return upstream(message, name).await;
        }
        // Few blocks have any, and the way of the others should not carry their weight.
        Box::pin(self.walk(message, name, upstream)).await
    }

    async fn walk<E>(
        &self,
        message: &[u8],
        name: &[u8],
        mut upstream: impl AsyncFnMut(&[u8], &[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        if let Some(reply) = template::reply(&self.templates, message, name) {
            return Ok(reply);
        }
        if let Some(reply) = self.hosts.as_ref().and_then(|hosts| hosts.reply(message, name)) {
            return Ok(reply);
        }
        upstream(message, name).await
    }
}
