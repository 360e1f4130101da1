//! A decision's steps in Russian, as somebody who runs a call centre would say them.

use jiff::Timestamp;
use jiff::civil::{DateTime, Weekday};
use jiff::tz::TimeZone;

use crate::call::{DialStatus, ExtensionError, Target};
use crate::decision::{
    Because, CandidateName, CardMatch, EntityName, Held, HoursOf, OutReason, Reason, Role, Said,
    SkipReason, Step, listed,
};
use crate::directory::Refreshed;
use crate::presence::{Direction, PhoneState};
use crate::record::{CrmName, EntityKind};

/// A step as a sentence.
pub fn step(step: &Step) -> String {
    match step {
        Step::ReadCaller { written, phone } if *written == phone.to_string() => {
            format!("Номер звонящего — {phone}")
        }
        Step::ReadCaller { written, phone } => {
            format!("Номер звонящего «{written}» — это {phone}")
        }
        Step::CallerIsShort(short) => {
            format!("{short} — внутренний номер, звонит не клиент")
        }
        Step::CallerUnreadable(written) if written.trim().is_empty() => {
            "Номер звонящего не определился".to_owned()
        }
        Step::CallerUnreadable(written) => format!("«{written}» — не телефонный номер"),
        Step::CallerGone(did) => {
            format!("Вопрос пришёл из «{did}», когда звонящий уже положил трубку")
        }
        Step::CallerIsEmployee(employee) => format!(
            "Это личный номер сотрудника: {} ({}), звонит не клиент",
            employee.name, employee.crm
        ),
        Step::OtherDids(crm, Some(did)) => {
            format!("{crm} не участвует: эта CRM настроена не для звонков на {did}")
        }
        Step::OtherDids(crm, None) => format!(
            "{crm} не участвует: эта CRM настроена только для своих номеров, а на какой номер позвонили, АТС не сообщила"
        ),
        Step::Found(count) => {
            let cards = plural(*count, ["карточка", "карточки", "карточек"]);
            format!("В копии CRM {count} {cards} с этим номером")
        }
        Step::Missed => "В копии CRM этого номера нет".to_owned(),
        Step::Asked(crm, refreshed) => asked(crm, refreshed),
        Step::NotAsked => "Запросы в CRM во время звонка выключены".to_owned(),
        Step::LeftOut(name, why) => format!("Не учитываем: {} — {}", entity(name), left_out(*why)),
        Step::Ranked {
            place,
            entity: name,
            because: why,
        } => format!("{place}. {} — {}", capital(&entity(name)), because(why)),
        Step::PassedOver(name, why) => format!("Пропускаем: {} — {}", entity(name), skip(why)),
        Step::Told(_, text) => said(text),
        Step::Skipped(name, why) => {
            format!("{}, — не звоним: {}", capital(&candidate(name)), skip(why))
        }
        Step::Ring(name, seconds) => {
            let count = usize::try_from(*seconds).unwrap_or_default();
            let unit = plural(count, ["секунду", "секунды", "секунд"]);
            format!("Звоним {seconds} {unit}: {}", candidate(name))
        }
        Step::StandardRoute(reason) => format!("Обычный маршрут: {}", standard_route(*reason)),
        Step::Failed(text) => format!("База с копией CRM не ответила: «{text}»"),
    }
}

fn asked(crm: &CrmName, refreshed: &Refreshed) -> String {
    match refreshed {
        Refreshed::Found(entities) => {
            let count = entities.len();
            let cards = plural(count, ["карточка", "карточки", "карточек"]);
            format!("Спросили {crm}: там {count} {cards} с этим номером")
        }
        Refreshed::Nothing => format!("Спросили {crm}: там этого номера нет"),
        Refreshed::RememberedNothing => {
            format!("{crm} недавно ответила, что не знает этого номера; повторно не спрашиваем")
        }
        Refreshed::TooLate => format!("Спросили {crm}: не успела ответить за отведённое время"),
        Refreshed::BreakerOpen => {
            format!("{crm} не спрашиваем: недавно были сбои, ждём, пока восстановится")
        }
        Refreshed::OutOfBudget => format!("{crm} не спрашиваем: исчерпан лимит запросов"),
        Refreshed::NotAskable => {
            format!("{crm} во время звонка не спросить: это файл или разовая выгрузка")
        }
        Refreshed::Failed(text) => format!("Спросили {crm}, но получили ошибку: «{text}»"),
    }
}

fn left_out(why: OutReason) -> &'static str {
    match why {
        OutReason::KindNotWanted => "такие карточки в поиске не участвуют",
        OutReason::Closed => "карточка закрыта",
        OutReason::Junk => "карточка помечена как некачественная",
    }
}

fn because(why: &Because) -> String {
    match why {
        Because::Last(_) => "последняя по порядку".to_owned(),
        Because::Kind(kind, next) => format!("{} важнее {}", kind_name(*kind), kind_of(*next)),
        Because::ChangedLater(at) => format!("изменение новее, {}", utc(*at)),
        Because::OnlyDated(at) => {
            format!("изменение {}, у следующей карточки даты нет", utc(*at))
        }
        Because::LowerId => "изменены одновременно, идентификатор меньше".to_owned(),
        Because::CrmFirst(crm) => format!("{crm} стоит в настройках первой"),
    }
}

/// What a rule says of the whole call.
fn said(said: &Said) -> String {
    match said {
        Said::NeverRouted => "Номер в списке тех, кого не распределяем".to_owned(),
        Said::AlwaysTo(extension) => {
            format!("По списку этого клиента всегда соединяем с добавочным {extension}")
        }
        Said::Talked {
            employee,
            direction,
            at,
            hours_ago,
        } => {
            let how = match direction {
                Direction::Incoming => "С этого номера звонили, разговор вёл сотрудник",
                Direction::Outgoing => "На этот номер звонил сотрудник",
            };
            let at = at.strftime("%d.%m.%Y в %H:%M");
            format!("{how} {employee}: {at} ({hours_ago} ч назад), поэтому звоним ему первым")
        }
        Said::CardRings(field, extension) => {
            let field = capital(&card_field(field));
            format!("{field}, поэтому сначала звоним на добавочный {extension}")
        }
        Said::CardStandardRoute(field) => {
            let field = capital(&card_field(field));
            format!("{field}, поэтому звонок идёт обычным маршрутом")
        }
        Said::ScriptPrinted(text) => format!("Скрипт: «{text}»"),
        Said::ScriptArranged { before, after } => format!(
            "Скрипт изменил порядок дозвона: было — {}, стало — {}",
            listed(before, "никого"),
            listed(after, "никого")
        ),
        Said::ScriptNamed(name) => format!("Скрипт задал имя на экране телефона: «{name}»"),
        Said::ScriptStandardRoute => "Скрипт отправил звонок обычным маршрутом".to_owned(),
        Said::ScriptChangedNothing => "Скрипт ничего не изменил".to_owned(),
        Said::ScriptFailed(error) => {
            format!("Скрипт не сработал, распределяем без него: «{error}»")
        }
    }
}

/// Why somebody is not rung, as a sentence goes on.
pub fn skip(why: &SkipReason) -> String {
    match why {
        SkipReason::NoResponsible => "ответственный не назначен".to_owned(),
        SkipReason::UnknownEmployee(id) => {
            format!("ответственного (пользователь {id}) нет в списке сотрудников")
        }
        SkipReason::Dismissed(name) => format!("ответственный уволен: {name}"),
        SkipReason::NoExtension { employee, why, .. } => match why {
            ExtensionError::Empty => format!("у ответственного нет добавочного: {employee}"),
            ExtensionError::NotAllowed(written, pattern) => format!(
                "у ответственного не годится добавочный: {employee}, «{written}» (допускается {pattern})"
            ),
        },
        SkipReason::AlreadyTried(status) => already_tried(*status).to_owned(),
        SkipReason::Absent { what, until } if what.is_empty() => {
            format!("отсутствует до {until}")
        }
        SkipReason::Absent { what, until } => format!("отсутствует до {until} ({what})"),
        SkipReason::OutsideHours { whose, hours, next } => {
            let whose = hours_of(*whose);
            let next = next.map_or_else(String::new, |next| {
                format!("; рабочее время начнётся {}", moment(next))
            });
            format!("сейчас нерабочее время, {whose} {hours}{next}")
        }
        SkipReason::DayNotOpen => "рабочий день в CRM не начат или на паузе".to_owned(),
        SkipReason::Phone(state) => phone(*state).to_owned(),
        SkipReason::CardField(field) => card_field(field),
    }
}

fn already_tried(status: Option<DialStatus>) -> &'static str {
    match status {
        None => "в этом звонке уже пробовали",
        Some(DialStatus::Answer) => "уже звонили, трубку сняли",
        Some(DialStatus::Busy) => "уже звонили, занято или звонок отклонён",
        Some(DialStatus::NoAnswer) => "уже звонили, никто не ответил",
        Some(DialStatus::Cancel) => "уже звонили, звонящий положил трубку",
        Some(DialStatus::Congestion) => "уже звонили, линия была перегружена",
        Some(DialStatus::ChanUnavail) => "уже звонили, телефон был недоступен",
        Some(DialStatus::Other) => "уже звонили, звонок не приняли",
    }
}

/// Whose hours, as a sentence goes on with them.
pub fn hours_of(whose: HoursOf) -> &'static str {
    match whose {
        HoursOf::Employee => "часы сотрудника:",
        HoursOf::Extension => "часы этого добавочного:",
        HoursOf::Department => "часы отдела:",
        HoursOf::Did => "часы офиса для этой линии:",
        HoursOf::Office => "часы офиса:",
    }
}

fn phone(state: PhoneState) -> &'static str {
    match state {
        PhoneState::Unknown => "состояние телефона неизвестно",
        PhoneState::Free => "телефон свободен",
        PhoneState::Ringing => "телефон уже звонит",
        PhoneState::InUse => "разговаривает",
        PhoneState::Busy => "телефон занят",
        PhoneState::DoNotDisturb => "включён режим «не беспокоить»",
        PhoneState::Unavailable => "телефон выключен или не зарегистрирован",
    }
}

fn standard_route(reason: Reason) -> &'static str {
    match reason {
        Reason::Responsible
        | Reason::OtherPhone
        | Reason::Deputy
        | Reason::Head
        | Reason::NextResponsible
        | Reason::Group
        | Reason::LastTalk
        | Reason::Listed
        | Reason::CardField
        | Reason::Script => "кому-то уже звоним",
        Reason::NotRouted => "так велит правило",
        Reason::TriesSpent => "попытки дозвониться исчерпаны",
        Reason::TimeSpent => "время ожидания вышло",
        Reason::NobodyCanBeRung => "клиент известен, но соединить его сейчас не с кем",
        Reason::UnknownCaller => "номер неизвестен",
        Reason::EmployeeCalls => "звонит сотрудник",
        Reason::ShortNumber => "звонят с внутреннего номера",
        Reason::NoNumber => "номер звонящего не определился",
        Reason::AfterTheCall => "звонящий уже положил трубку",
        Reason::Fault => "внутренний сбой, подробности в журнале службы",
    }
}

/// Who may be rung, and why they: without a comma at the end.
fn candidate(name: &CandidateName) -> String {
    let who = person(name);
    let of = name.of.as_ref().map_or("", |of| of.name.as_str());
    match (name.role, &name.entity) {
        (Role::Responsible, Some(card)) => format!("{who}, ответственный за {}", for_entity(card)),
        (Role::Responsible, None) => format!("{who}, ответственный за клиента"),
        (Role::OtherPhone, _) => format!("{who}, мобильный ответственного"),
        (Role::Deputy, _) => format!("{who}, заместитель (основной сотрудник — {of})"),
        (Role::Head, _) => format!("{who}, руководитель отдела, где работает {of}"),
        (Role::NextResponsible, Some(card)) => {
            format!("{who}, ответственный за другую карточку: {}", entity(card))
        }
        (Role::NextResponsible, None) => format!("{who}, ответственный за другую карточку"),
        (Role::Group, _) => format!("{who}, группа или очередь из настроек"),
        (Role::LastTalk, _) => format!("{who}, последний, кто говорил с этим клиентом"),
        (Role::Listed, _) => format!("{who}, по списку закреплён за этим клиентом"),
        (Role::CardField, _) => format!("{who}, по полю карточки"),
        (Role::Script, _) => format!("{who}, по решению скрипта"),
    }
}

/// Somebody with the number that is rung, or that number alone.
pub fn person(name: &CandidateName) -> String {
    let number = match &name.target {
        Target::Extension(extension) => format!("доб. {extension}"),
        Target::Outside(number) => format!("тел. {}", Target::Outside(number.clone())),
    };
    match &name.employee {
        Some(employee) => format!("{} ({number})", employee.name),
        None => number,
    }
}

/// A card as its list in the CRM would show it.
pub fn entity(name: &EntityName) -> String {
    with_kind(kind_name(name.kind), name)
}

/// A card behind "за".
fn for_entity(name: &EntityName) -> String {
    let kind = match name.kind {
        EntityKind::Contact => "контакт",
        EntityKind::Company => "компанию",
        EntityKind::Lead => "лид",
        EntityKind::Deal => "сделку",
    };
    with_kind(kind, name)
}

fn with_kind(kind: &str, EntityName { crm, id, name, .. }: &EntityName) -> String {
    if name.is_empty() {
        format!("{kind} № {id} ({crm})")
    } else if name.contains(['«', '"', '“', '„']) {
        format!("{kind} {name} (№ {id}, {crm})")
    } else {
        format!("{kind} «{name}» (№ {id}, {crm})")
    }
}

fn kind_name(kind: EntityKind) -> &'static str {
    match kind {
        EntityKind::Contact => "контакт",
        EntityKind::Company => "компания",
        EntityKind::Lead => "лид",
        EntityKind::Deal => "сделка",
    }
}

/// The kind in the genitive.
fn kind_of(kind: EntityKind) -> &'static str {
    match kind {
        EntityKind::Contact => "контакта",
        EntityKind::Company => "компании",
        EntityKind::Lead => "лида",
        EntityKind::Deal => "сделки",
    }
}

/// A field that decides, and its card.
pub fn card_field(found: &CardMatch) -> String {
    let CardMatch {
        kind, id, field, ..
    } = found;
    let (how, what) = match &found.held {
        Held::Is(what) => ("равно", what),
        Held::Contains(what) => ("содержит", what),
    };
    let kind = kind_of(*kind);
    format!("в карточке {kind} № {id} поле «{field}» {how} «{what}»")
}

/// A moment as people write it.
fn moment(at: DateTime) -> String {
    let day = match at.weekday() {
        Weekday::Monday => "в понедельник",
        Weekday::Tuesday => "во вторник",
        Weekday::Wednesday => "в среду",
        Weekday::Thursday => "в четверг",
        Weekday::Friday => "в пятницу",
        Weekday::Saturday => "в субботу",
        Weekday::Sunday => "в воскресенье",
    };
    format!("{day}, {}", at.strftime("%d.%m.%Y в %H:%M"))
}

fn utc(at: Timestamp) -> String {
    let at = TimeZone::UTC.to_datetime(at);
    format!("{} UTC", at.strftime("%d.%m.%Y %H:%M"))
}

/// The form of a word behind a number: 1 карточка, 2 карточки, 5 карточек.
pub fn plural(count: usize, [one, few, many]: [&'static str; 3]) -> &'static str {
    match (count % 10, count % 100) {
        (_, 11..=14) => many,
        (1, _) => one,
        (2..=4, _) => few,
        _ => many,
    }
}

/// The text with a capital letter in front.
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters.clone()).collect()
}
