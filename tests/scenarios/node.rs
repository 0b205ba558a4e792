//! The server's own parts around a scripted upstream and a clock that stands still.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use doorstep::cache::{Cache, Store};
use doorstep::clock::{Clock, Moment};
use doorstep::config::{self, Environment, Options};
use doorstep::forward::{ClientTransport, ForwardError};
use doorstep::metrics::{Registry, Transport, ZoneShard};
use doorstep::plugin::Steps;
use doorstep::server::zones::{Block, BlockId, Zone, Zones};
use doorstep::server::{
    self, Client, Miss, Misses, Outcome, QueryLogger, ReplyTo, Resolve, Responder, SearchAhead, Timing,
};
use doorstep::wire::{Name, REPLY_ROOM};
use hickory_proto::op::Message;
use tokio::time::Instant;

use super::message::{Query, Reply, Response, name, question};
use super::script::{Expectation, Flag, Scenario, Step};

/// Runs `scenario` to its end or to the first thing that is not as expected.
pub fn run(scenario: &Scenario) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime.map_err(text)?, async {
        let mut node = Node::start(&scenario.blocks)?;
        for (line, step) in &scenario.steps {
            node.step(step).await.map_err(|error| format!("line {line}: {error}"))?;
        }
        match node.pending.keys().next() {
            Some(id) => Err(format!("nobody looked at the reply to `{id}`")),
            None => Ok(()),
        }
    })
}

/// One client's node.
struct Node {
    zones: Arc<Zones>,
    /// Of the first block.
    cache: Option<Arc<Cache>>,
    responder: Responder,
    misses: Rc<Misses<Upstream>>,
    clock: Clock,
    upstream: Rc<Upstream>,
    server: Arc<UdpSocket>,
    client: UdpSocket,
    next_id: u16,
    /// Queries without a reply so far.
    pending: HashMap<String, (Query, u16)>,
    /// Replies nobody asked for yet, by message id.
    arrived: HashMap<u16, Vec<u8>>,
}

/// How a reply came.
struct Seen {
    reply: Reply,
    hit: bool,
}

/// Name and type, and what is said about it after what time.
type Lines = HashMap<(Vec<u8>, u16), (Duration, Option<Response>)>;

#[derive(Default)]
struct Upstream {
    lines: RefCell<Lines>,
    asked: RefCell<usize>,
}

impl Resolve for Upstream {
    async fn resolve(&self, message: &[u8], _: &[u8], _: ClientTransport) -> Result<Vec<u8>, ForwardError> {
        *self.asked.borrow_mut() += 1;
        let (takes, says) = self.line(message).ok_or(ForwardError::NotForwarded)?;
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        says.map(|response| response.octets(message)).ok_or(ForwardError::AllDown)
    }
}

impl Upstream {
    /// The line for the question of `message`, or that of the nearest `*` above it.
    fn line(&self, message: &[u8]) -> Option<(Duration, Option<Response>)> {
        let question = question(message).to_ascii_lowercase();
        let (mut owner, tail) = question.split_at(question.len() - 4);
        let qtype = u16::from_be_bytes([tail[0], tail[1]]);
        let lines = self.lines.borrow();
        let mut found = lines.get(&(owner.to_vec(), qtype));
        while found.is_none() && owner[0] != 0 {
            owner = &owner[1 + usize::from(owner[0])..];
            found = lines.get(&([b"\x01*", owner].concat(), qtype));
        }
        found.cloned()
    }
}

impl Node {
    fn start(blocks: &[(String, String)]) -> Result<Node, String> {
        let registry = Registry::new();
        let served = (1..).map(BlockId).zip(load(blocks)?);
        let served: Vec<(Name, Arc<Block>)> =
            served.map(|(id, config)| block(id, config)).collect::<Result<_, _>>()?;
        let ids: Vec<BlockId> = served.iter().map(|(_, block)| block.id).collect();
        let cache = served.first().and_then(|(_, block)| block.cache.clone());
        let zones = Arc::new_cyclic(|siblings| {
            let zone = |(origin, block)| {
                let [shard, miss_shard] = [(); 2].map(|()| ZoneShard::detached());
                let (server, siblings) = (String::new(), siblings.clone());
                Arc::new(Zone { origin, block, shard, miss_shard, local: None, server, siblings })
            };
            Zones::new(served.into_iter().map(zone).collect(), ZoneShard::detached(), true)
        });
        let epoch = Instant::now();
        let clock = Clock::from_fn(move || {
            Moment(1_000_000).plus_ms(Instant::now().duration_since(epoch).as_millis() as u64)
        });
        let misses = Misses::new(&registry, clock.clone(), Rc::default(), Arc::default());
        let upstream = Rc::new(Upstream::default());
        let of_each = ids.into_iter().map(|id| (id, upstream.clone()));
        misses.set_upstreams(of_each);
        let client = UdpSocket::bind("127.0.0.1:0").map_err(text)?;
        client.set_nonblocking(true).map_err(text)?;
        Ok(Node {
            zones,
            cache,
            responder: Responder::default(),
            misses,
            clock,
            upstream,
            server: Arc::new(UdpSocket::bind("127.0.0.1:0").map_err(text)?),
            client,
            next_id: 1,
            pending: HashMap::new(),
            arrived: HashMap::new(),
        })
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Upstream { name: owner, qtype, takes, says } => {
                let line = (*takes, says.clone());
                self.upstream.lines.borrow_mut().insert((name(owner), *qtype), line);
                Ok(())
            }
            Step::Ask { query, id, expected } => {
                let asked = (query.clone(), self.take_id());
                let seen = self.ask(&asked).await?;
                if let (None, Some(id)) = (&seen, id) {
                    self.pending.insert(id.clone(), asked);
                }
                check(seen, expected)
            }
            Step::Every { pause, length, step } => {
                for turn in 1..=length.as_millis() / pause.as_millis().max(1) {
                    let done = Box::pin(self.step(step)).await;
                    done.map_err(|error| format!("{error} (the {turn}. time)"))?;
                    tokio::time::sleep(*pause).await;
                }
                Ok(())
            }
            Step::Reply { id, expected } => {
                let asked = self.pending.remove(id).ok_or(format!("`{id}` is not pending"))?;
                check(self.arrived(&asked).await?, expected)
            }
            Step::Wait(time) => {
                tokio::time::sleep(*time).await;
                Ok(())
            }
            Step::Asked(expected) => {
                let asked = self.upstream.asked.take();
                differ("queries to the upstream", asked, *expected)
            }
            Step::Entries { denial, least, most } => {
                let store = if *denial { Store::Denial } else { Store::Success };
                let count = self.cache.as_ref().map_or(0, |cache| cache.len(store));
                match (*least..=*most).contains(&count) {
                    true => Ok(()),
                    false => Err(format!("{count} entries")),
                }
            }
            Step::Flood { count, name, qtype } => {
                for number in 0..*count {
                    let name = name.replace('*', &number.to_string());
                    let asked =
                        (Query { name, qtype: *qtype, edns: Some(4096), ..Query::default() }, self.take_id());
                    self.ask(&asked).await?.ok_or("no reply")?;
                }
                Ok(())
            }
        }
    }

    fn take_id(&mut self) -> u16 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// Does what `UdpWorker` does with a datagram.
    async fn ask(&mut self, asked: &(Query, u16)) -> Result<Option<Seen>, String> {
        let (query, id) = asked;
        let packet = query.octets(*id);
        let client =
            Client { peer: self.client.local_addr().map_err(text)?, local: None, transport: Transport::Udp };
        let timing = Timing { now: self.clock.now(), arrived_ns: 0, hit_ns: 0 };
        let mut out = vec![0; REPLY_ROOM];
        let miss = |zone, stale, reply_to| Miss::new(&packet, zone, 0, stale, reply_to);
        match self.responder.answer(&self.zones, &client, &packet, &timing, &mut out) {
            Outcome::Reply { len, refresh } => {
                if let Some(zone) = refresh {
                    self.misses.accept(miss(zone, None, None));
                    settle().await;
                }
                Ok(Some(Seen { reply: Reply::read(&out[..len], query, *id)?, hit: true }))
            }
            Outcome::Miss { zone, stale } => {
                self.misses.accept(miss(zone, stale, Some(ReplyTo::Udp(self.server.clone(), client))));
                self.arrived(asked).await
            }
            Outcome::Ignore(why) => Err(format!("ignored: {why:?}")),
        }
    }

    /// The reply to an earlier query, if it came.
    async fn arrived(&mut self, (query, id): &(Query, u16)) -> Result<Option<Seen>, String> {
        settle().await;
        let mut datagram = vec![0; REPLY_ROOM];
        loop {
            match self.client.recv(&mut datagram) {
                Ok(len) => {
                    let id = u16::from_be_bytes([datagram[0], datagram[1]]);
                    if self.arrived.insert(id, datagram[..len].to_vec()).is_some() {
                        return Err("two replies to one query".into());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(text(error)),
            }
        }
        let Some(octets) = self.arrived.remove(id) else {
            return Ok(None);
        };
        Ok(Some(Seen { reply: Reply::read(&octets, query, *id)?, hit: false }))
    }
}

/// Lets every task go as far as it can without time passing.
async fn settle() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

fn check(seen: Option<Seen>, expected: &[Expectation]) -> Result<(), String> {
    let Some(seen) = seen else {
        return match expected {
            [Expectation::Pending] => Ok(()),
            _ => Err("no reply".into()),
        };
    };
    expected.iter().try_for_each(|expected| seen.check(expected))
}

impl Seen {
    fn check(&self, expected: &Expectation) -> Result<(), String> {
        let Message { metadata, answers, .. } = &self.reply.message;
        match expected {
            Expectation::Pending => Err("a reply".into()),
            Expectation::Hit => self.hit.then_some(()).ok_or("a miss".into()),
            Expectation::Miss => (!self.hit).then_some(()).ok_or("a hit".into()),
            Expectation::Rcode(rcode) => {
                differ("rcode", u16::from(metadata.response_code), u16::from(*rcode))
            }
            Expectation::Ttl(ttl) => {
                let ttls: Vec<u32> = self.reply.records().map(|record| record.ttl).collect();
                match !ttls.is_empty() && ttls.iter().all(|found| found == ttl) {
                    true => Ok(()),
                    false => Err(format!("TTLs {ttls:?} instead of {ttl}")),
                }
            }
            Expectation::Flag(flag, expected) => {
                let found = match flag {
                    Flag::Authoritative => metadata.authoritative,
                    Flag::Authentic => metadata.authentic_data,
                    Flag::Truncated => metadata.truncation,
                };
                differ(&format!("{flag:?}"), found, *expected)
            }
            Expectation::Answers(count) => differ("answers", answers.len(), *count),
            Expectation::Records(count) => differ("records", self.reply.records().count(), *count),
            Expectation::Ede(code) => differ("EDE", self.reply.extended_error(), Some(*code)),
            Expectation::Data(data) => differ("data", self.reply.addresses(), vec![data.clone()]),
        }
    }
}

fn differ<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{what}: {found:?} instead of {expected:?}")),
    }
}

/// What serves `config`, and its zone.
fn block(id: BlockId, config: server::Block) -> Result<(Name, Arc<Block>), String> {
    let (origin, _) = config.zones.first().cloned().ok_or("the block has no zone")?;
    let search_ahead =
        config.search_ahead.map(|node_domains| SearchAhead { domains: vec![origin.clone()], node_domains });
    let block = Block {
        id,
        cache: config.cache.map(Cache::new).transpose().map_err(text)?.map(Arc::new),
        bufsize: config.bufsize,
        log: QueryLogger::new(&config.log),
        whoami: config.whoami,
        loadbalance: config.loadbalance.clone(),
        steps: Steps::new(&config.steps, &doorstep::metrics::Registry::new()),
        errors: None,
        loops: None,
        search_ahead,
        empty: false,
    };
    Ok((origin, Arc::new(block)))
}

/// The server blocks of a Corefile with these zones and directives.
fn load(blocks: &[(String, String)]) -> Result<Vec<server::Block>, String> {
    let block = |(zone, directives): &(String, String)| {
        format!("{zone}:53 {{\nbind 127.0.0.1\nforward . 192.0.2.53\n{directives}\n}}\n")
    };
    let corefile: String = blocks.iter().map(block).collect();
    let options = Options {
        corefile: "/Corefile".into(),
        base: None,
        kube_dns: None,
        local_ips: Vec::new(),
        upstream_service: "kube-dns".into(),
        dns_port: 53,
        prometheus: String::new(),
        allow_builtin: false,
        tolerate_bad_kube_dns: false,
    };
    let config = config::load(&options, &OneFile(corefile)).map_err(|error| format!("corefile: {error}"))?;
    match &config.warnings[..] {
        [] => Ok(config.server.blocks),
        warnings => Err(format!("corefile: {warnings:?}")),
    }
}

/// A machine with nothing but a Corefile.
struct OneFile(String);

impl Environment for OneFile {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn read(&self, path: &Path, _: usize) -> io::Result<Vec<u8>> {
        match path == Path::new("/Corefile") {
            true => Ok(self.0.clone().into_bytes()),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn glob(&self, _: &str) -> Result<Vec<PathBuf>, glob::PatternError> {
        Ok(Vec::new())
    }

    fn interface_addresses(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn text(error: io::Error) -> String {
    error.to_string()
}
