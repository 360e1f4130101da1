//! The Asterisk side: how a PBX asks and how it is answered.
//!
//! A front end turns the PBX's question into an [`IncomingCall`](crate::call::IncomingCall), asks
//! the router, and writes the decision so that no dialplan can misread it. A new front end is one
//! file here.

pub mod ami;
pub mod ended;
pub mod fastagi;
pub mod forward;
pub mod talks;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize as _, Deserializer};

/// Reads a list of addresses and networks; a single address is a network of its own.
pub fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let read = |written: String| {
        let alone = || written.parse::<IpAddr>().map(IpNet::from);
        let network = written.parse::<IpNet>().or_else(|_| alone());
        network.map_err(|_| {
            serde::de::Error::custom(format!(
                "`allow` holds \"{written}\", which is no address; write \"10.0.0.5\" or \"10.0.0.0/8\""
            ))
        })
    };
    let written = Vec::<String>::deserialize(deserializer)?;
    written.into_iter().map(read).collect()
}
