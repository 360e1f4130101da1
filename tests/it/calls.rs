//! Real calls through the dialplan that pryamo prints, by CURL and by FastAGI, on Asterisk and behind
//! what stands in for FreePBX: who rings in which order, where the call ends, and what pryamo hears
//! of it.

use std::net::SocketAddr;

use crate::daemon::{Daemon, Site, free_address, wait_for};
use crate::lab::{Caller as LabCaller, Lab, asterisk_versions, dialplans, print_dialplan};

/// Callers, by what their CRM says.
const OF_ANNA: &str = "79161230001";
const OF_VIKTOR: &str = "79161230002";
const OF_NOBODY: &str = "79161230003";
const OF_GLEB: &str = "79161230004";
const OF_ONE_ON_LEAVE: &str = "79161230006";
const OF_ONE_OFF_DUTY: &str = "79161230007";
const STRANGER: &str = "79169999999";

/// Anna has 101, Boris 102; Viktor's 103 is off; Gleb has nothing but a mobile phone.
const CLIENTS: &str = "id,kind,name,phone,responsible,extension\n\
    1,contact,Иван Петров,79161230001,Анна,101\n\
    2,contact,Мария Весна,79161230002,Виктор,103\n\
    3,contact,Олег Тихий,79161230003,Новенький,\n\
    4,contact,Пётр Ёлкин,79161230004,Глеб,\n\
    5,contact,Никто,79161230005,Борис,102\n\
    6,contact,Зоя Мороз,79161230006,Отпускница,104\n\
    7,contact,Лев Ночной,79161230007,Ночной,105\n";

/// Each one's deputy is Boris. Calls to 7812 go to a group next, those to 7813 to a mobile phone.
const RULES: &str = "[route]\nwhen_away = [\"deputy\"]\nring_seconds = 3\n\
    [route.did.\"7812*\"]\nwhen_away = [\"600\"]\n\
    [route.did.\"7813*\"]\nwhen_away = [\"mobile\"]\n\
    [route.outgoing]\nnumbers = [\"79*\"]\nstrip = \"7\"\nprefix = \"8\"\n\
    [log]\nlevel = \"debug\"\n\
    [[crm]]\nname = \"list\"\nkind = \"csv\"\nfile = \"clients.csv\"\n\
    [crm.employees]\n\"Анна\" = { deputy = \"Борис\" }\n\"Виктор\" = { deputy = \"Борис\" }\n\
    \"Глеб\" = { mobile = \"+79161112233\" }\n\
    \"Отпускница\" = { deputy = \"Борис\", absent = [\"2020-01-01..2099-12-31\"] }\n\
    \"Ночной\" = { deputy = \"Борис\", hours = \"2020 Jan 01 10:00-11:00\" }\n";

/// How a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// Stays until somebody answers, and a moment longer.
    Stays,
    /// Hangs up a moment after it rings for the last time.
    Leaves,
}
use Caller::{Leaves, Stays};

/// A row of the matrix.
struct Row {
    what: &'static str,
    /// How the phones behave, `101=busy`.
    phones: &'static [(&'static str, &'static str)],
    from: &'static str,
    /// How the number dialled begins.
    to: &'static str,
    caller: Caller,
    /// Who rings, in this order.
    rings: &'static [&'static str],
    /// Where the call ends.
    went: &'static str,
    /// What pryamo hears: number and status.
    told: &'static [(&'static str, &'static str)],
    /// What the caller is called in the end.
    name: &'static str,
}

const IVAN: &str = "Иван Петров";

const ROWS: &[Row] = &[
    Row {
        what: "the responsible answers",
        phones: &[("101", "answer")],
        from: OF_ANNA,
        to: "7495",
        caller: Stays,
        rings: &["101"],
        went: "101",
        told: &[("101", "ANSWER")],
        name: IVAN,
    },
    Row {
        what: "busy, then the deputy",
        phones: &[("101", "busy"), ("102", "answer")],
        from: OF_ANNA,
        to: "7495",
        caller: Stays,
        rings: &["101", "102"],
        went: "102",
        told: &[("101", "BUSY"), ("102", "ANSWER")],
        name: IVAN,
    },
    Row {
        what: "off, then the deputy",
        phones: &[("102", "answer")],
        from: OF_VIKTOR,
        to: "7495",
        caller: Stays,
        rings: &["103", "102"],
        went: "102",
        told: &[("103", "CHANUNAVAIL"), ("102", "ANSWER")],
        name: "Мария Весна",
    },
    Row {
        what: "declines, then the deputy",
        phones: &[("101", "decline"), ("102", "answer")],
        from: OF_ANNA,
        to: "7495",
        caller: Stays,
        rings: &["101", "102"],
        went: "102",
        // A Local channel does not tell a refusal from an absence.
        told: &[("101", "BUSY|CHANUNAVAIL"), ("102", "ANSWER")],
        name: IVAN,
    },
    Row {
        what: "does not answer, then the deputy",
        phones: &[("101", "noanswer"), ("102", "answer")],
        from: OF_ANNA,
        to: "7495",
        caller: Stays,
        rings: &["101", "102"],
        went: "102",
        told: &[("101", "NOANSWER"), ("102", "ANSWER")],
        name: IVAN,
    },
    Row {
        what: "the deputy is busy too",
        phones: &[("101", "noanswer"), ("102", "busy")],
        from: OF_ANNA,
        to: "7495",
        caller: Stays,
        rings: &["101", "102"],
        went: "ivr",
        told: &[("101", "NOANSWER"), ("102", "BUSY")],
        name: IVAN,
    },
    Row {
        what: "all are busy",
        phones: &[("101", "busy"), ("102", "busy")],
        from: OF_ANNA,
        to: "7495",
        caller: Stays,
        rings: &["101", "102"],
        went: "ivr",
        told: &[("101", "BUSY"), ("102", "BUSY")],
        name: IVAN,
    },
    Row {
        what: "then a group",
        phones: &[("101", "busy"), ("104", "noanswer"), ("105", "answer")],
        from: OF_ANNA,
        to: "7812",
        caller: Stays,
        rings: &["101", "600"],
        went: "600",
        told: &[("101", "BUSY"), ("600", "ANSWER")],
        name: IVAN,
    },
    Row {
        what: "a mobile phone outside",
        phones: &[("105", "answer")],
        from: OF_GLEB,
        to: "7813",
        caller: Stays,
        rings: &["89161112233"],
        went: "89161112233",
        told: &[("89161112233", "ANSWER")],
        name: "Пётр Ёлкин",
    },
    Row {
        what: "on leave: the deputy at once",
        phones: &[("102", "answer"), ("104", "answer")],
        from: OF_ONE_ON_LEAVE,
        to: "7495",
        caller: Stays,
        rings: &["102"],
        went: "102",
        told: &[("102", "ANSWER")],
        name: "Зоя Мороз",
    },
    Row {
        what: "outside working hours: the deputy at once",
        phones: &[("102", "answer"), ("105", "answer")],
        from: OF_ONE_OFF_DUTY,
        to: "7495",
        caller: Stays,
        rings: &["102"],
        went: "102",
        told: &[("102", "ANSWER")],
        name: "Лев Ночной",
    },
    Row {
        what: "nobody has an extension",
        phones: &[],
        from: OF_NOBODY,
        to: "7495",
        caller: Stays,
        rings: &[],
        went: "ivr",
        told: &[],
        name: "Олег Тихий",
    },
    Row {
        what: "unknown",
        phones: &[],
        from: STRANGER,
        to: "7495",
        caller: Stays,
        rings: &[],
        went: "ivr",
        told: &[],
        name: "",
    },
    Row {
        what: "the caller leaves while the responsible's phone rings",
        phones: &[("101", "noanswer")],
        from: OF_ANNA,
        to: "7495",
        caller: Leaves,
        rings: &["101"],
        went: "none",
        told: &[("101", "CANCEL")],
        name: IVAN,
    },
    Row {
        what: "the caller leaves while the deputy's phone rings",
        phones: &[("101", "busy"), ("102", "noanswer")],
        from: OF_ANNA,
        to: "7495",
        caller: Leaves,
        rings: &["101", "102"],
        went: "none",
        told: &[("101", "BUSY"), ("102", "CANCEL")],
        name: IVAN,
    },
];

/// The exchange that the dialplan is printed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exchange {
    Asterisk,
    /// With the version whose subroutines are entered.
    FreePbx(&'static str),
}

impl Exchange {
    fn arguments(self) -> Vec<&'static str> {
        match self {
            Self::Asterisk => vec!["--for", "asterisk"],
            Self::FreePbx(version) => vec!["--for", "freepbx", "--freepbx-version", version],
        }
    }

    /// What the file holds besides.
    fn more(self) -> String {
        let leave = match self {
            // A route by Gosub: the call comes back.
            Self::Asterisk => {
                return "[lab-entry]\n\
                    exten => _7499.,1,Gosub(pryamo,${EXTEN},1)\n \
                    same => n,Set(__LAB_DEST=back)\n same => n,Answer()\n same => n,Wait(30)\n"
                    .to_owned();
            }
            Self::FreePbx("16") => "MacroExit()",
            Self::FreePbx(_) => "Return()",
        };
        let text = std::fs::read_to_string(dialplans().join("freepbx.conf")).unwrap();
        text.replace("@LEAVE@", leave)
    }
}

struct Office {
    lab: Lab,
    site: Site,
    title: String,
    dialled: u32,
}

impl Office {
    fn open(version: &str, exchange: Exchange, agi: bool) -> Self {
        let (forward, fastagi) = (free_address(), free_address());
        let site = Site::at(forward, &configuration(fastagi));
        std::fs::write(site.path("clients.csv"), CLIENTS).unwrap();
        let config = std::fs::read_to_string(site.config()).unwrap();
        let mut arguments = exchange.arguments();
        arguments.extend(agi.then_some("--agi"));
        let folder = site.folder.path();
        let conf = print_dialplan(folder, &config, &arguments, &exchange.more());
        let lab = Lab::start_with(version, &conf, &format!("http://{forward}/forward"));
        for (key, value) in [("101", "101"), ("102", "102"), ("103", "103")] {
            lab.console(&format!("database put AMPUSER/{key} device {value}"));
        }
        let title = format!("Asterisk {version}, {exchange:?}, agi {agi}");
        Self {
            lab,
            site,
            title,
            dialled: 0,
        }
    }

    fn did(&mut self, start: &str) -> String {
        self.dialled += 1;
        format!("{start}{:07}", self.dialled)
    }

    /// Makes the call of a row and holds the row to what came of it.
    fn run(&mut self, row: &Row, daemon: &Daemon) {
        let what = format!("{}: {}", self.title, row.what);
        for (number, mode) in row.phones {
            self.lab.phone(number, mode);
        }
        let to = self.did(row.to);
        match row.caller {
            Stays => {
                let (outcome, _) = self.lab.call(row.from, &to);
                assert_eq!(outcome.went, row.went, "{what}");
                assert_eq!(outcome.name, row.name, "{what}");
            }
            Leaves => self.lab.leave(row.from, &to),
        }
        let id = self.lab.call_id(&to);
        let rung = self.lab.rung_for(&id);
        assert_eq!(rung, row.rings, "{what}");
        let told = wait_for(&format!("{what}: the end"), || {
            let told = told(&daemon.log(), &id);
            (told.len() >= row.told.len()).then_some(told)
        });
        for ((number, status), (expected, allowed)) in told.iter().zip(row.told) {
            let fits = number == expected && allowed.split('|').any(|one| one == status);
            assert!(fits, "{what}: {told:?}");
        }
        assert_eq!(told.len(), row.told.len(), "{what}: {told:?}");
        self.is_in_the_journal(&what, &id, row, daemon);
        self.is_shown(&what, row);
        self.is_quiet(&what);
    }

    /// The journal names the same phones in the same order, and how each of them ended.
    fn is_in_the_journal(&self, what: &str, call_id: &str, row: &Row, daemon: &Daemon) {
        let token = std::fs::read_to_string(self.site.path("data/control.token")).unwrap();
        let request = format!(
            "GET /api/v1/journal?call_id={call_id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        let entry = wait_for(&format!("{what}: the journal"), || {
            let answer = daemon.raw(request.as_bytes()).json();
            let entry = answer
                .as_array()
                .or(answer["entries"].as_array())?
                .first()?
                .clone();
            let tries = entry["tries"].as_array()?;
            let is_over = |one: &serde_json::Value| one["status"].is_string();
            (tries.len() == row.told.len() && tries.iter().all(is_over)).then_some(entry)
        });
        let tries = entry["tries"].as_array().unwrap();
        for (one, (number, allowed)) in tries.iter().zip(row.told) {
            let status = one["status"].as_str().unwrap();
            let fits = one["number"] == *number && allowed.split('|').any(|it| it == status);
            assert!(fits, "{what}: {entry:#}");
        }
    }

    /// Every phone that rang showed the client's name.
    fn is_shown(&self, what: &str, row: &Row) {
        for number in row.rings.iter().filter(|number| number.len() == 3) {
            let shown = self.lab.shown(number, row.from);
            // A phone that is off shows nothing, a group is no phone.
            if !["103", "600"].contains(number) {
                assert_eq!(
                    shown.last().map(String::as_str),
                    Some(row.name),
                    "{what}: {number}"
                );
            }
        }
    }

    /// Nothing is left of any call.
    fn is_quiet(&self, what: &str) {
        wait_for(&format!("{what}: no channels"), || {
            let shown = self.lab.console("core show channels count");
            shown.contains("0 active channels").then_some(())
        });
    }
}

fn configuration(fastagi: SocketAddr) -> String {
    format!("[fastagi]\nlisten = \"{fastagi}\"\n{RULES}")
}

/// What the daemon's log says of a call: which number ended how, in this order.
fn told(log: &str, call_id: &str) -> Vec<(String, String)> {
    let value = |line: &str, key: &str| {
        let (_, rest) = line.split_once(&format!(" {key}="))?;
        let value = rest.split(' ').next()?;
        Some(value.trim_matches('"').to_owned())
    };
    let of_call = log.lines().filter(|line| {
        (line.contains(" ended ") || line.contains(" not taken "))
            && value(line, "call_id").as_deref() == Some(call_id)
    });
    let told = of_call.filter_map(|line| Some((value(line, "number")?, value(line, "status")?)));
    let mut told: Vec<_> = told.collect();
    // The Manager Interface tells of an answer and of its end, as the dialplan does.
    told.dedup();
    told
}

/// Calls of the burst, and how many of them begin in a second.
const BURST: usize = 300;
const PER_SECOND: u32 = 20;

/// Who calls in the burst, where they end, and who rang for them.
const KINDS: [(&str, &str, &[&str]); 6] = [
    (OF_ANNA, "101", &["101"]),
    (OF_VIKTOR, "102", &["103", "102"]),
    (OF_ONE_ON_LEAVE, "102", &["102"]),
    (OF_ONE_OFF_DUTY, "102", &["102"]),
    (OF_NOBODY, "ivr", &[]),
    (STRANGER, "ivr", &[]),
];

/// Every call of a burst ends where the policy says, rings whom it says, and leaves no channel.
#[test]
fn three_hundred_calls_end_where_the_policy_says() {
    for version in asterisk_versions() {
        let mut office = Office::open(&version, Exchange::Asterisk, false);
        let _daemon = Daemon::start(&office.site);
        office.lab.phone("101", "answer");
        office.lab.phone("102", "answer");
        let callers: Vec<LabCaller> = (0..BURST)
            .map(|index| LabCaller {
                from: KINDS[index % KINDS.len()].0.to_owned(),
                name: String::new(),
                to: office.did("7495"),
            })
            .collect();
        let hold = std::time::Duration::from_millis(1500);
        let outcomes = office.lab.calls(&callers, PER_SECOND, hold);
        for (index, (caller, outcome)) in callers.iter().zip(&outcomes).enumerate() {
            let (from, went, rings) = KINDS[index % KINDS.len()];
            let what = format!("{}: call {index} from {from}", office.title);
            assert_eq!(outcome.went, went, "{what}");
            let id = office.lab.call_id(&caller.to);
            assert_eq!(office.lab.rung_for(&id), rings, "{what}");
        }
        office.is_quiet(&office.title);
    }
}

/// With [ami] a phone that is off or set to do not disturb is not even rung.
#[test]
fn phones_that_are_off_are_passed_over_with_the_manager_interface() {
    for version in asterisk_versions() {
        let mut office = Office::open(&version, Exchange::Asterisk, false);
        let ami = format!(
            "[ami]\naddress = \"{}\"\nsecret = \"s3cret\"\n",
            office.lab.ami_address()
        );
        let rules = std::fs::read_to_string(office.site.config()).unwrap();
        std::fs::write(
            office.site.config(),
            rules.replacen("[log]", &format!("{ami}[log]"), 1),
        )
        .unwrap();
        let daemon = Daemon::start(&office.site);
        wait_for("Asterisk's states", || {
            let told = daemon.log().contains("Asterisk tells how its phones stand");
            let is_off = daemon.rings(&format!("phone={OF_VIKTOR}&trunk=7495"));
            (told && is_off.as_deref() == Some("102")).then_some(())
        });
        let off = Row {
            what: "known to be off, so the deputy at once",
            phones: &[("101", "answer"), ("102", "answer")],
            from: OF_VIKTOR,
            to: "7495",
            caller: Stays,
            rings: &["102"],
            went: "102",
            told: &[("102", "ANSWER")],
            name: "Мария Весна",
        };
        office.run(&off, &daemon);
        office.lab.console("devstate change Custom:DND101 BUSY");
        wait_for("do not disturb", || {
            let rung = daemon.rings(&format!("phone={OF_ANNA}&trunk=7495"));
            (rung.as_deref() == Some("102")).then_some(())
        });
        let quiet = Row {
            what: "do not disturb, so the deputy at once",
            from: OF_ANNA,
            name: IVAN,
            ..off
        };
        office.run(&quiet, &daemon);
    }
}

fn every_row(exchange: Exchange, versions: &[&str], agi: bool) {
    for version in asterisk_versions() {
        if !versions.contains(&version.as_str()) {
            continue;
        }
        let mut office = Office::open(&version, exchange, agi);
        let mut daemon = Daemon::start(&office.site);
        for row in ROWS {
            office.run(row, &daemon);
        }
        if exchange == Exchange::Asterisk {
            a_call_by_gosub_comes_back(&mut office);
        }
        daemon.kill();
        let to = office.did("7495");
        let (outcome, took) = office.lab.call(OF_ANNA, &to);
        assert_eq!(outcome.went, "ivr", "{}: pryamo is away", office.title);
        assert!(took.as_secs() < 3, "{}: {took:?}", office.title);
        office.is_quiet(&office.title);
    }
}

fn a_call_by_gosub_comes_back(office: &mut Office) {
    let to = office.did("7499");
    let (outcome, _) = office.lab.call(STRANGER, &to);
    assert_eq!(outcome.went, "back", "{}: by Gosub", office.title);
}

#[test]
fn calls_behind_the_printed_dialplan() {
    every_row(Exchange::Asterisk, &["16", "22"], false);
}

#[test]
fn calls_behind_the_printed_dialplan_by_fastagi() {
    every_row(Exchange::Asterisk, &["16", "22"], true);
}

#[test]
fn calls_behind_freepbx_17() {
    every_row(Exchange::FreePbx("17"), &["16", "22"], false);
}

#[test]
fn calls_behind_freepbx_16() {
    // Asterisk 22 has no Macro.
    every_row(Exchange::FreePbx("16"), &["16"], false);
}
