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
mod hosts;
mod reply;
mod rewrite;
mod template;

pub use config::{
    Action, AnswerPart, AnswerRule, Config, Dns64, Hosts, Matcher, OptionEdit, Prefix, Rule, Template,
};

/// The steps of one block.
#[derive(Default)]
pub struct Steps {
    dns64: Option<Dns64>,
    rewrites: Vec<Rule>,
    templates: Vec<Template>,
    hosts: Option<hosts::Hosts>,
}

impl Steps {
    /// Those that `config` names.
    pub fn new(config: &Config) -> Steps {
        Steps {
            dns64: config.dns64.clone(),
            rewrites: config.rewrites.clone(),
            templates: config.templates.clone(),
            hosts: config.hosts.as_ref().map(hosts::Hosts::new),
        }
    }

    /// The reply to `message`, a whole query: made here, or by `upstream`, which is given the message to answer
    /// and its name in folded wire octets, as is `name`.
    pub async fn resolve<E>(
        &self,
        message: &[u8],
        name: &[u8],
        mut upstream: impl AsyncFnMut(&[u8], &[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let before = self.dns64.is_some() || !self.rewrites.is_empty();
        if !before && self.templates.is_empty() && self.hosts.is_none() {
            return upstream(message, name).await;
        }
        // Few blocks have any, and the way of the others should not carry their weight.
        Box::pin(self.translated(message, name, upstream)).await
    }

    /// As [`Steps::rewritten`], with IPv6 addresses made by `dns64`.
    async fn translated<E>(
        &self,
        message: &[u8],
        name: &[u8],
        mut upstream: impl AsyncFnMut(&[u8], &[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let reply = self.rewritten(message, name, &mut upstream).await?;
        let Some(dns64) = &self.dns64 else { return Ok(reply) };
        let Some(next) = dns64.next_question(message, &reply) else { return Ok(reply) };
        let addresses = self.rewritten(&next, name, &mut upstream).await?;
        Ok(dns64.synthesize(message, reply, &addresses))
    }

    /// As [`Steps::walk`], with another question where `rewrite` says so.
    async fn rewritten<E>(
        &self,
        message: &[u8],
        name: &[u8],
        upstream: impl AsyncFnMut(&[u8], &[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        match rewrite::rewrite(&self.rewrites, message, name) {
            rewrite::Outcome::Same => self.walk(message, name, upstream).await,
            rewrite::Outcome::Reply(reply) => Ok(reply),
            rewrite::Outcome::Rewritten(other) => {
                let reply = self.walk(&other.message, &other.name, upstream).await?;
                Ok(other.restore(&reply))
            }
        }
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
