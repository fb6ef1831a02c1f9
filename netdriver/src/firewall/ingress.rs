//! The elements of ports published on every host, whose connections are spread over backends.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::message::Element;
use super::{interface_key, octets, port_key, ruleset};
use crate::overlay::slots;
use crate::spec::Protocol;

/// A port and where its connections go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpreadPort {
    pub(crate) published: u16,
    pub(crate) protocol: Protocol,
    pub(crate) target: u16,
    /// One backend for each slot; empty without backends.
    pub(crate) slots4: Vec<IpAddr>,
    pub(crate) slots6: Vec<IpAddr>,
    /// Whether IPv4 connections without a backend are refused; else a relay serves them.
    pub(crate) refuse4: bool,
    /// The same of IPv6.
    pub(crate) refuse6: bool,
}

/// All elements of the ingress, given the interface of this host on its network.
pub(crate) fn elements(interface: &str, ports: &[SpreadPort]) -> BTreeSet<(&'static str, Element)> {
    let name = interface_key(interface);
    let mut elements = BTreeSet::from([
        (ruleset::BRIDGES, Element::key(name.clone())),
        (ruleset::INGRESS, Element::key(name)),
    ]);
    for port in ports {
        let mut key = vec![port.protocol.number(), 0, 0, 0];
        key.extend(port_key(port.published));
        for (family, slots) in [&port.slots4, &port.slots6].into_iter().enumerate() {
            if [port.refuse4, port.refuse6][family] {
                elements.insert((ruleset::REFUSED[family], Element::key(key.clone())));
            }
            let size = slots::SIZES
                .iter()
                .position(|size| *size as usize == slots.len());
            let Some(size) = size else { continue };
            for (slot, backend) in (0u32..).zip(slots) {
                let mut slot_key = key.clone();
                slot_key.extend(slot.to_ne_bytes());
                let mut data = octets(*backend);
                data.extend(port_key(port.target));
                elements.insert((
                    ruleset::SPREAD[family][size],
                    Element {
                        key: slot_key,
                        data,
                        interval_end: false,
                    },
                ));
            }
        }
    }
    elements
}
