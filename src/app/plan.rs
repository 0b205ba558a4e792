//! A configuration, made into what serves it.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Weak};

use crate::cache::{Cache, Store};
use crate::clock::Moment;
use crate::config::Config;
use crate::forward::{self, Chain, Directory};
use crate::guardian::message::CacheFile;
use crate::metrics::{CacheType, Registration, Registry, ZoneLabels, ZoneShard, names};
use crate::plugin::Steps;
use crate::server::zones::{Block, BlockId, LoopGuard, Zone, Zones};
use crate::server::{self, ErrorLog, QueryLogger, SearchAhead, Timeouts, probe_name};
use crate::sockets::{Listen, Role, is_supported};
use crate::wire::Name;

/// The writer under which the thread of misses and TCP counts.
pub const MISS_WRITER: &str = "misses";

/// What serves one configuration.
pub struct Plan {
    blocks: Vec<PlannedBlock>,
    /// Time-outs of TCP connections.
    pub timeouts: Timeouts,
    udp_threads: usize,
    _gauges: Vec<Registration>,
}

/// Why a configuration cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A certificate or key of an upstream.
    #[error(transparent)]
    Upstream(#[from] forward::Error),
    /// There is no address space for a cache.
    #[error("memory for the cache: {0}")]
    Cache(#[source] io::Error),
}

struct PlannedBlock {
    config: server::Block,
    block: Arc<Block>,
    chain: Rc<Chain>,
}

/// A loop probe to be sent.
pub struct Probe {
    /// The block that watches for it.
    pub block: Arc<Block>,
    /// The zone it is about.
    pub zone: Name,
    /// Where to send it.
    pub address: SocketAddr,
}

impl Plan {
    /// Builds what serves `config`.
    pub fn new(config: &Config, registry: &Registry, directory: &Directory) -> Result<Plan, PlanError> {
        let mut blocks = Vec::new();
        for (id, block) in (0..).zip(&config.server.blocks) {
            let chain = Rc::new(Chain::shared(&block.forwards, directory)?);
            let runtime = Arc::new(new_block(BlockId(id), block, registry).map_err(PlanError::Cache)?);
            blocks.push(PlannedBlock { config: block.clone(), block: runtime, chain });
        }
        let gauges = show(&blocks, registry);
        Ok(Plan {
            blocks,
            timeouts: config.server.timeouts,
            udp_threads: config.server.udp_threads.max(1),
            _gauges: gauges,
        })
    }

    /// Every address DNS is served on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let zones = self.blocks.iter().flat_map(|planned| &planned.config.zones);
        let addresses = zones.flat_map(|(_, addresses)| addresses).copied().filter(is_supported);
        addresses.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The DNS sockets to have.
    pub fn listens(&self) -> Vec<Listen> {
        let listen = |role, address, index| Listen { role, address, index };
        self.addresses()
            .into_iter()
            .flat_map(|address| {
                let udp = (0..self.udp_threads).map(move |index| listen(Role::DnsUdp, address, index));
                udp.chain([listen(Role::DnsTcp, address, 0)])
            })
            .collect()
    }

    /// The zones on `address`, counted by `writer`.
    pub fn zones(&self, address: SocketAddr, writer: &str, registry: &Registry) -> Arc<Zones> {
        Arc::new_cyclic(|siblings| self.zones_among(siblings, address, writer, registry))
    }

    fn zones_among(
        &self,
        siblings: &Weak<Zones>,
        address: SocketAddr,
        writer: &str,
        registry: &Registry,
    ) -> Zones {
        let server = server_label(address);
        let mut zones = Vec::new();
        let mut any_class = false;
        for planned in &self.blocks {
            for (origin, addresses) in &planned.config.zones {
                if !addresses.contains(&address) {
                    continue;
                }
                any_class |= !planned.config.forwards.is_empty();
                let shard = |writer| planned.shard(&server, origin, writer, registry);
                zones.push(Arc::new(Zone {
                    origin: origin.clone(),
                    block: planned.block.clone(),
                    shard: shard(writer),
                    miss_shard: shard(MISS_WRITER),
                    local: Some(address.ip()).filter(|ip| !ip.is_unspecified()),
                    server: server.clone(),
                    siblings: siblings.clone(),
                }));
            }
        }
        let dropped = ZoneLabels { server, zone: "dropped".into(), cache_zones: String::new() };
        Zones::new(zones, registry.zone_shard(writer, &dropped), any_class)
    }

    /// The upstreams of each block.
    pub fn upstreams(&self) -> HashMap<BlockId, Rc<Chain>> {
        let upstream = |planned: &PlannedBlock| (planned.block.id, planned.chain.clone());
        self.blocks.iter().map(upstream).collect()
    }

    /// The caches, for the worker that comes after.
    pub fn share_caches(&self) -> io::Result<Vec<CacheFile>> {
        let share = |(zones, cache): (String, &Cache)| {
            let (shape, file) = cache.share()?;
            Ok(CacheFile { label: format!("{shape} {zones}"), file })
        };
        self.caches().map(share).collect()
    }

    /// Takes over what is in the caches of the worker before, each into that of the same zones and steps. Says how
    /// many entries that were.
    pub fn inherit_caches(&self, files: &[CacheFile], now: Moment) -> usize {
        let inherit = |(zones, cache): (String, &Cache)| {
            let mut labels = files.iter().filter_map(|file| Some((file.label.split_once(' ')?, &file.file)));
            let ((shape, _), file) = labels.find(|((_, theirs), _)| *theirs == zones)?;
            Some(cache.inherit(shape, file.try_clone().ok()?, now))
        };
        self.caches().filter_map(inherit).sum()
    }

    fn caches(&self) -> impl Iterator<Item = (String, &Cache)> {
        let configs = self.blocks.iter().map(|planned| &planned.config);
        let heritage = move |config| heritage(config, configs.clone());
        self.blocks
            .iter()
            .filter_map(move |planned| Some((heritage(&planned.config), planned.block.cache.as_deref()?)))
    }

    /// The loop probes to send, one for each block that wants to know.
    pub fn probes(&self) -> Vec<Probe> {
        let probe = |planned: &PlannedBlock| {
            planned.block.loops.as_ref()?;
            let (zone, addresses) = planned.config.zones.first()?;
            let address = *addresses.iter().find(|address| is_supported(address))?;
            Some(Probe { block: planned.block.clone(), zone: zone.clone(), address })
        };
        self.blocks.iter().filter_map(probe).collect()
    }

    /// Writes out what `errors` still holds back.
    pub fn flush_errors(&self) {
        self.blocks.iter().filter_map(|planned| planned.block.errors.as_ref()).for_each(ErrorLog::flush_all);
    }
}

impl PlannedBlock {
    fn shard(&self, server: &str, origin: &Name, writer: &str, registry: &Registry) -> Arc<ZoneShard> {
        if !self.config.metrics {
            return ZoneShard::detached();
        }
        let labels = ZoneLabels {
            server: server.to_owned(),
            zone: origin.to_string(),
            cache_zones: cache_zones(&self.config),
        };
        registry.zone_shard(writer, &labels)
    }
}

fn new_block(id: BlockId, config: &server::Block, registry: &Registry) -> io::Result<Block> {
    let cache = config.cache.clone().map(Cache::new).transpose()?.map(Arc::new);
    let probe = config.zones.first().filter(|_| config.detect_loops);
    let probe = probe.and_then(|(zone, _)| probe_name(zone, crate::clock::nanoseconds() ^ id.0 << 48));
    let domains = || config.zones.iter().map(|(zone, _)| zone.clone()).collect();
    let search_ahead = config.search_ahead.clone();
    Ok(Block {
        id,
        cache,
        bufsize: config.bufsize,
        log: QueryLogger::new(&config.log),
        loadbalance: config.loadbalance.clone(),
        steps: Steps::new(&config.steps, registry),
        errors: config.errors.as_ref().map(ErrorLog::new),
        loops: probe.map(|probe| LoopGuard {
            probe,
            seen: AtomicU32::new(0),
            looping: AtomicBool::new(false),
        }),
        whoami: config.whoami,
        search_ahead: search_ahead.map(|node_domains| SearchAhead { domains: domains(), node_domains }),
        empty: config.plugins.iter().all(|plugin| *plugin == "bind"),
    })
}

/// Whose cache a block may go on with: that of one with the same zones, and the same steps below the cache, for
/// what these once said is no longer true when they change. Where several of `blocks` have its zones, at the same
/// addresses, too.
fn heritage<'c>(config: &'c server::Block, blocks: impl Iterator<Item = &'c server::Block>) -> String {
    let names = |block: &'c server::Block| block.zones.iter().map(|(zone, _)| zone);
    let is_alone = blocks.filter(|block| names(block).eq(names(config))).count() == 1;
    let zones: Vec<String> = names(config).map(Name::to_string).collect();
    let steps = config.steps.fingerprint();
    if steps.is_empty() && is_alone {
        return zones.join(",");
    }
    // The same in every process of a build.
    let mut hasher = DefaultHasher::new();
    steps.hash(&mut hasher);
    if !is_alone {
        config.zones.iter().for_each(|(_, addresses)| addresses.hash(&mut hasher));
    }
    format!("{} {:016x}", zones.join(","), hasher.finish())
}

/// Directives that neither answer nor report: CoreDNS does not count them as plugins of a block.
const WITHOUT_HANDLER: [&str; 7] = ["bind", "debug", "health", "multisocket", "ready", "reload", "timeouts"];

/// Gauges that describe `blocks`.
fn show(blocks: &[PlannedBlock], registry: &Registry) -> Vec<Registration> {
    let mut gauges = Vec::new();
    for planned in blocks.iter().filter(|planned| planned.config.metrics) {
        let mut servers = BTreeSet::new();
        for (zone, addresses) in &planned.config.zones {
            for server in addresses.iter().map(|address| server_label(*address)) {
                for plugin in planned.config.plugins.iter().filter(|plugin| !WITHOUT_HANDLER.contains(plugin))
                {
                    let labels = [server.as_str(), &zone.to_string(), "", plugin];
                    registry.gauge(&names::PLUGIN_ENABLED, labels).set(1);
                }
                servers.insert(server);
            }
        }
        let Some(cache) = &planned.block.cache else { continue };
        let zones = cache_zones(&planned.config);
        for server in &servers {
            for (store, label) in [(Store::Success, CacheType::Success), (Store::Denial, CacheType::Denial)] {
                let cache = cache.clone();
                let labels = [server.as_str(), label.label(), &zones, ""];
                gauges
                    .push(registry.gauge_fn(&names::CACHE_ENTRIES, labels, move || cache.len(store) as f64));
            }
        }
    }
    gauges
}

/// Label `zones`: those of the cache directive, else the block's.
fn cache_zones(config: &server::Block) -> String {
    let own = config.cache.as_ref().map(|cache| &cache.zones).filter(|zones| !zones.is_empty());
    let zones: Vec<String> = match own {
        Some(zones) => zones.iter().map(Name::to_string).collect(),
        None => config.zones.iter().map(|(zone, _)| zone.to_string()).collect(),
    };
    zones.join(",")
}

/// Label `server`.
fn server_label(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        return format!("dns://:{}", address.port());
    }
    format!("dns://{address}")
}
