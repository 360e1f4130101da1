//! The chain and its rules: who is rung in whose place, in which order, and who never is.

use std::fmt::Write as _;
use std::time::Duration;

use proptest::prelude::*;

use pryamo::call::{DialStatus, Did, IncomingCall};
use pryamo::decision::{Decision, Reason};
use pryamo::presence::{Direction, PhoneState, Talk};
use pryamo::record::{Absence, Employee, EntityKind, Staff, Workday};

use crate::office::{Office, at, call, card, department, employee, extension};

/// Monday, 15:00 in Moscow.
const MONDAY: &str = "2026-11-23T12:00:00Z";
/// The night before.
const NIGHT: &str = "2026-11-22T22:00:00Z";

const IVAN: &str = "+7 916 000-00-01";
const STRANGER: &str = "+7 916 999-99-99";

const ANNA: u64 = 17;
const BORIS: u64 = 18;
const GLEB: u64 = 19;
const VERA: u64 = 20;
const DIRECTOR: u64 = 21;

/// Anna (101) is Ivan's; Boris (102) is her deputy, Gleb (103) heads sales, the director (105) the
/// company; Vera (104) has Ivan's company.
fn staff() -> Staff {
    let mut director = employee(DIRECTOR, "Дарья Главная", "105");
    director.departments = vec!["9".to_owned()];
    let mut anna = employee(ANNA, "Анна Соколова", "101");
    anna.mobiles = vec!["+7 903 000-00-09".to_owned()];
    anna.phones.clone_from(&anna.mobiles);
    Staff {
        employees: vec![
            anna,
            employee(BORIS, "Борис Жуков", "102"),
            employee(GLEB, "Глеб Орлов", "103"),
            employee(VERA, "Вера Белова", "104"),
            director,
        ],
        departments: vec![
            department("1", "Sales", Some("9"), Some(GLEB)),
            department("9", "Company", None, Some(DIRECTOR)),
        ],
    }
}

const DEPUTIES: &str = "[[crm]]\nname = \"sales\"\nkind = \"csv\"\n\
    [crm.employees]\n17 = { deputy = \"user18@example.com\" }\n";

async fn office(config: &str) -> Office {
    office_of(config, &[], staff()).await
}

async fn office_of(config: &str, files: &[(&str, &str)], staff: Staff) -> Office {
    let config = format!("[office]\ntime_zone = \"Europe/Moscow\"\n{config}\n{DEPUTIES}");
    let cards = vec![
        card(EntityKind::Contact, 1, "Иван Петров", IVAN, ANNA),
        card(EntityKind::Company, 2, "Ромашка", IVAN, VERA),
    ];
    Office::open(&config, files, staff, cards).await
}

fn changed(change: impl Fn(&mut Employee)) -> Staff {
    let mut staff = staff();
    staff.employees.iter_mut().for_each(change);
    staff
}

async fn rings(office: &Office, now: &str) -> (Option<String>, Reason) {
    ring_of(&office.route(&call(IVAN), now).await)
}

fn ring_of(decision: &Decision) -> (Option<String>, Reason) {
    (
        decision.ring.as_ref().map(ToString::to_string),
        decision.reason,
    )
}

#[tokio::test]
async fn the_chain_is_rung_in_the_order_of_the_policy() {
    for (route, expected, why) in [
        (
            "",
            vec!["101", "102", "103", "105"],
            "deputy, head, the head above, within four tries",
        ),
        (
            "most_tries = 9",
            vec!["101", "102", "103", "105", "104"],
            "and the next card's responsible",
        ),
        (
            "when_away = [\"next\"]",
            vec!["101", "104"],
            "the next alone",
        ),
        (
            "when_away = [\"head\", \"600\"]\nmost_tries = 9",
            vec!["101", "103", "105", "600"],
            "a group behind",
        ),
        ("when_away = []", vec!["101"], "nobody else"),
        (
            "when_away = [\"mobile\"]",
            vec!["101"],
            "no outgoing call unless allowed",
        ),
        (
            "when_away = [\"mobile\"]\n[route.outgoing]\nnumbers = [\"79*\"]\nstrip = \"7\"\nprefix = \"8\"",
            vec!["101", "89030000009"],
            "the mobile as the line wants it",
        ),
        (
            "when_away = [\"mobile\"]\n[route.outgoing]\nnumbers = [\"7495*\"]",
            vec!["101"],
            "not this mobile",
        ),
        (
            "when_away = [\"600\"]\n[route.did.\"7495*\"]\nwhen_away = [\"601\"]",
            vec!["101", "601"],
            "the DID's policy",
        ),
        (
            "[route.did.\"7495*\"]\nwhen_away = [\"601\"]\n[route.department.\"sales\"]\nwhen_away = [\"602\"]",
            vec!["101", "602"],
            "the department's policy above the DID's",
        ),
        (
            "[route.department.\"Company\"]\nwhen_away = [\"603\"]",
            vec!["101", "603"],
            "that of a department above",
        ),
        ("most_tries = 2", vec!["101", "102"], "as many as allowed"),
    ] {
        let office = office(&format!("[route]\n{route}")).await;
        let rung = office
            .rung_in_vain(IVAN, MONDAY, DialStatus::NoAnswer)
            .await;
        assert_eq!(rung, expected, "{route}: {why}");
    }
}

#[tokio::test]
async fn deputies_in_a_circle_are_rung_once_each() {
    let config = "[route]\nmost_tries = 9\nwhen_away = [\"deputy\"]\n[[crm]]\nname = \"sales\"\nkind = \"csv\"\n[crm.employees]\n\
        17 = { deputy = \"18\" }\n18 = { deputy = \"20\" }\n20 = { deputy = \"17\" }\n19 = { deputy = \"19\" }\n";
    let cards = vec![card(EntityKind::Contact, 1, "Иван", IVAN, ANNA)];
    let office = Office::open(config, &[], staff(), cards).await;
    let rung = office.rung_in_vain(IVAN, MONDAY, DialStatus::Busy).await;
    assert_eq!(rung, ["101", "102", "104"]);
}

#[tokio::test]
async fn time_and_tries_end_a_call() {
    let office = office("[route]\ntotal_seconds = 30\nring_seconds = 20\nmost_tries = 3").await;
    let asked = |tried: &[&str], waited: u64| IncomingCall {
        tried: tried.iter().map(|&one| one.to_owned()).collect(),
        status: Some(DialStatus::NoAnswer),
        waited: Duration::from_secs(waited),
        ..call(IVAN)
    };
    for (tried, waited, seconds, reason) in [
        (vec![], 0, 20, Reason::Responsible),
        (vec!["101"], 21, 9, Reason::Deputy),
        (vec!["101"], 30, 0, Reason::TimeSpent),
        (vec!["101", "102", "103"], 5, 0, Reason::TriesSpent),
    ] {
        let decision = office.route(&asked(&tried, waited), MONDAY).await;
        assert_eq!(
            (decision.ring_seconds, decision.reason),
            (seconds, reason),
            "{tried:?} {waited}"
        );
        assert_eq!(decision.entity.unwrap().name, "Иван Петров");
    }
}

#[tokio::test]
async fn hours_hold_by_the_offices_clock_and_the_nearest_word_counts() {
    let office_hours = "[rules.hours]\noffice = \"Mon-Fri 09:00-18:00; PH off\"\n";
    for (config, now, expected, why) in [
        (office_hours, MONDAY, Some("101"), "15:00 on Monday"),
        (office_hours, NIGHT, None, "01:00 on Monday"),
        (
            office_hours,
            "2026-11-23T15:00:00Z",
            None,
            "18:00 is outside",
        ),
        (
            office_hours,
            "2026-11-04T12:00:00Z",
            None,
            "a national holiday",
        ),
        (
            "[rules.hours]\noffice = \"Mon-Fri 09:00-18:00\"\n[rules.hours.did.\"7495*\"]\nhours = \"24/7\"\n",
            NIGHT,
            Some("101"),
            "this DID works at night",
        ),
        (
            "[rules.hours]\noffice = \"Mon-Fri 09:00-18:00\"\n[rules.hours.did.\"7495*\"]\nhours = \"Mon-Fri 09:00-18:00\"\ntime_zone = \"Asia/Vladivostok\"\n",
            "2026-11-22T23:30:00Z",
            Some("101"),
            "half past nine in Vladivostok",
        ),
        (
            "[route]\nwhen_away = [\"600\"]\n[rules.hours]\noffice = \"Mon-Fri 09:00-18:00\"\n[rules.hours.extension.\"600\"]\nhours = \"24/7\"\n",
            NIGHT,
            Some("600"),
            "the group on duty",
        ),
        (
            "[rules.hours]\noffice = \"Mon-Fri 09:00-18:00\"\n[rules.hours.department.\"Sales\"]\nhours = \"24/7\"\n",
            NIGHT,
            Some("101"),
            "a department on duty",
        ),
    ] {
        let office = Office::open(
            &format!("[office]\ntime_zone = \"Europe/Moscow\"\nholidays = \"RU\"\n{config}"),
            &[],
            staff(),
            vec![card(EntityKind::Contact, 1, "Иван", IVAN, ANNA)],
        )
        .await;
        assert_eq!(rings(&office, now).await.0.as_deref(), expected, "{why}");
    }
}

#[tokio::test]
async fn an_employees_own_hours_and_absences_count() {
    let own = |row: &str| {
        format!(
            "[office]\ntime_zone = \"Europe/Moscow\"\n[rules.hours]\noffice = \"24/7\"\n[[crm]]\nname = \"sales\"\nkind = \"csv\"\n[crm.employees]\n17 = {{ {row} }}\n"
        )
    };
    for (row, now, expected) in [
        ("hours = \"Tue-Fri 09:00-18:00\"", MONDAY, Some("103")),
        ("hours = \"Mon-Fri 09:00-18:00\"", MONDAY, Some("101")),
        ("absent = [\"2026-11-20..2026-11-23\"]", MONDAY, Some("103")),
        ("absent = [\"2026-11-20..2026-11-22\"]", MONDAY, Some("101")),
        (
            "absent = [\"2026-11-20..2026-11-23\"]",
            "2026-11-23T21:00:00Z",
            Some("101"),
        ),
    ] {
        let cards = vec![card(EntityKind::Contact, 1, "Иван", IVAN, ANNA)];
        let office = Office::open(&own(row), &[], staff(), cards).await;
        assert_eq!(
            rings(&office, now).await.0.as_deref(),
            expected,
            "{row} {now}"
        );
    }
}

#[tokio::test]
async fn what_the_crm_says_of_absences_and_the_working_day_counts() {
    let away = Absence {
        from: at("2026-11-23T06:00:00Z"),
        until: at("2026-11-24T15:00:00Z"),
        what: "Отпуск".to_owned(),
    };
    let absent = changed(|one| {
        if one.id.as_str() == "17" {
            one.absences = vec![away.clone()];
        }
    });
    let closed = |state| {
        changed(move |one| {
            if one.id.as_str() == "17" {
                one.workday = Some(state);
            }
        })
    };
    for (config, staff, expected, why) in [
        ("", absent.clone(), "102", "away"),
        (
            "[rules.absence]\nenabled = false",
            absent.clone(),
            "101",
            "switched off",
        ),
        (
            "[route]\nwhen_away = [\"mobile\", \"head\"]\n[route.outgoing]\nnumbers = [\"79*\"]",
            absent,
            "103",
            "nor is the mobile of somebody who is away rung",
        ),
        ("", closed(Workday::Closed), "102", "the day has not begun"),
        ("", closed(Workday::Paused), "102", "a break"),
        (
            "[rules.workday]\nring_in_breaks = true",
            closed(Workday::Paused),
            "101",
            "breaks do not count",
        ),
        ("", closed(Workday::Open), "101", "open"),
    ] {
        let office = office_of(config, &[], staff).await;
        assert_eq!(
            rings(&office, MONDAY).await.0.as_deref(),
            Some(expected),
            "{why}"
        );
    }
}

#[tokio::test]
async fn phones_that_cannot_take_the_call_are_passed_over() {
    use PhoneState::{Busy, DoNotDisturb, Free, InUse, Ringing, Unavailable, Unknown};
    let mobile = "[route]\nwhen_away = [\"mobile\"]\n[route.outgoing]\nnumbers = [\"79*\"]";
    for (config, state, expected) in [
        ("", Unknown, Some("101")),
        ("", Free, Some("101")),
        ("", Ringing, Some("101")),
        ("", InUse, Some("101")),
        ("", Busy, Some("102")),
        ("", Unavailable, Some("102")),
        ("", DoNotDisturb, Some("102")),
        (
            "[rules.phone_state]\nskip = [\"in_use\"]",
            InUse,
            Some("102"),
        ),
        ("[rules.phone_state]\nskip = []", Busy, Some("101")),
        (mobile, Unavailable, Some("79030000009")),
        (mobile, DoNotDisturb, None),
    ] {
        let office = office(config).await;
        office.phones.set("101", state);
        assert_eq!(
            rings(&office, MONDAY).await.0.as_deref(),
            expected,
            "{config} {state:?}"
        );
    }
}

#[tokio::test]
async fn who_spoke_with_the_caller_last_is_preferred_where_asked_for() {
    let everybody = "[rules.last_talk]\nprefer = \"everybody\"\nhours = 24";
    let unknown = "[rules.last_talk]\nprefer = \"unknown_callers\"";
    let yesterday = "2026-11-22T13:00:00Z";
    for (config, caller, extension, when, expected) in [
        (
            everybody,
            IVAN,
            "104",
            yesterday,
            (Some("104"), Reason::LastTalk),
        ),
        (
            everybody,
            IVAN,
            "104",
            "2026-11-22T11:00:00Z",
            (Some("101"), Reason::Responsible),
        ),
        (
            everybody,
            IVAN,
            "777",
            yesterday,
            (Some("101"), Reason::Responsible),
        ),
        (
            unknown,
            IVAN,
            "104",
            yesterday,
            (Some("101"), Reason::Responsible),
        ),
        (
            unknown,
            STRANGER,
            "104",
            yesterday,
            (Some("104"), Reason::LastTalk),
        ),
        (
            "",
            STRANGER,
            "104",
            yesterday,
            (None, Reason::UnknownCaller),
        ),
    ] {
        let office = office(config).await;
        let direction = Direction::Outgoing;
        let talk = Talk {
            extension: self::extension(extension),
            at: at(when),
            direction,
        };
        office.phones.talked(caller, talk);
        let decision = office.route(&call(caller), MONDAY).await;
        let (number, reason) = ring_of(&decision);
        assert_eq!(
            (number.as_deref(), reason),
            expected,
            "{config} {caller} {extension} {when}"
        );
    }
}

#[tokio::test]
async fn lists_stand_above_the_cards() {
    let config = "[rules.lists]\ndo_not_route = [\"8800*\", \"8 (916) 000-00-05\"]\ndo_not_route_file = \"spam.txt\"\n\
        [rules.lists.always_to]\n\"+7 916 000-00-01\" = \"104\"\n\"+7917*\" = \"105\"\n";
    let files = [("spam.txt", "# spam\n8 495 000-00-11   # again\n\n+7 499*\n")];
    let office = office_of(config, &files, staff()).await;
    for (caller, expected) in [
        (IVAN, (Some("104".to_owned()), Reason::Listed)),
        ("89170000001", (Some("105".to_owned()), Reason::Listed)),
        ("88005553535", (None, Reason::NotRouted)),
        ("+79160000005", (None, Reason::NotRouted)),
        ("84950000011", (None, Reason::NotRouted)),
        ("84990000000", (None, Reason::NotRouted)),
        (STRANGER, (None, Reason::UnknownCaller)),
    ] {
        let decision = office.route(&call(caller), MONDAY).await;
        assert_eq!(ring_of(&decision), expected, "{caller}");
    }
    let rung = office
        .rung_in_vain(IVAN, MONDAY, DialStatus::NoAnswer)
        .await;
    assert_eq!(
        rung,
        ["104", "101", "102", "103"],
        "the list first, then the chain"
    );
}

#[tokio::test]
async fn a_field_of_the_card_decides() {
    for (rule, expected) in [
        (
            "field = \"UF_CRM_VIP\"\nis = \"1\"\nring = \"105\"",
            (Some("105"), Reason::CardField),
        ),
        (
            "field = \"UF_CRM_VIP\"\nis = \"0\"\nring = \"105\"",
            (Some("101"), Reason::Responsible),
        ),
        (
            "field = \"tags\"\ncontains = \"vip\"\nskip = true",
            (Some("102"), Reason::Deputy),
        ),
        (
            "field = \"name\"\ncontains = \"петров\"\nstandard_route = true",
            (None, Reason::NotRouted),
        ),
        (
            "field = \"UF_CRM_VIP\"\nis = \"1\"\ncrm = \"other\"\nring = \"105\"",
            (Some("101"), Reason::Responsible),
        ),
    ] {
        let mut ivan = card(EntityKind::Contact, 1, "Иван Петров", IVAN, ANNA);
        ivan.0
            .fields
            .insert("UF_CRM_VIP".to_owned(), "1".to_owned());
        ivan.0
            .fields
            .insert("tags".to_owned(), "retail, VIP".to_owned());
        let config = format!("[[rules.card]]\n{rule}\n{DEPUTIES}");
        let office = Office::open(&config, &[], staff(), vec![ivan]).await;
        let (number, reason) = rings(&office, MONDAY).await;
        assert_eq!((number.as_deref(), reason), expected, "{rule}");
    }
}

#[tokio::test]
async fn the_script_has_the_last_word_and_its_faults_change_nothing() {
    for (body, expected, told) in [
        (
            "candidates",
            vec!["101", "102", "103", "105"],
            "changed nothing",
        ),
        ("", vec!["101", "102", "103", "105"], "changed nothing"),
        (
            "candidates.reverse(); candidates",
            vec!["104", "105", "103", "102"],
            "are 104, 105, 103, 102, 101",
        ),
        (
            "[\"601\"] + candidates",
            vec!["601", "101", "102", "103"],
            "are 601, 101",
        ),
        (
            "#{ candidates: candidates.filter(|c| c.name != \"Анна Соколова\") }",
            vec!["102", "103", "105", "104"],
            "are 102",
        ),
        ("#{ standard_route: true }", vec![], "the standard route"),
        (
            "[\"89161234567\"]",
            vec!["101", "102", "103", "105"],
            "failed",
        ),
        ("[\"101&x\"]", vec!["101", "102", "103", "105"], "failed"),
        ("42", vec!["101", "102", "103", "105"], "failed"),
        ("loop {}", vec!["101", "102", "103", "105"], "stopped"),
        (
            "incoming.no_such.thing",
            vec!["101", "102", "103", "105"],
            "failed",
        ),
        (
            "if incoming.hour == 15 && incoming.weekday == 1 && incoming.did == \"74951234567\" { [\"604\"] }",
            vec!["604"],
            "604",
        ),
        (
            "if incoming.cards[0].name == \"Иван Петров\" { [\"605\"] } else { candidates }",
            vec!["605"],
            "605",
        ),
    ] {
        let script = format!("fn route(incoming, candidates) {{ {body} }}");
        let config = "[rules.script]\nfile = \"route.rhai\"\nmost_ms = 500\n";
        let office = office_of(config, &[("route.rhai", &script)], staff()).await;
        let rung = office
            .rung_in_vain(IVAN, MONDAY, DialStatus::NoAnswer)
            .await;
        assert_eq!(rung, expected, "{body}");
        let decision = office.route(&call(IVAN), MONDAY).await;
        let steps: Vec<String> = decision.steps.iter().map(ToString::to_string).collect();
        let said = steps
            .iter()
            .any(|step| step.starts_with("script: ") && step.contains(told));
        assert!(said, "{body}: {steps:#?}");
    }
}

#[tokio::test]
async fn the_shipped_scripts_do_what_they_say() {
    let script = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("docs/scripts")
            .join(name);
        std::fs::read_to_string(path).unwrap()
    };
    let config = "[rules.script]\nfile = \"x.rhai\"\nmost_ms = 500\n";
    let mut vip = card(EntityKind::Contact, 1, "Иван Петров", IVAN, ANNA);
    vip.0.fields.insert("tags".to_owned(), "VIP".to_owned());
    vip.0.company = Some("Ромашка".to_owned());
    let open = async |name: &str| {
        let text = script(name);
        let config = format!("[office]\ntime_zone = \"Europe/Moscow\"\n{config}");
        Office::open(&config, &[("x.rhai", &text)], staff(), vec![vip.clone()]).await
    };
    let night = open("vip_at_night.rhai").await;
    let decision = night.route(&call(IVAN), NIGHT).await;
    assert_eq!(ring_of(&decision), (Some("190".to_owned()), Reason::Script));
    assert_eq!(decision.name.as_deref(), Some("VIP Иван Петров"));
    assert_eq!(
        rings(&night, MONDAY).await,
        (Some("101".to_owned()), Reason::Responsible)
    );
    assert_eq!(
        ring_of(&night.route(&call(STRANGER), NIGHT).await),
        (None, Reason::NotRouted)
    );

    let shares = open("fair_shares.rhai").await;
    assert_eq!(rings(&shares, MONDAY).await.0.as_deref(), Some("101"));
    let rung = shares
        .rung_in_vain(STRANGER, MONDAY, DialStatus::NoAnswer)
        .await;
    assert_eq!(rung, ["101", "102", "103"], "99 % 3 is 0");
    let rung = shares
        .rung_in_vain("+79169999998", MONDAY, DialStatus::NoAnswer)
        .await;
    assert_eq!(rung, ["103", "101", "102"]);

    let free = open("whoever_is_free.rhai").await;
    free.phones.set("101", PhoneState::InUse);
    let to_support = IncomingCall {
        did: Did::new("74951234500"),
        ..call(IVAN)
    };
    let decision = free.route(&to_support, MONDAY).await;
    assert_eq!(ring_of(&decision), (Some("103".to_owned()), Reason::Head));
    assert_eq!(decision.name.as_deref(), Some("Ромашка"));
}

const STATES: [PhoneState; 5] = [
    PhoneState::Unknown,
    PhoneState::Free,
    PhoneState::Busy,
    PhoneState::DoNotDisturb,
    PhoneState::Unavailable,
];

/// States in which a phone is not rung.
const OFF: [PhoneState; 3] = [
    PhoneState::Busy,
    PhoneState::DoNotDisturb,
    PhoneState::Unavailable,
];

/// What a test sets for one of the five employees.
#[derive(Debug, Clone)]
struct Fate {
    active: bool,
    has_extension: bool,
    is_away: bool,
    workday: Option<Workday>,
    state: PhoneState,
    deputy: Option<u64>,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let workday = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Workday::Open)),
        1 => Just(Some(Workday::Closed)),
    ];
    let deputy = prop_oneof![1 => Just(None), 2 => (ANNA..=DIRECTOR).prop_map(Some)];
    let fate = (
        proptest::bool::weighted(0.8),
        proptest::bool::weighted(0.8),
        proptest::bool::weighted(0.2),
        workday,
        proptest::sample::select(&STATES[..]),
        deputy,
    );
    let fate = fate.prop_map(
        |(active, has_extension, is_away, workday, state, deputy)| Fate {
            active,
            has_extension,
            is_away,
            workday,
            state,
            deputy,
        },
    );
    proptest::collection::vec(fate, 5)
}

fn away_steps() -> impl Strategy<Value = Vec<&'static str>> {
    let steps = proptest::sample::select(&["mobile", "deputy", "head", "next", "600", "101"][..]);
    proptest::collection::vec(steps, 0..6)
}

async fn fateful_office(fates: &[Fate], steps: &[&str]) -> Office {
    let mut staff = staff();
    let mut rows = String::new();
    for (employee, fate) in staff.employees.iter_mut().zip(fates) {
        employee.active = fate.active;
        if !fate.has_extension {
            employee.extension = None;
        }
        if fate.is_away {
            let (from, until) = (at("2026-11-23T06:00:00Z"), at("2026-11-24T15:00:00Z"));
            employee.absences = vec![Absence {
                from,
                until,
                what: String::new(),
            }];
        }
        employee.workday = fate.workday;
        if let Some(deputy) = fate.deputy {
            writeln!(rows, "{} = {{ deputy = \"{deputy}\" }}", employee.id).unwrap();
        }
    }
    let config = format!(
        "[route]\nwhen_away = {steps:?}\nmost_tries = 32\n[route.outgoing]\nnumbers = [\"79*\"]\n\
         [[crm]]\nname = \"sales\"\nkind = \"csv\"\n[crm.employees]\n{rows}"
    );
    let cards = vec![
        card(EntityKind::Contact, 1, "Иван Петров", IVAN, ANNA),
        card(EntityKind::Company, 2, "Ромашка", IVAN, VERA),
    ];
    let office = Office::open(&config, &[], staff, cards).await;
    for (number, fate) in (101..).zip(fates) {
        office.phones.set(&number.to_string(), fate.state);
    }
    office
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whoever is dismissed, away, off duty or has no phone to answer with is never rung; nobody is rung
    /// twice; every chain ends; the same question has the same answer.
    #[test]
    fn no_decision_rings_somebody_whom_a_rule_forbids(fates in fates(), steps in away_steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let office = fateful_office(&fates, &steps).await;
            let rung = office.rung_in_vain(IVAN, MONDAY, DialStatus::NoAnswer).await;
            let mut once = rung.clone();
            once.sort();
            once.dedup();
            assert_eq!(once.len(), rung.len(), "somebody was rung twice: {rung:?}");
            for number in &rung {
                let mobile = number == "79030000009";
                let place = if mobile { Some(0) } else { number.parse::<usize>().ok().and_then(|number| number.checked_sub(101)) };
                // A group is nobody's.
                let Some(fate) = place.and_then(|place| fates.get(place)) else {
                    assert!(number == "600", "{number} is nobody's");
                    continue;
                };
                if number == "101" && steps.contains(&"101") && (!fate.active || !fate.has_extension) {
                    // Nobody's extension then: what the administrator names is rung as a group is.
                    continue;
                }
                assert!(fate.active && !fate.is_away, "{number}: {fate:?}");
                assert!(fate.workday != Some(Workday::Closed), "{number}: {fate:?}");
                assert!(mobile || fate.has_extension, "{number}: {fate:?}");
                assert!(mobile || !OFF.contains(&fate.state), "{number}: {fate:?}");
            }
            assert_eq!(rung, office.rung_in_vain(IVAN, MONDAY, DialStatus::NoAnswer).await);
            let decision = office.route(&call(IVAN), MONDAY).await;
            assert_eq!(decision, office.route(&call(IVAN), MONDAY).await);
        });
    }
}
