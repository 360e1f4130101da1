//! What a decision and its call mean: the words of closed sets, and what would change a decision.
//!
//! Pure: values go in, text in Russian or English comes out.

mod advice;
mod words;

pub use advice::{About, Advice, would_change};
pub use words::{
    dial_status, end, outcome, outcome_word, phone_state, reason, reason_word, role, role_word,
};

#[cfg(test)]
mod tests {
    //! One example of everything that a step can say.

    use std::sync::Arc;

    use super::{About, would_change};
    use crate::call::{
        DialStatus, Did, Extension, ExtensionError, ExtensionPattern, Outgoing, Target,
    };
    use crate::decision::{
        Because, CandidateName, CardMatch, Decision, EntityName, Held, HoursOf, OutReason, Reason,
        Role, Said, SkipReason, Step,
    };
    use crate::directory::{Colleague, Origins, Refreshed};
    use crate::phone::{CallerNumber, E164, Region, read_caller};
    use crate::presence::{Direction, PhoneState};
    use crate::record::{CrmName, EmployeeId, Entity, EntityId, EntityKind, Stage};
    use crate::told::{self, Language};

    /// Latin words that come as data, names of products, and the word CRM itself.
    const DATA: [&str; 9] = [
        "sales", "CRM", "Mon", "Fri", "UTC", "TAGS", "VIP", "dest", "timeout",
    ];

    /// The examples behind the first, each by the one before it: a new variant does not compile here.
    macro_rules! every {
    ($kind:ty, $first:expr, { $($pattern:pat $(if $guard:expr)? => $next:expr),+ $(,)? }) => {{
        let mut all: Vec<$kind> = vec![$first];
        loop {
            let next: Option<$kind> = match all.last().unwrap() { $($pattern $(if $guard)? => $next),+ };
            match next {
                Some(next) => all.push(next),
                None => break all,
            }
        }
    }};
}

    fn crm() -> CrmName {
        CrmName::new("sales")
    }

    fn extension(digits: &str) -> Extension {
        Extension::read(digits, &ExtensionPattern::any()).unwrap()
    }

    fn phone() -> E164 {
        match read_caller("+79161234501", Region::default()) {
            CallerNumber::Number(phone) => phone,
            other => panic!("{other:?}"),
        }
    }

    fn colleague(name: &str, digits: &str) -> Arc<Colleague> {
        Arc::new(Colleague {
            crm: crm(),
            id: EmployeeId::new(digits),
            name: name.to_owned(),
            active: true,
            email: None,
            extension: Ok(extension(digits)),
            phones: Vec::new(),
            mobiles: Vec::new(),
            departments: Vec::new(),
            deputy: None,
            hours: None,
            absences: Vec::new(),
            workday: None,
            origins: Origins::default(),
            own_row: None,
        })
    }

    fn entity_name(kind: EntityKind, id: u64, name: &str) -> EntityName {
        EntityName {
            crm: crm(),
            kind,
            id: EntityId::from(id),
            name: name.to_owned(),
        }
    }

    fn contact() -> EntityName {
        entity_name(EntityKind::Contact, 1, "Иван Петров")
    }

    fn entity() -> Entity {
        Entity {
            crm: crm(),
            kind: EntityKind::Contact,
            id: EntityId::from(1),
            name: "Иван Петров".to_owned(),
            company: None,
            responsible: None,
            modified: None,
            stage: Stage::Open,
            fields: std::collections::BTreeMap::new(),
        }
    }

    fn candidate(role: Role) -> CandidateName {
        CandidateName {
            target: extension("101").into(),
            employee: Some(colleague("Анна Соколова", "101")),
            role,
            of: Some(colleague("Борис Жуков", "102")),
            entity: Some(contact()),
        }
    }

    fn mobile() -> CandidateName {
        let numbers = vec!["79*".to_owned().try_into().unwrap()];
        let outgoing = Outgoing {
            numbers,
            ..Outgoing::default()
        };
        CandidateName {
            target: Target::Outside(outgoing.dial("79161234567").unwrap()),
            ..candidate(Role::OtherPhone)
        }
    }

    fn field() -> CardMatch {
        CardMatch {
            crm: crm(),
            kind: EntityKind::Contact,
            id: EntityId::from(1),
            field: "TAGS".to_owned(),
            held: Held::Contains("VIP".to_owned()),
        }
    }

    fn roles() -> Vec<Role> {
        every!(Role, Role::Responsible, {
            Role::Responsible => Some(Role::OtherPhone),
            Role::OtherPhone => Some(Role::Deputy),
            Role::Deputy => Some(Role::Head),
            Role::Head => Some(Role::NextResponsible),
            Role::NextResponsible => Some(Role::Group),
            Role::Group => Some(Role::LastTalk),
            Role::LastTalk => Some(Role::Listed),
            Role::Listed => Some(Role::CardField),
            Role::CardField => Some(Role::Script),
            Role::Script => None,
        })
    }

    fn because() -> Vec<Because> {
        let at = "2026-11-23T12:00:00Z".parse().unwrap();
        every!(Because, Because::Last(EntityKind::Lead), {
            Because::Last(_) => Some(Because::Kind(EntityKind::Contact, EntityKind::Company)),
            Because::Kind(EntityKind::Contact, _) =>
                Some(Because::Kind(EntityKind::Lead, EntityKind::Deal)),
            Because::Kind(..) => Some(Because::ChangedLater(at)),
            Because::ChangedLater(_) => Some(Because::OnlyDated(at)),
            Because::OnlyDated(_) => Some(Because::LowerId),
            Because::LowerId => Some(Because::CrmFirst(crm())),
            Because::CrmFirst(_) => None,
        })
    }

    fn said() -> Vec<Said> {
        let talked = |direction| Said::Talked {
            employee: "Глеб Орлов".to_owned(),
            direction,
            at: jiff::civil::date(2026, 11, 22).at(13, 0, 0, 0),
            hours_ago: 26,
        };
        let text = || "timeout".to_owned();
        every!(Said, Said::NeverRouted, {
            Said::NeverRouted => Some(Said::AlwaysTo(extension("105"))),
            Said::AlwaysTo(_) => Some(talked(Direction::Incoming)),
            Said::Talked { direction: Direction::Incoming, .. } => Some(talked(Direction::Outgoing)),
            Said::Talked { direction: Direction::Outgoing, .. } =>
                Some(Said::CardRings(field(), extension("105"))),
            Said::CardRings(..) => Some(Said::CardStandardRoute(CardMatch {
                held: Held::Is("VIP".to_owned()),
                ..field()
            })),
            Said::CardStandardRoute(_) => Some(Said::ScriptPrinted(text())),
            Said::ScriptPrinted(_) => Some(Said::ScriptArranged {
                before: vec![extension("101").into(), extension("102").into()],
                after: Vec::new(),
            }),
            Said::ScriptArranged { .. } => Some(Said::ScriptNamed("Иван".to_owned())),
            Said::ScriptNamed(_) => Some(Said::ScriptStandardRoute),
            Said::ScriptStandardRoute => Some(Said::ScriptChangedNothing),
            Said::ScriptChangedNothing => Some(Said::ScriptFailed(text())),
            Said::ScriptFailed(_) => None,
        })
    }

    fn refreshed() -> Vec<Refreshed> {
        every!(Refreshed, Refreshed::Found(vec![entity()]), {
            Refreshed::Found(_) => Some(Refreshed::Nothing),
            Refreshed::Nothing => Some(Refreshed::RememberedNothing),
            Refreshed::RememberedNothing => Some(Refreshed::TooLate),
            Refreshed::TooLate => Some(Refreshed::BreakerOpen),
            Refreshed::BreakerOpen => Some(Refreshed::OutOfBudget),
            Refreshed::OutOfBudget => Some(Refreshed::NotAskable),
            Refreshed::NotAskable => Some(Refreshed::Failed("timeout".to_owned())),
            Refreshed::Failed(_) => None,
        })
    }

    fn hours(whose: HoursOf) -> SkipReason {
        SkipReason::OutsideHours {
            whose,
            hours: "Mon-Fri 09:00-18:00".to_owned(),
            next: Some(jiff::civil::date(2026, 11, 24).at(9, 0, 0, 0)),
        }
    }

    fn statuses() -> Vec<DialStatus> {
        every!(DialStatus, DialStatus::Answer, {
            DialStatus::Answer => Some(DialStatus::Busy),
            DialStatus::Busy => Some(DialStatus::NoAnswer),
            DialStatus::NoAnswer => Some(DialStatus::Cancel),
            DialStatus::Cancel => Some(DialStatus::Congestion),
            DialStatus::Congestion => Some(DialStatus::ChanUnavail),
            DialStatus::ChanUnavail => Some(DialStatus::Other),
            DialStatus::Other => None,
        })
    }

    fn skips() -> Vec<SkipReason> {
        let no_extension = |why| SkipReason::NoExtension {
            employee: "Нина Новая".to_owned(),
            id: EmployeeId::new("23"),
            why,
        };
        let absent = |what: &str| SkipReason::Absent {
            what: what.to_owned(),
            until: "07.12.2026 00:00".to_owned(),
        };
        let not_allowed =
            || ExtensionError::NotAllowed("8-800".to_owned(), "[0-9]{2,6}".to_owned());
        let mut all = every!(SkipReason, SkipReason::NoResponsible, {
            SkipReason::NoResponsible => Some(SkipReason::UnknownEmployee(EmployeeId::new("5"))),
            SkipReason::UnknownEmployee(_) => Some(SkipReason::Dismissed("Денис Ушедший".to_owned())),
            SkipReason::Dismissed(_) => Some(no_extension(ExtensionError::Empty)),
            SkipReason::NoExtension { why: ExtensionError::Empty, .. } =>
                Some(no_extension(not_allowed())),
            SkipReason::NoExtension { why: ExtensionError::NotAllowed(..), .. } =>
                Some(SkipReason::AlreadyTried(None)),
            SkipReason::AlreadyTried(_) => Some(absent("")),
            SkipReason::Absent { what, .. } if what.is_empty() => Some(absent("Отпуск")),
            SkipReason::Absent { .. } => Some(hours(HoursOf::Employee)),
            SkipReason::OutsideHours { whose: HoursOf::Employee, .. } =>
                Some(hours(HoursOf::Extension)),
            SkipReason::OutsideHours { whose: HoursOf::Extension, .. } =>
                Some(hours(HoursOf::Department)),
            SkipReason::OutsideHours { whose: HoursOf::Department, .. } => Some(hours(HoursOf::Did)),
            SkipReason::OutsideHours { whose: HoursOf::Did, .. } => Some(hours(HoursOf::Office)),
            SkipReason::OutsideHours { whose: HoursOf::Office, .. } => Some(SkipReason::DayNotOpen),
            SkipReason::DayNotOpen => Some(SkipReason::Phone(PhoneState::Busy)),
            SkipReason::Phone(_) => Some(SkipReason::CardField(field())),
            SkipReason::CardField(_) => None,
        });
        all.extend(PhoneState::ALL.map(SkipReason::Phone));
        all.extend(
            statuses()
                .into_iter()
                .map(|status| SkipReason::AlreadyTried(Some(status))),
        );
        all
    }

    /// The first example of every variant; [`steps`] adds what goes with each.
    fn kinds_of_step() -> Vec<Step> {
        let did = || Did::new("74951234567").unwrap();
        every!(Step, Step::ReadCaller { written: "8 916 123-45-01".to_owned(), phone: phone() }, {
            Step::ReadCaller { .. } => Some(Step::CallerIsShort("101".to_owned())),
            Step::CallerIsShort(_) => Some(Step::CallerUnreadable(String::new())),
            Step::CallerUnreadable(_) => Some(Step::CallerGone(Did::new("dest").unwrap())),
            Step::CallerGone(_) => Some(Step::CallerIsEmployee(colleague("Анна Соколова", "101"))),
            Step::CallerIsEmployee(_) => Some(Step::OtherDids(crm(), Some(did()))),
            Step::OtherDids(_, Some(_)) => Some(Step::OtherDids(crm(), None)),
            Step::OtherDids(_, None) => Some(Step::Found(1)),
            Step::Found(_) => Some(Step::Missed),
            Step::Missed => Some(Step::Asked(crm(), Refreshed::Nothing)),
            Step::Asked(..) => Some(Step::NotAsked),
            Step::NotAsked => Some(Step::LeftOut(contact(), OutReason::KindNotWanted)),
            Step::LeftOut(_, OutReason::KindNotWanted) =>
                Some(Step::LeftOut(contact(), OutReason::Closed)),
            Step::LeftOut(_, OutReason::Closed) => Some(Step::LeftOut(contact(), OutReason::Junk)),
            Step::LeftOut(_, OutReason::Junk) =>
                Some(Step::Ranked { place: 1, entity: contact(), because: Because::LowerId }),
            Step::Ranked { .. } => Some(Step::PassedOver(contact(), SkipReason::NoResponsible)),
            Step::PassedOver(..) => Some(Step::Told("lists", Said::NeverRouted)),
            Step::Told(..) => Some(Step::Skipped(candidate(Role::Responsible), SkipReason::DayNotOpen)),
            Step::Skipped(..) => Some(Step::Ring(candidate(Role::Responsible), 20)),
            Step::Ring(..) => Some(Step::StandardRoute(Reason::UnknownCaller)),
            Step::StandardRoute(_) => Some(Step::Failed("timeout".to_owned())),
            Step::Failed(_) => None,
        })
    }

    fn steps() -> Vec<Step> {
        let mut all = kinds_of_step();
        all.push(Step::CallerUnreadable("нет".to_owned()));
        all.push(Step::ReadCaller {
            written: phone().to_string(),
            phone: phone(),
        });
        all.extend([2, 5, 11, 21, 112].map(Step::Found));
        all.extend(refreshed().into_iter().map(|one| Step::Asked(crm(), one)));
        all.extend(because().into_iter().map(|because| Step::Ranked {
            place: 1,
            entity: contact(),
            because,
        }));
        for (index, kind) in (1..).zip(EntityKind::ALL) {
            for name in ["", "ООО «Ромашка»", "Заявка"] {
                let card = entity_name(kind, index, name);
                all.push(Step::PassedOver(card.clone(), SkipReason::NoResponsible));
                let own = CandidateName {
                    entity: Some(card),
                    ..candidate(Role::Responsible)
                };
                all.push(Step::Ring(own, 1));
            }
        }
        all.extend(said().into_iter().map(|one| Step::Told("script", one)));
        for role in roles() {
            all.push(Step::Ring(candidate(role), 22));
            let bare = CandidateName {
                employee: None,
                entity: None,
                ..candidate(role)
            };
            all.push(Step::Skipped(bare, SkipReason::DayNotOpen));
        }
        all.push(Step::Ring(mobile(), 20));
        for why in skips() {
            all.push(Step::PassedOver(contact(), why.clone()));
            all.push(Step::Skipped(candidate(Role::Responsible), why));
        }
        all.extend(Reason::ALL.into_iter().map(Step::StandardRoute));
        all
    }

    /// Latin words of a text that are no data.
    fn foreign(text: &str) -> Vec<&str> {
        let words = text.split(|letter: char| !letter.is_ascii_alphabetic());
        words
            .filter(|word| !word.is_empty() && !DATA.contains(word))
            .collect()
    }

    fn assert_russian(text: &str) {
        assert_eq!(foreign(text), Vec::<&str>::new(), "{text}");
        assert!(!text.contains('`'), "{text}");
        let has_letters = text.chars().any(|letter| ('а'..='я').contains(&letter));
        assert!(has_letters, "no Russian: {text}");
        let first = text.chars().next().unwrap();
        let begins = first.is_uppercase() || !first.is_alphabetic();
        assert!(begins || text.starts_with("sales"), "{text}");
        assert!(!text.contains("  ") && !text.contains("()"), "{text}");
    }

    #[test]
    fn every_step_is_told_in_russian() {
        for step in steps() {
            assert_russian(&told::step(&step, Language::Ru));
            assert_eq!(told::step(&step, Language::En), step.to_string());
        }
    }

    #[test]
    fn every_short_word_is_russian() {
        let mut words: Vec<&str> = Vec::new();
        words.extend(
            Reason::ALL
                .into_iter()
                .map(|one| super::reason(one, Language::Ru)),
        );
        words.extend(PhoneState::ALL.map(|one| super::phone_state(one, Language::Ru)));
        words.extend(
            statuses()
                .into_iter()
                .map(|one| super::dial_status(one, Language::Ru)),
        );
        words
            .extend(crate::journal::KnownOutcome::ALL.map(|one| super::outcome(one, Language::Ru)));
        for word in words {
            assert_eq!(foreign(word), Vec::<&str>::new(), "{word}");
            assert!(word.chars().count() <= 32, "too long for a cell: {word}");
        }
    }

    #[test]
    fn plurals_follow_the_number() {
        for (count, expected) in [
            (1, "1 карточка"),
            (3, "3 карточки"),
            (5, "5 карточек"),
            (12, "12 карточек"),
            (21, "21 карточка"),
            (112, "112 карточек"),
        ] {
            let text = told::step(&Step::Found(count), Language::Ru);
            assert!(text.contains(&format!("{expected} с")), "{text}");
        }
    }

    fn decision(reason: Reason, steps: Vec<Step>) -> Decision {
        Decision::standard_route(reason, steps)
    }

    /// What the advice is about, the first first.
    fn about(decision: &Decision) -> Vec<About> {
        let told = would_change(decision, Language::Ru);
        told.into_iter().map(|advice| advice.about).collect()
    }

    fn anna() -> About {
        About::Employee(crm(), EmployeeId::new("101"))
    }

    fn card() -> About {
        About::Card(crm(), EntityKind::Contact, EntityId::from(1))
    }

    #[test]
    fn advice_is_russian_short_and_not_repeated() {
        for reason in Reason::ALL {
            for known in [false, true] {
                for step in steps() {
                    let mut decision = decision(reason, vec![Step::Missed, step.clone(), step]);
                    decision.entity = known.then(entity);
                    let told = would_change(&decision, Language::Ru);
                    for (index, advice) in told.iter().enumerate() {
                        assert_russian(&advice.text);
                        assert!(!told[..index].contains(advice), "{told:?}");
                    }
                    let english = would_change(&decision, Language::En);
                    assert_eq!(english.len(), told.len());
                    for (one, other) in english.iter().zip(&told) {
                        assert_eq!(one.about, other.about);
                        assert_ne!(one.text, other.text);
                    }
                }
            }
            let all = decision(reason, steps());
            assert!(would_change(&all, Language::Ru).len() <= 6);
        }
    }

    #[test]
    fn nothing_is_advised_where_the_responsible_is_rung_at_once() {
        let mut rung = decision(
            Reason::Responsible,
            vec![
                Step::Found(2),
                Step::OtherDids(crm(), None),
                Step::LeftOut(entity_name(EntityKind::Lead, 9, ""), OutReason::Junk),
                Step::Ring(candidate(Role::Responsible), 20),
            ],
        );
        rung.entity = Some(entity());
        assert_eq!(about(&rung), []);
    }

    #[test]
    fn a_dead_card_behind_the_one_that_decided_is_not_spoken_of() {
        let ranked = |place, entity| Step::Ranked {
            place,
            entity,
            because: Because::LowerId,
        };
        let other = entity_name(EntityKind::Lead, 9, "");
        let dead = SkipReason::Dismissed("Денис".to_owned());
        for (own, others, expected) in [
            (1, 2, vec![]),
            (
                2,
                1,
                vec![About::Card(crm(), EntityKind::Lead, EntityId::from(9))],
            ),
        ] {
            let mut decision = decision(
                Reason::Responsible,
                vec![
                    ranked(own, contact()),
                    ranked(others, other.clone()),
                    Step::PassedOver(other.clone(), dead.clone()),
                    Step::Ring(candidate(Role::Responsible), 20),
                ],
            );
            decision.entity = Some(entity());
            assert_eq!(about(&decision), expected);
        }
    }

    #[test]
    fn each_obstacle_leads_to_where_it_is_mended() {
        let skipped = |why| Step::Skipped(candidate(Role::Responsible), why);
        let passed = |why| Step::PassedOver(contact(), why);
        let nina = SkipReason::NoExtension {
            employee: "Нина".to_owned(),
            id: EmployeeId::new("23"),
            why: ExtensionError::Empty,
        };
        for (step, expected) in [
            (passed(nina), About::Employee(crm(), EmployeeId::new("23"))),
            (passed(SkipReason::Dismissed("Денис".to_owned())), card()),
            (passed(SkipReason::NoResponsible), card()),
            (skipped(SkipReason::Phone(PhoneState::Unavailable)), anna()),
            (skipped(SkipReason::Phone(PhoneState::DoNotDisturb)), anna()),
            (
                skipped(SkipReason::AlreadyTried(Some(DialStatus::ChanUnavail))),
                anna(),
            ),
            (skipped(SkipReason::DayNotOpen), anna()),
            (skipped(hours(HoursOf::Employee)), anna()),
            (
                skipped(hours(HoursOf::Office)),
                About::Config("rules.hours.office"),
            ),
            (
                skipped(hours(HoursOf::Did)),
                About::Config("rules.hours.did"),
            ),
            (skipped(SkipReason::CardField(field())), card()),
        ] {
            let mut decision = decision(Reason::NobodyCanBeRung, vec![step.clone()]);
            decision.entity = Some(entity());
            let group = About::Config("route.when_away");
            assert_eq!(about(&decision), [expected, group], "{step}");
        }
    }

    #[test]
    fn an_unknown_caller_is_told_of_the_lookup() {
        let unknown = |steps| decision(Reason::UnknownCaller, steps);
        let key = About::Config("match.live_lookup_ms");
        assert_eq!(
            about(&unknown(vec![Step::Missed, Step::NotAsked])),
            [About::Nothing, key.clone()]
        );
        let late = Step::Asked(crm(), Refreshed::TooLate);
        assert_eq!(
            about(&unknown(vec![Step::Missed, late])),
            [key, About::Nothing]
        );
        let left_out = Step::LeftOut(contact(), OutReason::Junk);
        assert_eq!(about(&unknown(vec![Step::Found(1), left_out])), [card()]);
        let other = Step::OtherDids(crm(), None);
        assert_eq!(
            about(&unknown(vec![other, Step::Missed])),
            [About::Config("crm.did"), About::Nothing]
        );
    }

    #[test]
    fn what_alone_decided_stands_first() {
        let rule = Step::Told("rule", Said::NeverRouted);
        assert_eq!(
            about(&decision(Reason::NotRouted, vec![rule])),
            [About::Config("rules.lists.do_not_route")]
        );
        let tired = Step::Skipped(
            candidate(Role::Responsible),
            SkipReason::Phone(PhoneState::Unavailable),
        );
        let mut spent = decision(Reason::TriesSpent, vec![tired]);
        spent.entity = Some(entity());
        assert_eq!(about(&spent), [About::Config("route.most_tries"), anna()]);
    }
}
