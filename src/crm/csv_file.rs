//! A CSV file in place of a CRM: written by hand, or exported from Bitrix24, amoCRM or Kommo.
//!
//! Knows nothing of the mirror. The file may be replaced at any moment: a page is handed out only if
//! the file is still as it was when the page was read, and a walk that goes on with another file
//! begins anew. A file that is gone, empty or without a readable line is an error and never a CRM
//! without clients. How a table is written: [`table`]; its columns: [`table::Meaning`].

mod columns;
mod findings;
mod summary;
pub mod table;
mod text;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use jiff::Timestamp;
use serde::Deserialize;

use self::table::{Options, Separator, Summary, TableError, TableReader, TextEncoding};
use super::{Common, Crm, CrmError, Cursor, Finding, Kind, Page, SettingsError, Since};
use crate::background;
use crate::phone::E164;
use crate::record::{Card, EntityId, EntityKind, Staff};

/// How many cards make a page.
const PAGE_RECORDS: usize = 1_000;

/// Lines that are read at a stretch: below a millisecond.
const LINES_AT_A_STRETCH: u64 = 64;

/// The row of [`super::KINDS`].
pub const KIND: Kind = Kind {
    name: "csv",
    example: EXAMPLE,
    open,
};

const EXAMPLE: &str = r#"[[crm]]
name = "list"
kind = "csv"
# The table, looked for beside this file. Columns id, kind, name, company, phone, responsible,
# extension in any order, Russian or English; exports of Bitrix24, amoCRM and Kommo are read as
# they are. Several phones in one cell are found. Replace the file as a whole (write another one,
# then rename it); pryamo notices.
file = "clients.csv"
# How the text is encoded, "utf-8" or "windows-1251". Found by itself when left out.
# encoding = "utf-8"
# What stands between the columns, ";" or "," or "tab". Found by itself when left out.
# separator = ";"
"#;

/// The kind's own part of its `[[crm]]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The table; a relative name is looked for in the configuration's folder.
    pub file: PathBuf,
    /// How the text is encoded; found by itself when left out.
    #[serde(default)]
    pub encoding: Option<TextEncoding>,
    /// What stands between the columns; found by itself when left out.
    #[serde(default)]
    pub separator: Option<Separator>,
}

fn open(settings: toml::Table, common: Common) -> Result<Arc<dyn Crm>, SettingsError> {
    let settings: Settings = settings
        .try_into()
        .map_err(|error| SettingsError::Wrong(error.message().to_owned()))?;
    if settings.file.as_os_str().is_empty() {
        return Err(SettingsError::Wrong("`file` is empty".to_owned()));
    }
    Ok(Arc::new(CsvFile::new(settings, common)))
}

/// A CSV file as a CRM.
#[derive(Debug, Clone)]
pub struct CsvFile {
    path: PathBuf,
    options: Options,
    wanted: Vec<EntityKind>,
}

impl CsvFile {
    /// Takes the settings; the file is looked at later, and again for every question.
    pub fn new(settings: Settings, common: Common) -> Self {
        Self {
            path: common.config_dir.join(settings.file),
            options: Options {
                encoding: settings.encoding,
                separator: settings.separator,
                fields: common.fields,
            },
            wanted: common.wanted,
        }
    }

    /// Opens the file, and tells what it is.
    fn open(&self) -> Result<OpenTable, CrmError> {
        let refuse = |cause| self.unreadable(cause);
        let file = File::open(&self.path).map_err(refuse)?;
        let state = FileState::of(&file.metadata().map_err(refuse)?).map_err(refuse)?;
        let watched = file.try_clone().map_err(refuse)?;
        let reader = TableReader::open(file, &self.options).map_err(|error| self.wrong(error))?;
        Ok(OpenTable {
            reader,
            watched,
            state,
        })
    }

    /// Reads the whole file, telling `each` every card.
    fn read_through(&self, mut each: impl FnMut(&Card)) -> Result<Summary, CrmError> {
        let mut table = self.open()?;
        while let Some((_, card)) = table
            .reader
            .next_card()
            .map_err(|error| self.wrong(error))?
        {
            each(&card);
        }
        self.confirm(&table)?;
        Ok(table.reader.summary().clone())
    }

    /// Reads the next page of one kind. Cards up to the line `behind` have been handed out before.
    fn read_page(
        &self,
        table: &mut OpenTable,
        kind: EntityKind,
        behind: u64,
    ) -> Result<Page, CrmError> {
        let mut page = Page {
            server_time: Some(table.state.modified),
            ..Page::default()
        };
        let mut last_line = behind;
        while page.cards.len() < PAGE_RECORDS {
            let next = table
                .reader
                .next_card()
                .map_err(|error| self.wrong(error))?;
            let Some((line, card)) = next else {
                self.confirm(table)?;
                return Ok(page);
            };
            if line.is_multiple_of(LINES_AT_A_STRETCH) {
                background::step_aside();
            }
            if card.kind == kind && line > behind {
                page.cards.push(card);
                last_line = line;
            }
        }
        self.confirm(table)?;
        page.cursor = Some(Cursor(format!("{}/{last_line}", table.state)));
        Ok(page)
    }

    /// Fails if somebody has written into the file since it was opened: what was read may be half of
    /// the old and half of the new. A file that took its place by renaming is another file.
    fn confirm(&self, table: &OpenTable) -> Result<(), CrmError> {
        let refuse = |cause| self.unreadable(cause);
        let now = FileState::of(&table.watched.metadata().map_err(refuse)?).map_err(refuse)?;
        if now == table.state {
            return Ok(());
        }
        Err(CrmError::Shape {
            method: self.name(),
            text: "the file changed while it was read; write the new one beside it and rename it"
                .to_owned(),
        })
    }

    fn unreadable(&self, cause: io::Error) -> CrmError {
        CrmError::File(
            format!("cannot read {}; see `crm.file`", self.name()),
            cause,
        )
    }

    fn wrong(&self, error: TableError) -> CrmError {
        match error {
            TableError::Read(cause) => self.unreadable(cause),
            other => CrmError::Shape {
                method: self.name(),
                text: other.to_string(),
            },
        }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Pages of one kind, each read outside the async threads.
    fn pages(self, kind: EntityKind, start: Start) -> BoxStream<'static, Result<Page, CrmError>> {
        let crm = Arc::new(self);
        let begin = Step::Open(start);
        stream::try_unfold(begin, move |step| {
            let crm = Arc::clone(&crm);
            let method = crm.name();
            async move {
                let work = tokio::task::spawn_blocking(move || step.take(&crm, kind));
                // The task ends early only while the runtime shuts down.
                work.await.map_err(|cause| CrmError::Unreachable {
                    method,
                    cause: cause.into(),
                })?
            }
        })
        .boxed()
    }
}

/// A file that is being read, and what it was when that began.
struct OpenTable {
    reader: TableReader<File>,
    watched: File,
    state: FileState,
}

/// By what a change of the file is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileState {
    modified: Timestamp,
    size_bytes: u64,
}

impl FileState {
    fn of(metadata: &std::fs::Metadata) -> io::Result<Self> {
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "this is no file",
            ));
        }
        Ok(Self {
            modified: Timestamp::try_from(metadata.modified()?).map_err(io::Error::other)?,
            size_bytes: metadata.len(),
        })
    }
}

impl std::fmt::Display for FileState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}+{}", self.modified, self.size_bytes)
    }
}

/// Where reading begins.
enum Start {
    /// Behind a cursor, if the file is still the one that it belongs to; else at the beginning.
    Walk(Option<Cursor>),
    /// At the beginning if the file was written since; else nowhere.
    ChangedSince(Timestamp),
}

/// How far a stream of pages has come.
enum Step {
    Open(Start),
    Read(Box<OpenTable>, u64),
    End,
}

impl Step {
    /// Reads one page; `None` behind the last.
    fn take(self, crm: &CsvFile, kind: EntityKind) -> Result<Option<(Page, Step)>, CrmError> {
        let (mut table, behind) = match self {
            Self::End => return Ok(None),
            Self::Read(table, behind) => (table, behind),
            Self::Open(start) => {
                let table = crm.open()?;
                let behind = match start {
                    Start::Walk(from) => from.map_or(0, |cursor| lines_done(&cursor, table.state)),
                    Start::ChangedSince(since) if table.state.modified > since => 0,
                    Start::ChangedSince(_) => {
                        let page = Page {
                            server_time: Some(table.state.modified),
                            ..Page::default()
                        };
                        return Ok(Some((page, Self::End)));
                    }
                };
                (Box::new(table), behind)
            }
        };
        let page = crm.read_page(&mut table, kind, behind)?;
        let next = match &page.cursor {
            // The reader itself stands behind the page, so nothing need be passed over again.
            Some(_) => Self::Read(table, 0),
            None => Self::End,
        };
        Ok(Some((page, next)))
    }
}

/// The line that the cursor stands behind; 0 if it belongs to another file than this.
fn lines_done(cursor: &Cursor, state: FileState) -> u64 {
    let here = state.to_string();
    let Some((file, line)) = cursor.0.rsplit_once('/') else {
        return 0;
    };
    if file == here {
        line.parse().unwrap_or(0)
    } else {
        0
    }
}

#[async_trait]
impl Crm for CsvFile {
    fn kinds(&self) -> &[EntityKind] {
        &self.wanted
    }

    fn is_askable(&self) -> bool {
        false
    }

    /// The file's time and size; `None` while it cannot be read.
    fn fingerprint(&self) -> Option<String> {
        let metadata = std::fs::metadata(&self.path).ok()?;
        Some(FileState::of(&metadata).ok()?.to_string())
    }

    async fn employees(&self) -> Result<Staff, CrmError> {
        let crm = self.clone();
        let method = self.name();
        let work = tokio::task::spawn_blocking(move || crm.read_through(|_| {}));
        let summary = work.await.map_err(|cause| CrmError::Unreachable {
            method,
            cause: cause.into(),
        })??;
        Ok(summary.employees().into())
    }

    fn walk(
        &self,
        kind: EntityKind,
        from: Option<Cursor>,
    ) -> BoxStream<'_, Result<Page, CrmError>> {
        self.clone().pages(kind, Start::Walk(from))
    }

    /// A file does not tell what changed in it: once it was written, all cards come again. What was
    /// deleted only a walk can tell; see [`Crm::fingerprint`].
    fn changes(&self, kind: EntityKind, since: Since) -> BoxStream<'_, Result<Page, CrmError>> {
        self.clone().pages(kind, Start::ChangedSince(since.time))
    }

    /// Nothing: a file sends no notices, so nobody asks.
    async fn read(&self, _kind: EntityKind, _ids: &[EntityId]) -> Result<Page, CrmError> {
        Err(CrmError::Refused {
            method: "read".to_owned(),
            code: "file".to_owned(),
            text: "a file is read as a whole".to_owned(),
        })
    }

    /// Nobody: all that the file holds is in the mirror already.
    async fn find(&self, _phone: E164) -> Result<Vec<Card>, CrmError> {
        Ok(Vec::new())
    }

    async fn check(&self) -> Vec<Finding> {
        let crm = self.clone();
        let work = tokio::task::spawn_blocking(move || crm.read_through(|_| {}));
        let name = self.name();
        match work.await {
            Ok(Ok(summary)) => findings::of(&self.path, &summary, &self.options.fields),
            Ok(Err(error)) => {
                let cause = std::error::Error::source(&error);
                let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
                vec![Finding::fault(
                    format!("{error}{cause}"),
                    "put a readable table there, or change `crm.file`",
                )]
            }
            Err(error) => vec![Finding::fault(format!("{name}: {error}"), "try again")],
        }
    }
}
