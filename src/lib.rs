//! pryamo puts every caller through to their own person.
//!
//! The modules in the order in which a call meets them, then in the order of a change in the CRM.
//! Which module may name which is written down in `ARCHITECTURE.md` and held by
//! `tests/it/layering.rs`.

// A call.
pub mod call;
pub mod caller_name;
pub mod cdr;
pub mod chain;
pub mod decision;
pub mod directory;
pub mod hours;
pub mod matcher;
pub mod pbx;
pub mod phone;
pub mod presence;
pub mod reception;
pub mod router;
pub mod rules;

// A change in the CRM.
pub mod crm;
pub mod record;
pub mod sync;

// Round both.
pub mod api;
pub mod background;
pub mod cli;
pub mod config;
pub mod demo;
pub mod dialplan;
pub mod fault;
pub mod hooks;
pub mod http_client;
pub mod http_server;
pub mod journal;
pub mod metrics;
pub mod page;
pub mod replay;
pub mod script;
pub mod secret;
pub mod serve;
pub mod setup;
pub mod shadow;
pub mod told;
pub mod web;

#[cfg(any(test, fuzzing))]
pub mod fuzz;
