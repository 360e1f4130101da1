//! Lines of an Asterisk CDR file -> rows.
//!
//! Facts: Asterisk's `cdr_csv.c` (Master.csv, no header), `cdr_custom.c`, the columns of FreePBX's
//! `asteriskcdrdb.cdr`. Each line is read by itself: a quote that never ends spoils its own line and
//! no other.

use std::io::{self, BufRead, Read as _};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A longer line is no CDR.
const LONGEST_LINE: u64 = 64 * 1024;
/// Master.csv has so many columns at least.
const MASTER_COLUMNS: usize = 16;
/// The columns of Master.csv in their order.
const MASTER: [&str; MASTER_COLUMNS] = [
    "accountcode",
    "src",
    "dst",
    "dcontext",
    "clid",
    "channel",
    "dstchannel",
    "lastapp",
    "lastdata",
    "start",
    "answer",
    "end",
    "duration",
    "billsec",
    "disposition",
    "amaflags",
];
/// What `newcdrcolumns` puts behind them and behind `uniqueid` and `userfield`.
const MASTER_NEW: [&str; 3] = ["peeraccount", "linkedid", "sequence"];

/// One leg of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// When it began.
    pub start: Timestamp,
    /// The caller's number.
    pub src: String,
    /// The extension that the dialplan ran last.
    pub dst: String,
    /// The caller's channel.
    pub channel: String,
    /// The channel that was rung.
    pub dstchannel: String,
    /// Whether somebody or something answered.
    pub answered: bool,
    /// This leg.
    pub uniqueid: String,
    /// The call, one for all its legs.
    pub linkedid: String,
    /// The number dialled, where a column has it.
    pub did: String,
    /// FreePBX: the caller's number before an outgoing route replaced it.
    pub cnum: String,
    /// FreePBX: the number that an outgoing call shows.
    pub outbound_cnum: String,
}

/// What a line turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// A leg.
    Row(Box<Row>),
    /// The header, or nothing at all.
    Nothing,
    /// No leg can be read from it.
    Damaged,
    /// The file is over.
    End,
}

/// Why a file cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// `--did-column` names what is not there.
    #[error("`--did-column {0}`: there is no such column; there is {1}")]
    DidColumn(String, String),
    /// The file cannot be read.
    #[error("cannot read the file")]
    Read(#[from] io::Error),
}

/// Where the columns are.
#[derive(Debug, Clone)]
enum Layout {
    /// As the first line names them.
    Header(Vec<String>),
    /// Master.csv: as many as the line has.
    Master,
}

/// Reads a file line by line.
pub struct Reader<R> {
    source: R,
    layout: Option<Layout>,
    delimiter: u8,
    did_column: Option<String>,
    zone: TimeZone,
    line: Vec<u8>,
    /// Lines read so far.
    pub lines: u64,
    /// Bytes read so far.
    pub bytes: u64,
}

impl<R: BufRead> Reader<R> {
    /// Reads `source`, whose times are by the clock of `zone`.
    ///
    /// `did_column` is a column's name or its number, counted from 1.
    pub fn new(source: R, did_column: Option<String>, zone: TimeZone) -> Self {
        Self {
            source,
            layout: None,
            delimiter: b',',
            did_column: did_column.map(|name| name.trim().to_lowercase()),
            zone,
            line: Vec::new(),
            lines: 0,
            bytes: 0,
        }
    }

    /// Reads the next line.
    pub fn read(&mut self) -> Result<Read, LayoutError> {
        self.line.clear();
        let mut bounded = (&mut self.source).take(LONGEST_LINE);
        let count = bounded.read_until(b'\n', &mut self.line)? as u64;
        if count == 0 {
            return Ok(Read::End);
        }
        self.lines += 1;
        self.bytes += count;
        if count == LONGEST_LINE && !self.line.ends_with(b"\n") {
            self.bytes += skip_line(&mut self.source)?;
            return Ok(Read::Damaged);
        }
        let text = String::from_utf8_lossy(&self.line).into_owned();
        let text = text.trim_start_matches('\u{feff}').trim_end();
        if text.is_empty() {
            return Ok(Read::Nothing);
        }
        if self.layout.is_none() {
            self.delimiter = delimiter(text);
            let fields = split(text, self.delimiter);
            let names: Vec<String> = fields.iter().map(|field| name_of(field)).collect();
            let has = |name: &str| names.iter().any(|known| known == name);
            if has("start") && has("src") {
                self.check_did_column(&names)?;
                self.layout = Some(Layout::Header(names));
                return Ok(Read::Nothing);
            }
            self.layout = Some(Layout::Master);
        }
        let fields = split(text, self.delimiter);
        Ok(self
            .row(&fields)
            .map_or(Read::Damaged, |row| Read::Row(Box::new(row))))
    }

    fn check_did_column(&self, names: &[String]) -> Result<(), LayoutError> {
        match &self.did_column {
            Some(wanted) if place(wanted, names).is_none() => {
                Err(LayoutError::DidColumn(wanted.clone(), names.join(", ")))
            }
            _ => Ok(()),
        }
    }

    /// A leg from the fields of a line; `None` if it has too few or no time.
    fn row(&self, fields: &[String]) -> Option<Row> {
        let master;
        let names = match self.layout.as_ref()? {
            // One more may come from a comma that somebody forgot to quote: then nothing is sure.
            Layout::Header(names) if fields.len() == names.len() => names,
            Layout::Header(_) => return None,
            Layout::Master => {
                master = master_names(fields)?;
                &master
            }
        };
        let get = |name: &str| {
            let index = names.iter().position(|known| known == name)?;
            let text = fields.get(index)?.trim();
            (!matches!(text, "\\N" | "NULL")).then(|| text.to_owned())
        };
        let text = |name: &str| get(name).unwrap_or_default();
        let start = read_time(&text("start"), &self.zone)?;
        let did = match &self.did_column {
            None => text("did"),
            Some(wanted) => place(wanted, names)
                .and_then(|index| fields.get(index))
                .map(|field| field.trim().to_owned())
                .unwrap_or_default(),
        };
        let src = Some(text("src")).filter(|src| !src.is_empty());
        Some(Row {
            start,
            src: src.unwrap_or_else(|| number_of(&text("clid"))),
            dst: text("dst"),
            channel: text("channel"),
            dstchannel: text("dstchannel"),
            answered: text("disposition").eq_ignore_ascii_case("ANSWERED"),
            uniqueid: text("uniqueid"),
            linkedid: text("linkedid"),
            did,
            cnum: text("cnum"),
            outbound_cnum: text("outbound_cnum"),
        })
    }
}

/// The rest of a line that is too long.
fn skip_line(source: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = source.fill_buf()?;
        if buffer.is_empty() {
            return Ok(skipped);
        }
        let end = memchr::memchr(b'\n', buffer);
        let count = end.map_or(buffer.len(), |end| end + 1);
        source.consume(count);
        skipped += count as u64;
        if end.is_some() {
            return Ok(skipped);
        }
    }
}

/// The sign between fields, by the first line.
fn delimiter(line: &str) -> u8 {
    let count = |sign: u8| line.bytes().filter(|byte| *byte == sign).count();
    let signs = [b',', b';', b'\t'];
    // The first one wins a draw.
    let most = signs.into_iter().rev().max_by_key(|sign| count(*sign));
    most.unwrap_or(b',')
}

fn split(line: &str, delimiter: u8) -> Vec<String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .buffer_capacity(line.len() + 1)
        .from_reader(line.as_bytes());
    let mut record = csv::StringRecord::new();
    match reader.read_record(&mut record) {
        Ok(true) => record.iter().map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// A header's word as this module names the column.
fn name_of(written: &str) -> String {
    let name = written.trim().trim_matches('`').to_lowercase();
    match name.as_str() {
        "calldate" | "start time" | "start_time" => "start".to_owned(),
        "source" => "src".to_owned(),
        "destination" => "dst".to_owned(),
        _ => name,
    }
}

/// The columns of a line of Master.csv, by how many it has.
///
/// `uniqueid` and `userfield` are there where the configuration wants them; of a single one its look
/// tells which it is.
fn master_names(fields: &[String]) -> Option<Vec<String>> {
    let mut names: Vec<&str> = MASTER.to_vec();
    let one = match fields.get(MASTER_COLUMNS) {
        Some(field) if is_uniqueid(field) => "uniqueid",
        _ => "userfield",
    };
    let (middle, end): (&[&str], &[&str]) = match fields.len().checked_sub(MASTER_COLUMNS)? {
        0 => (&[], &[]),
        1 => (&[one], &[]),
        2 => (&["uniqueid", "userfield"], &[]),
        3 => (&[], &MASTER_NEW),
        4 => (&[one], &MASTER_NEW),
        5 => (&["uniqueid", "userfield"], &MASTER_NEW),
        _ => return None,
    };
    names.extend(middle);
    names.extend(end);
    Some(names.into_iter().map(str::to_owned).collect())
}

/// `1795347631.12`, or with a system's name in front.
fn is_uniqueid(text: &str) -> bool {
    let bare = text.rsplit('-').next().unwrap_or_default();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    bare.split_once('.').is_some_and(|(seconds, count)| {
        seconds.len() >= 9 && is_number(seconds) && is_number(count)
    })
}

fn place(wanted: &str, names: &[String]) -> Option<usize> {
    let wanted = name_of(wanted);
    let by_name = names.iter().position(|name| *name == wanted);
    let by_number = || {
        let number = wanted.parse::<usize>().ok()?.checked_sub(1)?;
        (number < names.len()).then_some(number)
    };
    by_name.or_else(by_number)
}

/// A time as CDR files write it, by the office's clock unless an offset stands behind it.
fn read_time(written: &str, zone: &TimeZone) -> Option<Timestamp> {
    if let Ok(timestamp) = written.parse::<Timestamp>() {
        return Some(timestamp);
    }
    let forms = ["%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%Y/%m/%d %H:%M:%S"];
    let civil = written.parse::<DateTime>().ok().or_else(|| {
        forms
            .iter()
            .find_map(|form| DateTime::strptime(form, written).ok())
    })?;
    // A date alone is the header of something else.
    if written.len() < "2026-11-22 15:00".len() {
        return None;
    }
    civil
        .to_zoned(zone.clone())
        .ok()
        .map(|zoned| zoned.timestamp())
}

/// The number in `"name" <number>`.
fn number_of(clid: &str) -> String {
    let inside = clid.rsplit_once('<').map(|(_, rest)| rest);
    let number = inside.and_then(|rest| rest.split('>').next());
    number.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &str, did: Option<&str>) -> Vec<Read> {
        let did = did.map(str::to_owned);
        let mut reader = Reader::new(text.as_bytes(), did, TimeZone::UTC);
        let mut all = Vec::new();
        loop {
            match reader.read().unwrap() {
                Read::End => return all,
                read => all.push(read),
            }
        }
    }

    fn rows(text: &str, did: Option<&str>) -> Vec<Row> {
        let read = read_all(text, did).into_iter();
        read.filter_map(|read| match read {
            Read::Row(row) => Some(*row),
            _ => None,
        })
        .collect()
    }

    const MASTER_LINE: &str = r#""","79161234501","101","from-trunk","""Иван"" <79161234501>","PJSIP/trunk-00000001","PJSIP/101-00000002","Dial","PJSIP/101,20","2026-11-20 10:00:00","2026-11-20 10:00:05","2026-11-20 10:01:00",60,55,"ANSWERED","DOCUMENTATION""#;

    #[test]
    fn master_csv_is_read_with_and_without_its_optional_columns() {
        for (end, uniqueid, linkedid) in [
            ("", "", ""),
            (r#","1795347631.12""#, "1795347631.12", ""),
            (r#","74951234567""#, "", ""),
            (
                r#","pbx-1795347631.12","74951234567""#,
                "pbx-1795347631.12",
                "",
            ),
            (r#","","1795347631.11",7"#, "", "1795347631.11"),
            (
                r#","1795347631.12","74951234567","","1795347631.11",7"#,
                "1795347631.12",
                "1795347631.11",
            ),
        ] {
            let rows = rows(&format!("{MASTER_LINE}{end}\n"), None);
            let row = rows.first().unwrap();
            assert_eq!(row.src, "79161234501", "{end}");
            assert_eq!(row.dstchannel, "PJSIP/101-00000002", "{end}");
            assert_eq!(row.start.to_string(), "2026-11-20T10:00:00Z", "{end}");
            assert!(row.answered, "{end}");
            assert_eq!(row.uniqueid, uniqueid, "{end}");
            assert_eq!(row.linkedid, linkedid, "{end}");
        }
        let line = format!("{MASTER_LINE},\"1795347631.12\",\"74951234567\"\n");
        for column in ["userfield", "18"] {
            assert_eq!(rows(&line, Some(column))[0].did, "74951234567");
        }
    }

    #[test]
    fn an_exported_table_is_read_by_its_header() {
        let text = "\u{feff}`calldate`;clid;src;dst;disposition;did;linkedid\n\
            2026-11-20 10:00:00;\"Иван\" <79161234501>;;101;ANSWERED;74951234567;1.1\n\
            20.11.2026 10:00:00;;79161234502;101;NO ANSWER;\\N;NULL\n";
        let rows = rows(text, None);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].src, "79161234501", "from clid");
        assert_eq!(rows[0].did, "74951234567");
        assert_eq!(rows[0].start, rows[1].start);
        assert_eq!((rows[1].did.as_str(), rows[1].linkedid.as_str()), ("", ""));
        assert!(!rows[1].answered);
    }

    #[test]
    fn a_damaged_line_spoils_no_other() {
        let long = "x".repeat(usize::try_from(LONGEST_LINE).unwrap() * 3);
        let text = format!(
            "{MASTER_LINE}\n\"\",\"7916,\"unclosed\n{long}\n\n,,,\n{}\n{MASTER_LINE}\n",
            MASTER_LINE.replace("2026-11-20 10:00:00", "yesterday")
        );
        let read = read_all(&text, None);
        let damaged = read.iter().filter(|read| **read == Read::Damaged).count();
        assert_eq!(damaged, 4);
        assert_eq!(rows(&text, None).len(), 2);
    }

    #[test]
    fn a_did_column_that_is_not_there_is_told() {
        let text = "calldate,src,dst\n";
        let mut reader = Reader::new(text.as_bytes(), Some("trunk".to_owned()), TimeZone::UTC);
        let error = reader.read().unwrap_err().to_string();
        assert!(error.contains("trunk") && error.contains("dst"), "{error}");
    }
}
