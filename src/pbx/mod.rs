//! The Asterisk side: how a PBX asks and how it is answered.
//!
//! A front end turns the PBX's question into an [`IncomingCall`](crate::call::IncomingCall), asks
//! the router, and writes the decision so that no dialplan can misread it. A new front end is one
//! file here.

pub mod ami;
pub mod forward;
pub mod talks;
