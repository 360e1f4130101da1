//! A table of clients becomes cards and employees.
//!
//! Knows nothing of where the bytes lie and nothing of the mirror. Reads line after line: besides
//! the identifiers seen and the employees, nothing grows with the file.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Cursor, Read, Seek, SeekFrom};

use csv::StringRecord;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use roaring::RoaringTreemap;
use serde::{Deserialize, Serialize};

pub use super::columns::Meaning;
use super::columns::{Columns, kind_named, stage_named};
pub use super::summary::{Conflict, Skipped, Summary};
use super::text::{Decoded, FIELD_BYTES_MAX, Flaw, Records, Taken, fields_of, find_encoding};
use crate::record::{Card, EmployeeId, EntityId, EntityKind, Stage};

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// How exports write a time, apart from ISO 8601: Bitrix24 by the portal's region, amoCRM the first.
const TIME_FORMATS: [&str; 8] = [
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y %I:%M %p",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
];
/// How many headers an error or finding quotes.
const HEADERS_TOLD_MAX: usize = 40;

/// How a table is written, where it cannot be found out.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How the text is encoded; found by itself when left out.
    pub encoding: Option<TextEncoding>,
    /// What stands between fields; found by itself when left out.
    pub separator: Option<Separator>,
    /// Columns to take over into [`Card::fields`], by their headers.
    pub fields: Vec<String>,
}

/// An encoding that can be named in the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum TextEncoding {
    /// UTF-8.
    #[serde(rename = "utf-8")]
    Utf8,
    /// What Russian Windows programs write.
    #[serde(rename = "windows-1251")]
    Windows1251,
}

/// What may stand between fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum Separator {
    /// `;`
    #[serde(rename = ";")]
    Semicolon,
    /// `,`
    #[serde(rename = ",")]
    Comma,
    /// A tabulator.
    #[serde(rename = "tab", alias = "\t")]
    Tab,
}

impl Separator {
    const ALL: [Self; 3] = [Self::Semicolon, Self::Comma, Self::Tab];

    fn sign(self) -> char {
        match self {
            Self::Semicolon => ';',
            Self::Comma => ',',
            Self::Tab => '\t',
        }
    }
}

/// Why a file is no table of clients.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Reading failed.
    #[error("cannot read")]
    Read(#[from] io::Error),
    /// Beyond the limit.
    #[error("the file has {0} bytes, more than the {FILE_BYTES_MAX} that are read; split it")]
    TooLarge(u64),
    /// Nothing in it. Never taken for a table without clients.
    #[error("the file is empty; export it anew")]
    Empty,
    /// Something else than text in columns.
    #[error("line 1: {0}")]
    NotATable(&'static str),
    /// No word of the first line is known.
    #[error(
        "line 1: no known column name in {0}; the first line must name the columns, such as id, kind, name, company, phone, responsible, extension"
    )]
    NoHeader(String),
    /// Nobody could be found by such a table.
    #[error(
        "line {line}: no phone column found; columns are {columns}; name one of them \"phone\" (or \"телефон\")"
    )]
    NoPhoneColumn {
        /// Where the header stands.
        line: u64,
        /// The headers.
        columns: String,
    },
    /// A header and not one readable line.
    #[error("line {line}: nothing but a header: {what}; export it anew")]
    NoCards {
        /// Where the header stands.
        line: u64,
        /// How many lines were skipped and why the first one was.
        what: String,
    },
}

/// A whole table in memory.
#[derive(Debug, Clone)]
pub struct Table {
    /// The cards in the order of the lines.
    pub cards: Vec<Card>,
    /// Everything else.
    pub summary: Summary,
}

/// Reads a table that is in memory already.
pub fn read_table(bytes: &[u8], options: &Options) -> Result<Table, TableError> {
    let mut reader = TableReader::open(Cursor::new(bytes), options)?;
    let mut cards = Vec::new();
    while let Some((_, card)) = reader.next_card()? {
        cards.push(card);
    }
    Ok(Table {
        cards,
        summary: reader.summary,
    })
}

/// Reads a table card by card.
pub struct TableReader<R> {
    records: Records<Decoded<R>>,
    columns: Columns,
    fields: Vec<String>,
    header_line: u64,
    size_bytes: u64,
    record: StringRecord,
    seen: Seen,
    summary: Summary,
}

/// The identifiers so far. Numbers, as exports have them, take next to no room: ten million fit into a
/// few megabytes.
#[derive(Default)]
struct Seen {
    numbers: HashMap<EntityKind, RoaringTreemap>,
    /// Hashes of all others. Should two ever fall together, one card gets a longer identifier than it
    /// needs.
    others: HashSet<u64>,
}

impl Seen {
    /// Takes an identifier; says whether it comes for the first time.
    fn is_new(&mut self, kind: EntityKind, id: &str) -> bool {
        // `007` is another identifier than `7`.
        let number = id.parse::<u64>().ok();
        if let Some(number) = number.filter(|number| number.to_string() == id) {
            return self.numbers.entry(kind).or_default().insert(number);
        }
        let mut hasher = DefaultHasher::new();
        (kind, id).hash(&mut hasher);
        self.others.insert(hasher.finish())
    }
}

impl<R: Read + Seek> TableReader<R> {
    /// Finds out how the table is written and reads its header.
    pub fn open(mut source: R, options: &Options) -> Result<Self, TableError> {
        let size_bytes = source.seek(SeekFrom::End(0))?;
        refuse_what_is_no_text(&mut source, size_bytes)?;
        let encoding = match options.encoding {
            Some(TextEncoding::Utf8) => encoding_rs::UTF_8,
            Some(TextEncoding::Windows1251) => encoding_rs::WINDOWS_1251,
            None => find_encoding(&mut source)?,
        };
        source.seek(SeekFrom::Start(0))?;
        let mut records = Records::new(Decoded::new(source, encoding));
        let separator = find_separator(&mut records, options)?;
        records.separate_by(separator);
        let mut record = StringRecord::new();
        let Some((header_line, Taken::Whole)) = records.next(&mut record)? else {
            return Err(TableError::NotATable("the header is damaged"));
        };
        let columns = Columns::read(&record, &options.fields);
        check_header(&columns, header_line)?;
        records.expect_width(columns.width());
        let summary = Summary {
            encoding: encoding.name(),
            separator,
            columns: columns
                .iter()
                .filter_map(|(header, meaning)| Some((header.to_owned(), meaning?)))
                .collect(),
            unread: columns
                .iter()
                .filter(|(_, meaning)| meaning.is_none())
                .map(|(header, _)| header.to_owned())
                .collect(),
            ..Summary::default()
        };
        Ok(Self {
            records,
            columns,
            fields: options.fields.clone(),
            header_line,
            size_bytes,
            record,
            seen: Seen::default(),
            summary,
        })
    }

    /// The next card and the line where it begins; `None` at the end of the table.
    ///
    /// A table that ends without a single card is an error, not a table without clients.
    pub fn next_card(&mut self) -> Result<Option<(u64, Card)>, TableError> {
        while let Some((line, taken)) = self.records.next(&mut self.record)? {
            match taken {
                Taken::Flawed(flaw) => {
                    let why = told(flaw, self.columns.width());
                    self.summary.skip(line, why);
                }
                Taken::Whole => {
                    if let Some(card) = self.card(line) {
                        return Ok(Some((line, card)));
                    }
                }
            }
        }
        if self.summary.cards() == 0 {
            return Err(TableError::NoCards {
                line: self.header_line,
                what: self.what_was_skipped(),
            });
        }
        Ok(None)
    }

    /// What has been read so far.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Bytes read and bytes in all, for a progress bar.
    pub fn progress(&self) -> (u64, u64) {
        (self.records.source().bytes_read(), self.size_bytes)
    }

    fn what_was_skipped(&self) -> String {
        let first = self.summary.skipped.first();
        first.map_or_else(
            || "no lines follow".to_owned(),
            |first| {
                format!(
                    "{} lines were skipped, the first is {}: {}",
                    self.summary.skipped_total, first.line, first.why
                )
            },
        )
    }

    /// Makes a card of the record; `None` if it holds nothing that is read, as the lines do by which
    /// Bitrix24 adds a second set of requisites.
    fn card(&mut self, line: u64) -> Option<Card> {
        let has_something = self
            .columns
            .iter()
            .zip(&self.record)
            .any(|((_, meaning), value)| meaning.is_some() && !value.trim().is_empty());
        if !has_something {
            return None;
        }
        let kind = self.kind();
        let id = self.id(kind, line);
        let mut card = Card::new(kind, id);
        let value = |meaning| self.columns.value(&self.record, meaning);
        (card.name, card.company) = self.names(kind);
        card.modified = value(Meaning::Modified).and_then(read_time);
        if matches!(kind, EntityKind::Lead | EntityKind::Deal) {
            card.stage = self.stage();
        }
        for (place, field) in self.fields.iter().enumerate() {
            if let Some(text) = value(Meaning::Field(place)) {
                card.fields.insert(field.clone(), text.to_owned());
            }
        }
        card.phones = self.phones();
        card.responsible = self.responsible(line);
        *self.summary.counts.entry(kind).or_default() += 1;
        Some(card)
    }

    fn kind(&mut self) -> EntityKind {
        let Some(word) = self.columns.value(&self.record, Meaning::Kind) else {
            return self.columns.kind();
        };
        kind_named(word).unwrap_or_else(|| {
            self.summary.unknown_kinds += 1;
            self.columns.kind()
        })
    }

    /// The identifier; without one, the line's number. One that came before gets the line's number
    /// behind it: a table may well have a line for each phone, and none of them may be lost.
    fn id(&mut self, kind: EntityKind, line: u64) -> EntityId {
        let Some(id) = self.columns.value(&self.record, Meaning::Id) else {
            return if self.columns.has(Meaning::Id) {
                EntityId::new(&format!("line {line}"))
            } else {
                EntityId::from(line)
            };
        };
        if self.seen.is_new(kind, id) {
            return EntityId::new(id);
        }
        self.summary.repeated_ids += 1;
        EntityId::new(&format!("{id}#{line}"))
    }

    /// The card's name and the organisation's.
    fn names(&self, kind: EntityKind) -> (String, Option<String>) {
        let value = |meaning| self.columns.value(&self.record, meaning).map(str::to_owned);
        let person = || match (value(Meaning::FirstName), value(Meaning::LastName)) {
            // Kommo has exports whose column for the first name holds the whole one.
            (Some(first), Some(last)) if !first.ends_with(&last) => Some(format!("{first} {last}")),
            (first, last) => first.or(last),
        };
        let company = value(Meaning::Company);
        let title = value(Meaning::Title);
        let name = match kind {
            EntityKind::Company => value(Meaning::Name).or_else(|| company.clone()).or(title),
            EntityKind::Contact => value(Meaning::Name),
            EntityKind::Lead | EntityKind::Deal => title.or_else(|| value(Meaning::Name)),
        };
        let name = name.or_else(person).unwrap_or_default();
        (name, company.filter(|_| kind != EntityKind::Company))
    }

    fn stage(&self) -> Stage {
        let stage_by = |meaning| {
            self.columns
                .value(&self.record, meaning)
                .map_or(Stage::Open, stage_named)
        };
        match stage_by(Meaning::Stage) {
            Stage::Open => stage_by(Meaning::StageGroup),
            closed => closed,
        }
    }

    fn phones(&mut self) -> Vec<String> {
        let mut phones = Vec::new();
        for written in self.columns.values(&self.record, Meaning::Phone) {
            if is_ruined(written) {
                self.summary.ruined_phones += 1;
            } else {
                phones.push(written.to_owned());
            }
        }
        self.summary.without_phone += u64::from(phones.is_empty());
        phones
    }

    /// Who is responsible. An extension without a name stands for whoever has it.
    fn responsible(&mut self, line: u64) -> Option<EmployeeId> {
        let extension = self.columns.value(&self.record, Meaning::Extension);
        let responsible = self.columns.value(&self.record, Meaning::Responsible);
        let written = match (responsible, extension) {
            (Some(written), _) => written.to_owned(),
            (None, Some(extension)) => format!("ext {extension}"),
            (None, None) => return None,
        };
        self.summary.note_employee(&written, extension, line);
        Some(EmployeeId::new(&written))
    }
}

/// Says what the file is if it is a workbook, a web page or nothing at all.
fn refuse_what_is_no_text<R: Read + Seek>(source: &mut R, size: u64) -> Result<(), TableError> {
    if size > FILE_BYTES_MAX {
        return Err(TableError::TooLarge(size));
    }
    source.seek(SeekFrom::Start(0))?;
    let mut start = Vec::new();
    source.take(1024).read_to_end(&mut start)?;
    let text = String::from_utf8_lossy(&start).to_lowercase();
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let marked = start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff");
    if start.starts_with(b"PK\x03\x04") || start.starts_with(b"\xd0\xcf\x11\xe0") {
        return Err(TableError::NotATable(
            "this is an Excel workbook; save it as CSV",
        ));
    }
    if ["<!doctype", "<html", "<head", "<meta", "<table", "<?xml"]
        .iter()
        .any(|mark| text.starts_with(mark))
    {
        return Err(TableError::NotATable(
            "this is a web page (Bitrix24's export to Excel is one too, and so is a login page); export to CSV",
        ));
    }
    if !marked && start.contains(&0) {
        return Err(TableError::NotATable("this is no text; export to CSV"));
    }
    if text.is_empty() {
        return Err(TableError::Empty);
    }
    Ok(())
}

/// The separator that the settings or a first line `sep=;` name, else the one that makes the most
/// known columns of the header.
fn find_separator<R: io::BufRead>(
    records: &mut Records<R>,
    options: &Options,
) -> Result<char, TableError> {
    let first = records.peek()?.ok_or(TableError::Empty)?;
    let mut named = None;
    if let Some(rest) = first.trim().strip_prefix("sep=") {
        named = rest.chars().next();
        records.drop_lines(1);
    }
    if let Some(separator) = options.separator {
        return Ok(separator.sign());
    }
    if let Some(separator) = named {
        return Ok(separator);
    }
    let header = records.peek()?.ok_or(TableError::Empty)?;
    let best = Separator::ALL.into_iter().rev().max_by_key(|separator| {
        let fields = fields_of(header, separator.sign());
        let known = Columns::read(&fields, &options.fields).recognised();
        (known, fields.len())
    });
    Ok(best.unwrap_or(Separator::Semicolon).sign())
}

fn check_header(columns: &Columns, line: u64) -> Result<(), TableError> {
    let told = || {
        let headers: Vec<String> = columns
            .iter()
            .take(HEADERS_TOLD_MAX)
            .map(|(header, _)| format!("`{}`", header.chars().take(60).collect::<String>()))
            .collect();
        headers.join(", ")
    };
    if columns.recognised() == 0 {
        return Err(TableError::NoHeader(told()));
    }
    if !columns.has(Meaning::Phone) {
        return Err(TableError::NoPhoneColumn {
            line,
            columns: told(),
        });
    }
    Ok(())
}

fn told(flaw: Flaw, width: usize) -> String {
    match flaw {
        Flaw::LongLine => "longer than any line of a table".to_owned(),
        Flaw::LongField => format!("a field of more than {FIELD_BYTES_MAX} bytes"),
        Flaw::OpenQuote => "a quote (\") is opened and not closed".to_owned(),
        Flaw::Width(found) => format!("{found} fields where the header has {width}"),
    }
}

/// Reads a time as exports write it. They name no zone: it is taken for UTC, since only the order
/// of the changes matters.
fn read_time(cell: &str) -> Option<Timestamp> {
    if let Ok(exact) = cell.parse::<Timestamp>() {
        return Some(exact);
    }
    let read = |format| DateTime::strptime(format, cell).ok();
    let date_alone = || {
        let read = |format| jiff::civil::Date::strptime(format, cell).ok();
        let date = ["%d.%m.%Y", "%Y-%m-%d"].into_iter().find_map(read)?;
        Some(date.to_datetime(jiff::civil::Time::midnight()))
    };
    let local = TIME_FORMATS
        .into_iter()
        .find_map(read)
        .or_else(date_alone)?;
    Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Says whether a spreadsheet has rounded the number: `7,91612E+10`.
fn is_ruined(phone: &str) -> bool {
    let Some((mantissa, power)) = phone.split_once(['E', 'e', 'Е', 'е']) else {
        return false;
    };
    let is_digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let mut parts = mantissa.splitn(2, ['.', ',']);
    parts.all(is_digits) && power.strip_prefix('+').is_some_and(is_digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Table {
        read_table(text.as_bytes(), &Options::default()).unwrap()
    }

    fn fault(bytes: &[u8]) -> String {
        read_table(bytes, &Options::default())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_plain_table_becomes_cards_and_employees() {
        let table = read(
            "phone,KIND,Responsible,id,name,Company,extension\n\
             \"+7 916 123-45-67, 8 495 123-45-67\",contact,anna@example.com,17,Пётр,ООО «Ромашка»,101\n\
             8 912 000-11-22,company,Борис,18,,ИП Иванов,\n",
        );
        let first = &table.cards[0];
        assert_eq!(first.id.as_str(), "17");
        assert_eq!(first.phones, ["+7 916 123-45-67, 8 495 123-45-67"]);
        assert_eq!(first.company.as_deref(), Some("ООО «Ромашка»"));
        assert_eq!(table.cards[1].kind, EntityKind::Company);
        assert_eq!(table.cards[1].name, "ИП Иванов");
        assert_eq!(table.cards[1].company, None);
        let employees = table.summary.employees();
        assert_eq!(employees[0].email.as_deref(), Some("anna@example.com"));
        assert_eq!(employees[0].extension.as_deref(), Some("101"));
        assert_eq!(employees[1].extension, None);
    }

    #[test]
    fn an_identifier_that_comes_again_gets_its_line() {
        let written = "7,contact\n007,contact\n7,lead\nA7,contact\n7,contact\n007,contact\nA7,contact\n\
                       18446744073709551615,contact\n18446744073709551616,contact\n";
        let rows = written.lines().map(|row| format!("{row},79161234567\n"));
        let table = read(&format!("id,kind,phone\n{}", rows.collect::<String>()));
        let ids: Vec<&str> = table.cards.iter().map(|card| card.id.as_str()).collect();
        let largest = ["18446744073709551615", "18446744073709551616"];
        assert_eq!(ids[..7], ["7", "007", "7", "A7", "7#6", "007#7", "A7#8"]);
        assert_eq!(ids[7..], largest);
        assert_eq!(table.summary.repeated_ids, 3);
    }

    #[test]
    fn without_an_id_the_line_stands_for_it() {
        let table = read("phone,responsible\n1,a\n\n2,b\n");
        let ids: Vec<&str> = table.cards.iter().map(|card| card.id.as_str()).collect();
        assert_eq!(ids, ["2", "4"]);
    }

    #[test]
    fn a_line_for_each_phone_loses_none() {
        let table = read("id,phone\n7,1\n7,2\n,3\n");
        let ids: Vec<&str> = table.cards.iter().map(|card| card.id.as_str()).collect();
        assert_eq!(ids, ["7", "7#3", "line 4"]);
        assert_eq!(table.summary.repeated_ids, 1);
    }

    #[test]
    fn an_extension_alone_is_an_employee() {
        let table = read("id,phone,extension\n7,1,101\n");
        let responsible = table.cards[0].responsible.as_ref().unwrap();
        assert_eq!(responsible.as_str(), "ext 101");
        let extension = table.summary.employees()[0].extension.clone();
        assert_eq!(extension.as_deref(), Some("101"));
    }

    #[test]
    fn the_first_extension_holds_and_another_is_told() {
        let table = read("phone,responsible,extension\n1,Анна,\n2,Анна,101\n3,Анна,102\n");
        let extension = table.summary.employees()[0].extension.clone();
        assert_eq!(extension.as_deref(), Some("101"));
        let conflict = &table.summary.conflicts[0];
        assert_eq!((conflict.other.as_str(), conflict.line), ("102", 4));
    }

    #[test]
    fn bad_lines_are_counted_and_cost_nothing_else() {
        let table = read("id;phone;name\n1;a;b\n2;c\n3;d;e;f\n4;\"g;h\n5;\"i\";j\n");
        let lines: Vec<u64> = table.summary.skipped.iter().map(|skip| skip.line).collect();
        assert_eq!(lines, [3, 4, 5]);
        let ids: Vec<&str> = table.cards.iter().map(|card| card.id.as_str()).collect();
        assert_eq!(ids, ["1", "5"]);
    }

    #[test]
    fn what_is_no_table_says_what_to_do() {
        let table: [(&[u8], &str); 9] = [
            (b"", "empty"),
            (b" \r\n \n", "empty"),
            (b"\xef\xbb\xbf", "empty"),
            (b"<!DOCTYPE html><html>", "web page"),
            (b"PK\x03\x04zip", "Excel workbook"),
            (b"17;8 916 123;Anna\n", "no known column name in `17`"),
            (
                b"id;name;source phone\n",
                "line 1: no phone column found; columns are `id`, `name`",
            ),
            (b"id;phone\n", "nothing but a header: no lines follow"),
            (
                b"id;phone\n1;2;3\n",
                "1 lines were skipped, the first is 2: 3 fields",
            ),
        ];
        for (bytes, expected) in table {
            let told = fault(bytes);
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn a_spreadsheets_first_line_names_the_separator() {
        let table = read("sep=,\nid,phone\n1,2\n");
        assert_eq!(table.summary.separator, ',');
        assert_eq!(table.cards.len(), 1);
    }

    #[test]
    fn ruined_numbers_are_counted_and_left_out() {
        let table = read("id;phone\n1;7,91612E+10\n2;8 916 123-45-67 E\n");
        assert_eq!(table.summary.ruined_phones, 1);
        assert_eq!(table.cards[0].phones, Vec::<String>::new());
        assert_eq!(table.cards[1].phones.len(), 1);
    }

    #[test]
    fn times_are_read_as_exports_write_them() {
        let expected = Some("2026-11-22T15:00:00Z".parse::<Timestamp>().unwrap());
        for written in [
            "22.11.2026 15:00:00",
            "22.11.2026 15:00",
            "2026-11-22 15:00:00",
            "2026-11-22T18:00:00+03:00",
            "11/22/2026 03:00:00 pm",
            "11/22/2026 03:00 PM",
            "22/11/2026 15:00:00",
        ] {
            assert_eq!(read_time(written), expected, "{written}");
        }
        assert_eq!(read_time("вчера"), None);
    }

    #[test]
    fn asked_for_fields_are_taken_over() {
        let options = Options {
            fields: vec!["VIP".to_owned()],
            ..Options::default()
        };
        let table = read_table(b"id;phone;vip\n1;2;yes\n3;4;\n", &options).unwrap();
        assert_eq!(table.cards[0].fields["VIP"], "yes");
        assert!(table.cards[1].fields.is_empty());
    }
}
