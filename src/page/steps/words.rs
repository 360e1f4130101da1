//! Single words of closed sets, short enough for a cell of a table.

use crate::call::DialStatus;
use crate::decision::{Reason, Role};
use crate::journal::{End, KnownOutcome};
use crate::presence::PhoneState;
use crate::told::Language;

fn choose(language: Language, russian: &'static str, english: &'static str) -> &'static str {
    match language {
        Language::Ru => russian,
        Language::En => english,
    }
}

/// Why a call goes where it goes.
pub fn reason(reason: Reason, language: Language) -> &'static str {
    let (russian, english) = match reason {
        Reason::Responsible => ("ответственный", "responsible"),
        Reason::OtherPhone => (
            "ответственный, на мобильный",
            "responsible, on the mobile phone",
        ),
        Reason::Deputy => ("заместитель", "deputy"),
        Reason::Head => ("руководитель отдела", "head of the department"),
        Reason::NextResponsible => (
            "ответственный за другую карточку",
            "responsible for another card",
        ),
        Reason::Group => ("группа или очередь", "group or queue"),
        Reason::LastTalk => ("последний собеседник", "who spoke with them last"),
        Reason::Listed => ("закреплён списком", "set by a list"),
        Reason::CardField => ("по полю карточки", "set by a field of the card"),
        Reason::Script => ("по скрипту", "set by the script"),
        Reason::NotRouted => ("не распределяется по правилу", "a rule forbids routing"),
        Reason::TriesSpent => ("попытки исчерпаны", "tries spent"),
        Reason::TimeSpent => ("время ожидания вышло", "time spent"),
        Reason::NobodyCanBeRung => ("звонить некому", "nobody can be rung"),
        Reason::UnknownCaller => ("номер неизвестен", "unknown number"),
        Reason::EmployeeCalls => ("звонит сотрудник", "an employee calls"),
        Reason::ShortNumber => ("внутренний номер", "an extension calls"),
        Reason::NoNumber => ("номер не определён", "no caller's number"),
        Reason::AfterTheCall => ("звонок уже завершён", "the call was over"),
        Reason::Fault => ("внутренний сбой", "internal fault"),
    };
    choose(language, russian, english)
}

/// The same from the journal's word; a word that is unknown here is given back.
pub fn reason_word(word: &str, language: Language) -> &str {
    let known = Reason::ALL
        .into_iter()
        .find(|reason| reason.as_str() == word);
    known.map_or(word, |known| reason(known, language))
}

/// Why somebody is rung.
pub fn role(role: Role, language: Language) -> &'static str {
    reason(role.reason(), language)
}

/// The same from the journal's word; a word that is unknown here is given back.
pub fn role_word(word: &str, language: Language) -> &str {
    reason_word(word, language)
}

/// How the call of a known caller ended.
pub fn outcome(outcome: KnownOutcome, language: Language) -> &'static str {
    match outcome {
        KnownOutcome::OwnPerson => choose(language, "ответил свой сотрудник", "own person"),
        KnownOutcome::Another => choose(language, "ответил другой сотрудник", "another person"),
        KnownOutcome::StandardRoute => end(End::StandardRoute, language),
        KnownOutcome::HungUp => end(End::HungUp, language),
        KnownOutcome::NotTold => end(End::NotTold, language),
    }
}

/// How a call ended.
pub fn end(end: End, language: Language) -> &'static str {
    let (russian, english) = match end {
        End::Answered => ("ответили", "answered"),
        End::HungUp => ("звонящий не дождался", "the caller hung up"),
        End::StandardRoute => ("обычный маршрут", "standard route"),
        End::NotTold => ("нет данных", "not known"),
    };
    choose(language, russian, english)
}

/// [`outcome`] or [`end`] from the journal's word; a word that is unknown here is given back.
pub fn outcome_word(word: &str, language: Language) -> &str {
    let mut outcomes = KnownOutcome::ALL.into_iter();
    if let Some(known) = outcomes.find(|known| known.as_str() == word) {
        return outcome(known, language);
    }
    let known = End::ALL.into_iter().find(|known| known.as_str() == word);
    known.map_or(word, |known| end(known, language))
}

/// What became of ringing somebody.
pub fn dial_status(status: DialStatus, language: Language) -> &'static str {
    let (russian, english) = match status {
        DialStatus::Answer => ("ответ", "answered"),
        DialStatus::Busy => ("занято или отклонён", "busy or declined"),
        DialStatus::NoAnswer => ("нет ответа", "no answer"),
        DialStatus::Cancel => ("звонящий положил трубку", "the caller hung up"),
        DialStatus::Congestion => ("линия перегружена", "no line"),
        DialStatus::ChanUnavail => ("телефон недоступен", "not reachable"),
        DialStatus::Other => ("не принят", "not taken"),
    };
    choose(language, russian, english)
}

/// How a phone stands.
pub fn phone_state(state: PhoneState, language: Language) -> &'static str {
    let (russian, english) = match state {
        PhoneState::Unknown => ("неизвестно", "unknown"),
        PhoneState::Free => ("свободен", "free"),
        PhoneState::Ringing => ("звонит", "ringing"),
        PhoneState::InUse => ("разговаривает", "in a conversation"),
        PhoneState::Busy => ("занят", "busy"),
        PhoneState::DoNotDisturb => ("не беспокоить", "do not disturb"),
        PhoneState::Unavailable => ("не зарегистрирован", "not registered"),
    };
    choose(language, russian, english)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reason behind this one: leaves none out, or does not compile.
    fn next(reason: Reason) -> Option<Reason> {
        Some(match reason {
            Reason::Responsible => Reason::OtherPhone,
            Reason::OtherPhone => Reason::Deputy,
            Reason::Deputy => Reason::Head,
            Reason::Head => Reason::NextResponsible,
            Reason::NextResponsible => Reason::Group,
            Reason::Group => Reason::LastTalk,
            Reason::LastTalk => Reason::Listed,
            Reason::Listed => Reason::CardField,
            Reason::CardField => Reason::Script,
            Reason::Script => Reason::NotRouted,
            Reason::NotRouted => Reason::TriesSpent,
            Reason::TriesSpent => Reason::TimeSpent,
            Reason::TimeSpent => Reason::NobodyCanBeRung,
            Reason::NobodyCanBeRung => Reason::UnknownCaller,
            Reason::UnknownCaller => Reason::EmployeeCalls,
            Reason::EmployeeCalls => Reason::ShortNumber,
            Reason::ShortNumber => Reason::NoNumber,
            Reason::NoNumber => Reason::AfterTheCall,
            Reason::AfterTheCall => Reason::Fault,
            Reason::Fault => return None,
        })
    }

    #[test]
    fn every_reason_is_found_by_its_word() {
        let reasons = std::iter::successors(Some(Reason::Responsible), |one| next(*one));
        let mut count = 0;
        for one in reasons {
            count += 1;
            for language in [Language::Ru, Language::En] {
                let told = reason_word(one.as_str(), language);
                assert_eq!(told, reason(one, language));
            }
        }
        assert_eq!(count, Reason::ALL.len());
        assert_eq!(reason_word("made_up", Language::Ru), "made_up");
        assert_eq!(
            role_word(Role::Deputy.as_str(), Language::Ru),
            "заместитель"
        );
        assert_eq!(role(Role::Head, Language::En), "head of the department");
    }

    #[test]
    fn ends_are_found_by_the_journals_words() {
        for known in End::ALL {
            let word = known.as_str();
            assert_eq!(serde_json::to_value(known).unwrap(), word);
            assert_eq!(outcome_word(word, Language::Ru), end(known, Language::Ru));
        }
        for known in KnownOutcome::ALL {
            let told = outcome_word(known.as_str(), Language::En);
            assert_eq!(told, outcome(known, Language::En));
        }
        assert_eq!(outcome_word("made_up", Language::En), "made_up");
    }
}
