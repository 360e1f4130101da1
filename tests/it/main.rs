//! Everything that needs more than one module: seams, promises and batteries.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that fails may panic, and prints its figures; seams share what not every one uses"
)]

mod ami;
mod amocrm;
mod asterisk;
mod battery_directory;
mod battery_queue;
mod big_base;
mod big_base_live;
mod bitrix24;
mod browser;
mod calls;
mod chain;
mod check;
mod cli;
mod clock;
mod csv_file;
mod daemon;
mod dialplan;
mod directory_kill;
mod disk;
mod explain;
mod fake_amocrm;
mod fake_bitrix24;
mod fastagi;
mod flood;
mod forward;
mod freshness;
mod hooks;
mod hostile;
mod journal;
mod lab;
mod layering;
mod life;
mod messy;
mod metrics;
mod office;
mod outage;
mod own_rows;
mod page;
mod page_setup;
mod people;
mod phones;
mod promises;
mod reload;
mod replay;
mod restart;
mod resync;
mod route;
mod security;
mod setup;
mod shadow;
mod soak;
mod tls;
mod wire;
mod world;
