//! What would change a decision: read off its steps, with the place where it is changed.

mod people;

use crate::decision::{CardMatch, Decision, EntityName, OutReason, Reason, Role, Said, Step};
use crate::directory::Refreshed;
use crate::record::{CrmName, EmployeeId, EntityId, EntityKind};
use crate::told::{Language, russian};

/// More than this nobody reads.
const MOST: usize = 6;

/// Something that would change a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// What to do, for a person.
    pub text: String,
    /// What it is about.
    pub about: About,
}

/// Where a piece of advice is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// At an employee, by CRM and identifier.
    Employee(CrmName, EmployeeId),
    /// At a card in its CRM.
    Card(CrmName, EntityKind, EntityId),
    /// At this key of the configuration.
    Config(&'static str),
    /// Nowhere that a link could lead to.
    Nothing,
}

/// How soon somebody should read a piece of advice, soonest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Failure,
    /// This alone decided.
    Decisive,
    /// About the caller's own people.
    OwnPeople,
    /// About those who stand in for them.
    StandIn,
    /// About looking the number up.
    Lookup,
    /// What helps in general.
    General,
}

/// What would change this decision, the most useful first; nothing where it is as it should be.
pub fn would_change(decision: &Decision, language: Language) -> Vec<Advice> {
    let mut found = Found {
        decision,
        language,
        list: Vec::new(),
    };
    for step in &decision.steps {
        found.read(step);
    }
    found.read_reason();
    let mut list = found.list;
    // Stable: what is equally useful stays in the order of the steps.
    list.sort_by_key(|(rank, _)| *rank);
    let mut kept: Vec<Advice> = Vec::new();
    for (_, advice) in list {
        // One line a place is enough: the first says what matters.
        let is_known = |one: &Advice| one.about == advice.about && one.about != About::Nothing;
        if !kept.iter().any(|one| is_known(one) || *one == advice) {
            kept.push(advice);
        }
    }
    kept.truncate(MOST);
    kept
}

struct Found<'a> {
    decision: &'a Decision,
    language: Language,
    list: Vec<(Rank, Advice)>,
}

impl Found<'_> {
    fn say(&mut self, rank: Rank, about: About, russian: String, english: String) {
        let text = match self.language {
            Language::Ru => russian,
            Language::En => english,
        };
        self.list.push((rank, Advice { text, about }));
    }

    /// The same where neither text holds data.
    fn say_plainly(&mut self, rank: Rank, about: About, russian: &str, english: &str) {
        self.say(rank, about, russian.to_owned(), english.to_owned());
    }

    fn read(&mut self, step: &Step) {
        match step {
            Step::CallerIsEmployee(employee) => self.say(
                Rank::Decisive,
                About::Employee(employee.crm.clone(), employee.id.clone()),
                format!(
                    "Этот номер записан у сотрудника: {}. Если это номер клиента, уберите его из профиля сотрудника в CRM.",
                    employee.name
                ),
                format!(
                    "This number is in the profile of {}. If it is a client's, take it out there, in the CRM.",
                    employee.name
                ),
            ),
            Step::OtherDids(crm, _) => self.other_dids(crm),
            Step::Asked(crm, refreshed) => self.asked(crm, refreshed),
            Step::NotAsked if self.is_unknown() => self.say_plainly(
                Rank::General,
                About::Config("match.live_lookup_ms"),
                "Разрешите спрашивать CRM во время звонка: новая карточка сразу начнёт работать.",
                "Allow live lookups: a card made just now is then found at once.",
            ),
            Step::LeftOut(entity, why) => self.left_out(entity, *why),
            Step::PassedOver(entity, why) => self.passed_over(entity, why),
            Step::Told(_, said) => self.rule(said),
            Step::Skipped(candidate, why) => self.skipped(candidate, why),
            Step::ReadCaller { .. }
            | Step::CallerIsShort(_)
            | Step::CallerUnreadable(_)
            | Step::CallerGone(_)
            | Step::Found(_)
            | Step::Missed
            | Step::NotAsked
            | Step::Ranked { .. }
            | Step::Ring(..)
            | Step::StandardRoute(_)
            | Step::Failed(_) => {}
        }
    }

    /// What the decision's reason alone says.
    fn read_reason(&mut self) {
        match self.decision.reason {
            Reason::TriesSpent => self.say_plainly(
                Rank::Decisive,
                About::Config("route.most_tries"),
                "Все разрешённые попытки потрачены. Увеличьте их число в настройках.",
                "All tries that are allowed were spent. Allow more in the settings.",
            ),
            Reason::TimeSpent => self.say_plainly(
                Rank::Decisive,
                About::Config("route.total_seconds"),
                "Время дозвона вышло. Увеличьте его в настройках или сократите время звонка каждому.",
                "The time for ringing is over. Allow more in the settings, or ring each one shorter.",
            ),
            Reason::NobodyCanBeRung if !self.rings_groups() => self.say_plainly(
                Rank::General,
                About::Config("route.when_away"),
                "Добавьте дежурную группу последней в порядок дозвона, чтобы клиент не остался без ответа.",
                "Add a group as the last one to be rung, so that somebody answers.",
            ),
            Reason::NoNumber => self.say_plainly(
                Rank::Decisive,
                About::Nothing,
                "Если так у всех звонков, узнайте у оператора связи, передаёт ли он номер звонящего.",
                "If all calls come so, ask your telephone provider whether it sends the caller's number.",
            ),
            Reason::Fault => self.say_plainly(
                Rank::Failure,
                About::Nothing,
                "Причина сбоя записана в журнале службы: посмотрите его.",
                "The service's log says what failed: look there.",
            ),
            _ => {}
        }
        if self.is_unknown() && !self.has(|step| matches!(step, Step::LeftOut(..))) {
            self.say_plainly(
                Rank::Lookup,
                About::Nothing,
                "Этого номера нет ни в одной карточке. Создайте в CRM карточку с ним или допишите его в нужную.",
                "No card has this number. Create one in the CRM, or add the number to the right card.",
            );
        }
    }

    fn has(&self, is_it: impl Fn(&Step) -> bool) -> bool {
        self.decision.steps.iter().any(is_it)
    }

    /// Somebody was looked up, and no card decided.
    fn is_unknown(&self) -> bool {
        let looked = |step: &Step| matches!(step, Step::Missed | Step::Found(_));
        self.decision.entity.is_none()
            && !matches!(self.decision.reason, Reason::NotRouted | Reason::Fault)
            && self.has(looked)
    }

    fn rings_groups(&self) -> bool {
        let is_group =
            |step: &Step| matches!(step, Step::Skipped(name, _) if name.role == Role::Group);
        self.has(is_group)
    }

    fn other_dids(&mut self, crm: &CrmName) {
        if self.is_unknown() {
            self.say(
                Rank::Lookup,
                About::Config("crm.did"),
                format!(
                    "Если {crm} должна отвечать и за эту линию, добавьте её номер в настройки этой CRM."
                ),
                format!("If {crm} should answer for this line too, add its number to that CRM's settings."),
            );
        }
    }

    fn asked(&mut self, crm: &CrmName, refreshed: &Refreshed) {
        if !self.is_unknown() {
            return;
        }
        match refreshed {
            Refreshed::TooLate => self.say(
                Rank::Lookup,
                About::Config("match.live_lookup_ms"),
                format!("{crm} не успела ответить. Если так часто, увеличьте время ожидания."),
                format!("{crm} did not answer in time. If that is often so, wait longer for it."),
            ),
            Refreshed::BreakerOpen | Refreshed::Failed(_) => self.say(
                Rank::Lookup,
                About::Nothing,
                format!("Проверьте связь с {crm}: запрос во время звонка не удался."),
                format!("Look after {crm}: it could not be asked during the call."),
            ),
            Refreshed::OutOfBudget => self.say(
                Rank::Lookup,
                About::Nothing,
                format!("{crm} больше не принимает запросов: лимит исчерпан. Проверьте, кто ещё его расходует."),
                format!("{crm} takes no more requests now: see who else spends its limit."),
            ),
            Refreshed::Found(_)
            | Refreshed::Nothing
            | Refreshed::RememberedNothing
            | Refreshed::NotAskable => {}
        }
    }

    fn left_out(&mut self, entity: &EntityName, why: OutReason) {
        if !self.is_unknown() {
            return;
        }
        let card = russian::entity(entity);
        match why {
            OutReason::KindNotWanted => self.say(
                Rank::Lookup,
                About::Config("match.order"),
                format!("Включите этот вид карточек в поиск, чтобы учитывалась карточка: {card}."),
                format!("Let this kind of card take part, so that {entity} counts."),
            ),
            OutReason::Closed => self.say(
                Rank::Lookup,
                about_card(entity),
                format!("Карточка закрыта: {card}. Если клиент снова в работе, откройте её или заведите новую."),
                format!("{entity} is closed. If the client is back, open it again or make a new card."),
            ),
            OutReason::Junk => self.say(
                Rank::Lookup,
                about_card(entity),
                format!("Карточка помечена как некачественная: {card}. Если это клиент, снимите пометку."),
                format!("{entity} is marked as junk. If this is a client, take the mark off."),
            ),
        }
    }

    fn rule(&mut self, said: &Said) {
        let reason = self.decision.reason;
        match said {
            Said::NeverRouted => self.say_plainly(
                Rank::Decisive,
                About::Config("rules.lists.do_not_route"),
                "Уберите номер из списка тех, кого не распределяем.",
                "Take the number off the list of those that are not routed.",
            ),
            Said::AlwaysTo(_) if reason == Reason::Listed => self.say_plainly(
                Rank::Decisive,
                About::Config("rules.lists.always_to"),
                "Клиент закреплён списком. Уберите его оттуда, и звонок пойдёт по карточке.",
                "A list decides for this caller. Take them off it, and the card decides.",
            ),
            Said::Talked { .. } if reason == Reason::LastTalk && !self.is_unknown() => self
                .say_plainly(
                    Rank::Decisive,
                    About::Config("rules.last_talk"),
                    "Последний собеседник стоит впереди ответственного. Это меняется в настройках.",
                    "Whoever spoke last goes before the responsible. The settings can change that.",
                ),
            Said::CardRings(field, _) if reason == Reason::CardField => self.card_field(field),
            Said::CardStandardRoute(field) if reason == Reason::NotRouted => self.card_field(field),
            Said::ScriptArranged { .. } | Said::ScriptStandardRoute => self.say_plainly(
                Rank::Decisive,
                About::Config("rules.script"),
                "Порядок дозвона изменил скрипт. Если так быть не должно, исправьте его.",
                "The script changed who is rung. If it should not, mend it.",
            ),
            Said::ScriptFailed(_) => self.say_plainly(
                Rank::Failure,
                About::Config("rules.script"),
                "Скрипт не сработал. Исправьте его: сейчас звонки распределяются без него.",
                "The script failed. Mend it: calls are routed without it now.",
            ),
            Said::AlwaysTo(_)
            | Said::Talked { .. }
            | Said::CardRings(..)
            | Said::CardStandardRoute(_)
            | Said::ScriptPrinted(_)
            | Said::ScriptNamed(_)
            | Said::ScriptChangedNothing => {}
        }
    }

    fn card_field(&mut self, field: &CardMatch) {
        let russian = russian::capital(&russian::card_field(field));
        self.say(
            Rank::Decisive,
            About::Card(field.crm.clone(), field.kind, field.id.clone()),
            format!(
                "{russian}. Чтобы звонок шёл иначе, измените поле в CRM или правило в настройках."
            ),
            format!("{field}: change the field in the CRM, or the rule in the settings."),
        );
    }
}

fn about_card(entity: &EntityName) -> About {
    About::Card(entity.crm.clone(), entity.kind, entity.id.clone())
}
