//! What comes from outside, as bytes: for each reader what must hold whatever is sent.
//!
//! The targets in `fuzz/` send what a fuzzer thinks of; the test below sends what `fuzz/seeds` keeps:
//! examples, and whatever was once found.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::call::{IncomingCall, MOST_TRIED};
use crate::cdr;
use crate::config::{self, Config};
use crate::crm::csv_file::table::{Options, Separator, TextEncoding, read_table};
use crate::crm::{amocrm, bitrix24};
use crate::decision::{Decision, Reason};
use crate::dialplan::reader::Dialplan;
use crate::pbx::{ami, ended, fastagi, forward};
use crate::phone::{self, Region};
use crate::record::{Card, Employee, Notice};
use crate::{caller_name, http_server};

/// A reader and its name, which is that of the target and of the folder of its seeds.
pub type Target = (&'static str, fn(&[u8]));

/// All readers of what comes from outside.
pub const TARGETS: [Target; 14] = [
    ("phone", read_phone),
    ("forward", read_forward),
    ("http_head", read_http_head),
    ("fastagi", fastagi::fuzz),
    ("bitrix24_hook", bitrix24::fuzz::hook),
    ("bitrix24_page", bitrix24::fuzz::page),
    ("amocrm_hook", amocrm::fuzz::hook),
    ("amocrm_page", amocrm::fuzz::page),
    ("csv", read_csv),
    ("config", read_config),
    ("dialplan", read_dialplan),
    ("caller_name", show_name),
    ("ami", read_ami),
    ("cdr", read_cdr),
];

/// Some length of time.
pub(crate) const MOMENT: Duration = Duration::from_secs(1);
/// The longest text of a field in a card that is looked at: reading numbers in it takes its time.
const LONGEST_PHONE: usize = 400;
/// Countries whose numbers are written in their own ways.
const REGIONS: [&str; 8] = ["RU", "KZ", "BY", "UA", "DE", "IT", "US", "AR"];

/// Runs the target of this name.
///
/// # Panics
///
/// Where something does not hold that must, and for a name that no target has.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    assert!(target.is_some(), "there is no target `{name}`");
    if let Some((_, read)) = target {
        read(bytes);
    }
}

/// The first byte, which chooses, and the rest.
fn choice(bytes: &[u8]) -> (usize, &[u8]) {
    bytes
        .split_first()
        .map_or((0, bytes), |(first, rest)| (usize::from(*first), rest))
}

fn region(choice: usize) -> Region {
    let code = REGIONS.iter().cycle().nth(choice).copied();
    code.and_then(|code| code.parse().ok()).unwrap_or_default()
}

fn read_phone(bytes: &[u8]) {
    let (first, rest) = choice(bytes);
    phone::fuzz(
        &String::from_utf8_lossy(rest),
        region(first % REGIONS.len()),
    );
}

/// The query of `/forward` and of `/ended`, and the answer with what was sent as a name.
fn read_forward(bytes: &[u8]) {
    let query = String::from_utf8_lossy(bytes);
    let read = forward::read_query(&query);
    call(&read);
    if let Some(outcome) = ended::read_query(&query) {
        assert!(!outcome.call_id.is_empty());
        assert!(outcome.number.bytes().all(|byte| byte.is_ascii_digit()));
    }
    let decision = Decision {
        name: Some(read.phone),
        ..Decision::standard_route(Reason::NotRouted, Vec::new())
    };
    let answer = forward::write_answer(&decision, &caller_name::Settings::default());
    assert!(answer.starts_with("number=&reason="), "{answer}");
    assert!(
        answer.is_ascii() && answer.matches('&').count() == 2,
        "{answer}"
    );
}

/// What a front end has read of a call.
pub(crate) fn call(call: &IncomingCall) {
    assert!(call.tried.len() <= MOST_TRIED);
    for number in &call.tried {
        assert!(number.bytes().all(|byte| byte.is_ascii_digit()), "{number}");
    }
    let _ = phone::read_caller(&call.phone, Region::default());
}

fn read_http_head(bytes: &[u8]) {
    let (first, rest) = choice(bytes);
    http_server::fuzz(rest, first);
}

/// The first byte chooses encoding and separator, or leaves them to be found.
fn read_csv(bytes: &[u8]) {
    let (first, rest) = choice(bytes);
    let encodings = [
        None,
        Some(TextEncoding::Utf8),
        Some(TextEncoding::Windows1251),
    ];
    let separators = [
        None,
        Some(Separator::Semicolon),
        Some(Separator::Comma),
        Some(Separator::Tab),
    ];
    let options = Options {
        encoding: encodings.get(first % 4).copied().flatten(),
        separator: separators.get(first / 4 % 4).copied().flatten(),
        fields: vec!["Город".to_owned()],
    };
    let table = match read_table(rest, &options) {
        Ok(table) => table,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(
        !table.cards.is_empty(),
        "a table without a card is an error"
    );
    assert_eq!(table.summary.cards(), table.cards.len() as u64);
    let mut known = std::collections::HashSet::new();
    for read in &table.cards {
        card(read);
        assert!(
            known.insert((read.kind, &read.id)),
            "{} {} twice",
            read.kind,
            read.id
        );
    }
    table.summary.employees().iter().for_each(employee);
}

fn read_config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // Files of secrets belong to the machine, not to the text.
    if text.contains("_file") {
        return;
    }
    let parse = || Config::parse(&text, Some("pryamo.toml".into()), &[]);
    match parse() {
        Ok(config) => {
            let shown = config::show(&config);
            assert!(shown.parse::<toml::Table>().is_ok(), "{shown}");
            let _ = (config.roster_rules(), config.router_settings());
            if let Ok(same) = parse() {
                let followed = config::follow(&config, same);
                assert!(followed.taken.is_empty(), "{:?}", followed.taken);
                assert!(followed.waiting.is_empty(), "{:?}", followed.waiting);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn read_dialplan(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let dialplan = Dialplan::of_text("extensions.conf".as_ref(), &text);
    let steps = dialplan.lines.len();
    assert!(dialplan.questions().len() <= steps);
    let asking = dialplan.asking();
    for danger in dialplan.dangers("from-internal") {
        assert!(asking.contains(danger.context.as_str()));
        assert!((1..=text.lines().count()).contains(&danger.place.1));
    }
}

/// The first byte chooses how names are shown.
fn show_name(bytes: &[u8]) {
    let (first, rest) = choice(bytes);
    let written = String::from_utf8_lossy(rest);
    let (name, company) = written.split_once('\n').unwrap_or((&written, ""));
    let templates = [
        "{name}",
        "{name} ({company})",
        "{company}: {name}",
        "\"{name}",
    ];
    let settings = caller_name::Settings {
        template: templates
            .get(first % 4)
            .copied()
            .unwrap_or_default()
            .to_owned(),
        bytes: 1 + first / 8 * 8,
        transliterate: first / 4 % 2 == 1,
    };
    let shown = caller_name::show(name, Some(company), &settings);
    assert!(shown.len() <= settings.bytes, "{shown:?}");
    assert!(
        !shown.contains(|letter: char| letter.is_control() || letter == '"'),
        "{shown:?}"
    );
    for (open, close) in [('(', ')'), ('[', ']'), ('{', '}'), ('«', '»')] {
        let count = |letter| shown.matches(letter).count();
        assert_eq!(count(open), count(close), "{shown:?}");
    }
    let plain = caller_name::Settings {
        bytes: settings.bytes,
        ..Default::default()
    };
    assert_eq!(
        caller_name::show(&shown, None, &plain),
        shown,
        "shown twice"
    );
}

fn read_ami(bytes: &[u8]) {
    ami::fuzz(bytes, Timestamp::UNIX_EPOCH, Region::default());
}

/// The first byte chooses the column of the number dialled.
fn read_cdr(bytes: &[u8]) {
    let (first, rest) = choice(bytes);
    let columns = [None, Some("did"), Some("1"), Some("99999999999999999999")];
    let column = columns.get(first % 4).copied().flatten().map(str::to_owned);
    let mut reader = cdr::Reader::new(rest, column, TimeZone::UTC);
    while let Ok(read) = reader.read() {
        if read == cdr::Read::End {
            assert_eq!(reader.bytes, rest.len() as u64);
            break;
        }
    }
}

/// A card as a connector hands it on: what happens to it next.
pub(crate) fn card(card: &Card) {
    let written = card
        .phones
        .iter()
        .filter(|phone| phone.len() <= LONGEST_PHONE);
    for phone in written.take(3) {
        let _ = phone::read_field(phone, Region::default());
    }
    let _ = caller_name::show(&card.name, None, &caller_name::Settings::default());
    assert!(!card.id.as_str().is_empty());
}

/// An employee as a connector hands them on.
pub(crate) fn employee(employee: &Employee) {
    assert!(!employee.id.as_str().is_empty());
}

/// Notices as a hook hands them on.
pub(crate) fn notices(notices: &[Notice]) {
    for notice in notices {
        assert!(
            notice.id.as_number().is_some_and(|number| number > 0),
            "{notice:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_seed_is_read_by_its_target() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        for (name, read) in TARGETS {
            let seeds = std::fs::read_dir(folder.join(name));
            let seeds: Vec<_> = seeds
                .unwrap_or_else(|_| panic!("no seeds for {name}"))
                .collect();
            assert!(!seeds.is_empty(), "no seeds for {name}");
            for seed in seeds {
                let bytes = std::fs::read(seed.unwrap().path()).unwrap();
                read(&bytes);
                // As they look on a line that is cut.
                for end in (0..bytes.len()).step_by(bytes.len() / 16 + 1) {
                    read(&bytes[..end]);
                }
            }
        }
    }
}
