//! Real calls through the dialplan that pryamo prints, by CURL and by FastAGI, on Asterisk and behind
//! what stands in for FreePBX: who rings in which order, where the call ends, and what pryamo hears
//! of it.

use std::net::SocketAddr;

use crate::daemon::{Daemon, Site, free_address, wait_for};
use crate::lab::{Lab, asterisk_versions, dialplans, print_dialplan};

/// Callers, by what their CRM says.
const OF_ANNA: &str = "79161230001";
const OF_VIKTOR: &str = "79161230002";
const OF_NOBODY: &str = "79161230003";
const OF_GLEB: &str = "79161230004";
const STRANGER: &str = "79169999999";

/// Anna has 101, Boris 102; Viktor's 103 is off; Gleb has nothing but a mobile phone.
const CLIENTS: &str = "id,kind,name,phone,responsible,extension\n\
    1,contact,Иван Петров,79161230001,Анна,101\n\
    2,contact,Мария Весна,79161230002,Виктор,103\n\
    3,contact,Олег Тихий,79161230003,Новенький,\n\
    4,contact,Пётр Ёлкин,79161230004,Глеб,\n\
    5,contact,Никто,79161230005,Борис,102\n";

/// Each one's deputy is Boris. Calls to 7812 go to a group next, those to 7813 to a mobile phone.
const RULES: &str = "[route]\nwhen_away = [\"deputy\"]\nring_seconds = 3\n\
    [route.did.\"7812*\"]\nwhen_away = [\"600\"]\n\
    [route.did.\"7813*\"]\nwhen_away = [\"mobile\"]\n\
    [route.outgoing]\nnumbers = [\"79*\"]\nstrip = \"7\"\nprefix = \"8\"\n\
    [log]\nlevel = \"debug\"\n\
    [[crm]]\nname = \"list\"\nkind = \"csv\"\nfile = \"clients.csv\"\n\
    [crm.employees]\n\"Анна\" = { deputy = \"Борис\" }\n\"Виктор\" = { deputy = \"Борис\" }\n\
    \"Глеб\" = { mobile = \"+79161112233\" }\n";

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
        self.is_quiet(&what);
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
    of_call
        .filter_map(|line| Some((value(line, "number")?, value(line, "status")?)))
        .collect()
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
