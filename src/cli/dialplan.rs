//! `pryamo dialplan`: prints the dialplan that asks pryamo, puts it in place, takes it out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use super::{DONE, FAILED, console};
use crate::call::MOST_TRIED;
use crate::chain::Policy;
use crate::config::Config;
use crate::dialplan::install::{Custom, FILE};
use crate::dialplan::reader::Dialplan;
use crate::dialplan::{self, Exchange, Plan, Subroutines, Way};
use crate::serve;

/// FreePBX writes this file; nobody else does.
const FREEPBX_WRITES: &str = "extensions_additional.conf";
/// From this version on FreePBX enters its subroutines by Gosub.
const GOSUB_SINCE: u32 = 17;
/// What must be there behind a reload.
const CONTEXTS: [&str; 5] = [
    "pryamo",
    "pryamo-back",
    "pryamo-call",
    "pryamo-ask",
    "pryamo-ended",
];

/// What `pryamo dialplan` is told.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of the command line"
)]
pub(super) struct DialplanArguments {
    /// The exchange; found out where this is left out.
    #[arg(long = "for", value_name = "EXCHANGE")]
    exchange: Option<ExchangeName>,
    /// FreePBX's main version, where it cannot be found out.
    #[arg(long, value_name = "NUMBER")]
    freepbx_version: Option<u32>,
    /// Asks by FastAGI in place of CURL.
    #[arg(long)]
    agi: bool,
    /// Puts it into `extensions_custom.conf` and reloads the dialplan.
    #[arg(long)]
    install: bool,
    /// Takes it out of `extensions_custom.conf` and reloads the dialplan.
    #[arg(long, conflicts_with = "install")]
    remove: bool,
    /// With --install or --remove: prints the file as it would be, and changes nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ExchangeName {
    /// A dialplan written by hand.
    Asterisk,
    /// Any FreePBX since 13.
    Freepbx,
}

impl DialplanArguments {
    /// As `pryamo dialplan --install` for this exchange.
    pub(super) fn installing(is_freepbx: bool) -> Self {
        let exchange = if is_freepbx {
            ExchangeName::Freepbx
        } else {
            ExchangeName::Asterisk
        };
        Self {
            exchange: Some(exchange),
            freepbx_version: None,
            agi: false,
            install: true,
            remove: false,
            dry_run: false,
        }
    }
}

/// Prints, installs or removes.
pub(super) async fn run(config: &Config, arguments: &DialplanArguments) -> Result<u8> {
    if arguments.remove {
        return remove(config, arguments.dry_run).await;
    }
    let mut plan = plan(config, arguments).await?;
    if !arguments.install {
        print!("{}", dialplan::write(&plan));
        return Ok(DONE);
    }
    let custom = Custom::open(&config.asterisk.folder)?;
    if has_vendors_context(&custom)? {
        // Of two definitions of a step Asterisk takes the first.
        plan.with_vendors = false;
        eprintln!(
            "note: {FILE} has an [itgrix-transfer] of its own, which is left as it is; lead the routes to pryamo,s,1 instead"
        );
    }
    let text = custom.with(&dialplan::write(&plan))?;
    if arguments.dry_run {
        print!("{}", String::from_utf8_lossy(&text));
        return Ok(DONE);
    }
    let read = Dialplan::read(&config.asterisk.folder);
    let includes = read.is_some_and(|read| {
        read.files
            .iter()
            .any(|file| file.file_name().is_some_and(|name| name == FILE))
    });
    if !includes && custom.path().exists() {
        bail!(
            "extensions.conf in {} does not include {FILE}; add the line `#include {FILE}` to it",
            config.asterisk.folder.display()
        );
    }
    install(config, custom, &text, &plan).await
}

async fn install(config: &Config, custom: Custom, text: &[u8], plan: &Plan) -> Result<u8> {
    console::ask(config, "core show version").await?;
    let path = custom.path().to_owned();
    if !custom.differs(text) {
        reload(config).await?;
        check(config, plan).await?;
        println!("{} has it already; Asterisk knows it", path.display());
        return Ok(DONE);
    }
    let written = custom.replace(text, &stamp())?;
    let backup = written.backup.clone();
    let checked = match reload(config).await {
        Ok(()) => check(config, plan).await,
        Err(error) => Err(error),
    };
    if let Err(error) = checked {
        written.undo()?;
        // The former state is what counts now; the error to tell is the first one.
        let _ = reload(config).await;
        return Err(error.context(format!(
            "Asterisk does not take the dialplan; {} is as it was",
            path.display()
        )));
    }
    println!("written into {}; Asterisk has taken it", path.display());
    tell_backup(backup.as_deref());
    match plan.exchange {
        Exchange::Asterisk => {
            println!("next: where the greeting begins, put Gosub(pryamo,${{EXTEN}},1) before it");
        }
        Exchange::FreePbx(_) => println!(
            "next: Admin > Custom Destinations > Add: Target pryamo,s,1, Return Yes, Destination: where a call goes that nobody takes;\n      then choose it in Connectivity > Inbound Routes, and Apply Config"
        ),
    }
    Ok(DONE)
}

async fn remove(config: &Config, dry_run: bool) -> Result<u8> {
    let custom = Custom::open(&config.asterisk.folder)?;
    let text = custom.without()?;
    if dry_run {
        print!("{}", String::from_utf8_lossy(&text));
        return Ok(DONE);
    }
    let path = custom.path().to_owned();
    if !custom.differs(&text) {
        println!("{} holds nothing of pryamo", path.display());
        return Ok(DONE);
    }
    let written = custom.replace(&text, &stamp())?;
    println!("taken out of {}", path.display());
    tell_backup(written.backup.as_deref());
    if let Err(error) = reload(config).await {
        eprintln!("pryamo: {error:#}");
        eprintln!("Asterisk holds the old dialplan until `dialplan reload`");
        return Ok(FAILED);
    }
    Ok(DONE)
}

fn tell_backup(backup: Option<&Path>) {
    if let Some(backup) = backup {
        println!("before it was {}", backup.display());
    }
}

/// Names the former state of a file.
pub(super) fn stamp() -> String {
    let now = serve::clock()();
    now.strftime("%Y%m%d-%H%M%S").to_string()
}

async fn reload(config: &Config) -> Result<()> {
    console::ask(config, "dialplan reload").await?;
    Ok(())
}

/// Looks whether Asterisk has every context, as it was written.
async fn check(config: &Config, plan: &Plan) -> Result<()> {
    for context in CONTEXTS {
        let shown = console::ask(config, &format!("dialplan show {context}")).await?;
        if !shown.contains(&format!("'{context}'")) || shown.contains("no existence") {
            bail!(
                "`dialplan show {context}` shows nothing; look whether extensions.conf includes {FILE} and what Asterisk's log says"
            );
        }
        if context == "pryamo-ask" && !shown.contains(&plan.address.to_string()) {
            bail!("another file has a context [{context}], which comes first; take it out");
        }
    }
    Ok(())
}

fn has_vendors_context(custom: &Custom) -> Result<bool> {
    let others = custom.without()?;
    let others = Dialplan::of_text(custom.path(), &String::from_utf8_lossy(&others));
    let mut lines = others.lines.iter();
    Ok(lines.any(|line| line.context == "itgrix-transfer"))
}

async fn plan(config: &Config, arguments: &DialplanArguments) -> Result<Plan> {
    let way = if arguments.agi {
        Way::FastAgi
    } else {
        Way::Curl
    };
    let address = match way {
        Way::Curl => config.forward.listen,
        Way::FastAgi => config
            .fastagi
            .address()
            .context("FastAGI is switched off; see `fastagi.listen` and `fastagi.enabled`")?,
    };
    let asterisk = &config.asterisk;
    let tries = config
        .route
        .policies()
        .filter_map(|(_, policy)| policy.most_tries);
    let rounds = tries.max().unwrap_or_default().max(Policy::MOST_TRIES);
    Ok(Plan {
        exchange: exchange(config, arguments).await,
        way,
        address: as_asked(address),
        internal: asterisk.internal.clone(),
        standard: asterisk.standard.clone(),
        rounds: rounds.min(MOST_TRIED),
        outside: !config.route.outgoing.numbers.is_empty(),
        with_vendors: true,
    })
}

/// Who listens on all addresses is asked on this machine's own.
fn as_asked(address: SocketAddr) -> SocketAddr {
    let own = match address.ip() {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    SocketAddr::new(own, address.port())
}

async fn exchange(config: &Config, arguments: &DialplanArguments) -> Exchange {
    let written = config.asterisk.folder.join(FREEPBX_WRITES);
    let is_freepbx = match arguments.exchange {
        Some(named) => named == ExchangeName::Freepbx,
        None => arguments.freepbx_version.is_some() || written.exists(),
    };
    if !is_freepbx {
        return Exchange::Asterisk;
    }
    let by_version = arguments.freepbx_version.map(|version| {
        if version >= GOSUB_SINCE {
            Subroutines::Gosub
        } else {
            Subroutines::Macro
        }
    });
    Exchange::FreePbx(match by_version.or_else(|| by_files(config)) {
        Some(subroutines) => subroutines,
        None => by_console(config).await,
    })
}

/// How FreePBX itself enters the subroutine that rings an extension.
fn by_files(config: &Config) -> Option<Subroutines> {
    let read = Dialplan::read(&config.asterisk.folder)?;
    let enters = |how: &str| read.lines.iter().any(|line| line.does.contains(how));
    if enters("Gosub(macro-dial-one,") {
        return Some(Subroutines::Gosub);
    }
    enters("Macro(dial-one,").then_some(Subroutines::Macro)
}

/// Asterisk 21 and later have no Macro.
async fn by_console(config: &Config) -> Subroutines {
    match console::ask(config, "core show application Macro").await {
        Ok(shown) if shown.contains("Info about application") => Subroutines::Macro,
        _ => Subroutines::Gosub,
    }
}
