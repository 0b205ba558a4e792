//! The links by which pods reach the node.

use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use tracing::warn;

use crate::node::Error;
use crate::node::netlink::Connection;
use crate::route_message::RouteMessage;

/// Which links are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Selection {
    /// Every veth whose other end is in another namespace: the host sides of pods.
    #[default]
    Pods,
    /// These names; one that ends in `*` means all that begin so.
    Named(Vec<String>),
}

/// A link, by the index that no other gets while it lives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodLink {
    /// The interface's index.
    pub index: u32,
    /// The interface's name.
    pub name: String,
}

impl Selection {
    /// The selected links of the calling thread's namespace, by index.
    pub fn read(&self, connection: &mut Connection) -> Result<Vec<PodLink>, Error> {
        let request = RouteMessage::GetLink(LinkMessage::default());
        let all = connection.dump("list links", request).map_err(Error::InterfaceCheck)?;
        let mut found: Vec<PodLink> = all.iter().filter_map(|object| self.selected(object)).collect();
        found.sort();
        if let (Selection::Named(names), true) = (self, found.is_empty()) {
            warn!("no link is called {}", names.join(" or "));
        }
        Ok(found)
    }

    /// Whether `message` announces a selected link, or the end of one.
    pub fn concerned_by(&self, message: &RouteMessage) -> bool {
        self.selected(message).is_some()
    }

    fn selected(&self, message: &RouteMessage) -> Option<PodLink> {
        let (RouteMessage::NewLink(link) | RouteMessage::DelLink(link)) = message else {
            return None;
        };
        let name = link.attributes.iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })?;
        let selected = match self {
            Selection::Pods => is_host_side(link),
            Selection::Named(patterns) => patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                None => name == *pattern,
            }),
        };
        selected.then_some(PodLink { index: link.header.index, name })
    }
}

fn is_host_side(link: &LinkMessage) -> bool {
    let attributes = &link.attributes;
    let is_veth = attributes.iter().any(|a| match a {
        LinkAttribute::LinkInfo(info) => info.contains(&LinkInfo::Kind(InfoKind::Veth)),
        _ => false,
    });
    is_veth && attributes.iter().any(|a| matches!(a, LinkAttribute::LinkNetNsId(_)))
}
