//! A company with many clients and a long past: its directory, and a journal that the product's own
//! thread has written.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use pryamo::call::{DialStatus, Did, IncomingCall, Outcome};
use pryamo::config::Config;
use pryamo::decision::Decision;
use pryamo::directory::{Change, Directory, SyncState};
use pryamo::journal::{self, Journal, MOST_WAITING, Query, Reader};
use pryamo::phone::E164;
use pryamo::reception::Watcher as _;
use pryamo::record::{Card, CrmName, Employee, EmployeeId, EntityId, EntityKind, Staff};
use pryamo::router::{Purpose, Router};
use pryamo::serve;
use rusqlite::Connection;

use crate::Size;

/// The journal reaches back so far; it keeps longer, so that nothing is deleted meanwhile.
pub const DAYS: i64 = 90;
/// A number that nobody has.
pub const STRANGER: u64 = FIRST + 1;
/// Employees; every 25th is dismissed, every 40th has no extension.
const EMPLOYEES: u64 = 300;
/// The first number; every second one from there on is known.
const FIRST: u64 = 79_160_000_000;
/// The number that most people dial.
pub const MAIN_DID: &str = "74951234567";
/// Dialled by one caller in ten, none of them known.
pub const STRANGERS_DID: &str = "74951234599";
/// Dialled by one caller in a thousand.
pub const RARE_DID: &str = "78005550199";
/// Cards that are stored in one go.
const BULK: u64 = 20_000;
/// The tables of format 1, which is history and does not change.
const FORMAT_1: &str = "
CREATE TABLE old.calls (
    id INTEGER PRIMARY KEY, call_id TEXT, caller TEXT, at INTEGER NOT NULL,
    change INTEGER NOT NULL, settle_at INTEGER, entry TEXT NOT NULL
) STRICT;
INSERT INTO old.calls SELECT id, call_id, caller, at, change, settle_at, entry FROM calls;
CREATE INDEX old.calls_call_id ON calls (call_id) WHERE call_id IS NOT NULL;
CREATE INDEX old.calls_caller ON calls (caller) WHERE caller IS NOT NULL;
CREATE INDEX old.calls_at ON calls (at);
CREATE INDEX old.calls_change ON calls (change);
CREATE INDEX old.calls_settle ON calls (settle_at) WHERE settle_at IS NOT NULL;
PRAGMA old.user_version = 1;
";

/// What everything is measured on.
pub struct Company {
    /// Its configuration, which lies in a file.
    pub config: Config,
    /// How large it is.
    pub size: Size,
    /// When its journal ends.
    pub now: Timestamp,
    folder: PathBuf,
}

/// Something that the journal is told.
enum Told {
    Decided(Box<(IncomingCall, Decision)>, Timestamp),
    Ended(Outcome, Timestamp),
}

impl Company {
    /// Makes it in an empty folder.
    pub fn make(folder: &Path, size: Size) -> Self {
        let company = Self {
            config: configure(folder),
            size,
            now: Timestamp::now(),
            folder: folder.to_owned(),
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let began = Instant::now();
        let directory = serve::open_directory(&company.config).unwrap();
        runtime.block_on(company.fill(&*directory));
        println!(
            "a directory of {} numbers was made in {:.0} s",
            size.numbers,
            began.elapsed().as_secs_f64()
        );
        let began = Instant::now();
        runtime.block_on(company.write_journal(&directory));
        println!(
            "a journal of {} entries was written in {:.0} s",
            size.entries,
            began.elapsed().as_secs_f64()
        );
        let hours = Reader::new(&company.config.data_dir)
            .hours(Timestamp::MIN, company.now)
            .unwrap();
        let counted: u64 = hours.iter().map(|hour| hour.calls).sum();
        assert_eq!(counted, size.entries);
        company
    }

    /// A number of the directory.
    pub fn phone(&self, draw: u64) -> u64 {
        FIRST + 2 * (draw % self.size.numbers)
    }

    async fn fill(&self, directory: &dyn Directory) {
        let crm = CrmName::new("sales");
        let employees: Vec<Employee> = (0..EMPLOYEES).map(employee).collect();
        directory
            .replace_employees(&crm, Staff::from(employees), self.now)
            .await
            .unwrap();
        let identity = self.config.identity_of(self.config.crms.first().unwrap());
        let state = SyncState {
            walk: 1,
            whole_at: Some(self.now),
            fresh_at: Some(self.now),
            identity,
            ..SyncState::default()
        };
        // Every 50th number stands on a company's card too.
        let kinds = [(EntityKind::Contact, 1), (EntityKind::Company, 50)];
        for (kind, step) in kinds {
            for from in (0..self.size.numbers).step_by((BULK * step) as usize) {
                let until = self.size.numbers.min(from + BULK * step);
                let numbers = || (from..until).step_by(step as usize);
                let unread = numbers().filter(|nth| nth % 200 == 17);
                let change = Change {
                    crm: crm.clone(),
                    kind,
                    cards: numbers().map(|nth| self.card(kind, nth)).collect(),
                    walk: 1,
                    unread: unread
                        .map(|nth| (EntityId::from(nth + 1), "спросить у Ольги".to_owned()))
                        .collect(),
                    keep_newer: None,
                    state: Some(state.clone()),
                };
                directory.apply(change).await.unwrap();
            }
        }
    }

    fn card(&self, kind: EntityKind, nth: u64) -> (Card, Vec<E164>) {
        const FIRST_NAMES: [&str; 8] = [
            "Анна",
            "Борис",
            "Виктор",
            "Галина",
            "Дмитрий",
            "Елена",
            "Игорь",
            "Ольга",
        ];
        const NAMES: [&str; 6] = [
            "Иваненко",
            "Константиниди",
            "Петренко",
            "Седых",
            "Черных",
            "Якименко",
        ];
        let draw = mix(nth * 4 + kind as u64);
        let company = format!("ООО «Ромашка-{}»", nth / 3);
        let mut card = Card::new(kind, EntityId::from(nth + 1));
        card.name = match kind {
            EntityKind::Company => company.clone(),
            _ => format!("{} {}", pick(&FIRST_NAMES, draw), pick(&NAMES, draw >> 8)),
        };
        card.company = (kind == EntityKind::Contact && nth.is_multiple_of(3)).then_some(company);
        // One of 500 names somebody whom the CRM does not know.
        let responsible = if draw % 500 == 1 {
            9000
        } else {
            (draw >> 16) % EMPLOYEES
        };
        card.responsible = Some(EmployeeId::new(&responsible.to_string()));
        card.modified = Timestamp::from_second(1_700_000_000 + nth.cast_signed()).ok();
        // Not in the order of the cards: real numbers come in none.
        let phone = self.phone(nth * 999_983);
        (card, vec![E164::from_digits(phone).unwrap()])
    }

    /// Tells the journal's own thread of every call, as much at once as it takes; a thread that is
    /// to stop does not rest.
    async fn write_journal(&self, directory: &Arc<dyn Directory>) {
        let router = serve::replay_router(&self.config, directory).unwrap();
        let mut nth = 0;
        let mut told = self.tell(&router, &mut nth).await;
        while !told.is_empty() {
            let (journal, thread) = Journal::start(
                &self.config.journal,
                &self.config.data_dir,
                Arc::clone(directory),
                serve::clock(),
                Arc::new(Instant::now),
            )
            .unwrap();
            for one in told {
                match one {
                    Told::Decided(made, at) => journal.decided(&made.0, &made.1, at),
                    Told::Ended(outcome, at) => journal.ended(&outcome, at),
                }
            }
            assert_eq!(journal.dropped(), 0);
            drop(journal);
            let stopped = tokio::task::spawn_blocking(move || thread.stop());
            told = self.tell(&router, &mut nth).await;
            stopped.await.unwrap();
        }
    }

    /// What is told of the next calls, decided by the router as on their day.
    async fn tell(&self, router: &Router, nth: &mut u64) -> Vec<Told> {
        let mut told = Vec::new();
        while *nth < self.size.entries && told.len() + 4 <= MOST_WAITING {
            self.tell_call(router, *nth, &mut told).await;
            *nth += 1;
        }
        told
    }

    async fn tell_call(&self, router: &Router, nth: u64, told: &mut Vec<Told>) {
        let draw = mix(nth);
        let span = (DAYS * 24 * 3600 - 3600) as u64 * 1000;
        let ago = span - span * nth / self.size.entries + 600_000;
        let mut at = self.now - SignedDuration::from_millis(ago.cast_signed());
        let did = match draw % 1000 {
            0 => RARE_DID.to_owned(),
            1..=100 => STRANGERS_DID.to_owned(),
            101..=500 => MAIN_DID.to_owned(),
            other => format!("749512345{:02}", other % 20),
        };
        let is_known = did != STRANGERS_DID && (draw >> 10) % 100 < 85;
        let phone = if is_known {
            self.phone(draw >> 20)
        } else {
            73_433_000_000 + (draw >> 20) % 1_000_000
        };
        let mut call = IncomingCall {
            phone: format!("+{phone}"),
            did: Did::new(&did),
            call_id: Some(format!("{}.{nth}", at.as_second())),
            ..IncomingCall::default()
        };
        // Of ten whom somebody is rung for, six speak at once and two behind a second try.
        let statuses = match (draw >> 40) % 10 {
            0..=5 => [Some(DialStatus::Answer), None],
            6 | 7 => [Some(DialStatus::NoAnswer), Some(DialStatus::Answer)],
            8 => [Some(DialStatus::Cancel), None],
            _ => [None, None],
        };
        for status in statuses {
            let decision = router.route(&call, at, Purpose::Call).await;
            let rung = decision
                .ring
                .as_ref()
                .map(|target| target.as_str().to_owned());
            told.push(Told::Decided(Box::new((call.clone(), decision)), at));
            let (Some(number), Some(status)) = (rung, status) else {
                return;
            };
            let ringing = (draw >> 44) % 18 + 2;
            at += SignedDuration::from_secs(ringing.cast_signed());
            let outcome = Outcome {
                call_id: call.call_id.clone().unwrap(),
                number: number.clone(),
                status,
                rang_seconds: Some(ringing),
                talked_seconds: None,
            };
            told.push(Told::Ended(outcome, at));
            if status != DialStatus::NoAnswer {
                return;
            }
            call.tried.push(number);
            call.status = Some(status);
        }
    }

    /// How long a journal of format 1 takes to be taken over at its first opening.
    pub fn take_over(&self) -> Duration {
        let folder = self.folder.join("old");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("journal.sqlite");
        let new = Connection::open(self.config.data_dir.join("journal.sqlite")).unwrap();
        let application: i64 = new
            .pragma_query_value(None, "application_id", |row| row.get(0))
            .unwrap();
        new.execute("ATTACH ?1 AS old", [path.to_str().unwrap()])
            .unwrap();
        let mark = format!("PRAGMA old.application_id = {application};");
        new.execute_batch(&format!("{mark}BEGIN;{FORMAT_1}COMMIT;"))
            .unwrap();
        drop(new);
        let directory = serve::open_directory(&self.config).unwrap();
        let began = Instant::now();
        let settings = journal::Settings {
            days: self.config.journal.days,
            ..journal::Settings::default()
        };
        let (journal, thread) = Journal::start(
            &settings,
            &folder,
            directory,
            serve::clock(),
            Arc::new(Instant::now),
        )
        .unwrap();
        // The thread opens the file before it looks whether anybody is left to tell it anything.
        drop(journal);
        thread.stop();
        let took = began.elapsed();
        let [old, new] = [&folder, &self.config.data_dir].map(|folder| {
            let reader = Reader::new(folder);
            let query = Query {
                limit: 50,
                did: Some(RARE_DID.to_owned()),
                ..Query::default()
            };
            let hours = reader.hours(Timestamp::MIN, self.now).unwrap();
            (hours, reader.read(&query).unwrap())
        });
        assert_eq!(old, new, "what was taken over is what was written");
        assert!(!old.1.is_empty());
        fs::remove_dir_all(folder).unwrap();
        took
    }

    /// Of the journal's file.
    pub fn journal_bytes(&self) -> u64 {
        let path = self.config.data_dir.join("journal.sqlite");
        fs::metadata(path).unwrap().len()
    }
}

fn configure(folder: &Path) -> Config {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    // Nobody listens at the CRM's address: the mirror answers with what it has.
    let text = format!(
        "data_dir = \"{}/data\"\n[forward]\nlisten = \"127.0.0.1:{port}\"\n[fastagi]\nlisten = \"\"\n\
         [match]\nlive_lookup_ms = 0\n[journal]\ndays = {}\n[[crm]]\nname = \"sales\"\n\
         kind = \"bitrix24\"\nurl = \"http://127.0.0.1:9/rest/1/k0d3example/\"\n",
        folder.display(),
        DAYS + 30,
    );
    let path = folder.join("pryamo.toml");
    fs::write(&path, &text).unwrap();
    Config::parse(&text, Some(path), &[]).unwrap()
}

fn employee(nth: u64) -> Employee {
    let extension = match nth {
        // Two share one.
        8 => Some(107),
        _ if nth % 40 == 3 => None,
        _ => Some(100 + nth),
    };
    Employee {
        extension: extension.map(|extension| extension.to_string()),
        active: nth % 25 != 5,
        email: Some(format!("employee{nth}@example.com")),
        ..Employee::new(
            EmployeeId::new(&nth.to_string()),
            &format!("Сотрудник Номер {nth}"),
        )
    }
}

fn pick<'a>(words: &[&'a str], draw: u64) -> &'a str {
    let mut words = words.iter().cycle();
    words.nth(draw as usize % 64).unwrap()
}

/// A mixing of 64 bits (splitmix64): numbers that look random and can be made again.
pub fn mix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
