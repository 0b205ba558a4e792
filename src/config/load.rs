//! From files and variables to a [`Config`].

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::corefile::{self, Corefile, Directive, Source, limits};
use super::directive::Process;
use super::environment::Environment;
use super::error::{Diagnostic, Diagnostics};
use super::kube_dns::KubeDns;
use super::{Config, LoadError, Options, Origin, blocks, builtin, pillar};
use crate::server;

/// Reads the configuration: the base template if it exists, else `-conf` as it stands, else the
/// built-in Corefile.
///
/// Nothing is written and nothing is bound. Fails with every mistake at once.
pub fn load(options: &Options, env: &dyn Environment) -> Result<Config, LoadError> {
    let variable = service_variable(&options.upstream_service);
    let cluster_dns = env.variable(&variable).and_then(|value| value.parse::<IpAddr>().ok());
    let mut omitted = Vec::new();
    let (origin, source) = find_source(options, env, cluster_dns.is_some())?;
    let is_template = !matches!(origin, Origin::Corefile(_));
    let kube_dns = match is_template {
        true => read_kube_dns(options, env, &mut omitted)?,
        // Without a template node-cache does not look at the ConfigMap either.
        false => KubeDns::default(),
    };

    let mut diagnostics = Diagnostics::default();
    let mut corefile = corefile::parse(source, env, &mut diagnostics);
    if is_template {
        let values = pillar::Values {
            local_ips: &options.local_ips,
            cluster_dns,
            service_variable: &variable,
            upstream_nameservers: &kube_dns.upstream_nameservers,
            prometheus: &options.prometheus,
        };
        omitted.extend(pillar::expand(&mut corefile, &values, &mut diagnostics));
        append_stub_blocks(&mut corefile, &kube_dns, options, env, &mut diagnostics);
        if corefile.blocks.is_empty() && !omitted.is_empty() && diagnostics.is_clean() {
            return Err(LoadError::NothingToServe(omitted));
        }
    }
    note_builtin(&origin, options, cluster_dns, &variable, &mut diagnostics);

    let mut process = Process::default();
    let blocks = blocks::build(&corefile, options, env, &mut process, &mut diagnostics);
    if !diagnostics.is_clean() {
        return Err(LoadError::Invalid(diagnostics));
    }
    Ok(finish(corefile, origin, blocks, process, &diagnostics, omitted))
}

fn finish(
    corefile: Corefile,
    origin: Origin,
    blocks: Vec<server::Block>,
    process: Process,
    diagnostics: &Diagnostics,
    omitted: Vec<String>,
) -> Config {
    let server =
        server::Config { blocks, timeouts: process.timeouts, udp_threads: process.udp_threads.unwrap_or(1) };
    let text = corefile::render(&corefile);
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    // The text says /etc/resolv.conf and eth0; the addresses behind them count as well.
    format!("{server:?} {:?}", process.admin).hash(&mut hasher);
    let header = |path: &Path| {
        let path = path.display();
        format!("# Written by doorstep from {path}; changes made here are lost.\n")
    };
    Config {
        expanded: match &origin {
            Origin::Template(path) => Some(header(path) + &text),
            _ => None,
        },
        health_port: process.admin.health.first().map(|health| health.address.port()),
        server,
        admin: process.admin,
        reload: process.reload,
        debug: process.debug,
        warnings: unique(diagnostics.warning_lines()),
        omitted,
        origin,
        fingerprint: hasher.finish(),
    }
}

/// kubelet's name for the address of a service.
fn service_variable(service: &str) -> String {
    service.to_uppercase().replace('-', "_") + "_SERVICE_HOST"
}

fn find_source(
    options: &Options,
    env: &dyn Environment,
    has_cluster_upstream: bool,
) -> Result<(Origin, Source), LoadError> {
    // Imports of a template are relative to where node-cache writes it, /etc rather than
    // /etc/coredns; its own directory comes second.
    let beside = |path: &Path| path.parent().map(Path::to_owned).unwrap_or_default();
    if let Some(base) = &options.base
        && let Some(text) = read(base, env)?
    {
        let source = Source {
            name: base.display().to_string(),
            directories: vec![beside(&options.corefile), beside(base)],
            text,
        };
        return Ok((Origin::Template(base.clone()), source));
    }
    if let Some(text) = read(&options.corefile, env)? {
        let source = Source {
            name: options.corefile.display().to_string(),
            directories: vec![beside(&options.corefile)],
            text,
        };
        return Ok((Origin::Corefile(options.corefile.clone()), source));
    }
    if !options.allow_builtin {
        return Err(LoadError::Read {
            path: options.corefile.clone(),
            error: io::ErrorKind::NotFound.into(),
        });
    }
    let text = builtin::corefile(&options.local_ips, options.dns_port, has_cluster_upstream);
    let source = Source { name: "built-in Corefile".to_owned(), directories: Vec::new(), text };
    Ok((Origin::Builtin, source))
}

/// The text of a file; `None` when there is none of that name.
fn read(path: &Path, env: &dyn Environment) -> Result<Option<String>, LoadError> {
    let text = match env.read(path, limits::BYTES) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    text.map_err(|error| LoadError::Read { path: path.to_owned(), error })
}

fn read_kube_dns(
    options: &Options,
    env: &dyn Environment,
    omitted: &mut Vec<String>,
) -> Result<KubeDns, LoadError> {
    let Some(directory) = &options.kube_dns else {
        return Ok(KubeDns::default());
    };
    match KubeDns::read(directory, env) {
        Ok(kube_dns) => Ok(kube_dns),
        Err(error) if options.tolerate_bad_kube_dns => {
            omitted.push(format!("the kube-dns ConfigMap is left out: {error}"));
            Ok(KubeDns::default())
        }
        Err(error) => Err(error.into()),
    }
}

/// Adds the stub domains, counted by the same `prometheus` as the rest.
fn append_stub_blocks(
    corefile: &mut Corefile,
    kube_dns: &KubeDns,
    options: &Options,
    env: &dyn Environment,
    diagnostics: &mut Diagnostics,
) {
    if kube_dns.stub_domains.is_empty() {
        return;
    }
    let source = Source {
        name: "stubDomains".to_owned(),
        directories: Vec::new(),
        text: kube_dns.stub_blocks(&options.local_ips, options.dns_port),
    };
    let prometheus: Option<Directive> =
        corefile.directives().find(|directive| directive.name.text == "prometheus").cloned();
    let mut stubs = corefile::parse(source, env, diagnostics);
    for block in &mut stubs.blocks {
        block.directives.extend(prometheus.clone());
    }
    corefile.blocks.append(&mut stubs.blocks);
}

fn note_builtin(
    origin: &Origin,
    options: &Options,
    cluster_dns: Option<IpAddr>,
    variable: &str,
    diagnostics: &mut Diagnostics,
) {
    if *origin != Origin::Builtin {
        return;
    }
    let path = options.corefile.display();
    diagnostics.warn(Diagnostic::general(format!("there is no {path}: the built-in Corefile is served")));
    if cluster_dns.is_none() {
        diagnostics.warn(Diagnostic::general(format!(
            "{variable} is unset or no IP address: cluster names go to /etc/resolv.conf too"
        )));
    }
}

/// The four blocks of a stock Corefile warn of the same thing once.
fn unique(lines: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    lines.into_iter().filter(|line| seen.insert(line.clone())).collect()
}
