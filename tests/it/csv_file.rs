//! The CSV connector against files as Bitrix24, amoCRM, Kommo and people write them, and against
//! files that are damaged or change while they are read. All names and numbers are made up.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use jiff::Timestamp;
use pryamo::crm::csv_file::KIND;
use pryamo::crm::csv_file::table::{Meaning, Options, Table, TableError, read_table};
use pryamo::crm::{Common, Crm, CrmError, Cursor, Finding, Level, Page, Since};
use pryamo::record::{Card, CrmName, EntityKind, Stage};

use crate::messy;

fn cassette(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/cassettes/csv")
        .join(name)
}

fn table(name: &str) -> Result<Table, TableError> {
    read_table(&std::fs::read(cassette(name)).unwrap(), &Options::default())
}

fn crm_of(file: &Path, fields: &[&str]) -> Arc<dyn Crm> {
    let mut settings = toml::Table::new();
    let name = file.file_name().unwrap().to_str().unwrap();
    settings.insert("file".to_owned(), name.into());
    let folder = file.parent().unwrap().to_owned();
    let common = Common {
        name: CrmName::new("list"),
        wanted: vec![EntityKind::Contact, EntityKind::Company, EntityKind::Lead],
        fields: fields.iter().map(|&field| field.to_owned()).collect(),
        share: 0.8,
        asked_lately: false,
        state_dir: folder.clone(),
        config_dir: folder,
    };
    (KIND.open)(settings, common).unwrap()
}

async fn walk(
    crm: &dyn Crm,
    kind: EntityKind,
    from: Option<Cursor>,
) -> Vec<Result<Page, CrmError>> {
    crm.walk(kind, from).collect().await
}

fn ids(pages: &[Result<Page, CrmError>]) -> Vec<String> {
    let cards = pages.iter().flat_map(|page| &page.as_ref().unwrap().cards);
    cards.map(|card| card.id.to_string()).collect()
}

fn told(findings: &[Finding], level: Level) -> String {
    let chosen = findings.iter().filter(|finding| finding.level == level);
    chosen
        .map(|finding| finding.text.as_str())
        .collect::<Vec<_>>()
        .join("\n")
}

fn brief(card: &Card) -> (EntityKind, &str, &str, Option<&str>, Vec<&str>, &str) {
    (
        card.kind,
        card.id.as_str(),
        card.name.as_str(),
        card.company.as_deref(),
        card.phones.iter().map(String::as_str).collect(),
        card.responsible.as_ref().map_or("", |id| id.as_str()),
    )
}

/// A file of `count` contacts.
fn write_contacts(path: &Path, count: usize) {
    let mut text = "id;phone;responsible;extension\n".to_owned();
    for id in 1..=count {
        writeln!(text, "{id};+7916{id:07};Анна;101").unwrap();
    }
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[test]
fn a_plain_table_is_read() {
    let table = table("plain.csv").unwrap();
    let phones = vec!["8 (916) 123-45-67, +7 495 123-45-67 доб. 12"];
    assert_eq!(
        brief(&table.cards[0]),
        (
            EntityKind::Contact,
            "1",
            "Пётр Ёлкин",
            Some("ООО «Ромашка»"),
            phones,
            "Анна Белова"
        )
    );
    assert_eq!(table.cards[2].name, "ЗАО \"Север & Ко\"");
    assert_eq!(brief(&table.cards[3]).5, "ext 103");
    let employees = table.summary.employees();
    let extensions: Vec<(&str, Option<&str>)> = employees
        .iter()
        .map(|employee| (employee.name.as_str(), employee.extension.as_deref()))
        .collect();
    assert_eq!(
        extensions,
        [
            ("boris@example.com", Some("102")),
            ("ext 103", Some("103")),
            ("Анна Белова", Some("101"))
        ]
    );
    assert_eq!(table.summary.conflicts_total, 1);
    assert_eq!(table.summary.without_phone, 1);
}

#[test]
fn bitrix24_contacts_are_read() {
    let table = table("bitrix24_contacts_ru.csv").unwrap();
    assert_eq!(table.summary.encoding, "windows-1251");
    assert_eq!(table.summary.skipped_total, 0);
    assert_eq!(table.cards.len(), 3);
    let phones = vec!["+7 495 123-45-67, 8 (495) 123-45-68", "+7 916 123-45-67"];
    assert_eq!(
        brief(&table.cards[0]),
        (
            EntityKind::Contact,
            "17",
            "Пётр Ёлкин",
            Some("ООО \"Ромашка\""),
            phones,
            "Анна Белова"
        )
    );
    let modified: Timestamp = "2026-11-22T15:00:00Z".parse().unwrap();
    assert_eq!(table.cards[0].modified, Some(modified));
}

#[test]
fn bitrix24_companies_are_read() {
    let table = table("bitrix24_companies_ru.csv").unwrap();
    let phones = vec!["+7 (495) 123-45-67"];
    assert_eq!(
        brief(&table.cards[0]),
        (
            EntityKind::Company,
            "5",
            "ООО \"Ромашка\"",
            None,
            phones,
            "Анна Белова"
        )
    );
    assert_eq!(table.cards[1].phones.len(), 2);
}

#[test]
fn bitrix24_leads_are_read() {
    let table = table("bitrix24_leads_en.csv").unwrap();
    let first = &table.cards[0];
    let phones = vec!["+7 916 765-43-21"];
    assert_eq!(
        brief(first),
        (
            EntityKind::Lead,
            "101",
            "Website order",
            Some("Daisy Ltd"),
            phones,
            "Anna Belova"
        )
    );
    let stages: Vec<Stage> = table.cards.iter().map(|card| card.stage).collect();
    assert_eq!(stages, [Stage::Open, Stage::Junk, Stage::Closed]);
    let modified: Timestamp = "2026-11-22T15:00:00Z".parse().unwrap();
    assert_eq!(first.modified, Some(modified));
}

#[test]
fn amocrm_contacts_are_read_in_both_encodings() {
    let utf8 = table("amocrm_contacts_ru.csv").unwrap();
    let cards: Vec<_> = utf8.cards.iter().map(brief).collect();
    let ann = "Анна Белова";
    let two_phones = vec!["+79161234567", "+74951234567"];
    assert_eq!(
        cards[0],
        (
            EntityKind::Contact,
            "40001",
            "Пётр Ёлкин",
            None,
            two_phones,
            ann
        )
    );
    assert_eq!(cards[1].3, Some("ООО «Ромашка»"));
    assert_eq!(cards[1].4, ["+79031112233, '+79031112234"]);
    let phones = vec!["84951234567"];
    assert_eq!(
        cards[2],
        (
            EntityKind::Company,
            "40003",
            "ООО «Ромашка»",
            None,
            phones,
            ann
        )
    );
    let other = table("amocrm_contacts_ru_1251.csv").unwrap();
    assert_eq!(other.summary.encoding, "windows-1251");
    assert_eq!(other.summary.separator, ';');
    assert_eq!(other.cards[0], utf8.cards[0]);
    assert_eq!(other.cards[2], utf8.cards[2]);
}

#[test]
fn kommo_contacts_and_companies_are_read() {
    let table = table("kommo_en.csv").unwrap();
    let kinds: Vec<_> = table
        .cards
        .iter()
        .map(|card| (card.kind, card.name.as_str()))
        .collect();
    assert_eq!(
        kinds,
        [
            (EntityKind::Contact, "Ivan Petrov"),
            (EntityKind::Company, "Daisy Ltd")
        ]
    );
    assert_eq!(table.cards[0].phones, ["+12024561111"]);
    let columns = &table.summary.columns;
    assert!(columns.contains(&("Responsible user".to_owned(), Meaning::Responsible)));
    assert!(table.summary.unread.contains(&"Created by".to_owned()));
}

#[test]
fn damaged_tables_say_what_to_do() {
    let cases = [
        (
            "damaged_no_header.csv",
            "the first line must name the columns",
        ),
        (
            "damaged_no_phone_column.csv",
            "no phone column found; columns are `ID`, `Имя`",
        ),
        ("damaged_header_only.csv", "nothing but a header"),
        ("damaged_html.csv", "web page"),
        ("damaged_empty.csv", "the file is empty"),
    ];
    for (name, expected) in cases {
        let told = table(name).unwrap_err().to_string();
        assert!(told.contains(expected), "{name}: {told}");
    }
}

#[test]
fn damaged_lines_cost_only_themselves() {
    let table = table("damaged_quotes.csv").unwrap();
    let names: Vec<&str> = table.cards.iter().map(|card| card.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "ООО \"Ромашка\" и Ко",
            "ООО \"Север\"",
            "адрес\nв две строки"
        ]
    );
    let skipped: Vec<(u64, &str)> = table
        .summary
        .skipped
        .iter()
        .map(|skip| (skip.line, skip.why.as_str()))
        .collect();
    assert_eq!(
        skipped,
        [
            (4, "a quote (\") is opened and not closed"),
            (5, "6 fields where the header has 5"),
            (6, "3 fields where the header has 5"),
        ]
    );
}

#[tokio::test]
async fn a_walk_brings_each_kind_and_all_employees() {
    let crm = crm_of(&cassette("plain.csv"), &[]);
    assert_eq!(
        ids(&walk(&*crm, EntityKind::Contact, None).await),
        ["1", "2", "5", "6"]
    );
    assert_eq!(ids(&walk(&*crm, EntityKind::Company, None).await), ["3"]);
    assert_eq!(ids(&walk(&*crm, EntityKind::Lead, None).await), ["4"]);
    assert_eq!(crm.employees().await.unwrap().employees.len(), 3);
}

#[tokio::test]
async fn a_kind_that_the_file_lacks_is_one_empty_page() {
    let crm = crm_of(&cassette("bitrix24_companies_ru.csv"), &[]);
    let pages = walk(&*crm, EntityKind::Lead, None).await;
    assert_eq!(pages.len(), 1);
    assert_eq!(pages[0].as_ref().unwrap().cursor, None);
}

#[tokio::test]
async fn a_walk_goes_on_behind_its_cursor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.csv");
    write_contacts(&path, 2_500);
    let crm = crm_of(&path, &[]);
    let pages = walk(&*crm, EntityKind::Contact, None).await;
    assert_eq!(pages.len(), 3);
    let all = ids(&pages);
    assert_eq!(all.len(), 2_500);
    let cursor = pages[0].as_ref().unwrap().cursor.clone();
    assert!(cursor.is_some());
    let rest = walk(&*crm, EntityKind::Contact, cursor).await;
    assert_eq!(ids(&rest), all[1_000..]);
}

#[tokio::test]
async fn a_cursor_of_another_file_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.csv");
    write_contacts(&path, 1_500);
    let crm = crm_of(&path, &[]);
    let pages = walk(&*crm, EntityKind::Contact, None).await;
    let cursor = pages[0].as_ref().unwrap().cursor.clone();
    write_contacts(&path, 1_501);
    assert_eq!(
        ids(&walk(&*crm, EntityKind::Contact, cursor).await).len(),
        1_501
    );
}

#[tokio::test]
async fn a_file_replaced_by_renaming_is_read_to_its_old_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.csv");
    write_contacts(&path, 1_500);
    let crm = crm_of(&path, &[]);
    let mut pages = crm.walk(EntityKind::Contact, None);
    let first = pages.next().await.unwrap().unwrap();
    write_contacts(&path, 3);
    let second = pages.next().await.unwrap().unwrap();
    assert_eq!(first.cards.len() + second.cards.len(), 1_500);
    assert!(pages.next().await.is_none());
}

#[tokio::test]
async fn a_file_written_over_while_it_is_read_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.csv");
    write_contacts(&path, 5_000);
    let crm = crm_of(&path, &[]);
    let mut pages = crm.walk(EntityKind::Contact, None);
    assert!(pages.next().await.unwrap().is_ok());
    std::fs::write(
        &path,
        "id;phone;responsible;extension\n1;8 916 123-45-67;A;101\n",
    )
    .unwrap();
    let error = pages.next().await.unwrap().unwrap_err();
    assert!(matches!(&error, CrmError::Shape { text, .. } if text.contains("changed while")));
    assert!(pages.next().await.is_none());
}

#[tokio::test]
async fn a_file_that_vanishes_or_empties_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.csv");
    let crm = crm_of(&path, &[]);
    let gone = walk(&*crm, EntityKind::Contact, None).await;
    assert!(matches!(gone[..], [Err(CrmError::File(..))]));
    assert!(matches!(crm.employees().await, Err(CrmError::File(..))));
    for text in ["", "\n\n", "id;phone\n", "id;phone\n1;2;3\n"] {
        std::fs::write(&path, text).unwrap();
        let pages = walk(&*crm, EntityKind::Contact, None).await;
        assert!(
            matches!(pages[..], [Err(CrmError::Shape { .. })]),
            "{text:?}"
        );
        let changes: Vec<_> = crm
            .changes(EntityKind::Contact, at(Timestamp::UNIX_EPOCH))
            .collect()
            .await;
        assert!(
            matches!(changes[..], [Err(CrmError::Shape { .. })]),
            "{text:?}"
        );
    }
}

fn at(time: Timestamp) -> Since {
    Since {
        time,
        highest_id: None,
    }
}

#[tokio::test]
async fn changes_are_all_cards_once_the_file_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.csv");
    write_contacts(&path, 10);
    let crm = crm_of(&path, &[]);
    let changes = |since| {
        let crm = Arc::clone(&crm);
        async move {
            crm.changes(EntityKind::Contact, at(since))
                .collect::<Vec<_>>()
                .await
        }
    };
    let first = changes(Timestamp::UNIX_EPOCH).await;
    assert_eq!(ids(&first).len(), 10);
    let written = first[0].as_ref().unwrap().server_time.unwrap();
    let second = changes(written).await;
    assert_eq!(second.len(), 1);
    assert_eq!(ids(&second).len(), 0);
    assert_eq!(second[0].as_ref().unwrap().server_time, Some(written));
}

#[test]
fn the_fingerprint_changes_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.csv");
    let crm = crm_of(&path, &[]);
    assert!(!crm.is_askable());
    assert_eq!(crm.fingerprint(), None);
    write_contacts(&path, 10);
    let first = crm.fingerprint();
    assert!(first.is_some());
    assert_eq!(crm.fingerprint(), first);
    write_contacts(&path, 11);
    assert_ne!(crm.fingerprint(), first);
}

#[tokio::test]
async fn check_tells_what_to_mend() {
    let findings = crm_of(&cassette("plain.csv"), &["VIP"]).check().await;
    let good = told(&findings, Level::Good);
    assert!(
        good.contains("6 cards (contact 4, company 1, lead 1), UTF-8, `,`"),
        "{good}"
    );
    let warnings = told(&findings, Level::Warning);
    for expected in [
        "no column `VIP`",
        "1 cards have no phone",
        "line 7 says 109",
    ] {
        assert!(warnings.contains(expected), "{warnings}");
    }
    let findings = crm_of(&cassette("damaged_spreadsheet.csv"), &[])
        .check()
        .await;
    let warnings = told(&findings, Level::Warning);
    for expected in [
        "1 phones look like",
        "1 of 1 employees have no extension in the table: Анна",
    ] {
        assert!(warnings.contains(expected), "{warnings}");
    }
    let findings = crm_of(&cassette("not_there.csv"), &[]).check().await;
    let faults = told(&findings, Level::Fault);
    assert!(
        faults.contains("cannot read") && faults.contains("`crm.file`"),
        "{faults}"
    );
}

#[test]
fn settings_name_the_wrong_key() {
    let common = Common {
        name: CrmName::new("list"),
        wanted: Vec::new(),
        fields: Vec::new(),
        share: 0.8,
        asked_lately: false,
        state_dir: PathBuf::new(),
        config_dir: PathBuf::new(),
    };
    let cases = [
        ("", "file"),
        ("file = \"a.csv\"\nfiel = 1", "fiel"),
        ("file = \"a.csv\"\nencoding = \"koi8-r\"", "koi8-r"),
        ("file = \"\"", "file"),
    ];
    for (text, expected) in cases {
        let error = (KIND.open)(text.parse().unwrap(), common.clone())
            .err()
            .unwrap();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let full = "file = \"a.csv\"\nencoding = \"windows-1251\"\nseparator = \"tab\"";
    assert!((KIND.open)(full.parse().unwrap(), common).is_ok());
}

#[test]
fn the_example_opens_as_it_stands_and_with_every_option() {
    let every_option = KIND.example.replace("\n# encoding", "\nencoding");
    let every_option = every_option.replace("\n# separator", "\nseparator");
    for text in [KIND.example, &every_option] {
        let config: toml::Table = text.parse().unwrap();
        let mut settings = config["crm"][0].as_table().unwrap().clone();
        assert_eq!(settings.remove("kind").unwrap().as_str(), Some(KIND.name));
        settings.remove("name");
        let common = Common {
            name: CrmName::new("list"),
            wanted: Vec::new(),
            fields: Vec::new(),
            share: 0.8,
            asked_lately: false,
            state_dir: PathBuf::new(),
            config_dir: PathBuf::new(),
        };
        assert!((KIND.open)(settings, common).is_ok());
    }
}

#[test]
fn a_large_messy_base_loses_no_card() {
    let base = messy::base(5, 3_000, 500, 1_000);
    let text = base.as_csv();
    let table = read_table(text.as_bytes(), &Options::default()).unwrap();
    assert_eq!(table.summary.skipped_total, 0);
    assert_eq!(table.cards.len(), 4_500);
    let contact = &base.world.contacts[7];
    let card = table.cards.iter().find(|card| {
        card.kind == EntityKind::Contact && card.id.as_str() == contact.id.to_string()
    });
    let written: Vec<&str> = contact.phones.iter().map(|phone| phone.trim()).collect();
    let joined = written.join("\n");
    let read = card.unwrap().phones.join("\n");
    assert_eq!(
        read.trim_start_matches('\''),
        joined.trim_start_matches('\'')
    );
}
