//! Real SIP calls through a real Asterisk and a real daemon, behind the vendor page's dialplan,
//! unchanged, and behind the recommended one.

use std::net::SocketAddr;
use std::time::Duration;

use crate::daemon::{Daemon, Site, free_address};
use crate::lab::{Caller, Dialplan, Lab, Outcome, asterisk_versions};

/// The name that the trunk sends with every call.
const TRUNKS_NAME: &str = "Ivan";
/// How much longer than promised a call may take on a busy machine.
const SLACK: Duration = Duration::from_secs(3);
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
    let outcomes = exchange.calls(&numbers);
    for ((number, client), outcome) in from.iter().zip(outcomes) {
        let expected = Outcome {
            name: client.shown.clone(),
            went: client.extension.to_owned(),
        };
        let title = &exchange.title;
        assert_eq!(outcome, expected, "{title}: {number}, {:?}", client.name);
        let shown = exchange.lab.shown(client.extension, number);
        assert_eq!(shown.last(), Some(&client.shown), "{title}: {number}");
    }
    let counted = daemon.metric("pryamo_answers_total", "responsible") - counted;
    assert_eq!(
        counted,
        from.len() as u64,
        "{}: calls counted",
        exchange.title
    );
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

fn every_call_goes_right(dialplan: Dialplan) {
    for version in asterisk_versions() {
        let mut exchange = Exchange::start(&version, dialplan);
        // Here the other connectors' calls: a site at `exchange.address` whose fake CRM holds
        // `clients()`, a daemon on it, and `known_callers_reach_their_employee`; once more with that
        // CRM down, and with it hanging: known callers as before, an unknown one in the IVR within
        // `live_lookup_ms`.
        let site = csv_site(exchange.address);
        let mut daemon = Daemon::start(&site);
        known_callers_reach_their_employee(&mut exchange, &daemon);
        others_go_to_the_ivr(&mut exchange);
        odd_numbers_go_to_the_ivr(&mut exchange);
        a_burst_of_calls_is_answered(&mut exchange);
        a_caller_who_gives_up_counts_once(&mut exchange, &daemon);
        a_hanging_daemon_costs_the_dialplans_patience(&mut exchange, &daemon);
        assert!(daemon.is_alive(), "{}", exchange.title);
        a_killed_daemon_costs_nothing(&mut exchange, &mut daemon);
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
