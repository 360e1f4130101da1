//! The company that is asked about: its table of clients, the daemon's configuration, and its callers.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::machine::free_address;
use crate::mix::mix;
use crate::warm::warm;

/// Who is responsible, each with an extension.
const EMPLOYEES: u64 = 100;
/// Mobile ranges of ten million numbers each.
const AREAS: [u64; 10] = [902, 903, 905, 909, 911, 916, 921, 926, 962, 985];
/// Half of the digits behind the first three, and of the area's place in the list.
const HALF: u64 = 10_000;
/// Whom every card names.
const NAME: &str = "Иван Петров";
/// The same as an answer of `/forward` has it.
const NAME_ENCODED: &str = "%D0%98%D0%B2%D0%B0%D0%BD%20%D0%9F%D0%B5%D1%82%D1%80%D0%BE%D0%B2";

/// A folder with the table and the configurations.
#[derive(Debug, Clone)]
pub(crate) struct Company {
    /// Numbers, each of a card of its own.
    pub(crate) numbers: u64,
    folder: PathBuf,
    /// Where `/forward` is asked.
    pub(crate) http: SocketAddr,
    /// Where FastAGI is asked.
    pub(crate) agi: SocketAddr,
}

/// Somebody whom the company knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) phone: u64,
    extension: u64,
}

impl Company {
    /// Writes everything but the directory, which is the daemon's own work.
    pub(crate) fn make(folder: &Path, numbers: u64) -> Self {
        let company = Self {
            numbers,
            folder: folder.join(numbers.to_string()),
            http: free_address(),
            agi: free_address(),
        };
        fs::create_dir(&company.folder).unwrap();
        company.write_clients();
        fs::write(company.config(), company.settings("")).unwrap();
        let one = company.settings("threads = 1\n");
        fs::write(company.config_with_journal(), &one).unwrap();
        // As nginx, whose log is off too.
        let one = format!("{one}[journal]\nenabled = false\n");
        fs::write(company.config_of_one_thread(), one).unwrap();
        company
    }

    fn write_clients(&self) {
        let file = File::create(self.folder.join("clients.csv")).unwrap();
        let mut table = BufWriter::new(file);
        writeln!(table, "id;kind;name;phone;responsible;extension").unwrap();
        for nth in 0..self.numbers {
            let Caller { phone, extension } = caller(nth);
            writeln!(
                table,
                "{};contact;{NAME};+{phone};Employee {extension};{extension}",
                nth + 1
            )
            .unwrap();
        }
        table.flush().unwrap();
    }

    /// Employees are read again once a day only: each time the whole table is read through for them,
    /// and a round must not meet that by chance.
    fn settings(&self, threads: &str) -> String {
        format!(
            "data_dir = \"{0}/data\"\n[forward]\nlisten = \"{1}\"\n{threads}[fastagi]\nlisten = \"{2}\"\n\
             [match]\nlive_lookup_ms = 0\n[sync]\nemployees_every_seconds = 86400\n[log]\nlevel = \"warn\"\n\
             [[crm]]\nname = \"bench\"\nkind = \"csv\"\nfile = \"clients.csv\"\n",
            self.folder.display(),
            self.http,
            self.agi
        )
    }

    /// As in life.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("pryamo.toml")
    }

    /// With one thread that answers HTTP, and no journal.
    pub(crate) fn config_of_one_thread(&self) -> PathBuf {
        self.folder.join("one.toml")
    }

    /// With one thread that answers HTTP, and the journal that is usual.
    pub(crate) fn config_with_journal(&self) -> PathBuf {
        self.folder.join("one_journal.toml")
    }

    /// What opens the addresses for `pryamo`'s own commands.
    pub(crate) fn control_token(&self) -> String {
        let token = fs::read_to_string(self.folder.join("data/control.token")).unwrap();
        token.trim().to_owned()
    }

    /// The size of the directory's file, with SQLite's log if there is one.
    pub(crate) fn directory_bytes(&self) -> u64 {
        let files = fs::read_dir(self.folder.join("data")).unwrap();
        files
            .map(|file| file.unwrap())
            .filter(|file| file.file_name().to_string_lossy().starts_with("directory."))
            .map(|file| file.metadata().unwrap().len())
            .sum()
    }

    /// Has the directory in the system's cache.
    pub(crate) fn warm(&self) {
        warm(&self.folder.join("data"));
    }

    /// One of its callers.
    pub(crate) fn caller(&self, random: u64) -> Caller {
        caller(random % self.numbers)
    }

    /// Frees the disk.
    pub(crate) fn remove(self) {
        fs::remove_dir_all(self.folder).unwrap();
    }
}

impl Caller {
    /// How the answer of `/forward` must end: its whole body.
    pub(crate) fn answer(self) -> String {
        answer(self.extension)
    }

    /// What FastAGI must say, all of it.
    pub(crate) fn commands(self) -> String {
        format!(
            "SET VARIABLE PRYAMO_NAME \"{NAME}\"\nSET VARIABLE PRYAMO_REASON \"responsible\"\n\
             SET VARIABLE PRYAMO_RING \"20\"\nSET VARIABLE PRYAMO_NUMBER \"{}\"\n",
            self.extension
        )
    }
}

/// The body of an answer; nginx gives the same one to everybody.
pub(crate) fn answer(extension: u64) -> String {
    format!("number={extension}&ring=20&reason=responsible&name={NAME_ENCODED}")
}

/// The client of one line of the table. Numbers come in no order, and none comes twice: both halves
/// of a place among all of them are mixed in turn (a Feistel network).
fn caller(nth: u64) -> Caller {
    let (mut left, mut right) = (nth / HALF, nth % HALF);
    for round in 1..=4 {
        (left, right) = (right, (left + mix(right * 8 + round)) % HALF);
    }
    let place = left * HALF + right;
    let area = AREAS[(place / 10_000_000) as usize];
    Caller {
        phone: 70_000_000_000 + area * 10_000_000 + place % 10_000_000,
        extension: 100 + nth % EMPLOYEES,
    }
}
