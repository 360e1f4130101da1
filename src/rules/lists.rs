//! `[rules.lists]`: numbers that are never routed (own lines, 8-800, spam), and numbers that always
//! belong to one extension.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use serde::Deserialize;

use super::{Arrangement, Before, Facts, Kind, Opening, Rule};
use crate::call::Extension;
use crate::chain::Candidate;
use crate::decision::{Role, Said, Step};
use crate::phone::{self, CallerNumber, E164, Region};

/// The row of `rules::KINDS`.
pub(super) const KIND: Kind = Kind {
    name: "lists",
    example: "\
[rules.lists]
do_not_route = [\"8800*\", \"+7 495 123-45-67\"]   # these callers go the standard route
do_not_route_file = \"spam.txt\" # the same, a number or pattern a line; # begins a comment
[rules.lists.always_to]        # these callers go to one extension first, whoever is responsible
\"+7 916 123-45-67\" = \"105\"
",
    open,
};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    do_not_route: Vec<String>,
    do_not_route_file: Option<PathBuf>,
    always_to: BTreeMap<String, String>,
}

#[derive(Default)]
struct Lists {
    never: Numbers,
    always: Vec<(Numbers, Extension)>,
    always_exactly: HashMap<E164, Extension>,
}

/// Numbers, and beginnings of numbers.
#[derive(Default)]
struct Numbers {
    exact: HashSet<E164>,
    /// International digits.
    starts: Vec<String>,
}

fn open(table: Option<toml::Value>, opening: &Opening) -> Result<Option<Box<dyn Rule>>, String> {
    let settings: Settings = super::settings(table)?;
    let mut lists = Lists::default();
    for written in &settings.do_not_route {
        lists.never.add(written, opening.region)?;
    }
    if let Some(file) = &settings.do_not_route_file {
        let path = opening.config_dir.join(file);
        let text = (opening.read_file)(&path)
            .map_err(|why| format!("`do_not_route_file`: cannot read {}: {why}", path.display()))?;
        for line in text.lines() {
            let number = line.split('#').next().unwrap_or_default().trim();
            if !number.is_empty() {
                lists.never.add(number, opening.region)?;
            }
        }
    }
    for (written, extension) in settings.always_to {
        let extension = Extension::read(&extension, &opening.pattern)
            .map_err(|error| format!("`always_to` of \"{written}\": {error}"))?;
        let mut numbers = Numbers::default();
        numbers.add(&written, opening.region)?;
        match numbers.exact.iter().next() {
            Some(number) => {
                lists.always_exactly.insert(*number, extension);
            }
            None => lists.always.push((numbers, extension)),
        }
    }
    let is_empty =
        lists.never.is_empty() && lists.always.is_empty() && lists.always_exactly.is_empty();
    Ok((!is_empty).then(|| Box::new(lists) as Box<dyn Rule>))
}

impl Numbers {
    /// Takes a number as people write it, or the beginning of numbers with a star behind it.
    fn add(&mut self, written: &str, region: Region) -> Result<(), String> {
        let fault = || {
            format!(
                "`{written}` is no number; write \"+7 495 123-45-67\", or \"8800*\" for all that begin so"
            )
        };
        let Some(start) = written.trim().strip_suffix('*') else {
            return match phone::read_caller(written, region) {
                CallerNumber::Number(number) => {
                    self.exact.insert(number);
                    Ok(())
                }
                _ => Err(fault()),
            };
        };
        let is_written = |letter: char| letter.is_ascii_digit() || "+-() ".contains(letter);
        let digits: String = start.chars().filter(char::is_ascii_digit).collect();
        if digits.is_empty() || !start.chars().all(is_written) {
            return Err(fault());
        }
        // Where the trunk prefix is 8, `8800` is how people write the beginning of +7 800.
        let national = digits.strip_prefix('8').filter(|_| !start.starts_with('+'));
        let is_seven = matches!(region.to_string().as_str(), "RU" | "KZ");
        self.starts.push(match national {
            Some(rest) if is_seven => format!("7{rest}"),
            _ => digits,
        });
        Ok(())
    }

    fn hold(&self, caller: E164) -> bool {
        if self.exact.contains(&caller) {
            return true;
        }
        let digits = caller.digits().to_string();
        self.starts.iter().any(|start| digits.starts_with(start))
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.starts.is_empty()
    }
}

impl Rule for Lists {
    fn before(&self, caller: E164, _facts: &Facts<'_>) -> Before {
        if !self.never.is_empty() && self.never.hold(caller) {
            return Before::StandardRoute(Said::NeverRouted);
        }
        Before::GoOn
    }

    fn arrange(&self, arrangement: &mut Arrangement, facts: &Facts<'_>) {
        let exactly = self.always_exactly.get(&facts.caller);
        let by_start = || {
            let mut lists = self.always.iter();
            lists
                .find(|(numbers, _)| numbers.hold(facts.caller))
                .map(|(_, extension)| extension)
        };
        if let Some(extension) = exactly.or_else(by_start) {
            let said = Said::AlwaysTo(extension.clone());
            arrangement.steps.push(Step::Told("lists", said));
            arrangement
                .chain
                .prefer(Candidate::named(extension, Role::Listed, facts.roster));
        }
    }
}
