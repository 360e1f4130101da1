//! What `pryamo explain` tells about typical calls: `docs/explain.md` is made here and compared, so that
//! people review the words that people read.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use pryamo::api;
use pryamo::call::{DialStatus, IncomingCall};
use pryamo::caller_name;
use pryamo::decision::Decision;
use pryamo::page::steps;
use pryamo::presence::{Direction, PhoneState, Talk};
use pryamo::record::{Absence, EntityKind, Staff};
use pryamo::told::{self, Language};

use crate::office::{Office, at, call, card, department, employee, extension};

const DAY: &str = "2026-11-23T12:00:00Z";
const NIGHT: &str = "2026-11-23T20:30:00Z";

const IVAN: &str = "+7 916 123-45-01";
const MARIA: &str = "+7 916 123-45-02";
const OLEG: &str = "+7 916 123-45-03";
const VIP: &str = "+7 916 123-45-04";
const STRANGER: &str = "+7 916 123-45-99";

const CONFIG: &str = r#"
[office]
time_zone = "Europe/Moscow"
holidays = "RU"
[route]
when_away = ["deputy", "head", "next", "600"]
[rules.hours]
office = "Mon-Fri 09:00-18:00; PH off"
[rules.hours.extension."600"]
hours = "Mon-Sun 08:00-20:00"
[rules.last_talk]
prefer = "unknown_callers"
[rules.lists]
do_not_route = ["8800*"]
[[rules.card]]
field = "tags"
contains = "VIP"
ring = "105"
[[crm]]
name = "sales"
kind = "csv"
[crm.employees]
17 = { deputy = "user18@example.com" }
"#;

/// Anna 101 (deputy Boris 102), head Gleb 103, Vera 104, director Darya 105; Denis has left.
fn staff() -> Staff {
    let mut boris = employee(18, "Борис Жуков", "102");
    boris.departments = vec!["2".to_owned()];
    let mut vera = employee(20, "Вера Белова", "104");
    vera.absences = vec![Absence {
        from: at("2026-11-22T21:00:00Z"),
        until: at("2026-12-06T21:00:00Z"),
        what: "Отпуск".to_owned(),
    }];
    let mut denis = employee(22, "Денис Ушедший", "106");
    denis.active = false;
    let mut nina = employee(23, "Нина Новая", "");
    nina.extension = None;
    Staff {
        employees: vec![
            employee(17, "Анна Соколова", "101"),
            boris,
            employee(19, "Глеб Орлов", "103"),
            vera,
            employee(21, "Дарья Главная", "105"),
            denis,
            nina,
        ],
        departments: vec![
            department("1", "Продажи", None, Some(19)),
            department("2", "Сервис", None, None),
        ],
    }
}

async fn office() -> Office {
    let mut vip = card(EntityKind::Contact, 4, "Семён Важный", VIP, 17);
    vip.0
        .fields
        .insert("tags".to_owned(), "опт, VIP".to_owned());
    let cards = vec![
        card(EntityKind::Contact, 1, "Иван Петров", IVAN, 17),
        card(EntityKind::Contact, 2, "Мария Весна", MARIA, 20),
        card(EntityKind::Contact, 3, "Олег Тихий", OLEG, 22),
        card(EntityKind::Company, 7, "ООО «Ромашка»", OLEG, 23),
        card(EntityKind::Lead, 9, "Заявка с сайта", OLEG, 18),
        vip,
    ];
    Office::open(CONFIG, &[], staff(), cards).await
}

/// A call and what goes before it.
struct Situation {
    title: &'static str,
    russian: &'static str,
    caller: &'static str,
    now: &'static str,
    tried: &'static [&'static str],
    phones: &'static [(&'static str, PhoneState)],
}

const ORDINARY: Situation = Situation {
    title: "",
    russian: "",
    caller: IVAN,
    now: DAY,
    tried: &[],
    phones: &[],
};

const SITUATIONS: [Situation; 12] = [
    Situation {
        title: "A client calls, the responsible is free",
        russian: "Звонит клиент, ответственный свободен",
        ..ORDINARY
    },
    Situation {
        title: "The responsible did not answer",
        russian: "Ответственный не взял трубку",
        tried: &["101"],
        ..ORDINARY
    },
    Situation {
        title: "The responsible is on the phone and takes no second call",
        russian: "Ответственный занят другим разговором",
        phones: &[("101", PhoneState::Busy), ("102", PhoneState::Unavailable)],
        ..ORDINARY
    },
    Situation {
        title: "The responsible is on leave",
        russian: "Ответственный в отпуске",
        caller: MARIA,
        ..ORDINARY
    },
    Situation {
        title: "The responsible has left the company, the next one has no extension",
        russian: "Ответственный уволился, у следующего нет добавочного",
        caller: OLEG,
        ..ORDINARY
    },
    Situation {
        title: "After hours",
        russian: "Вечером",
        now: NIGHT,
        ..ORDINARY
    },
    Situation {
        title: "On a national holiday",
        russian: "В праздник",
        now: "2027-02-23T12:00:00Z",
        ..ORDINARY
    },
    Situation {
        title: "Everybody was rung in vain",
        russian: "Никто не ответил",
        tried: &["101", "102", "103", "600"],
        ..ORDINARY
    },
    Situation {
        title: "An important client, marked in the CRM",
        russian: "Важный клиент, отмеченный в CRM",
        caller: VIP,
        ..ORDINARY
    },
    Situation {
        title: "Nobody knows the number, but somebody spoke with it yesterday",
        russian: "Номера нет в CRM, но вчера с ним говорили",
        caller: STRANGER,
        ..ORDINARY
    },
    Situation {
        title: "Nobody knows the number at all",
        russian: "Номер никому не известен",
        caller: "+7 499 000-00-00",
        ..ORDINARY
    },
    Situation {
        title: "A number that is never routed",
        russian: "Номер, который не распределяем",
        caller: "8 800 555-35-35",
        ..ORDINARY
    },
];

async fn decided(office: &Office, situation: &Situation) -> (IncomingCall, Decision) {
    office.phones.clear();
    for (number, state) in situation.phones {
        office.phones.set(number, *state);
    }
    let call = IncomingCall {
        tried: situation.tried.iter().map(|&one| one.to_owned()).collect(),
        status: (!situation.tried.is_empty()).then_some(DialStatus::NoAnswer),
        ..call(situation.caller)
    };
    let decision = office.route(&call, situation.now).await;
    (call, decision)
}

async fn told(office: &Office, situation: &Situation) -> String {
    let (call, decision) = decided(office, situation).await;
    let mut answer = api::decision_json(&decision, &caller_name::Settings::default());
    answer["then"] = json!(api::behind(&office.router, call, &decision, at(situation.now)).await);
    api::explanation(&answer)
}

fn talked_yesterday(office: &Office) {
    let talk = Talk {
        extension: extension("103"),
        at: at("2026-11-22T10:00:00Z"),
        direction: Direction::Outgoing,
    };
    office.phones.talked(STRANGER, talk);
}

/// Compares a page with what was reviewed; `make snapshots` writes it anew.
fn compare(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("PRYAMO_TEST_SNAPSHOTS").is_some() {
        std::fs::write(&path, page).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == reviewed,
        "{name} differs; look at it and run `make snapshots`:\n{page}"
    );
}

#[tokio::test]
async fn typical_calls_are_explained_as_reviewed() {
    let office = office().await;
    talked_yesterday(&office);
    let mut page = String::from(
        "# Typical calls, explained\n\nWhat `pryamo explain NUMBER` prints. The office: Anna (101) is responsible for Ivan, Boris (102) is\n\
         her deputy, Gleb (103) heads the department, 600 is the sales group; people work Monday to Friday\n\
         from 9 to 18. This page is made by a test, so it is what the program says.\n",
    );
    for situation in &SITUATIONS {
        let time = at(situation.now).to_zoned(jiff::tz::TimeZone::get("Europe/Moscow").unwrap());
        writeln!(
            page,
            "\n## {}\n\n`pryamo explain '{}' --at {}{}`\n\n```text\n{}```",
            situation.title,
            situation.caller,
            time.strftime("%Y-%m-%dT%H:%M"),
            if situation.tried.is_empty() {
                String::new()
            } else {
                format!(" --tried {}", situation.tried.join(","))
            },
            told(&office, situation).await
        )
        .unwrap();
    }
    compare("docs/explain.md", &page);
}

/// What the operators' page says of the same calls to a Russian reader.
#[tokio::test]
async fn typical_calls_are_told_in_russian_as_reviewed() {
    let office = office().await;
    talked_yesterday(&office);
    let mut page = String::from(
        "# Типичные звонки по шагам\n\nЧто говорит страница операторов на вопрос «Кому достанется этот номер?». Анна (101) ведёт Ивана,\n\
         её заместитель — Борис (102), отделом руководит Глеб (103), 600 — группа продаж; офис работает с\n\
         понедельника по пятницу с 9 до 18. Эту страницу пишет тест, так что программа говорит именно это.\n",
    );
    for situation in &SITUATIONS {
        let (_, decision) = decided(&office, situation).await;
        let time = at(situation.now).to_zoned(jiff::tz::TimeZone::get("Europe/Moscow").unwrap());
        let time = time.strftime("%d.%m.%Y %H:%M");
        let title = situation.russian;
        writeln!(page, "\n## {title}\n\n{}, {time}\n", situation.caller).unwrap();
        for step in &decision.steps {
            writeln!(page, "- {}", told::step(step, Language::Ru)).unwrap();
        }
        let advice = steps::would_change(&decision, Language::Ru);
        if !advice.is_empty() {
            page.push_str("\nЧто изменит решение:\n\n");
        }
        for one in advice {
            writeln!(page, "- {}", one.text).unwrap();
        }
    }
    compare("docs/explain.ru.md", &page);
}
