//! Asterisk's CDR file -> talks: from its beginning, and as it grows.

use std::fs::File;
use std::io::{BufReader, Cursor, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use jiff::tz::TimeZone;

use super::Talks;
use crate::call::ExtensionPattern;
use crate::cdr::{Read, Reader, Row};
use crate::phone::{CallerNumber, E164, Region, read_caller};
use crate::presence::{Direction, Talk};

/// Between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Read at once.
const CHUNK_BYTES: u64 = 4 << 20;
/// Of a longer file only the end is read: what was talked before is long ago.
const LONGEST_HISTORY: u64 = 512 << 20;

/// How the lines of the file are read.
#[derive(Debug, Clone)]
pub struct Reading {
    /// `talks.cdr`.
    pub path: PathBuf,
    /// Which digits make an extension.
    pub pattern: ExtensionPattern,
    /// How numbers without a country code are read.
    pub region: Region,
    /// By whose clock the file's times are.
    pub zone: TimeZone,
}

/// Follows the file on a thread of its own, until what is given back is dropped.
pub fn follow(reading: Reading, talks: Arc<Talks>) -> std::io::Result<mpsc::Sender<()>> {
    let (stop, ended) = mpsc::channel();
    let mut history = History::new(reading);
    std::thread::Builder::new()
        .name("cdr".to_owned())
        .spawn(move || {
            loop {
                history.read_on(&talks);
                if ended.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
    Ok(stop)
}

/// How far the file is read.
struct History {
    reading: Reading,
    /// Another file under the same name begins anew.
    inode: u64,
    read_bytes: u64,
    /// The first line, where it names the columns.
    header: Vec<u8>,
    is_told: bool,
}

impl History {
    fn new(reading: Reading) -> Self {
        Self {
            reading,
            inode: 0,
            read_bytes: 0,
            header: Vec::new(),
            is_told: false,
        }
    }

    /// Reads what has come since; a fault is told once and tried again at the next look.
    fn read_on(&mut self, talks: &Talks) {
        match self.read_new(talks) {
            Ok(()) => self.is_told = false,
            Err(error) if !self.is_told => {
                self.is_told = true;
                let file = self.reading.path.display();
                tracing::warn!(%error, %file, "talks are not learned from the CDR file (`talks.cdr`)");
            }
            Err(_) => {}
        }
    }

    fn read_new(&mut self, talks: &Talks) -> std::io::Result<()> {
        let mut file = File::open(&self.reading.path)?;
        let metadata = file.metadata()?;
        if metadata.ino() != self.inode || metadata.len() < self.read_bytes {
            self.inode = metadata.ino();
            self.header = header(&self.reading.path)?;
            self.read_bytes = metadata.len().saturating_sub(LONGEST_HISTORY);
        }
        while self.read_bytes < metadata.len() {
            file.seek(SeekFrom::Start(self.read_bytes))?;
            let mut chunk = Vec::new();
            (&file).take(CHUNK_BYTES).read_to_end(&mut chunk)?;
            // A line that is being written is read when it is whole.
            let Some(end) = memchr::memrchr(b'\n', &chunk) else {
                return Ok(());
            };
            chunk.truncate(end + 1);
            self.read_bytes += chunk.len() as u64;
            self.learn(&chunk, talks);
        }
        Ok(())
    }

    fn learn(&self, lines: &[u8], talks: &Talks) {
        let source = Cursor::new(&self.header).chain(Cursor::new(lines));
        let mut reader = Reader::new(BufReader::new(source), None, self.reading.zone.clone());
        loop {
            match reader.read() {
                Ok(Read::Row(row)) => {
                    if let Some((caller, talk)) = talk_of(&row, &self.reading) {
                        talks.learn(caller, talk);
                    }
                }
                Ok(Read::Nothing | Read::Damaged) => {}
                Ok(Read::End) | Err(_) => return,
            }
        }
    }
}

/// The first line if it names columns; nothing for Master.csv, which has none.
fn header(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::BufRead as _;
    let mut line = Vec::new();
    let mut bounded = BufReader::new(File::open(path)?).take(64 * 1024);
    bounded.read_until(b'\n', &mut line)?;
    let text = String::from_utf8_lossy(&line).to_lowercase();
    let names = |word: &str| text.contains(word);
    let is_header = names("channel") && names("src") && !names("sip/");
    Ok(if is_header { line } else { Vec::new() })
}

/// Who spoke with whom; `None` for legs that nobody answered, between employees, and inner ones.
fn talk_of(row: &Row, reading: &Reading) -> Option<(E164, Talk)> {
    if !row.answered {
        return None;
    }
    let extension_of = |channel: &str| super::super::ami::extension_of(channel, &reading.pattern);
    let from = extension_of(&row.channel);
    let to = extension_of(&row.dstchannel);
    let (extension, other, direction) = match (from, to) {
        (None, Some(extension)) => (extension, &row.src, Direction::Incoming),
        (Some(extension), None) if !row.dstchannel.is_empty() => {
            (extension, &row.dst, Direction::Outgoing)
        }
        _ => return None,
    };
    match read_caller(other, reading.region) {
        CallerNumber::Number(number) => Some((
            number,
            Talk {
                extension,
                at: row.start,
                direction,
            },
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn number(written: &str) -> E164 {
        match read_caller(written, Region::default()) {
            CallerNumber::Number(number) => number,
            other => panic!("{other:?}"),
        }
    }

    fn leg(
        src: &str,
        dst: &str,
        channel: &str,
        dstchannel: &str,
        start: &str,
        how: &str,
    ) -> String {
        format!(
            "\"\",\"{src}\",\"{dst}\",\"from-internal\",\"\"\"x\"\" <{src}>\",\"{channel}\",\"{dstchannel}\",\"Dial\",\"x\",\"{start}\",\"{start}\",\"{start}\",60,55,\"{how}\",\"DOCUMENTATION\",\"1795347631.12\",\"\"\n"
        )
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one file through its life")]
    fn the_file_is_read_from_its_beginning_and_as_it_grows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Master.csv");
        let lines = [
            leg(
                "79161234567",
                "101",
                "PJSIP/trunk-01",
                "PJSIP/101-02",
                "2026-11-20 10:00:00",
                "ANSWERED",
            ),
            leg(
                "79161234567",
                "102",
                "PJSIP/trunk-01",
                "PJSIP/102-02",
                "2026-11-20 11:00:00",
                "NO ANSWER",
            ),
            leg(
                "103",
                "89161234568",
                "PJSIP/103-01",
                "PJSIP/trunk-02",
                "2026-11-20 12:00:00",
                "ANSWERED",
            ),
            leg(
                "103",
                "104",
                "PJSIP/103-01",
                "PJSIP/104-02",
                "2026-11-20 12:30:00",
                "ANSWERED",
            ),
        ];
        std::fs::write(&path, lines.concat()).unwrap();
        let reading = Reading {
            path: path.clone(),
            pattern: ExtensionPattern::default(),
            region: Region::default(),
            zone: TimeZone::get("Europe/Moscow").unwrap(),
        };
        let talks = Talks::in_memory();
        let mut history = History::new(reading);
        history.read_on(&talks);
        let last = |written: &str| {
            talks.last(number(written)).map(|talk| {
                (
                    talk.extension.to_string(),
                    talk.direction,
                    talk.at.to_string(),
                )
            })
        };
        assert_eq!(
            last("+79161234567"),
            Some((
                "101".to_owned(),
                Direction::Incoming,
                "2026-11-20T07:00:00Z".to_owned()
            ))
        );
        assert_eq!(last("+79161234568").unwrap().1, Direction::Outgoing);
        // A line in two parts counts once it is whole.
        let next = leg(
            "79161234567",
            "104",
            "PJSIP/trunk-01",
            "PJSIP/104-02",
            "2026-11-21 10:00:00",
            "ANSWERED",
        );
        let (start, end) = next.split_at(40);
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap();
        file.write_all(start.as_bytes()).unwrap();
        history.read_on(&talks);
        assert_eq!(last("+79161234567").unwrap().0, "101");
        file.write_all(end.as_bytes()).unwrap();
        history.read_on(&talks);
        assert_eq!(last("+79161234567").unwrap().0, "104");
        // Another file takes its place, a table with a header this time.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(
            folder.path().join("next"),
            "calldate,src,dst,channel,dstchannel,disposition\n2026-11-22 10:00:00,79161234567,105,PJSIP/trunk-1,PJSIP/105-2,ANSWERED\n",
        )
        .unwrap();
        std::fs::rename(folder.path().join("next"), &path).unwrap();
        history.read_on(&talks);
        assert_eq!(last("+79161234567").unwrap().0, "105");
    }
}
