//! `pryamo password`: who may see the operators' page.

use std::io::{BufRead as _, IsTerminal as _};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use secrecy::SecretString;

use super::{DONE, FAILED};
use crate::config::Config;
use crate::page::users::{Role, Users};

/// What `pryamo password` takes.
#[derive(Debug, Args)]
pub(super) struct PasswordArguments {
    /// The name to sign in with.
    #[arg(default_value = "admin")]
    name: String,
    /// Sees everything and changes nothing.
    #[arg(long)]
    viewer: bool,
    /// Takes somebody out.
    #[arg(long, conflicts_with_all = ["viewer", "list"])]
    remove: bool,
    /// Lists who may sign in.
    #[arg(long)]
    list: bool,
}

/// Asks for the password twice; without a terminal reads one line of standard input.
pub(super) fn run(config: &Config, arguments: &PasswordArguments) -> Result<u8> {
    let users = Users::of(&config.data_dir);
    if arguments.list {
        for (name, user) in users.all()? {
            println!("{name}  {}", user.role.as_str());
        }
        return Ok(DONE);
    }
    if !config.data_dir.is_dir() {
        bail!(
            "there is no {} (`data_dir`) yet: run `pryamo serve` first, or make it for the user that runs pryamo",
            config.data_dir.display()
        );
    }
    if arguments.remove {
        users.remove(&arguments.name)?;
        println!("{} may no longer sign in", arguments.name);
        return Ok(DONE);
    }
    let role = if arguments.viewer {
        Role::Viewer
    } else {
        Role::Administrator
    };
    let password = read_password(&arguments.name)?;
    if let Err(error) = users.set(&arguments.name, role, &password) {
        eprintln!("pryamo: {}", crate::fault::told(&error));
        return Ok(FAILED);
    }
    println!(
        "{} may sign in to the operators' page, role {}",
        arguments.name,
        role.as_str()
    );
    Ok(DONE)
}

fn read_password(name: &str) -> Result<SecretString> {
    if std::io::stdin().is_terminal() {
        let asked = dialoguer::Password::new()
            .with_prompt(format!("New password of {name}"))
            .with_confirmation("Once more", "These are not the same")
            .interact()
            .context("cannot read the password")?;
        return Ok(asked.into());
    }
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .context("cannot read the password from standard input")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned().into())
}
