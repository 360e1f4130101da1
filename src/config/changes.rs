//! What a file that was read again changes, and what of it waits for a restart.

use secrecy::{ExposeSecret as _, SecretString};

use super::{Config, CrmTable, show};
use crate::record::CrmName;

/// How deep the names of changed keys go: `route.outgoing`, and no deeper.
const DEEPEST: usize = 2;

/// A configuration that a running daemon can follow.
pub struct Followed {
    /// To be followed: what waits for a restart is as it was.
    pub config: Config,
    /// What it changes, key by key.
    pub taken: Vec<String>,
    /// Keys that a running daemon cannot follow.
    pub waiting: Vec<String>,
}

/// Compares a configuration that was read again with the one in force.
pub fn follow(old: &Config, mut new: Config) -> Followed {
    let waiting = hold(old, &mut new);
    let (before, after) = (shown(old), shown(&new));
    let mut taken = Vec::new();
    compare("", &before, &after, &mut taken);
    let secrets = [
        ("forward.token", &old.forward.token, &new.forward.token),
        ("ami.secret", &old.ami.secret, &new.ami.secret),
    ];
    for (key, old, new) in secrets {
        if !is_same_secret(old.as_ref(), new.as_ref()) && !taken.iter().any(|known| known == key) {
            taken.push(key.to_owned());
        }
    }
    compare_crms(old, &new, &mut taken);
    Followed {
        config: new,
        taken,
        waiting,
    }
}

/// Leaves what cannot be followed as it was; gives the keys that differ.
fn hold(old: &Config, new: &mut Config) -> Vec<String> {
    let mut waiting: Vec<String> = Vec::new();
    macro_rules! hold {
        ($key:literal, $($field:ident).+) => {
            if old.$($field).+ != new.$($field).+ {
                waiting.push($key.to_owned());
                new.$($field).+.clone_from(&old.$($field).+);
            }
        };
    }
    hold!("data_dir", data_dir);
    hold!("directory.kind", directory_kind);
    hold!("directory", directory);
    hold!("forward.listen", forward.listen);
    hold!("forward.threads", forward.threads);
    hold!("fastagi.enabled", fastagi.enabled);
    hold!("fastagi.listen", fastagi.listen);
    hold!("hooks.listen", hooks.listen);
    hold!("page.listen", page.listen);
    hold!("talks.days", talks.days);
    hold!("talks.cdr", talks.cdr);
    hold!("journal.enabled", journal.enabled);
    hold!("journal.days", journal.days);
    hold!("journal.mask_numbers", journal.mask_numbers);
    hold!("log.level", log.level);
    hold!("log.format", log.format);
    waiting
}

fn shown(config: &Config) -> toml::Table {
    // What was written a moment ago can be read.
    let mut shown: toml::Table = toml::from_str(&show(config)).unwrap_or_default();
    // Compared table by table.
    shown.remove("crm");
    shown
}

fn compare(place: &str, old: &toml::Table, new: &toml::Table, taken: &mut Vec<String>) {
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    for key in new.keys().chain(gone) {
        let (before, after) = (old.get(key), new.get(key));
        if before == after {
            continue;
        }
        let name = if place.is_empty() {
            key.clone()
        } else {
            format!("{place}.{key}")
        };
        let is_deep = name.split('.').count() >= DEEPEST;
        match (before, after) {
            (Some(toml::Value::Table(before)), Some(toml::Value::Table(after))) if !is_deep => {
                compare(&name, before, after, taken);
            }
            _ => taken.push(name),
        }
    }
}

fn compare_crms(old: &Config, new: &Config, taken: &mut Vec<String>) {
    for table in &new.crms {
        match old.crms.iter().find(|known| known.name == table.name) {
            None => taken.push(format!("crm `{}` (new)", table.name)),
            Some(known) => {
                let changed = changed_keys(known, table);
                if !changed.is_empty() {
                    taken.push(format!("crm `{}`: {}", table.name, changed.join(", ")));
                }
            }
        }
    }
    for known in &old.crms {
        if !new.crms.iter().any(|table| table.name == known.name) {
            taken.push(format!("crm `{}` (gone)", known.name));
        }
    }
    // Of two CRMs that know a caller, the first may win.
    let order = |config: &Config, other: &Config| -> Vec<CrmName> {
        let is_in_both = |name: &CrmName| other.crms.iter().any(|table| table.name == *name);
        let names = config.crms.iter().map(|table| table.name.clone());
        names.filter(is_in_both).collect()
    };
    if order(old, new) != order(new, old) {
        taken.push("the order of [[crm]]".to_owned());
    }
}

fn changed_keys(old: &CrmTable, new: &CrmTable) -> Vec<String> {
    let (before, after) = (&old.common, &new.common);
    let common = [
        ("kind", old.kind != new.kind),
        ("did", before.did != after.did),
        ("region", before.region != after.region),
        ("fields", before.fields != after.fields),
        (
            "limit_share",
            before.limit_share.to_bits() != after.limit_share.to_bits(),
        ),
        (
            "hook_secret",
            !is_same_secret(before.hook_secret.as_ref(), after.hook_secret.as_ref()),
        ),
        ("employees", before.employees != after.employees),
        ("departments", before.departments != after.departments),
    ];
    let common = common.into_iter().filter(|(_, is_changed)| *is_changed);
    let mut changed: Vec<String> = common.map(|(key, _)| key.to_owned()).collect();
    let mut own = Vec::new();
    compare("", &old.own, &new.own, &mut own);
    changed.extend(own);
    changed
}

fn is_same_secret(old: Option<&SecretString>, new: Option<&SecretString>) -> bool {
    old.map(SecretString::expose_secret) == new.map(SecretString::expose_secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse(text, None, &[]).unwrap()
    }

    #[test]
    fn what_changed_is_named_and_no_secret_told() {
        let crm = "[[crm]]\nname = \"sales\"\nkind = \"csv\"\nfile = \"a.csv\"\n";
        for (old, new, taken, waiting) in [
            ("", "", "", ""),
            (
                "",
                "[match]\nlive_lookup_ms = 5\n",
                "match.live_lookup_ms",
                "",
            ),
            (
                "[forward]\ntoken = \"a\"\n",
                "[forward]\ntoken = \"b\"\n",
                "forward.token",
                "",
            ),
            ("", "[forward]\ntoken = \"b\"\n", "forward.token", ""),
            ("", "shadow = \"http://10.0.0.1/forward\"\n", "shadow", ""),
            ("", crm, "crm `sales` (new)", ""),
            (crm, "", "crm `sales` (gone)", ""),
            (
                crm,
                "[[crm]]\nname = \"sales\"\nkind = \"csv\"\nfile = \"b.csv\"\nhook_secret = \"k0d3\"\n",
                "crm `sales`: hook_secret, file",
                "",
            ),
            (
                "",
                "data_dir = \"/x\"\n[forward]\nlisten = \"127.0.0.1:1\"\nthreads = 3\n[log]\nlevel = \"debug\"\n",
                "",
                "data_dir, forward.listen, forward.threads, log.level",
            ),
            (
                "",
                "[fastagi]\nlisten = \"\"\nallow = [\"10.0.0.5\"]\n[journal]\ndays = 3\n",
                "fastagi.allow",
                "fastagi.listen, journal.days",
            ),
        ] {
            let followed = follow(&parse(old), parse(new));
            assert_eq!(followed.taken.join(", "), taken, "{new}");
            assert_eq!(followed.waiting.join(", "), waiting, "{new}");
            assert_eq!(followed.config.data_dir, parse(old).data_dir);
        }
    }
}
