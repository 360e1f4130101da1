//! A made-up company, so that one command shows the main job without any set-up.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use crate::config::{Config, ConfigError};

/// The company's clients, as an administrator would write them down.
const CLIENTS: &str = include_str!("demo.csv");
/// The page's port, and how many after it are tried when it is taken.
const PORT: u16 = 8077;
const PORTS_TRIED: u16 = 20;

/// A question of the demo and what it shows.
pub struct Question {
    /// The query of `/forward`.
    pub query: &'static str,
    /// What it shows.
    pub shows: &'static str,
}

/// What to try.
pub const QUESTIONS: [Question; 6] = [
    Question {
        query: "phone=+79161234501&trunk=74951234567&callid=1.1",
        shows: "a known client: Anna's phone 101 rings and shows the name",
    },
    Question {
        query: "phone=89161234502&trunk=s&callid=1.2",
        shows: "the same however the number is written",
    },
    Question {
        query: "phone=78121234503&trunk=s&callid=1.3",
        shows: "two cards have this number: the contact comes before the company",
    },
    Question {
        query: "phone=79161234504&trunk=s&callid=1.4",
        shows: "his manager has no extension: the company's responsible takes the call",
    },
    Question {
        query: "phone=79161234505&trunk=s&callid=1.5",
        shows: "a known client whose people cannot be rung: no number, but the name",
    },
    Question {
        query: "phone=79169999999&trunk=s&callid=1.6",
        shows: "nobody knows this number: an empty answer, the standard route",
    },
];

/// Lays the company out in `folder` and gives its configuration.
pub fn lay_out(folder: &Path) -> Result<Config, DemoError> {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text)
            .map_err(|cause| DemoError::Write(path.display().to_string(), cause))
    };
    write("clients.csv", CLIENTS)?;
    let config = format!(
        "data_dir = \"{}\"\n\
         [forward]\nlisten = \"{}\"\n\
         [log]\nlevel = \"warn\"\n\
         [[crm]]\nname = \"romashka\"\nkind = \"csv\"\nfile = \"clients.csv\"\n",
        folder.join("data").display(),
        free_address(),
    );
    write("pryamo.toml", &config)?;
    let mut config = Config::parse(&config, Some(folder.join("pryamo.toml")), &[])?;
    // Made-up people have no secrets.
    config.page.open_to_all = true;
    Ok(config)
}

/// Why the demo cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The temporary folder cannot be written.
    #[error("cannot write {0}")]
    Write(String, #[source] std::io::Error),
    /// The demo's own configuration is wrong: a fault of this version.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// The page's own port, or the next one that is free.
fn free_address() -> SocketAddr {
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    (PORT..PORT + PORTS_TRIED)
        .map(address)
        .find(|address| TcpListener::bind(address).is_ok())
        .unwrap_or_else(|| address(PORT))
}
