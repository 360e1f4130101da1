//! Tells people how a call was decided: a step as a sentence, in Russian or English.
//!
//! Pure: a step goes in, text comes out. Names, numbers, hours and whatever else came as data stay as
//! they are. Russian is written so that no name has to be declined.

pub mod russian;

use serde::{Deserialize, Serialize};

use crate::decision::Step;

/// The languages of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Russian.
    Ru,
    /// English.
    En,
}

impl Language {
    /// Its code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ru => "ru",
            Self::En => "en",
        }
    }

    /// Reads what begins with a code, as `en-GB`; `None` for any other language.
    pub fn read(code: &str) -> Option<Self> {
        [Self::Ru, Self::En]
            .into_iter()
            .find(|language| code.starts_with(language.as_str()))
    }

    /// One of two texts.
    pub fn say<'a>(self, russian: &'a str, english: &'a str) -> &'a str {
        match self {
            Self::Ru => russian,
            Self::En => english,
        }
    }
}

/// One step of a decision as a sentence.
pub fn step(step: &Step, language: Language) -> String {
    match language {
        Language::En => step.to_string(),
        Language::Ru => russian::step(step),
    }
}
