//! The bytes of a table become records of text, however the file was written.
//!
//! Knows nothing of columns and cards. Encodings by `encoding_rs`; quoting as in RFC 4180, read
//! leniently: `"ООО "Ромашка""` loses nothing. The `csv` crate alone would not do: to it, a quote
//! that is never closed swallows the rest of the file. Here such a line is left out, and reading
//! goes on with the next.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read, Seek, SeekFrom};

use csv::StringRecord;
use encoding_rs::{Decoder, Encoding, UTF_8, WINDOWS_1251};

/// The longest line that is read; a longer one is left out.
const LINE_BYTES_MAX: usize = 1024 * 1024;
/// The longest field; a record with a longer one is left out.
pub(super) const FIELD_BYTES_MAX: usize = 64 * 1024;
/// Over how many lines one quoted record may go (an address, a comment).
const RECORD_LINES_MAX: usize = 100;
/// How many bytes are read and decoded at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Finds out how the text is encoded: by its byte order mark, else UTF-8 if every byte fits, else
/// Windows-1251. Leaves the source at its beginning.
pub(super) fn find_encoding<R: Read + Seek>(source: &mut R) -> io::Result<&'static Encoding> {
    source.seek(SeekFrom::Start(0))?;
    let found = guess_encoding(source)?;
    source.seek(SeekFrom::Start(0))?;
    Ok(found)
}

fn guess_encoding<R: Read>(source: &mut R) -> io::Result<&'static Encoding> {
    let mut unread = Vec::with_capacity(CHUNK_BYTES);
    let mut first = true;
    loop {
        let added = source.take(CHUNK_BYTES as u64).read_to_end(&mut unread)?;
        if first && let Some((encoding, _)) = Encoding::for_bom(&unread) {
            return Ok(encoding);
        }
        first = false;
        let valid = Encoding::utf8_valid_up_to(&unread);
        let left = unread.len() - valid;
        // A letter may lie across two chunks, up to three of its bytes in the first.
        if left > 3 || (added == 0 && left > 0) {
            return Ok(WINDOWS_1251);
        }
        if added == 0 {
            return Ok(UTF_8);
        }
        unread.drain(..valid);
    }
}

/// A source of bytes in any encoding, read as UTF-8; a byte order mark is taken away.
pub(super) struct Decoded<R> {
    source: R,
    decoder: Decoder,
    raw: Vec<u8>,
    text: Vec<u8>,
    given: usize,
    ended: bool,
    bytes_read: u64,
}

impl<R: Read> Decoded<R> {
    /// Reads `source`, which stands at its beginning.
    pub(super) fn new(source: R, encoding: &'static Encoding) -> Self {
        Self {
            source,
            decoder: encoding.new_decoder(),
            raw: vec![0; CHUNK_BYTES],
            text: Vec::new(),
            given: 0,
            ended: false,
            bytes_read: 0,
        }
    }

    /// How many bytes of the source have been read.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    fn decode_more(&mut self) -> io::Result<()> {
        let count = match self.source.read(&mut self.raw) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        };
        self.ended = count == 0;
        self.bytes_read += count as u64;
        let room = self.decoder.max_utf8_buffer_length(count);
        self.text.resize(room.unwrap_or(4 * CHUNK_BYTES), 0);
        let raw = self.raw.get(..count).unwrap_or_default();
        let (_, _, written, _) = self.decoder.decode_to_utf8(raw, &mut self.text, self.ended);
        self.text.truncate(written);
        self.given = 0;
        Ok(())
    }
}

impl<R: Read> BufRead for Decoded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.given >= self.text.len() && !self.ended {
            self.decode_more()?;
        }
        Ok(self.text.get(self.given..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.given += count;
    }
}

impl<R: Read> Read for Decoded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut ready = self.fill_buf()?;
        let count = ready.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// Why a record was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// A line beyond [`LINE_BYTES_MAX`].
    LongLine,
    /// A field beyond [`FIELD_BYTES_MAX`].
    LongField,
    /// A quote that is never closed.
    OpenQuote,
    /// So many fields where the header has another number.
    Width(usize),
}

/// A record, whole or flawed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is in the record that was handed in.
    Whole,
    /// It was left out.
    Flawed(Flaw),
}

/// A line of the file without its end; `None` if it was too long to keep.
type Line = Option<String>;

/// Records out of lines.
pub(super) struct Records<R> {
    source: R,
    ahead: VecDeque<Line>,
    separator: char,
    width: Option<usize>,
    lines_taken: u64,
}

impl<R: BufRead> Records<R> {
    /// Reads from `source`; the separator is a comma until told.
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            ahead: VecDeque::new(),
            separator: ',',
            width: None,
            lines_taken: 0,
        }
    }

    /// The source underneath.
    pub(super) fn source(&self) -> &R {
        &self.source
    }

    /// Sets what stands between fields.
    pub(super) fn separate_by(&mut self, separator: char) {
        self.separator = separator;
    }

    /// From here on a record has so many fields; empty ones may follow them.
    pub(super) fn expect_width(&mut self, width: usize) {
        self.width = Some(width);
    }

    /// The first line that is not blank, still to be taken. `None` at the end of the file, and if
    /// that line is too long to be one of a table.
    pub(super) fn peek(&mut self) -> io::Result<Option<&str>> {
        while self.fill(1)? {
            if !matches!(self.ahead.front(), Some(Some(line)) if line.trim().is_empty()) {
                break;
            }
            self.drop_lines(1);
        }
        Ok(self.ahead.front().and_then(|line| line.as_deref()))
    }

    /// Takes so many lines away.
    pub(super) fn drop_lines(&mut self, count: usize) {
        let count = count.min(self.ahead.len());
        self.ahead.drain(..count);
        self.lines_taken += count as u64;
    }

    /// Reads the next record into `record`; blank lines are passed over.
    ///
    /// Tells the number of its first line, from 1. `None` at the end of the file.
    pub(super) fn next(&mut self, record: &mut StringRecord) -> io::Result<Option<(u64, Taken)>> {
        loop {
            if !self.fill(1)? {
                return Ok(None);
            }
            let line_number = self.lines_taken + 1;
            let (lines, taken) = self.assemble(record)?;
            self.drop_lines(lines);
            let blank = taken == Taken::Whole && record.iter().all(|field| field.trim().is_empty());
            if !blank {
                return Ok(Some((line_number, taken)));
            }
        }
    }

    /// Reads the record that begins with the line in front; tells how many lines it used up.
    ///
    /// Quotes are first read by the book, then as people write them, within one line.
    fn assemble(&mut self, record: &mut StringRecord) -> io::Result<(usize, Taken)> {
        let Some(Some(line)) = self.ahead.front() else {
            return Ok((1, Taken::Flawed(Flaw::LongLine)));
        };
        let by_the_book = split(line, self.separator, Quotes::Doubled, record);
        match by_the_book {
            Split::LongField => return Ok((1, Taken::Flawed(Flaw::LongField))),
            Split::Whole if self.fits(record) => return Ok((1, Taken::Whole)),
            Split::Open => {
                if let Some(whole) = self.assemble_lines(record)? {
                    return Ok(whole);
                }
            }
            Split::Whole | Split::Stray => {}
        }
        let Some(Some(line)) = self.ahead.front() else {
            return Ok((1, Taken::Flawed(Flaw::LongLine)));
        };
        for quotes in [Quotes::Stray, Quotes::Eager] {
            if split(line, self.separator, quotes, record) == Split::Whole && self.fits(record) {
                return Ok((1, Taken::Whole));
            }
        }
        let flaw = match by_the_book {
            Split::Whole => Flaw::Width(fields_of(line, self.separator).len()),
            _ => Flaw::OpenQuote,
        };
        Ok((1, Taken::Flawed(flaw)))
    }

    /// Reads a record with a quoted field over several lines, strictly: a quote too many must not
    /// swallow the lines behind it. `None` if there is no such record.
    fn assemble_lines(&mut self, record: &mut StringRecord) -> io::Result<Option<(usize, Taken)>> {
        let mut joined = self.ahead.front().cloned().flatten().unwrap_or_default();
        for lines in 2..=RECORD_LINES_MAX {
            if joined.len() > LINE_BYTES_MAX || !self.fill(lines)? {
                return Ok(None);
            }
            let Some(Some(next)) = self.ahead.get(lines - 1) else {
                return Ok(None);
            };
            joined.push('\n');
            joined.push_str(next);
            match split(&joined, self.separator, Quotes::Doubled, record) {
                Split::Whole if self.fits(record) => return Ok(Some((lines, Taken::Whole))),
                Split::LongField => {
                    return Ok(Some((lines, Taken::Flawed(Flaw::LongField))));
                }
                Split::Whole | Split::Stray => return Ok(None),
                Split::Open => {}
            }
        }
        Ok(None)
    }

    /// Says whether a record has as many fields as the header. Empty ones may follow.
    fn fits(&self, record: &StringRecord) -> bool {
        let blank = record.len() == 1 && record.iter().all(|field| field.trim().is_empty());
        self.width.is_none_or(|width| {
            let surplus = record.iter().skip(width).any(|field| !field.is_empty());
            blank || (record.len() >= width && !surplus)
        })
    }

    /// Reads until `count` lines lie ready; false if the file has fewer.
    fn fill(&mut self, count: usize) -> io::Result<bool> {
        while self.ahead.len() < count {
            match read_line(&mut self.source)? {
                Some(line) => self.ahead.push_back(line),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// Reads one line; `None` at the end of the file.
fn read_line<R: BufRead>(source: &mut R) -> io::Result<Option<Line>> {
    let mut bytes = Vec::new();
    let limit = LINE_BYTES_MAX as u64 + 1;
    if source.take(limit).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    } else if bytes.len() > LINE_BYTES_MAX {
        source.skip_until(b'\n')?;
        return Ok(Some(None));
    }
    Ok(Some(Some(String::from_utf8(bytes).unwrap_or_else(
        |error| String::from_utf8_lossy(error.as_bytes()).into_owned(),
    ))))
}

/// How quotes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// A quote inside quotes is doubled, as RFC 4180 wants it.
    Doubled,
    /// A quote inside quotes may also stand alone: `"ООО "Ромашка" и Ко"`.
    Stray,
    /// Any quote before a separator closes the field: `"ООО "Ромашка""`.
    Eager,
}

/// How splitting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Split {
    /// All fields are in the record.
    Whole,
    /// The text ended inside quotes.
    Open,
    /// A quote inside quotes stands alone.
    Stray,
    /// A field beyond [`FIELD_BYTES_MAX`].
    LongField,
}

/// Splits one record into fields.
fn split(text: &str, separator: char, quotes: Quotes, record: &mut StringRecord) -> Split {
    record.clear();
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (length, after) = if let Some(body) = rest.strip_prefix('"') {
            field.clear();
            let after = match quoted(body, separator, quotes, &mut field) {
                Ok(after) => after,
                Err(flaw) => return flaw,
            };
            record.push_field(&field);
            (field.len(), after)
        } else {
            let (bare, after) = rest.split_at(rest.find(separator).unwrap_or(rest.len()));
            record.push_field(bare);
            (bare.len(), after)
        };
        if length > FIELD_BYTES_MAX {
            return Split::LongField;
        }
        match after.strip_prefix(separator) {
            Some(next) => rest = next,
            None => return Split::Whole,
        }
    }
}

/// Reads a quoted field behind its opening quote into `field`; gives what follows the closing one.
fn quoted<'a>(
    mut body: &'a str,
    separator: char,
    quotes: Quotes,
    field: &mut String,
) -> Result<&'a str, Split> {
    loop {
        let (before, after) = body.split_once('"').ok_or(Split::Open)?;
        field.push_str(before);
        let closes = |text: &str| text.is_empty() || text.starts_with(separator);
        let behind = after.trim_start_matches(' ');
        if closes(behind) {
            return Ok(behind);
        }
        field.push('"');
        body = match after.strip_prefix('"') {
            Some(behind_both) if quotes == Quotes::Eager && closes(behind_both) => {
                return Ok(behind_both);
            }
            Some(behind_both) => behind_both,
            None if quotes == Quotes::Doubled => return Err(Split::Stray),
            None => after,
        };
    }
}

/// The fields of one line alone, for a first look at a header.
pub(super) fn fields_of(line: &str, separator: char) -> StringRecord {
    let mut record = StringRecord::new();
    split(line, separator, Quotes::Stray, &mut record);
    record
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn read_all(text: &str, separator: char, width: Option<usize>) -> Vec<(u64, String)> {
        let mut records = Records::new(Cursor::new(text.as_bytes()));
        records.separate_by(separator);
        if let Some(width) = width {
            records.expect_width(width);
        }
        let mut record = StringRecord::new();
        let mut all = Vec::new();
        while let Some((line, taken)) = records.next(&mut record).unwrap() {
            let fields: Vec<&str> = record.iter().collect();
            all.push(match taken {
                Taken::Whole => (line, fields.join("|")),
                Taken::Flawed(flaw) => (line, format!("{flaw:?}")),
            });
        }
        all
    }

    #[test]
    fn records_are_split_as_people_write_them() {
        let table = [
            ("a;b;c", "a|b|c", "plain"),
            ("\"a\";\"b\";\"\"", "a|b|", "all quoted, the last one empty"),
            ("\"a;b\";c;", "a;b|c|", "separator inside quotes"),
            ("\"say \"\"hi\"\"\";b;c", "say \"hi\"|b|c", "doubled quotes"),
            (
                "\"ООО \"Ромашка\"\";b;c",
                "ООО \"Ромашка\"|b|c",
                "quotes not doubled",
            ),
            (
                "ООО \"Ромашка\";b;c",
                "ООО \"Ромашка\"|b|c",
                "quotes inside a bare field",
            ),
            (
                "\"a\" ;\"b\"  ;c",
                "a|b|c",
                "blanks behind the closing quote",
            ),
            (
                "a;b;c;",
                "a|b|c|",
                "Bitrix24 ends every line with a separator",
            ),
        ];
        for (line, expected, why) in table {
            let read = read_all(line, ';', Some(3));
            assert_eq!(read, [(1, expected.to_owned())], "{why}");
        }
    }

    #[test]
    fn a_cell_may_go_over_several_lines() {
        let read = read_all("1;\"Москва,\r\nТверская\";x\r\n2;b;c\r\n", ';', Some(3));
        assert_eq!(
            read,
            [(1, "1|Москва,\nТверская|x".into()), (3, "2|b|c".into())]
        );
    }

    #[test]
    fn an_open_quote_costs_one_line() {
        let read = read_all("1;\"a;c\n2;\"b\";c\n3;b;c\n", ';', Some(3));
        assert_eq!(
            read,
            [
                (1, "OpenQuote".into()),
                (2, "2|b|c".into()),
                (3, "3|b|c".into())
            ]
        );
    }

    #[test]
    fn too_long_lines_and_fields_are_left_out() {
        let long_line = "x".repeat(LINE_BYTES_MAX + 10);
        let long_field = "y".repeat(FIELD_BYTES_MAX + 1);
        let text = format!("a,b\n{long_line}\n{long_field},b\nc,d\n");
        let read = read_all(&text, ',', Some(2));
        assert_eq!(
            read,
            [
                (1, "a|b".into()),
                (2, "LongLine".into()),
                (3, "LongField".into()),
                (4, "c|d".into())
            ]
        );
    }

    #[test]
    fn encodings_are_found() {
        let (cyrillic, _, _) = WINDOWS_1251.encode("ид;имя\n1;Пётр\n");
        let utf16: Vec<u8> = "\u{feff}ид"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let long = format!("{}я", "a".repeat(CHUNK_BYTES - 1));
        let table: [(&[u8], &Encoding); 6] = [
            ("ид".as_bytes(), UTF_8),
            (b"\xef\xbb\xbfid", UTF_8),
            (&cyrillic, WINDOWS_1251),
            (&utf16, encoding_rs::UTF_16LE),
            (long.as_bytes(), UTF_8),
            (b"abc\xd0", WINDOWS_1251),
        ];
        for (bytes, expected) in table {
            let mut source = Cursor::new(bytes);
            assert_eq!(find_encoding(&mut source).unwrap(), expected);
            let mut text = String::new();
            Decoded::new(source, expected)
                .read_to_string(&mut text)
                .unwrap();
            assert!(!text.starts_with('\u{feff}'));
        }
    }

    proptest! {
        #[test]
        fn what_the_csv_crate_writes_is_read_back(
            rows in prop::collection::vec(prop::collection::vec("[a-я\";, \\n]{0,8}", 3), 1..8),
        ) {
            let mut writer = csv::WriterBuilder::new()
                .delimiter(b';')
                .quote_style(csv::QuoteStyle::Always)
                .from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let written = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            let expected: Vec<String> = rows
                .iter()
                .filter(|row| row.iter().any(|field| !field.trim().is_empty()))
                .map(|row| row.join("|"))
                .collect();
            let read: Vec<String> = read_all(&written, ';', Some(3))
                .into_iter()
                .map(|(_, fields)| fields)
                .collect();
            prop_assert_eq!(read, expected);
        }
    }
}
