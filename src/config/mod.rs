//! Corefile, templates and resolv.conf, turned into the Config types of the other modules.

pub mod corefile;
pub mod duration;
pub mod environment;
pub mod error;
mod interfaces;
