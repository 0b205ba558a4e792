//! What `template` and `dns64` count, as CoreDNS does: at the listening address that was asked.

use super::template::Facts;
use crate::metrics::{Registry, names};

/// The counters of one listening address.
#[derive(Clone, Copy)]
pub(super) struct Tally<'c> {
    pub registry: &'c Registry,
    /// Label `server`.
    pub server: &'c str,
}

/// At what a record of a template failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// An expression has no value.
    Value,
    /// The text is no record.
    Record,
}

impl Tally<'_> {
    /// Addresses were looked for to translate them.
    pub fn translated(self) {
        self.registry.counter(&names::DNS64_TRANSLATED, [self.server]).inc();
    }

    /// A template speaks.
    pub fn matched(self, facts: &Facts<'_>) {
        let labels = [self.server, &facts.zone, "", &facts.class, &facts.type_name];
        self.registry.counter(&names::TEMPLATE_MATCHES, labels).inc();
    }

    /// `template`, for a record of `section`, made none.
    pub fn failed(self, failure: Failure, facts: &Facts<'_>, section: &str, template: &str) {
        let family = match failure {
            Failure::Value => &names::TEMPLATE_FAILURES,
            Failure::Record => &names::TEMPLATE_RR_FAILURES,
        };
        let labels = [self.server, &facts.zone, "", &facts.class, &facts.type_name, section, template];
        self.registry.counter(family, labels).inc();
    }
}
