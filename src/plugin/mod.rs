//! What a block does between its cache and its upstreams: a file for each directive.
//!
//! ```text
//! message ─► dns64 ─► rewrite ─► template ─► hosts ─► upstream ─► rewrite ─► dns64 ─► reply
//! ```
//!
//! The order is that of CoreDNS, whatever order the Corefile has. Replies are whole messages, of which the
//! caller keeps and sends what it would of an upstream's.

mod config;
mod dns64;
mod draft;
mod follow;
mod hosts;
mod rewrite;
mod tally;
mod template;

use crate::metrics::{AnsweredBy, Registry};
use crate::wire::ExtendedError;
use tally::Tally;

pub use config::{
    Action, AnswerPart, AnswerRule, Config, Dns64, ExpressionError, Hosts, Matcher, OptionEdit, Prefix,
    RecordError, RecordText, RecordTextError, Rule, SUPPORTED, Template,
};

/// The steps of one block.
#[derive(Default)]
pub struct Steps {
    dns64: Option<Dns64>,
    rewrites: Vec<Rule>,
    templates: Vec<Template>,
    hosts: Option<hosts::Hosts>,
    registry: Registry,
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
        Steps {
            dns64: config.dns64.clone(),
            rewrites: config.rewrites.clone(),
            templates: config.templates.clone(),
            hosts: config.hosts.as_ref().map(|hosts| hosts::Hosts::new(hosts, registry)),
            registry: registry.clone(),
        }
    }

    /// What becomes of `message`, a whole query: made here, or by `upstream`, which is given the message to
    /// answer and its name in folded wire octets, as is `name`. `lookup` is given the same and asks the whole
    /// server, any block of it. `server` is the label of the address that was asked.
    pub async fn resolve<E>(
        &self,
        message: &[u8],
        name: &[u8],
        server: &str,
        mut upstream: impl AsyncFnMut(&[u8], &[u8]) -> Result<Vec<u8>, E>,
        lookup: impl AsyncFnMut(&[u8], &[u8]) -> Option<Vec<u8>>,
    ) -> Result<Outcome, E> {
        let changes = self.dns64.is_some() || !self.rewrites.is_empty();
        if !changes && self.templates.is_empty() && self.hosts.is_none() {
            return upstream(message, name).await.map(forwarded);
        }
        // Few blocks have any, and the way of the others should not carry their weight.
        let tally = Tally { registry: &self.registry, server };
        Box::pin(self.translated(message, name, tally, upstream, lookup)).await
    }

    /// As [`Steps::rewritten`], with IPv6 addresses made by `dns64`.
    async fn translated<E>(
        &self,
        message: &[u8],
        name: &[u8],
        tally: Tally<'_>,
        mut upstream: impl AsyncFnMut(&[u8], &[u8]) -> Result<Vec<u8>, E>,
        mut lookup: impl AsyncFnMut(&[u8], &[u8]) -> Option<Vec<u8>>,
    ) -> Result<Outcome, E> {
        let outcome = self.rewritten(message, name, tally, &mut upstream, &mut lookup).await?;
        let Some(dns64) = &self.dns64 else { return Ok(outcome) };
        let (reply, by, told) = match outcome {
            Outcome::Reply { message, by, told } => (message, by, told),
            failed => return Ok(failed),
        };
        let Some(next) = dns64.next_question(message, &reply) else {
            return Ok(Outcome::Reply { message: reply, by, told });
        };
        Ok(match self.rewritten(&next, name, tally, &mut upstream, &mut lookup).await? {
            Outcome::Reply { message: addresses, told, .. } => {
                tally.translated();
                let message = dns64.synthesize(message, reply, &addresses);
                Outcome::Reply { message, by: AnsweredBy::Dns64, told }
            }
            failed => failed,
        })
    }

    /// As [`Steps::walk`], with another question where `rewrite` says so.
    async fn rewritten<E>(
        &self,
        message: &[u8],
        name: &[u8],
        tally: Tally<'_>,
        upstream: impl AsyncFnMut(&[u8], &[u8]) -> Result<Vec<u8>, E>,
        lookup: impl AsyncFnMut(&[u8], &[u8]) -> Option<Vec<u8>>,
    ) -> Result<Outcome, E> {
        let other = match rewrite::rewrite(&self.rewrites, message, name) {
            rewrite::Outcome::Same => return self.walk(message, name, tally, upstream, lookup).await,
            rewrite::Outcome::Impossible(why) => return Ok(Outcome::Failed(Some(why))),
            rewrite::Outcome::Rewritten(other) => other,
        };
        Ok(match self.walk(&other.message, &other.name, tally, upstream, lookup).await? {
            Outcome::Reply { message, told, .. } => {
                Outcome::Reply { message: other.restore(&message), by: AnsweredBy::Rewrite, told }
            }
            failed => failed,
        })
    }

    async fn walk<E>(
        &self,
        message: &[u8],
        name: &[u8],
        tally: Tally<'_>,
        mut upstream: impl AsyncFnMut(&[u8], &[u8]) -> Result<Vec<u8>, E>,
        mut lookup: impl AsyncFnMut(&[u8], &[u8]) -> Option<Vec<u8>>,
    ) -> Result<Outcome, E> {
        if let Some(outcome) = template::reply(&self.templates, message, name, tally, &mut lookup).await {
            return Ok(outcome);
        }
        if let Some(hosts) = &self.hosts
            && let Some(outcome) = hosts.reply(message, name).await
        {
            return Ok(outcome);
        }
        upstream(message, name).await.map(forwarded)
    }
}

fn forwarded(message: Vec<u8>) -> Outcome {
    Outcome::Reply { message, by: AnsweredBy::Forward, told: None }
}
