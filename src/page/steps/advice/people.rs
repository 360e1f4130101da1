//! What would change that somebody is not rung: at their card, at the person, at the hours.

use std::fmt::Write as _;

use super::{About, Found, Rank, about_card};
use crate::call::{DialStatus, ExtensionError};
use crate::decision::{CandidateName, EntityName, HoursOf, Reason, Role, SkipReason, Step};
use crate::presence::PhoneState;
use crate::record::{CrmName, EntityId, EntityKind};
use crate::told::russian;

impl Found<'_> {
    pub(super) fn passed_over(&mut self, entity: &EntityName, why: &SkipReason) {
        if self.stands_behind_the_decision(entity) {
            return;
        }
        let card = russian::entity(entity);
        let (rank, about) = (Rank::OwnPeople, about_card(entity));
        match why {
            SkipReason::NoResponsible => self.say(
                rank,
                about,
                format!("Ответственный не назначен. Назначьте его в CRM: {card}."),
                format!("Name a responsible in the CRM: {entity}."),
            ),
            SkipReason::UnknownEmployee(id) => self.say(
                rank,
                about,
                format!("Ответственного (пользователь {id}) нет в списке сотрудников. Назначьте в CRM другого: {card}."),
                format!("Its responsible, user {id}, is not among the employees. Name another one in the CRM: {entity}."),
            ),
            SkipReason::Dismissed(name) => self.say(
                rank,
                about,
                format!("Ответственный уволен: {name}. Передайте карточку в CRM другому сотруднику: {card}."),
                format!("{name} is dismissed. Give the card to somebody else in the CRM: {entity}."),
            ),
            SkipReason::NoExtension { employee, id, why } => {
                let about = About::Employee(entity.crm.clone(), id.clone());
                match why {
                    ExtensionError::Empty => self.say(
                        rank,
                        about,
                        format!("Нет добавочного: {employee}. Задайте его на странице «Сотрудники»."),
                        format!("{employee} has no extension. Set it on the page Employees."),
                    ),
                    ExtensionError::NotAllowed(written, _) => self.say(
                        rank,
                        about,
                        format!("Добавочный «{written}» не годится: {employee}. Исправьте его на странице «Сотрудники»."),
                        format!("{employee}: `{written}` is no extension. Mend it on the page Employees."),
                    ),
                }
            }
            SkipReason::AlreadyTried(_)
            | SkipReason::Absent { .. }
            | SkipReason::OutsideHours { .. }
            | SkipReason::DayNotOpen
            | SkipReason::Phone(_)
            | SkipReason::CardField(_) => {}
        }
    }

    /// The responsible of a card before this one is rung: mending this one would change nothing.
    fn stands_behind_the_decision(&self, entity: &EntityName) -> bool {
        let Some(decided) = &self.decision.entity else {
            return false;
        };
        let place = |crm: &CrmName, kind: EntityKind, id: &EntityId| {
            self.decision.steps.iter().find_map(|step| match step {
                Step::Ranked { place, entity, .. }
                    if entity.crm == *crm && entity.kind == kind && entity.id == *id =>
                {
                    Some(*place)
                }
                _ => None,
            })
        };
        let own = place(&entity.crm, entity.kind, &entity.id);
        let decided = place(&decided.crm, decided.kind, &decided.id);
        self.decision.reason == Reason::Responsible && own > decided
    }

    pub(super) fn skipped(&mut self, candidate: &CandidateName, why: &SkipReason) {
        let rank = match candidate.role {
            Role::Deputy | Role::Head | Role::Group | Role::OtherPhone => Rank::StandIn,
            _ => Rank::OwnPeople,
        };
        match why {
            SkipReason::Absent { until, .. } => self.absent(rank, candidate, until),
            SkipReason::OutsideHours { whose, hours, .. } => {
                self.outside_hours(rank, candidate, *whose, hours);
            }
            SkipReason::DayNotOpen => {
                let (russian, english) = names(candidate);
                self.say(
                    rank,
                    about_person(candidate),
                    format!("{russian}: нужно начать или продолжить рабочий день в CRM."),
                    format!("{english}: begin or go on with the working day in the CRM."),
                );
            }
            SkipReason::Phone(state) => self.phone(rank, candidate, *state),
            SkipReason::AlreadyTried(Some(DialStatus::ChanUnavail)) => {
                self.phone(rank, candidate, PhoneState::Unavailable);
            }
            SkipReason::CardField(field) => self.card_field(field),
            SkipReason::AlreadyTried(_)
            | SkipReason::NoResponsible
            | SkipReason::UnknownEmployee(_)
            | SkipReason::Dismissed(_)
            | SkipReason::NoExtension { .. } => {}
        }
    }

    fn absent(&mut self, rank: Rank, candidate: &CandidateName, until: &str) {
        let employee = candidate.employee.as_ref();
        let lacks_deputy = employee.is_some_and(|employee| employee.deputy.is_none());
        let (mut russian, mut english) = names(candidate);
        let _ = write!(
            russian,
            ": отсутствие до {until}. Если сотрудник уже работает, уберите его"
        );
        let _ = write!(
            english,
            ": away until {until}. If they are back, take the absence away"
        );
        if lacks_deputy && rank == Rank::OwnPeople {
            russian.push_str("; если нет — назначьте заместителя на странице «Сотрудники»");
            english.push_str("; if not, name a deputy on the page Employees");
        }
        russian.push('.');
        english.push('.');
        self.say(rank, about_person(candidate), russian, english);
    }

    fn outside_hours(
        &mut self,
        rank: Rank,
        candidate: &CandidateName,
        whose: HoursOf,
        hours: &str,
    ) {
        let key = match whose {
            HoursOf::Employee => {
                let (russian, english) = names(candidate);
                self.say(
                    rank,
                    about_person(candidate),
                    format!("{russian}: сейчас нерабочее время ({hours}). Измените часы сотрудника, если они другие."),
                    format!("{english}: outside working hours ({hours}). Change them if they are wrong."),
                );
                return;
            }
            HoursOf::Extension => "rules.hours.extension",
            HoursOf::Department => "rules.hours.department",
            HoursOf::Did => "rules.hours.did",
            HoursOf::Office => "rules.hours.office",
        };
        let russian = russian::hours_of(whose);
        self.say(
            rank,
            About::Config(key),
            format!("Сейчас нерабочее время, {russian} {hours}. Если в это время отвечают, измените часы в настройках."),
            format!("Outside working hours: {whose} {hours}. If people answer now, change the hours."),
        );
    }

    fn phone(&mut self, rank: Rank, candidate: &CandidateName, state: PhoneState) {
        let (russian, english) = names(candidate);
        let (about, russian, english) = match state {
            PhoneState::Unavailable => (
                about_person(candidate),
                format!(
                    "{russian}: телефон не в сети. Включите его и проверьте регистрацию на АТС."
                ),
                format!("{english}: the phone is off. Switch it on and see that it registers."),
            ),
            PhoneState::DoNotDisturb => (
                about_person(candidate),
                format!("{russian}: снимите на телефоне режим «не беспокоить»."),
                format!("{english}: switch off do not disturb on the phone."),
            ),
            PhoneState::Busy | PhoneState::InUse | PhoneState::Ringing => (
                about_person(candidate),
                format!("{russian}: телефон сейчас занят. Звонок пройдёт, когда он освободится."),
                format!("{english}: the phone is taken. It is rung once it is free."),
            ),
            PhoneState::Unknown | PhoneState::Free => (
                About::Config("rules.phone_state.skip"),
                format!(
                    "{russian}: настройки запрещают звонить на телефон в таком состоянии. Измените их."
                ),
                format!(
                    "{english}: the settings forbid ringing a phone in this state. Change them."
                ),
            ),
        };
        self.say(rank, about, russian, english);
    }
}

/// A candidate in Russian and in English.
fn names(candidate: &CandidateName) -> (String, String) {
    let english = match &candidate.employee {
        Some(employee) => format!("{} ({})", employee.name, candidate.target),
        None => candidate.target.to_string(),
    };
    (russian::capital(&russian::person(candidate)), english)
}

fn about_person(candidate: &CandidateName) -> About {
    candidate.employee.as_ref().map_or(About::Nothing, |one| {
        About::Employee(one.crm.clone(), one.id.clone())
    })
}
