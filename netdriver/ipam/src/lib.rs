//! IP address management: subnets out of pools, addresses out of subnets. Pure: no I/O, no clock,
//! no randomness; the caller says what is taken. Used for the networks of one host and for those of
//! a cluster, which must come to the same answers.
//!
//! Defaults and rules (which address is the gateway, what a range restricts) are Docker's
//! (`libnetwork/ipamutils`, `ipams/defaultipam`).

#![warn(missing_docs)]

mod addresses;
mod pools;

pub use addresses::Addresses;
pub use pools::{AddressPool, choose_subnet, default_pools, overlaps};

use std::net::IpAddr;

use ipnet::IpNet;

/// Why an address or a subnet cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The subnet or its range has no free address.
    #[error(
        "no available IPv{family} addresses in {range} of this network's address pools: all {capacity} are in use"
    )]
    Exhausted {
        /// 4 or 6.
        family: u8,
        /// Where dynamic addresses come from.
        range: IpNet,
        /// How many addresses it has for endpoints.
        capacity: u128,
    },
    /// The address is taken by an endpoint, the gateway or an auxiliary address.
    #[error("Address already in use: {0}")]
    InUse(IpAddr),
    /// The address is not in the subnet, or is its network or broadcast address.
    #[error("address {address} is not usable in subnet {subnet}")]
    OutOfSubnet {
        /// The address.
        address: IpAddr,
        /// The subnet.
        subnet: IpNet,
    },
    /// The range is not inside the subnet.
    #[error("ip range {range} is not inside subnet {subnet}")]
    RangeOutside {
        /// The range.
        range: IpNet,
        /// The subnet.
        subnet: IpNet,
    },
    /// A subnet too small to hold a gateway and an endpoint.
    #[error("subnet {0} is too small to hold a gateway and an endpoint")]
    TooSmall(IpNet),
    /// A pool whose subnets would be larger than itself, or too small to be of use.
    #[error("default address pool {base} cannot be divided into /{size} subnets")]
    BadPool {
        /// The pool.
        base: IpNet,
        /// The prefix length of the subnets.
        size: u8,
    },
}
