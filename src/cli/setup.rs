//! `pryamo setup`: asks the few things needed, tries each at once, writes the configuration.

use std::fs;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use dialoguer::{Confirm, Input, Password, Select};
use secrecy::SecretString;

use super::{DONE, FAILED, USAGE, check, dialplan, plain};
use crate::config::Config;
use crate::crm::Level;
use crate::phone::Region;
use crate::setup::{self, Answers};

/// What `pryamo setup` is told.
#[derive(Debug, Args)]
pub(super) struct SetupArguments {
    /// Where the cards are.
    #[arg(long)]
    crm: Option<Kind>,
    /// What the CRM is called in the configuration.
    #[arg(long)]
    name: Option<String>,
    /// The CRM's address; of Bitrix24 the incoming webhook's.
    #[arg(long, conflicts_with = "url_file")]
    url: Option<SecretString>,
    /// A file that holds the address, which other users cannot see then.
    #[arg(long, value_name = "FILE")]
    url_file: Option<PathBuf>,
    /// A file that holds amoCRM's long-lived token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The table with the clients, for `--crm csv`.
    #[arg(long)]
    file: Option<PathBuf>,
    /// The country whose rules numbers without a country code follow [default: RU].
    #[arg(long)]
    region: Option<String>,
    /// Where the mirror lies [default: /var/lib/pryamo].
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Where Asterisk asks [default: 127.0.0.1:8077].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The exchange on this machine, which gets the dialplan; found out where this is left out.
    #[arg(long)]
    pbx: Option<Pbx>,
    /// Asks nothing: what is not given is as by default.
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Bitrix24, through an incoming webhook.
    Bitrix24,
    /// amoCRM or Kommo, with a long-lived token.
    Amocrm,
    /// A table in a file.
    Csv,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Pbx {
    /// A dialplan written by hand.
    Asterisk,
    /// `FreePBX` since 13.
    Freepbx,
    /// None here: the dialplan is left alone.
    None,
}

/// Asks, tries, writes, checks.
pub(super) async fn run(named: Option<&Path>, arguments: SetupArguments) -> Result<u8> {
    let is_asking = !arguments.yes && std::io::stdin().is_terminal();
    let path = setup::place(named);
    let existing = setup::read(&path)?;
    let mut answers = given(&arguments)?;
    if is_asking {
        println!(
            "This writes {}; Ctrl-C leaves everything as it is.\n",
            path.display()
        );
        ask_all(&mut answers, &arguments, existing.is_some()).await?;
    } else {
        let lacking = answers.lacking();
        if !lacking.is_empty() {
            tell_lacking(&lacking);
            return Ok(USAGE);
        }
        // What cannot be written need not be tried.
        setup::config_text(existing.as_deref(), &answers)?;
        if !try_once(&answers).await {
            eprintln!("pryamo: nothing was written");
            return Ok(FAILED);
        }
    }
    let text = setup::config_text(existing.as_deref(), &answers)?;
    let stamp = dialplan::stamp();
    let written = setup::write(&path, &text, &stamp)?;
    println!(
        "\nwritten: {}, which only its owner can read",
        path.display()
    );
    if let Some(backup) = written.backup {
        println!("before it was {}", backup.display());
    }
    let config = Config::load(Some(&path))?;
    install(&config, arguments.pbx, is_asking).await?;
    println!();
    // What is left to mend is told; the configuration is written nevertheless.
    let left = check::run(&config, false).await?;
    tell_next(&config, &path, left != DONE);
    Ok(DONE)
}

/// What the options say.
fn given(arguments: &SetupArguments) -> Result<Answers> {
    let url_file = arguments.url_file.as_deref().map(secret_of).transpose()?;
    let kind = arguments.crm.and_then(|kind| kind.to_possible_value());
    let region = arguments.region.as_deref().map(read_region).transpose()?;
    Ok(Answers {
        crm: kind
            .map(|kind| kind.get_name().to_owned())
            .unwrap_or_default(),
        name: arguments.name.clone(),
        url: arguments.url.clone().or(url_file),
        token: arguments.token_file.as_deref().map(secret_of).transpose()?,
        file: arguments.file.as_deref().map(absolute).transpose()?,
        region: region.unwrap_or_default(),
        data_dir: arguments.data_dir.as_deref().map(absolute).transpose()?,
        listen: arguments.listen,
    })
}

fn read_region(text: &str) -> Result<Region> {
    let region = text.trim().to_uppercase().parse();
    region.with_context(|| format!("`{}` is no country's code; write RU, KZ, DE", plain(text)))
}

fn secret_of(path: &Path) -> Result<SecretString> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    if text.trim().is_empty() {
        bail!("{} is empty", path.display());
    }
    Ok(text.trim().into())
}

/// The daemon runs in another folder.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("`{}` is no path", path.display()))
}

fn tell_lacking(lacking: &[&str]) {
    let options = lacking.iter().map(|what| match *what {
        "crm" => "--crm bitrix24|amocrm|csv (and what that one needs)",
        "url" => "--url ADDRESS or --url-file FILE",
        "token" => "--token-file FILE",
        _ => "--file TABLE",
    });
    let options = options.collect::<Vec<_>>().join("\n  ");
    eprintln!("pryamo: nobody can be asked here, and these options are missing:\n  {options}");
}

/// Tries the CRM and prints what it says; false if that is a fault.
async fn try_once(answers: &Answers) -> bool {
    let found = setup::try_crm(answers).await;
    for finding in &found {
        check::print(&answers.crm, finding);
    }
    found.iter().all(|finding| finding.level != Level::Fault)
}

/// Asks for what the options do not say, and for the CRM until it answers.
async fn ask_all(answers: &mut Answers, arguments: &SetupArguments, has_file: bool) -> Result<()> {
    if answers.crm.is_empty() {
        let kinds = ["bitrix24", "amocrm", "csv"];
        let shown = ["Bitrix24", "amoCRM or Kommo", "a table in a file (CSV)"];
        let select = Select::new()
            .with_prompt("Where are the clients")
            .items(shown)
            .default(0);
        let chosen = select.interact()?;
        kinds
            .get(chosen)
            .copied()
            .unwrap_or_default()
            .clone_into(&mut answers.crm);
    }
    if arguments.region.is_none() {
        answers.region = Input::new()
            .with_prompt("Country of numbers without a country code")
            .default(Region::default())
            .interact_text()?;
    }
    if arguments.data_dir.is_none() && !has_file {
        let folder: String = Input::new()
            .with_prompt("Folder for the mirror")
            .default("/var/lib/pryamo".to_owned())
            .interact_text()?;
        answers.data_dir = Some(absolute(Path::new(&folder))?);
    }
    loop {
        ask_crm(answers)?;
        if try_once(answers).await {
            return Ok(());
        }
        println!("\nOnce more:");
        (answers.url, answers.token, answers.file) = (None, None, None);
    }
}

/// Asks for what this kind of CRM needs.
fn ask_crm(answers: &mut Answers) -> Result<()> {
    for what in answers.lacking() {
        match what {
            "url" => {
                let prompt = match answers.crm.as_str() {
                    "bitrix24" => {
                        "Address of the incoming webhook (https://NAME.bitrix24.ru/rest/17/CODE/)"
                    }
                    _ => "Address of the account (https://NAME.amocrm.ru)",
                };
                let url: String = Input::new().with_prompt(prompt).interact_text()?;
                answers.url = Some(url.trim().into());
            }
            "token" => {
                let token = Password::new()
                    .with_prompt("Long-lived token of a private integration (is not shown)")
                    .interact()?;
                answers.token = Some(token.trim().into());
            }
            _ => {
                let file: String = Input::new()
                    .with_prompt("The table's file")
                    .interact_text()?;
                answers.file = Some(absolute(Path::new(file.trim()))?);
            }
        }
    }
    Ok(())
}

/// Offers the dialplan where there is an exchange.
async fn install(config: &Config, named: Option<Pbx>, is_asking: bool) -> Result<()> {
    let folder = &config.asterisk.folder;
    let pbx = named.unwrap_or_else(|| {
        if folder.join("extensions_additional.conf").exists() {
            Pbx::Freepbx
        } else if folder.join("extensions.conf").exists() {
            Pbx::Asterisk
        } else {
            Pbx::None
        }
    });
    if pbx == Pbx::None {
        return Ok(());
    }
    if is_asking {
        let question = format!(
            "Put the dialplan that asks pryamo into {}",
            folder.display()
        );
        if !Confirm::new()
            .with_prompt(question)
            .default(true)
            .interact()?
        {
            return Ok(());
        }
    }
    let arguments = dialplan::DialplanArguments::installing(pbx == Pbx::Freepbx);
    if let Err(error) = dialplan::run(config, &arguments).await {
        eprintln!("the dialplan is not installed: {error:#}");
        eprintln!("mend that, then: pryamo dialplan --install");
    }
    Ok(())
}

fn tell_next(config: &Config, path: &Path, has_more: bool) {
    if has_more {
        println!("\nMend what is told above; `pryamo check` looks again.");
    }
    let shown = path.display();
    println!("\nnext:\n  pryamo serve --config {shown}");
    println!("  pryamo explain +79161234567 --config {shown}      (a client's number)");
    println!("The page: http://{}/", config.forward.listen);
}
