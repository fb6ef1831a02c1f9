//! Policy routing: rules that choose a routing table, and the routes in such tables.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};
use netlink_packet_route::{AddressFamily, IpProtocol, RouteNetlinkMessage};

use super::{Netlink, Request};
use crate::Result;

/// A rule of one family. What is `None` is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PolicyRule {
    pub(crate) v6: bool,
    pub(crate) priority: u32,
    pub(crate) table: u32,
    pub(crate) mark: Option<u32>,
    /// UDP from this port.
    pub(crate) udp_source_port: Option<u16>,
    /// Routes of the table with a prefix this short or shorter do not count.
    pub(crate) suppress_prefix: Option<u32>,
}

/// A default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PolicyRoute {
    pub(crate) table: u32,
    pub(crate) gateway: IpAddr,
    pub(crate) interface: u32,
    /// Of several in one table the lowest counts.
    pub(crate) metric: u32,
}

impl Request {
    pub(crate) fn add_rule(rule: PolicyRule) -> Request {
        Request::new(
            format!("add routing rule {}", rule.priority),
            NLM_F_CREATE | NLM_F_EXCL,
            RouteNetlinkMessage::NewRule(rule_message(rule)),
        )
    }

    pub(crate) fn delete_rule(rule: PolicyRule) -> Request {
        Request::new(
            format!("delete routing rule {}", rule.priority),
            0,
            RouteNetlinkMessage::DelRule(rule_message(rule)),
        )
    }

    pub(crate) fn set_route(route: PolicyRoute) -> Request {
        Request::new(
            format!("set route via {} in table {}", route.gateway, route.table),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewRoute(route_message(route)),
        )
    }

    pub(crate) fn delete_route(route: PolicyRoute) -> Request {
        Request::new(
            format!(
                "delete route via {} in table {}",
                route.gateway, route.table
            ),
            0,
            RouteNetlinkMessage::DelRoute(route_message(route)),
        )
    }
}

impl Netlink {
    /// Rules of both families that this package can have made.
    pub(crate) fn policy_rules(&mut self) -> Result<Vec<PolicyRule>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RuleMessage::default();
            message.header.family = family;
            let request = RouteNetlinkMessage::GetRule(message);
            for answer in self.query(request, NLM_F_DUMP, "list routing rules")? {
                if let RouteNetlinkMessage::NewRule(message) = answer {
                    found.push(into_rule(&message));
                }
            }
        }
        Ok(found)
    }

    /// Default routes with a gateway, of both families and all tables.
    pub(crate) fn default_routes(&mut self) -> Result<Vec<PolicyRoute>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let request = RouteNetlinkMessage::GetRoute(message);
            for answer in self.query(request, NLM_F_DUMP, "list routes")? {
                if let RouteNetlinkMessage::NewRoute(message) = answer {
                    found.extend(into_route(&message));
                }
            }
        }
        Ok(found)
    }
}

fn rule_message(rule: PolicyRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if rule.v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    message.header.action = RuleAction::ToTable;
    message.header.table = u8::try_from(rule.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Table(rule.table),
    ];
    if let Some(mark) = rule.mark {
        message.attributes.push(RuleAttribute::FwMark(mark));
        message.attributes.push(RuleAttribute::FwMask(u32::MAX));
    }
    if let Some(port) = rule.udp_source_port {
        message
            .attributes
            .push(RuleAttribute::IpProtocol(IpProtocol::Udp));
        message
            .attributes
            .push(RuleAttribute::SourcePortRange(RulePortRange {
                start: port,
                end: port,
            }));
    }
    if let Some(length) = rule.suppress_prefix {
        message
            .attributes
            .push(RuleAttribute::SuppressPrefixLen(length));
    }
    message
}

fn into_rule(message: &RuleMessage) -> PolicyRule {
    let mut rule = PolicyRule {
        v6: message.header.family == AddressFamily::Inet6,
        priority: 0,
        table: u32::from(message.header.table),
        mark: None,
        udp_source_port: None,
        suppress_prefix: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::FwMark(mark) => rule.mark = Some(*mark),
            RuleAttribute::SourcePortRange(range) => rule.udp_source_port = Some(range.start),
            // All ones stands for none.
            RuleAttribute::SuppressPrefixLen(length) if *length != u32::MAX => {
                rule.suppress_prefix = Some(*length)
            }
            _ => {}
        }
    }
    rule
}

fn route_message(route: PolicyRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = super::family(route.gateway);
    message.header.table = u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Table(route.table),
        RouteAttribute::Gateway(route.gateway.into()),
        RouteAttribute::Oif(route.interface),
        RouteAttribute::Priority(route.metric),
    ];
    message
}

fn into_route(message: &RouteMessage) -> Option<PolicyRoute> {
    if message.header.destination_prefix_length != 0 || message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut table = u32::from(message.header.table);
    let (mut gateway, mut interface, mut metric) = (None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                gateway = Some(IpAddr::V4(*address))
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => {
                gateway = Some(IpAddr::V6(*address))
            }
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    Some(PolicyRoute {
        table,
        gateway: gateway?,
        interface: interface?,
        metric,
    })
}
