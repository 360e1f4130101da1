//! When an office or a person works: `Mon-Fri 09:00-18:00`, and the national holidays.
//!
//! The language is OpenStreetMap's `opening_hours`, read by the library that also brings the tables of
//! holidays; English and Russian names of days and months are understood besides its own. Pure: the
//! moment comes in as the wall clock of the office.

use std::fmt;
use std::str::FromStr as _;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use opening_hours::localization::{Country, NoLocation};
use opening_hours::{Context, OpeningHours};
use serde::{Deserialize, Serialize};

/// `[office]`: whose clock and holidays hold.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Office {
    /// By whose clock people work: `Europe/Moscow`. Default: this machine's.
    #[serde(with = "zone_name")]
    pub time_zone: Option<TimeZone>,
    /// The country whose national holidays `PH` means in hours: `RU`. Default: none.
    #[serde(with = "country_code")]
    pub holidays: Option<Country>,
}

impl Office {
    /// The options with their defaults, for the example configuration.
    pub const EXAMPLE: &'static str = "\
# [office]
# time_zone = \"Europe/Moscow\"    # by whose clock people work; this machine's when left out
# holidays = \"RU\"                # whose national holidays \"PH\" means in hours; none when left out
";

    /// The zone.
    pub fn zone(&self) -> TimeZone {
        self.time_zone.clone().unwrap_or_else(TimeZone::system)
    }

    /// Reads hours, `PH` being this country's holidays.
    pub fn hours(&self, written: &str) -> Result<Hours, String> {
        let hours = Hours::read(written)?;
        Ok(match self.holidays {
            Some(country) => hours.with_holidays(country),
            None => hours,
        })
    }
}

mod zone_name {
    use super::{Deserialize, TimeZone};

    #[expect(clippy::ref_option, reason = "the shape that serde asks for")]
    pub(super) fn serialize<S: serde::Serializer>(
        zone: &Option<TimeZone>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match zone.as_ref().and_then(TimeZone::iana_name) {
            Some(name) => serializer.serialize_str(name),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<TimeZone>, D::Error> {
        let name = String::deserialize(deserializer)?;
        let zone = TimeZone::get(&name).map_err(|_| {
            serde::de::Error::custom(format!(
                "`time_zone` is \"{name}\", which is no time zone; write \"Europe/Moscow\""
            ))
        })?;
        Ok(Some(zone))
    }
}

mod country_code {
    use super::{Country, Deserialize};

    #[expect(
        clippy::ref_option,
        clippy::trivially_copy_pass_by_ref,
        reason = "the shape that serde asks for"
    )]
    pub(super) fn serialize<S: serde::Serializer>(
        country: &Option<Country>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match country {
            Some(country) => serializer.serialize_str(&country.to_string()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Country>, D::Error> {
        let code = String::deserialize(deserializer)?;
        let country = code.to_uppercase().parse().map_err(|_| {
            serde::de::Error::custom(format!(
                "`holidays` is \"{code}\": no table of holidays is known for it; write a country's two letters, \"RU\""
            ))
        })?;
        Ok(Some(country))
    }
}

/// Hours as they were written, and what they mean.
#[derive(Clone)]
pub struct Hours {
    written: Arc<str>,
    parsed: OpeningHours<NoLocation>,
}

impl Hours {
    /// Reads hours. The text of the error is for whoever wrote them.
    pub fn read(written: &str) -> Result<Self, String> {
        let parsed = OpeningHours::<NoLocation>::from_str(&translate(written));
        let parsed = parsed.map_err(|error| {
            let cause = error.to_string();
            let cause = cause.split_whitespace().collect::<Vec<_>>().join(" ");
            format!(
                "`{written}` is no working time; write \"Mon-Fri 09:00-18:00; Sat 10:00-14:00; PH off\" ({cause})"
            )
        })?;
        Ok(Self {
            written: written.trim().into(),
            parsed,
        })
    }

    /// The same with the public holidays of a country (`RU`, two letters), which `PH` then means.
    #[must_use]
    pub fn with_holidays(self, country: Country) -> Self {
        let context = Context::default().with_holidays(country.holidays());
        Self {
            written: self.written,
            parsed: self.parsed.with_context(context),
        }
    }

    /// Says whether it is working time when the office's clock shows `local`.
    pub fn holds(&self, local: DateTime) -> bool {
        to_chrono(local).is_some_and(|at| self.parsed.is_open(at))
    }

    /// When working time begins next after `local`; `None` if never, or not within the library's
    /// calendar.
    pub fn next_begin(&self, local: DateTime) -> Option<DateTime> {
        let mut at = to_chrono(local)?;
        // A change may lead from one closed span to another.
        for _ in 0..8 {
            at = self.parsed.next_change(at)?;
            if self.parsed.is_open(at) {
                return from_chrono(at);
            }
        }
        None
    }
}

/// Reads a span of days or times; gives its first moment and the first moment after it.
///
/// `2026-12-01..2026-12-14` with both ends inside, or with times,
/// `2026-12-01 13:00..2026-12-01 18:00`, by the clock of `zone`; one day or a span without its end
/// stand alone: `2026-12-31`.
pub fn read_span(written: &str, zone: &TimeZone) -> Result<(Timestamp, Timestamp), String> {
    let fault = || {
        format!(
            "`{written}` is no span of days; write \"2026-12-01..2026-12-14\" or \"2026-12-31\""
        )
    };
    let (first, last) = written
        .split_once("..")
        .or_else(|| written.split_once(" - "))
        .unwrap_or((written, written));
    let begins = read_end(first.trim(), Edge::First).ok_or_else(fault)?;
    let ends = read_end(last.trim(), Edge::Last).ok_or_else(fault)?;
    let instant = |local: DateTime| local.to_zoned(zone.clone()).map(|zoned| zoned.timestamp());
    match (instant(begins), instant(ends)) {
        (Ok(from), Ok(until)) if from < until => Ok((from, until)),
        _ => Err(fault()),
    }
}

#[derive(Clone, Copy)]
enum Edge {
    First,
    Last,
}

fn read_end(written: &str, edge: Edge) -> Option<DateTime> {
    if let Ok(day) = written.parse::<Date>() {
        return match edge {
            _ if written.contains(':') => written.parse().ok(),
            Edge::First => Some(day.to_datetime(Time::midnight())),
            Edge::Last => Some(day.tomorrow().ok()?.to_datetime(Time::midnight())),
        };
    }
    written.parse().ok()
}

impl fmt::Debug for Hours {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Hours").field(&self.written).finish()
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.written)
    }
}

impl PartialEq for Hours {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Hours {}

/// Days and months as people write them, and as the library wants them.
const WORDS: &[(&[&str], &str)] = &[
    (&["monday", "mon", "понедельник", "пн"], "Mo"),
    (&["tuesday", "tue", "вторник", "вт"], "Tu"),
    (&["wednesday", "wed", "среда", "ср"], "We"),
    (&["thursday", "thu", "четверг", "чт"], "Th"),
    (&["friday", "fri", "пятница", "пт"], "Fr"),
    (&["saturday", "sat", "суббота", "сб"], "Sa"),
    (&["sunday", "sun", "воскресенье", "вс"], "Su"),
    (&["holidays", "holiday", "праздники"], "PH"),
    (&["closed", "выходной"], "off"),
    (&["январь", "янв"], "Jan"),
    (&["февраль", "фев"], "Feb"),
    (&["март", "мар"], "Mar"),
    (&["апрель", "апр"], "Apr"),
    (&["май"], "May"),
    (&["июнь", "июн"], "Jun"),
    (&["июль", "июл"], "Jul"),
    (&["август", "авг"], "Aug"),
    (&["сентябрь", "сен"], "Sep"),
    (&["октябрь", "окт"], "Oct"),
    (&["ноябрь", "ноя"], "Nov"),
    (&["декабрь", "дек"], "Dec"),
];

fn translate(written: &str) -> String {
    let mut translated = String::with_capacity(written.len());
    let mut word = String::new();
    for letter in written.chars().chain([' ']) {
        if letter.is_alphabetic() {
            word.push(letter);
            continue;
        }
        if !word.is_empty() {
            let lower = word.to_lowercase();
            let known = WORDS
                .iter()
                .find(|(names, _)| names.contains(&lower.as_str()));
            translated.push_str(known.map_or(word.as_str(), |(_, own)| own));
            word.clear();
        }
        // A dash that a word processor has made longer.
        translated.push(if "–—".contains(letter) {
            '-'
        } else {
            letter
        });
    }
    translated.trim().to_owned()
}

fn to_chrono(local: DateTime) -> Option<chrono::NaiveDateTime> {
    let part = |value: i8| u32::try_from(value).ok();
    chrono::NaiveDate::from_ymd_opt(
        local.year().into(),
        part(local.month())?,
        part(local.day())?,
    )?
    .and_hms_opt(
        part(local.hour())?,
        part(local.minute())?,
        part(local.second())?,
    )
}

fn from_chrono(at: chrono::NaiveDateTime) -> Option<DateTime> {
    use chrono::{Datelike as _, Timelike as _};
    let part = |value: u32| i8::try_from(value).ok();
    DateTime::new(
        at.year().try_into().ok()?,
        part(at.month())?,
        part(at.day())?,
        part(at.hour())?,
        part(at.minute())?,
        part(at.second())?,
        0,
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime {
        text.parse().unwrap()
    }

    #[test]
    fn hours_are_read_in_english_and_russian() {
        for (written, moment, expected, why) in [
            (
                "Mon-Fri 09:00-18:00",
                "2026-11-23T09:00",
                true,
                "Monday, first minute",
            ),
            (
                "Mon-Fri 09:00-18:00",
                "2026-11-23T18:00",
                false,
                "the end is outside",
            ),
            ("Mon-Fri 09:00-18:00", "2026-11-22T12:00", false, "Sunday"),
            (
                "пн-пт 9:00–18:00; сб 10:00-14:00",
                "2026-11-21T13:00",
                true,
                "Saturday",
            ),
            (
                "Mon-Fri 22:00-06:00",
                "2026-11-24T05:00",
                true,
                "a night shift",
            ),
            ("24/7", "2026-11-22T03:00", true, "always"),
            (
                "Mon-Fri 09:00-13:00,14:00-18:00",
                "2026-11-23T13:30",
                false,
                "lunch",
            ),
            (
                "Mon-Sun 09:00-18:00; 2026 Nov 23 off",
                "2026-11-23T12:00",
                false,
                "one day off",
            ),
        ] {
            let hours = Hours::read(written).unwrap();
            assert_eq!(
                hours.holds(at(moment)),
                expected,
                "{written} {moment}: {why}"
            );
        }
    }

    #[test]
    fn national_holidays_come_from_the_library() {
        let hours = Hours::read("Mon-Sun 09:00-18:00; PH off; Jan 08 off").unwrap();
        let at_new_year = at("2027-01-01T12:00");
        assert!(hours.holds(at_new_year), "no country, no holidays");
        let russian = hours.with_holidays("RU".parse().unwrap());
        assert!(!russian.holds(at_new_year));
        assert!(!russian.holds(at("2027-05-09T12:00")));
        assert!(russian.holds(at("2027-05-12T12:00")));
        assert_eq!(
            russian.next_begin(at("2026-12-31T19:00")),
            Some(at("2027-01-09T09:00"))
        );
    }

    #[test]
    fn what_is_no_working_time_is_told_with_an_example() {
        let error = Hours::read("nine to five").unwrap_err();
        assert!(
            error.contains("nine to five") && error.contains("Mon-Fri 09:00-18:00"),
            "{error}"
        );
    }

    #[test]
    fn spans_hold_both_of_their_days() {
        let zone = TimeZone::get("Europe/Moscow").unwrap();
        for (written, from, until) in [
            (
                "2026-12-01..2026-12-14",
                "2026-11-30T21:00:00Z",
                "2026-12-14T21:00:00Z",
            ),
            (
                "2026-12-01 - 2026-12-14",
                "2026-11-30T21:00:00Z",
                "2026-12-14T21:00:00Z",
            ),
            ("2026-12-31", "2026-12-30T21:00:00Z", "2026-12-31T21:00:00Z"),
            (
                "2026-12-01 13:00..2026-12-01 18:00",
                "2026-12-01T10:00:00Z",
                "2026-12-01T15:00:00Z",
            ),
        ] {
            let (begins, ends) = read_span(written, &zone).unwrap();
            assert_eq!(
                (begins.to_string(), ends.to_string()),
                (from.to_owned(), until.to_owned()),
                "{written}"
            );
        }
        for wrong in ["tomorrow", "2026-12-14..2026-12-01", "", "2026-12-01.."] {
            assert!(
                read_span(wrong, &zone).unwrap_err().contains("2026-12-31"),
                "{wrong}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_fail(written in ".{0,60}") {
            let _ = Hours::read(&written);
        }
    }
}
