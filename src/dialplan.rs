//! The dialplan that asks pryamo, as text for `extensions_custom.conf`.
//!
//! Knows nothing of the rest of the configuration: what it needs is told. Facts: calls through
//! Asterisk 16 and 22 and through FreePBX 16 and 17.

mod ask;
pub mod install;
pub mod reader;
mod text;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::text::write;

/// The line before what pryamo has written into a file.
pub const BEGIN: &str = "; pryamo begin";
/// The line behind it.
pub const END: &str = "; pryamo end";

/// `[asterisk]`: the exchange on this machine.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where its files are. Default: /etc/asterisk.
    pub folder: PathBuf,
    /// How its console is asked; `-rx COMMAND` is put behind it. Default: asterisk.
    pub command: String,
    /// The context in which employees are rung. Default: from-internal.
    pub internal: String,
    /// Where a call goes on that came by Goto when nobody takes it: `ivr-1,s,1`. Default: nowhere.
    pub standard: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("/etc/asterisk"),
            command: "asterisk".to_owned(),
            internal: "from-internal".to_owned(),
            standard: String::new(),
        }
    }
}

impl Settings {
    /// The options with their defaults, for the example configuration.
    pub const EXAMPLE: &'static str = "\
# [asterisk]                     # the exchange on this machine, for `pryamo dialplan` and `pryamo check`
# folder = \"/etc/asterisk\"
# command = \"asterisk\"           # how its console is asked; `-rx COMMAND` is put behind it
# internal = \"from-internal\"     # the context in which employees are rung
# standard = \"ivr-1,s,1\"         # where a call that came by Goto goes on when nobody takes it; none when left out
";

    /// Refuses what cannot stand in a dialplan; gives the key and the fault.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if !is_name(&self.internal) {
            let text = format!("`internal` is \"{}\", which is no context", self.internal);
            return Err(("internal", text));
        }
        if self.command.trim().is_empty() {
            let text = "`command` is empty; write \"asterisk\"".to_owned();
            return Err(("command", text));
        }
        let parts: Vec<&str> = self.standard.split(',').collect();
        let is_place = match parts.as_slice() {
            [""] => true,
            [context, extension, priority] => {
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_+*#".contains(&byte);
                // The one variable that makes sense here: the number dialled.
                let is_extension = *extension == "${EXTEN}"
                    || (!extension.is_empty() && extension.bytes().all(fits));
                is_name(context) && is_extension && is_name(priority)
            }
            _ => false,
        };
        if is_place {
            return Ok(());
        }
        let text = format!(
            "`standard` is \"{}\"; write context, extension and priority: \"ivr-1,s,1\"",
            self.standard
        );
        Err(("standard", text))
    }
}

/// Which exchange a dialplan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    /// A dialplan written by hand.
    Asterisk,
    /// FreePBX, whose own subroutines ring an employee.
    FreePbx(Subroutines),
}

/// How FreePBX's subroutines are entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subroutines {
    /// By `Gosub`: 17 and later.
    Gosub,
    /// By `Macro`: 13 to 16.
    Macro,
}

/// How pryamo is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `CURL()`, which has time limits of its own.
    Curl,
    /// `AGI(agi://...)`, for an Asterisk without `func_curl`.
    FastAgi,
}

/// What a dialplan is made from.
#[derive(Debug, Clone)]
pub struct Plan {
    /// For which exchange.
    pub exchange: Exchange,
    /// How pryamo is asked.
    pub way: Way,
    /// Where it answers.
    pub address: SocketAddr,
    /// `asterisk.internal`.
    pub internal: String,
    /// `asterisk.standard`; empty for none.
    pub standard: String,
    /// Rings for one call at most.
    pub rounds: usize,
    /// Whether telephones outside may be rung.
    pub outside: bool,
    /// Whether the vendor page's context is written, for routes that lead there.
    pub with_vendors: bool,
}
