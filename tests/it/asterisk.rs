//! Real SIP calls through a real Asterisk and a real daemon, behind the vendor page's dialplan,
//! unchanged, and behind the recommended one.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::daemon::{Daemon, Site, free_address};
use crate::fake_amocrm::{self, FakeAmocrm};
use crate::fake_bitrix24::{self, FakeBitrix24};
use crate::lab::{Caller, Dialplan, Lab, Outcome, asterisk_versions};
use crate::world::{Entry, SharedWorld, User, World};

/// The name that the trunk sends with every call.
const TRUNKS_NAME: &str = "Ivan";
/// How much longer than promised a call may take on a busy machine.
const SLACK: Duration = Duration::from_secs(3);
/// `match.live_lookup_ms` where the CRM can be asked; less than either dialplan's patience.
const LIVE_LOOKUP: Duration = Duration::from_millis(700);
/// Calls of the burst, and how many of them begin in a second.
const BURST_CALLS: usize = 150;
const BURST_PER_SECOND: u32 = 30;

/// A client as the CRM holds them, and what their employee's phone shows.
struct Client {
    phone: String,
    name: String,
    shown: String,
    extension: &'static str,
}

/// Clients with every kind of name; Anna has extension 101, Boris 102.
fn clients() -> Vec<Client> {
    let long = "Ж".repeat(300);
    let cut = "Ж".repeat(20);
    let names = [
        ("Иван Петров", "Иван Петров"),
        ("Пётр Ёлкин", "Пётр Ёлкин"),
        ("ООО \"Ромашка\"", "ООО «Ромашка»"),
        ("A\"B", "AB"),
        ("A (B", "A B"),
        ("A [B] (C, D)", "A [B] (C, D)"),
        ("Acme, Inc", "Acme, Inc"),
        ("A&number=999&B", "A&number=999&B"),
        ("A+B", "A+B"),
        ("100% шерсть %41", "100% шерсть %41"),
        ("A\\B", "A\\B"),
        ("A\r\nX-Evil: 1", "A X-Evil: 1"),
        ("A😀B", "A😀B"),
        ("${EXTEN} $[1+1]", "${EXTEN} $[1+1]"),
        ("A' <sip:1@x>;B=C|D", "A' <sip:1@x>;B=C|D"),
        (&long, &cut),
    ];
    let client = |(index, (name, shown)): (usize, (&str, &str))| Client {
        phone: format!("7916123{index:04}"),
        name: name.to_owned(),
        shown: shown.to_owned(),
        extension: ["101", "102"][index % 2],
    };
    names.into_iter().enumerate().map(client).collect()
}

/// A client whose employee has no extension.
const UNREACHABLE: (&str, &str) = ("79161239999", "Мария Весна");

/// A client whose own employee is dismissed, and their company, whose employee is Boris.
const LEFT_BEHIND: (&str, &str) = ("79161239998", "Олег Тихий");
const THEIR_COMPANY: (&str, &str) = ("ООО \"Ромашка\"", "ООО «Ромашка»");

/// A client of Anna's whom the CRM gets when the mirror is whole already.
const LATECOMER: (&str, &str) = ("79161239997", "Зоя Поздняя");

/// The phone of a client of the burst.
fn burst_phone(index: usize) -> String {
    format!("7916555{index:04}")
}

/// The same company as a CSV file.
fn csv_site(address: SocketAddr) -> Site {
    let mut table = csv::Writer::from_writer(Vec::new());
    let mut id = 0;
    let mut write = |name: &str, phone: &str, responsible: &str, extension: &str| {
        id += 1;
        let id = id.to_string();
        table
            .write_record([&id, "contact", name, phone, responsible, extension])
            .unwrap();
    };
    write("name", "phone", "responsible", "extension");
    let employee = |extension: &str| match extension {
        "101" => "Анна Соколова",
        _ => "Борис Жуков",
    };
    for client in clients() {
        let extension = client.extension;
        write(&client.name, &client.phone, employee(extension), extension);
    }
    write(UNREACHABLE.1, UNREACHABLE.0, "Виктор Новенький", "");
    for index in 0..BURST_CALLS {
        let extension = ["101", "102"][index % 2];
        write(
            "Клиент",
            &burst_phone(index),
            employee(extension),
            extension,
        );
    }
    let rows = String::from_utf8(table.into_inner().unwrap()).unwrap();
    let rows = rows.replacen("1,contact,", "id,kind,", 1);
    Site::with_csv_at(address, &rows)
}

/// The employees' ids in a CRM.
const ANNA: u64 = 17;
const BORIS: u64 = 18;
const NEWCOMER: u64 = 19;
const DISMISSED: u64 = 20;

/// The same company in a CRM, without the burst's clients.
fn world() -> World {
    let user = |id, first_name: &str, last_name: &str, active, extension: Option<&str>| User {
        id,
        first_name: first_name.to_owned(),
        last_name: last_name.to_owned(),
        active,
        extension: extension.map(str::to_owned),
        mobile: None,
        email: format!("user{id}@example.com"),
        ..User::default()
    };
    let employee = |extension: &str| match extension {
        "101" => ANNA,
        _ => BORIS,
    };
    let mut contacts: Vec<Entry> = (1000..)
        .zip(clients())
        .map(|(id, client)| entry(id, &client.name, &client.phone, employee(client.extension)))
        .collect();
    contacts.push(entry(2000, UNREACHABLE.1, UNREACHABLE.0, NEWCOMER));
    contacts.push(Entry {
        company: Some(1),
        ..entry(2001, LEFT_BEHIND.1, LEFT_BEHIND.0, DISMISSED)
    });
    World {
        users: vec![
            user(ANNA, "Анна", "Соколова", true, Some("101")),
            user(BORIS, "Борис", "Жуков", true, Some("102")),
            user(NEWCOMER, "Виктор", "Новенький", true, None),
            user(DISMISSED, "Глеб", "Ушедший", false, Some("103")),
        ],
        contacts,
        companies: vec![entry(1, THEIR_COMPANY.0, LEFT_BEHIND.0, BORIS)],
        ..World::default()
    }
}

fn entry(id: u64, name: &str, phone: &str, responsible: u64) -> Entry {
    Entry {
        id,
        name: name.to_owned(),
        responsible,
        phones: vec![format!("+{phone}")],
        modified: 1_795_000_000,
        ..Entry::default()
    }
}

/// What ails a CRM, until it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Every connection is cut.
    Down,
    /// Every request is taken, and none answered.
    Hang,
}

/// A running CRM with [`world`] in it.
enum FakeCrm {
    /// With what it runs on.
    Bitrix24(FakeBitrix24, Runtime),
    Amocrm(FakeAmocrm),
}

impl FakeCrm {
    fn bitrix24(world: SharedWorld) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let options = fake_bitrix24::Options::default();
        let fake = runtime.block_on(FakeBitrix24::start(world, options));
        Self::Bitrix24(fake, runtime)
    }

    fn amocrm(world: SharedWorld) -> Self {
        Self::Amocrm(FakeAmocrm::start(world, fake_amocrm::Options::default()))
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Bitrix24(..) => "bitrix24",
            Self::Amocrm(_) => "amocrm",
        }
    }

    /// Its `[[crm]]` table.
    fn table(&self) -> String {
        let own = match self {
            Self::Bitrix24(fake, _) => format!("url = \"{}\"\n", fake.url()),
            Self::Amocrm(fake) => fake.table() + employees_table().as_str(),
        };
        let kind = self.kind();
        format!("[[crm]]\nname = \"sales\"\nkind = \"{kind}\"\n{own}")
    }

    fn set_trouble(&self, trouble: Trouble) {
        match self {
            Self::Bitrix24(fake, _) => fake.set_mood(match trouble {
                Trouble::Down => fake_bitrix24::Mood::Down(usize::MAX),
                Trouble::Hang => fake_bitrix24::Mood::Hang,
            }),
            Self::Amocrm(fake) => fake.set_mood(match trouble {
                Trouble::Down => fake_amocrm::Mood::Down,
                Trouble::Hang => fake_amocrm::Mood::Hang,
            }),
        }
    }
}

/// amoCRM holds no extensions: they stand in the configuration.
fn employees_table() -> String {
    let rows = world().users.into_iter().filter_map(|user| {
        let (email, extension) = (user.email, user.extension?);
        Some(format!("\"{email}\" = {{ extension = \"{extension}\" }}\n"))
    });
    format!("[crm.employees]\n{}", rows.collect::<String>())
}

/// An Asterisk that asks at one address, whichever daemon answers there.
struct Exchange {
    lab: Lab,
    dialplan: Dialplan,
    /// What a failed test is told: the version and the dialplan.
    title: String,
    address: SocketAddr,
    dialled: u32,
}

impl Exchange {
    fn start(version: &str, dialplan: Dialplan) -> Self {
        let address = free_address();
        let url = format!("http://{address}/forward");
        Self {
            lab: Lab::start(version, dialplan, &url),
            dialplan,
            title: format!("Asterisk {version}, {dialplan:?}"),
            address,
            dialled: 0,
        }
    }

    /// A number that nobody has dialled yet.
    fn did(&mut self) -> String {
        self.dialled += 1;
        format!("7495{:07}", self.dialled)
    }

    fn callers<'a>(&mut self, from: impl Iterator<Item = &'a str>) -> Vec<Caller> {
        from.map(|from| Caller {
            from: from.to_owned(),
            name: TRUNKS_NAME.to_owned(),
            to: self.did(),
        })
        .collect()
    }

    /// Calls from these numbers, a few at a time.
    fn calls(&mut self, from: &[&str]) -> Vec<Outcome> {
        let callers = self.callers(from.iter().copied());
        self.lab.calls(&callers, 8, Duration::from_millis(400))
    }

    fn call(&mut self, from: &str) -> (Outcome, Duration) {
        let to = self.did();
        self.lab.call(from, &to)
    }
}

/// Every client of [`clients`] rings their own employee, who sees the right name; however the
/// number is written. The daemon's CRM must hold these clients, whatever kind it is.
fn known_callers_reach_their_employee(exchange: &mut Exchange, daemon: &Daemon) {
    let clients = clients();
    let counted = daemon.metric("pryamo_answers_total", "responsible");
    let lookups = live_lookups(daemon, "");
    let mut from: Vec<(String, &Client)> = clients
        .iter()
        .map(|client| (client.phone.clone(), client))
        .collect();
    for client in &clients[..2] {
        let national = &client.phone[1..];
        from.extend(
            ["+7", "8", "007", "8107", ""].map(|start| (format!("{start}{national}"), client)),
        );
    }
    let numbers: Vec<&str> = from.iter().map(|(number, _)| number.as_str()).collect();
    let shown = |exchange: &Exchange| -> Vec<Vec<String>> {
        from.iter()
            .map(|(number, client)| exchange.lab.shown(client.extension, number))
            .collect()
    };
    let before = shown(exchange);
    let outcomes = exchange.calls(&numbers);
    let after = shown(exchange);
    for (index, ((number, client), outcome)) in from.iter().zip(outcomes).enumerate() {
        let expected = Outcome {
            name: client.shown.clone(),
            went: client.extension.to_owned(),
        };
        let title = &exchange.title;
        assert_eq!(outcome, expected, "{title}: {number}, {:?}", client.name);
        // A phone's log also holds what it showed while another daemon answered.
        let new = &after[index][before[index].len()..];
        assert_eq!(new.last(), Some(&client.shown), "{title}: {number}");
    }
    let counted = daemon.metric("pryamo_answers_total", "responsible") - counted;
    assert_eq!(
        counted,
        from.len() as u64,
        "{}: calls counted",
        exchange.title
    );
    let asked = live_lookups(daemon, "") - lookups;
    assert_eq!(asked, 0, "{}: known, yet asked live", exchange.title);
}

/// How often a CRM was asked while a caller waited, with this outcome.
fn live_lookups(daemon: &Daemon, outcome: &str) -> u64 {
    let label = format!("outcome=\"{outcome}");
    daemon.metric("pryamo_live_lookups_total", &label)
}

/// Who is not known goes the standard route; who is known but has nobody takes their name along.
fn others_go_to_the_ivr(exchange: &mut Exchange) {
    let outcomes = exchange.calls(&["79169999999", UNREACHABLE.0]);
    let names = match exchange.dialplan {
        // The vendor's dialplan sets the name it was given, also where there is none.
        Dialplan::Vendor => ["", UNREACHABLE.1],
        Dialplan::Recommended => [TRUNKS_NAME, UNREACHABLE.1],
    };
    for (outcome, name) in outcomes.into_iter().zip(names) {
        let expected = Outcome {
            name: name.to_owned(),
            went: "ivr".to_owned(),
        };
        assert_eq!(outcome, expected, "{}", exchange.title);
    }
}

/// Whatever stands in the caller's number, the call goes to the IVR and nothing is dialled.
fn odd_numbers_go_to_the_ivr(exchange: &mut Exchange) {
    let rung = exchange.lab.rung().len();
    let odd = [
        "79160000777%20sp",
        "79160000777%26trunk=evil",
        "79160000777%26number=101",
        "79160000777%23x",
        "79160000777,a=b",
        "79160000777%25",
        "%D0%98%D0%B2%D0%B0%D0%BD",
        "79160000777%22x",
        "79160000777%5C",
        "79160000777%3Fx",
        "79160000777%0D%0AX-Evil:%201",
        "$%7BEXTEN%7D",
        "../../101",
        "(101)",
        "anonymous",
        "101",
        "*98",
    ];
    for (number, outcome) in odd.iter().zip(exchange.calls(&odd)) {
        assert_eq!(outcome.went, "ivr", "{}: {number}", exchange.title);
    }
    assert_eq!(exchange.lab.rung().len(), rung, "{}: rung", exchange.title);
}

/// Many calls at once, each to its own employee.
fn a_burst_of_calls_is_answered(exchange: &mut Exchange) {
    let numbers: Vec<String> = (0..BURST_CALLS).map(burst_phone).collect();
    let callers = exchange.callers(numbers.iter().map(String::as_str));
    let hold = Duration::from_millis(300);
    let outcomes = exchange.lab.calls(&callers, BURST_PER_SECOND, hold);
    for (index, outcome) in outcomes.iter().enumerate() {
        let expected = ["101", "102"][index % 2];
        assert_eq!(outcome.went, expected, "{}: call {index}", exchange.title);
    }
}

/// A caller who hangs up while the daemon thinks: the vendor's dialplan asks once more, with
/// `trunk=h`, and that is no call.
fn a_caller_who_gives_up_counts_once(exchange: &mut Exchange, daemon: &Daemon) {
    let counted = daemon.metric("pryamo_answers_total", "");
    let to = exchange.did();
    daemon.signal("STOP");
    exchange
        .lab
        .give_up("79161230000", &to, Duration::from_millis(300));
    daemon.signal("CONT");
    exchange.lab.await_end(&to);
    let counted = daemon.metric("pryamo_answers_total", "") - counted;
    assert_eq!(counted, 1, "{}: answers counted", exchange.title);
    let asked_again = exchange.lab.steps().contains("[h@itgrix-transfer:");
    assert_eq!(asked_again, exchange.dialplan == Dialplan::Vendor);
}

/// A daemon that hangs costs the caller the dialplan's own limit, and no more.
fn a_hanging_daemon_costs_the_dialplans_patience(exchange: &mut Exchange, daemon: &Daemon) {
    daemon.signal("STOP");
    let (outcome, took) = exchange.call("79161230000");
    daemon.signal("CONT");
    let patience = exchange.dialplan.patience();
    assert_eq!(outcome.went, "ivr", "{}", exchange.title);
    assert!(took < patience + SLACK, "{}: {took:?}", exchange.title);
}

/// A daemon that is gone costs nothing.
fn a_killed_daemon_costs_nothing(exchange: &mut Exchange, daemon: &mut Daemon) {
    daemon.kill();
    let (outcome, took) = exchange.call("79161230000");
    assert_eq!(outcome.went, "ivr", "{}", exchange.title);
    assert!(took < SLACK, "{}: {took:?}", exchange.title);
}

/// One call from this number rings this extension, which shows this name.
fn caller_reaches(exchange: &mut Exchange, from: &str, extension: &str, name: &str) {
    let before = exchange.lab.shown(extension, from).len();
    let outcome = exchange.calls(&[from]).remove(0);
    let expected = Outcome {
        name: name.to_owned(),
        went: extension.to_owned(),
    };
    assert_eq!(outcome, expected, "{}: {from}", exchange.title);
    let shown = exchange.lab.shown(extension, from);
    let new = shown[before..].last().map(String::as_str);
    assert_eq!(new, Some(name), "{}: {from}", exchange.title);
}

fn latecomer_reaches_anna(exchange: &mut Exchange) {
    caller_reaches(exchange, LATECOMER.0, "101", LATECOMER.1);
}

/// Whom the mirror lacks and the CRM knows is asked for while they wait.
fn a_latecomer_is_found_live(exchange: &mut Exchange, daemon: &Daemon, world: &SharedWorld) {
    let latecomer = entry(3000, LATECOMER.1, LATECOMER.0, ANNA);
    world.write().unwrap().contacts.push(latecomer);
    let found = live_lookups(daemon, "found");
    latecomer_reaches_anna(exchange);
    let found = live_lookups(daemon, "found") - found;
    assert_eq!(found, 1, "{}: found live", exchange.title);
}

/// A CRM in trouble: who is known, even if only by a live lookup, is not touched by it; a stranger
/// waits for the CRM no longer than promised.
fn a_crm_in_trouble_costs_strangers_a_moment(
    exchange: &mut Exchange,
    daemon: &Daemon,
    trouble: Trouble,
    stranger: &str,
) {
    let title = format!("{}, {trouble:?}", exchange.title);
    let asked = live_lookups(daemon, "");
    let (known, took) = exchange.call(&clients()[0].phone);
    assert_eq!(known.went, "101", "{title}");
    assert!(took < SLACK, "{title}: {took:?}");
    latecomer_reaches_anna(exchange);
    let asked = live_lookups(daemon, "") - asked;
    assert_eq!(asked, 0, "{title}: known, yet asked live");

    // The call proves nothing unless the CRM was asked, in vain.
    let outcomes: &[&str] = match trouble {
        Trouble::Down => &["failed", "too_late"],
        Trouble::Hang => &["too_late"],
    };
    let in_vain = || -> u64 {
        let lookups = outcomes.iter();
        lookups.map(|outcome| live_lookups(daemon, outcome)).sum()
    };
    let before = in_vain();
    let (unknown, took) = exchange.call(stranger);
    assert_eq!(unknown.went, "ivr", "{title}");
    assert_eq!(in_vain() - before, 1, "{title}: asked live in vain");
    assert!(took < LIVE_LOOKUP + SLACK, "{title}: {took:?}");
    if trouble == Trouble::Hang {
        assert!(took >= LIVE_LOOKUP, "{title}: {took:?}");
    }
}

fn calls_go_right_with_a_csv_file(exchange: &mut Exchange) {
    let site = csv_site(exchange.address);
    let mut daemon = Daemon::start(&site);
    known_callers_reach_their_employee(exchange, &daemon);
    others_go_to_the_ivr(exchange);
    odd_numbers_go_to_the_ivr(exchange);
    a_burst_of_calls_is_answered(exchange);
    a_caller_who_gives_up_counts_once(exchange, &daemon);
    a_hanging_daemon_costs_the_dialplans_patience(exchange, &daemon);
    assert!(daemon.is_alive(), "{}", exchange.title);
    a_killed_daemon_costs_nothing(exchange, &mut daemon);
}

fn calls_go_right_with_a_crm(exchange: &mut Exchange, start: fn(SharedWorld) -> FakeCrm) {
    let world = world().shared();
    let crm = start(SharedWorld::clone(&world));
    let title = exchange.title.clone();
    exchange.title = format!("{title}, {}", crm.kind());
    let config = format!(
        "[match]\nlive_lookup_ms = {}\n{}",
        LIVE_LOOKUP.as_millis(),
        crm.table()
    );
    let site = Site::at(exchange.address, &config);
    let mut daemon = Daemon::start(&site);
    known_callers_reach_their_employee(exchange, &daemon);
    others_go_to_the_ivr(exchange);
    // Whose employee is dismissed goes to their company's.
    caller_reaches(exchange, LEFT_BEHIND.0, "102", THEIR_COMPANY.1);
    a_latecomer_is_found_live(exchange, &daemon, &world);
    let troubles = [
        (Trouble::Down, "79169999998"),
        (Trouble::Hang, "79169999997"),
    ];
    for (trouble, stranger) in troubles {
        crm.set_trouble(trouble);
        a_crm_in_trouble_costs_strangers_a_moment(exchange, &daemon, trouble, stranger);
    }
    assert!(daemon.is_alive(), "{}", exchange.title);
    exchange.title = title;
}

fn every_call_goes_right(dialplan: Dialplan) {
    for version in asterisk_versions() {
        let mut exchange = Exchange::start(&version, dialplan);
        calls_go_right_with_a_crm(&mut exchange, FakeCrm::bitrix24);
        calls_go_right_with_a_crm(&mut exchange, FakeCrm::amocrm);
        calls_go_right_with_a_csv_file(&mut exchange);
    }
}

#[test]
fn calls_behind_the_vendors_dialplan() {
    every_call_goes_right(Dialplan::Vendor);
}

#[test]
fn calls_behind_the_recommended_dialplan() {
    every_call_goes_right(Dialplan::Recommended);
}
