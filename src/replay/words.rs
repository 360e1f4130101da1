//! The words of the page, in Russian and English.

use serde::{Deserialize, Serialize};

/// The language of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Russian.
    Ru,
    /// English.
    En,
}

/// What the page says.
pub(super) struct Words {
    pub(super) lang: &'static str,
    pub(super) title: &'static str,
    pub(super) period: &'static str,
    pub(super) calls: &'static str,
    pub(super) known: &'static str,
    pub(super) of_calls: &'static str,
    pub(super) then: &'static str,
    pub(super) now: &'static str,
    pub(super) then_long: &'static str,
    pub(super) now_long: &'static str,
    pub(super) of_known: &'static str,
    pub(super) answered: &'static str,
    pub(super) by_hour: &'static str,
    pub(super) by_hour_note: &'static str,
    pub(super) by_employee: &'static str,
    pub(super) employee: &'static str,
    pub(super) by_did: &'static str,
    pub(super) did: &'static str,
    pub(super) no_did: &'static str,
    pub(super) others: &'static str,
    pub(super) reasons: &'static str,
    pub(super) reason: &'static str,
    pub(super) count: &'static str,
    pub(super) figures: &'static str,
    pub(super) lines: &'static str,
    pub(super) damaged: &'static str,
    pub(super) outgoing: &'static str,
    pub(super) internal: &'static str,
    pub(super) without_number: &'static str,
    pub(super) more: &'static str,
    pub(super) nothing: &'static str,
    pub(super) how: &'static str,
    /// The group sign of thousands.
    pub(super) thousands: char,
    pub(super) decimal: char,
}

impl Language {
    pub(super) fn words(self) -> &'static Words {
        match self {
            Self::Ru => &RUSSIAN,
            Self::En => &ENGLISH,
        }
    }

    /// What a decision's reason means.
    pub(super) fn reason(self, reason: &str) -> &str {
        let row = REASONS.iter().find(|(word, _, _)| *word == reason);
        row.map_or(reason, |(_, russian, english)| match self {
            Self::Ru => russian,
            Self::En => english,
        })
    }
}

const ENGLISH: Words = Words {
    lang: "en",
    title: "Calls under today's rules",
    period: "Period",
    calls: "calls from outside",
    known: "of known callers",
    of_calls: "of all calls",
    then: "then",
    now: "now",
    then_long: "reached their own person then",
    now_long: "would ring their own person first now",
    of_known: "of known callers",
    answered: "answered by anybody then",
    by_hour: "By hour of the day",
    by_hour_note: "Calls of known callers: all, with their own person then, and now.",
    by_employee: "By employee",
    employee: "Employee",
    by_did: "By number dialled",
    did: "Number",
    no_did: "not in the file",
    others: "all others",
    reasons: "Today's decisions",
    reason: "Decision",
    count: "Calls",
    figures: "What was counted",
    lines: "lines in the file",
    damaged: "lines that could not be read",
    outgoing: "outgoing calls, left out",
    internal: "calls between extensions, left out",
    without_number: "calls with a hidden number, left out",
    more: "more in --json",
    nothing: "The file has no call of a known caller.",
    how: "Each call was judged at its own time by today's rules, mirror and responsible employees. \
        Phones' states and live lookups take no part. A person who would be rung first may still not \
        have answered.",
    thousands: ',',
    decimal: '.',
};

const RUSSIAN: Words = Words {
    lang: "ru",
    title: "Звонки по сегодняшним правилам",
    period: "Период",
    calls: "звонков снаружи",
    known: "от известных клиентов",
    of_calls: "всех звонков",
    then: "тогда",
    now: "сейчас",
    then_long: "попали к своему сотруднику тогда",
    now_long: "первым зазвонил бы свой сотрудник сейчас",
    of_known: "известных клиентов",
    answered: "тогда ответил хоть кто-то",
    by_hour: "По часам суток",
    by_hour_note: "Звонки известных клиентов: все, к своему сотруднику тогда и сейчас.",
    by_employee: "По сотрудникам",
    employee: "Сотрудник",
    by_did: "По набранным номерам",
    did: "Номер",
    no_did: "в файле не указан",
    others: "все остальные",
    reasons: "Решения по сегодняшним правилам",
    reason: "Решение",
    count: "Звонки",
    figures: "Что посчитано",
    lines: "строк в файле",
    damaged: "строк не удалось прочитать",
    outgoing: "исходящих звонков, не учтены",
    internal: "внутренних звонков, не учтены",
    without_number: "звонков со скрытым номером, не учтены",
    more: "остальное в --json",
    nothing: "В файле нет звонков известных клиентов.",
    how: "Каждый звонок проверен на своё время по сегодняшним правилам, копии CRM и ответственным. \
        Состояние телефонов и запросы в CRM не участвуют. Тот, кому звонок поступил бы первым, мог и \
        не ответить.",
    thousands: '\u{a0}',
    decimal: ',',
};

const REASONS: [(&str, &str, &str); 19] = [
    ("responsible", "ответственному", "the responsible"),
    (
        "other_phone",
        "ответственному на другой телефон",
        "the responsible, on another phone",
    ),
    ("deputy", "заместителю", "the deputy"),
    ("head", "руководителю отдела", "the head of the department"),
    (
        "next_responsible",
        "ответственному за другую карточку",
        "the responsible of another card",
    ),
    ("group", "группе или очереди", "a group or queue"),
    (
        "last_talk",
        "последнему собеседнику",
        "who spoke with them last",
    ),
    ("listed", "по списку", "by a list"),
    ("card_field", "по полю карточки", "by a field of the card"),
    ("script", "по скрипту", "by the script"),
    (
        "not_routed",
        "обычный маршрут: так велит правило",
        "standard route: a rule says so",
    ),
    (
        "tries_spent",
        "обычный маршрут: попытки кончились",
        "standard route: tries spent",
    ),
    (
        "time_spent",
        "обычный маршрут: время вышло",
        "standard route: time spent",
    ),
    (
        "nobody_can_be_rung",
        "обычный маршрут: звонить некому",
        "standard route: nobody can be rung",
    ),
    (
        "unknown_caller",
        "обычный маршрут: номер неизвестен",
        "standard route: unknown number",
    ),
    (
        "employee_calls",
        "обычный маршрут: звонит сотрудник",
        "standard route: an employee calls",
    ),
    (
        "short_number",
        "обычный маршрут: короткий номер",
        "standard route: a short number",
    ),
    (
        "no_number",
        "обычный маршрут: номер не прочитан",
        "standard route: unreadable number",
    ),
    ("fault", "сбой pryamo", "pryamo failed"),
];
