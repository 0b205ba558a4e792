//! Serving: sockets, the hit path, misses in flight, TCP.
//!
//! ```text
//! udp::UdpWorker   batch.receive ─► responder ─► batch.send          a hit never leaves its thread
//!                                      │ miss
//!                                      ▼ bounded queue
//! miss::Misses     join the flight ─► Resolve ─► cache ─► a Reply to each who waits
//!                                      ▲ miss
//! stream::Streams  frames ─────► responder ─► frames
//! ```

mod batch;
mod client;
mod clients;
mod config;
mod errors;
mod inflight;
mod loadbalance;
mod loops;
mod miss;
mod moderation;
mod querylog;
mod rates;
mod refusals;
mod reply_to;
mod responder;
mod scratch;
mod search_ahead;
mod stream;
#[cfg(test)]
mod tests;
mod udp;
pub mod zones;

pub use batch::{Batch, Origin, Outbox, Wake};
pub use client::Client;
pub use config::{
    Block, Config, Consolidate, ErrorsLog, LoadBalance, LogClass, LogLevel, QueryLog, Subnet, Timeouts,
};
pub use errors::ErrorLog;
pub use loops::{probe as probe_for_loop, probe_name};
pub use miss::{Miss, Misses, Resolve};
pub use moderation::Moderation;
pub use querylog::QueryLogger;
pub use refusals::Refusals;
pub use reply_to::ReplyTo;
pub use responder::{Outcome, Responder, Timing};
pub use search_ahead::SearchAhead;
pub use stream::Streams;
pub use udp::{MISS_QUEUE, UdpThread, UdpWorker, thread_name};
