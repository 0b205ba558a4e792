//! What a block does between its cache and its upstreams: a file for each directive.
//!
//! ```text
//! message ─► template ─► hosts ─► upstream ─► reply
//! ```
//!
//! The order is that of CoreDNS, whatever order the Corefile has. Replies are whole messages, of which the
//! caller keeps and sends what it would of an upstream's.

mod config;
mod draft;
mod follow;
mod hosts;
mod template;

use crate::metrics::{AnsweredBy, Registry};
use crate::wire::ExtendedError;

pub use config::{
    Config, ExpressionError, Hosts, RecordError, RecordText, RecordTextError, SUPPORTED, Template,
};

/// The steps of one block.
#[derive(Default)]
pub struct Steps {
    templates: Vec<Template>,
    hosts: Option<hosts::Hosts>,
}

/// What becomes of a query.
#[derive(Debug)]
pub enum Outcome {
    /// A reply.
    Reply {
        /// The whole message.
        message: Vec<u8>,
        /// Who made it.
        by: AnsweredBy,
        /// What is to be said about it.
        told: Option<ExtendedError>,
    },
    /// SERVFAIL, which nobody keeps; and why, unless the configuration wants it so.
    Failed(Option<String>),
}

impl Steps {
    /// Those that `config` names, counted in `registry`.
    pub fn new(config: &Config, registry: &Registry) -> Steps {
        let hosts = config.hosts.as_ref().map(|hosts| hosts::Hosts::new(hosts, registry));
        Steps { templates: config.templates.clone(), hosts }
    }

    /// What becomes of `message`, a whole query: made here, or by `upstream`, which is given the message to
    /// answer and its name in folded wire octets, as is `name`. `lookup` is given the same and asks the whole
    /// server, any block of it.
    pub async fn resolve<E>(
        &self,
        message: &[u8],
        name: &[u8],
        mut upstream: impl AsyncFnMut(&[u8], &[u8]) -> Result<Vec<u8>, E>,
        lookup: impl AsyncFnMut(&[u8], &[u8]) -> Option<Vec<u8>>,
    ) -> Result<Outcome, E> {
        let has_steps = !self.templates.is_empty() || self.hosts.is_some();
        // Few blocks have any, and the way of the others should not carry their weight.
        if has_steps && let Some(outcome) = Box::pin(self.answer(message, name, lookup)).await {
            return Ok(outcome);
        }
        upstream(message, name).await.map(forwarded)
    }

    /// `None`: nobody here has an answer.
    async fn answer(
        &self,
        message: &[u8],
        name: &[u8],
        mut lookup: impl AsyncFnMut(&[u8], &[u8]) -> Option<Vec<u8>>,
    ) -> Option<Outcome> {
        if let Some(outcome) = template::reply(&self.templates, message, name, &mut lookup).await {
            return Some(outcome);
        }
        self.hosts.as_ref()?.reply(message, name).await
    }
}

fn forwarded(message: Vec<u8>) -> Outcome {
    Outcome::Reply { message, by: AnsweredBy::Forward, told: None }
}
