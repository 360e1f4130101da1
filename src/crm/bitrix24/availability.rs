//! Who is away by the calendars, and what the working-day clock says.
//!
//! The portal writes the times of a calendar's entries in its own zone, as text; the timestamps
//! beside them do not agree with it in the vendor's example. So the text counts, in the zone that the
//! portal's replies carry, and the timestamps only where the text is in a form that could be read in
//! two ways (`11/12/2026`). Whether the zone is that of the portal or of the webhook's owner is not
//! documented; where both are one, as in most offices, it makes no difference. Entries of the chart of
//! absences are believed to be entries of the calendar, which is not documented either.

use std::collections::HashMap;
use std::fmt::Write as _;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};
use serde::Deserialize;
use serde_json::Value;

use super::super::budget::Lane;
use super::super::optional::is_refusal;
use super::super::{CrmError, one_line};
use super::client::{AfterFault, BATCH_LIMIT, Batch, Client, Command, shape};
use super::wire;
use crate::record::{Absence, EmployeeId, Workday};

pub(super) const CALENDAR: &str = "calendar.accessibility.get";
pub(super) const CLOCK: &str = "timeman.status";
/// Absences are read of today and so many days more: the mirror knows them when the portal is down.
const DAYS_AHEAD: i32 = 2;
/// Users whose calendars one command asks for.
const CALENDARS_AT_ONCE: usize = 100;
/// Users whose clocks one batch asks for: a third of a second each, and a request may take a minute.
pub(super) const WORKDAYS_AT_ONCE: usize = 25;
/// Absences that are kept of one user; more in three days are no person's.
const ABSENCES_LIMIT: usize = 100;
/// The longest name of an absence that is kept, in characters.
const NAME_LIMIT: usize = 80;

/// What an entry of a calendar says of the person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Accessibility {
    /// Away.
    Absent,
    /// In a meeting.
    Busy,
    /// Perhaps.
    Quest,
}

impl Accessibility {
    fn read(written: &str) -> Option<Self> {
        match written.trim().to_ascii_lowercase().as_str() {
            "absent" => Some(Self::Absent),
            "busy" => Some(Self::Busy),
            "quest" => Some(Self::Quest),
            _ => None,
        }
    }
}

/// The absences of these users from today on; `now` is the portal's clock in its zone.
pub(super) async fn absences(
    client: &Client,
    users: &[&EmployeeId],
    now: &Zoned,
    absent_when: &[Accessibility],
) -> Result<HashMap<EmployeeId, Vec<Absence>>, CrmError> {
    let first = now.date();
    let last = first.saturating_add(DAYS_AHEAD.days());
    let mut absences = HashMap::new();
    for some in users.chunks(CALENDARS_AT_ONCE * BATCH_LIMIT) {
        let parts: Vec<&[&EmployeeId]> = some.chunks(CALENDARS_AT_ONCE).collect();
        let mut batch = client
            .patiently(|| {
                let commands = parts.iter().map(|part| calendar_of(part, first, last));
                ask(client, commands.collect())
            })
            .await?;
        for (place, part) in parts.iter().enumerate() {
            let told = batch.take(place)?;
            for user in *part {
                let entries = entries_of(&told, user).map_err(|fault| shape(CALENDAR, fault))?;
                let own = read_entries(&entries, now.time_zone(), absent_when)
                    .map_err(|fault| shape(CALENDAR, format!("user {user}: {fault}")))?;
                if !own.is_empty() {
                    absences.insert((*user).clone(), own);
                }
            }
        }
    }
    Ok(absences)
}

/// Asks, unless the method's working time is spent: who is there must not wait for who is away.
async fn ask(client: &Client, commands: Vec<Command>) -> Result<Batch, CrmError> {
    let method = commands.first().map_or("batch", |command| command.method);
    let rest = client.rest_of(Lane::Change, method, commands.len());
    if !rest.is_zero() {
        return Err(CrmError::OutOfBudget(rest));
    }
    client.batch(Lane::Change, commands, AfterFault::GoOn).await
}

fn calendar_of(users: &[&EmployeeId], first: Date, last: Date) -> Command {
    let mut query = format!("from={first}&to={last}");
    for user in users {
        let _ = write!(query, "&users[]={user}");
    }
    Command {
        method: CALENDAR,
        query,
    }
}

/// A user's entries. Users without any may be left out, and nobody at all is `[]`.
fn entries_of<'a>(told: &'a Value, user: &EmployeeId) -> Result<Vec<&'a Value>, String> {
    let own = match told {
        Value::Object(users) => users.get(user.as_str()),
        Value::Array(users) if users.is_empty() => None,
        _ => return Err("no map of users".to_owned()),
    };
    match own {
        None | Some(Value::Null | Value::Bool(false)) => Ok(Vec::new()),
        Some(entries) => {
            wire::items(entries).ok_or_else(|| format!("the entries of user {user} are no list"))
        }
    }
}

fn read_entries(
    entries: &[&Value],
    zone: &TimeZone,
    absent_when: &[Accessibility],
) -> Result<Vec<Absence>, String> {
    let mut absences = Vec::new();
    for entry in entries {
        let means = entry.get("ACCESSIBILITY").and_then(Value::as_str);
        let means = means.ok_or("an entry has no readable `ACCESSIBILITY`")?;
        let is_away = Accessibility::read(means).is_some_and(|it| absent_when.contains(&it));
        if is_away && absences.len() < ABSENCES_LIMIT {
            absences.extend(absence(entry, zone)?);
        }
    }
    absences.sort_by_key(|absence: &Absence| (absence.from, absence.until));
    Ok(absences)
}

/// `None` for an entry without length.
fn absence(entry: &Value, zone: &TimeZone) -> Result<Option<Absence>, String> {
    let local = |key: &str| {
        local_time(entry, key, zone).ok_or_else(|| format!("an entry has no readable `{key}`"))
    };
    let (mut from, mut until) = (local("DATE_FROM")?, local("DATE_TO")?);
    if entry.get("DT_SKIP_TIME").and_then(wire::truth) == Some(true) {
        // The last day is meant whole.
        from = from.date().to_datetime(Time::midnight());
        until = until
            .date()
            .saturating_add(1.day())
            .to_datetime(Time::midnight());
    }
    let moment = |local: DateTime| {
        let zoned = zone.to_zoned(local).map_err(|error| error.to_string())?;
        Ok::<Timestamp, String>(zoned.timestamp())
    };
    let (from, until) = (moment(from)?, moment(until)?);
    let what = entry.get("NAME").and_then(wire::text).unwrap_or_default();
    Ok((from < until).then(|| Absence {
        from,
        until,
        what: one_line(what.trim(), NAME_LIMIT),
    }))
}

fn local_time(entry: &Value, key: &str, zone: &TimeZone) -> Option<DateTime> {
    let written = entry.get(key).and_then(Value::as_str).unwrap_or_default();
    let local = |moment: Timestamp| moment.to_zoned(zone.clone()).datetime();
    read_local(written.trim())
        .or_else(|| written.trim().parse().ok().map(local))
        .or_else(|| written.trim().parse().ok())
        .or_else(|| {
            let seconds = entry.get(format!("{key}_TS_UTC")).and_then(wire::number)?;
            #[expect(clippy::cast_possible_truncation, reason = "checked by `from_second`")]
            Timestamp::from_second(seconds as i64).ok().map(local)
        })
}

/// The form of most portals; that with slashes means another day in each country.
fn read_local(written: &str) -> Option<DateTime> {
    ["%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M"]
        .into_iter()
        .find_map(|form| DateTime::strptime(form, written).ok())
        .or_else(|| {
            let date = Date::strptime("%d.%m.%Y", written).ok()?;
            Some(date.to_datetime(Time::midnight()))
        })
}

/// What the clocks of these users say, [`WORKDAYS_AT_ONCE`] of them at most. Who has no clock, or
/// whose clock is not ours to read, is left out; if that is everybody, it is an error.
pub(super) async fn workdays(
    client: &Client,
    users: &[&EmployeeId],
) -> Result<Vec<(EmployeeId, Workday)>, CrmError> {
    let mut batch = client
        .patiently(|| {
            let commands = users.iter().map(|user| Command {
                method: CLOCK,
                query: format!("USER_ID={user}"),
            });
            ask(client, commands.collect())
        })
        .await?;
    let mut workdays = Vec::new();
    let (mut is_answered, mut refused) = (false, None);
    for (place, user) in users.iter().enumerate() {
        match batch.take(place) {
            Ok(told) => {
                let workday = read_workday(&told).map_err(|fault| shape(CLOCK, fault))?;
                is_answered = true;
                workdays.extend(workday.map(|workday| ((*user).clone(), workday)));
            }
            Err(error @ CrmError::Forbidden { .. }) => refused = Some(error),
            // Nobody of that number: without a clock.
            Err(error) if is_refusal(&error) => is_answered = true,
            Err(error) => return Err(error),
        }
    }
    match refused {
        Some(error) if !is_answered => Err(error),
        _ => Ok(workdays),
    }
}

/// `None` where it is not installed, or switched off for this person.
fn read_workday(told: &Value) -> Result<Option<Workday>, String> {
    let status = told.get("STATUS").and_then(Value::as_str);
    Ok(match status.ok_or("no `STATUS`")? {
        "OPENED" => Some(Workday::Open),
        "PAUSED" => Some(Workday::Paused),
        // A day that was opened earlier and not closed has run out.
        "CLOSED" | "EXPIRED" => Some(Workday::Closed),
        _ => None,
    })
}

/// Reads an answer as a calendar and as a clock.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(told: &Value) {
    let zone = TimeZone::fixed(jiff::tz::offset(3));
    let all = [
        Accessibility::Absent,
        Accessibility::Busy,
        Accessibility::Quest,
    ];
    if let Ok(entries) = entries_of(told, &EmployeeId::new("17"))
        && let Ok(absences) = read_entries(&entries, &zone, &all)
    {
        assert!(absences.len() <= ABSENCES_LIMIT);
        for absence in &absences {
            assert!(absence.from < absence.until);
            assert!(!absence.what.contains(char::is_control));
        }
    }
    let _ = read_workday(told);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn zone() -> TimeZone {
        TimeZone::fixed(jiff::tz::offset(3))
    }

    fn span(entry: &Value) -> Result<Option<String>, String> {
        let absence = absence(entry, &zone())?;
        Ok(absence.map(|it| format!("{} {} {}", it.from, it.until, it.what)))
    }

    #[test]
    fn the_text_counts_in_the_portals_zone_and_whole_days_are_whole() {
        let table = [
            (
                json!({"NAME": "Отпуск", "DATE_FROM": "22.11.2026 11:00:00", "DATE_TO": "22.11.2026 12:00:00",
                    "DATE_FROM_TS_UTC": "1", "DATE_TO_TS_UTC": "2", "DT_SKIP_TIME": "N"}),
                Some("2026-11-22T08:00:00Z 2026-11-22T09:00:00Z Отпуск"),
            ),
            (
                json!({"NAME": "x", "DATE_FROM": "22.11.2026", "DATE_TO": "23.11.2026", "DT_SKIP_TIME": "Y"}),
                Some("2026-11-21T21:00:00Z 2026-11-23T21:00:00Z x"),
            ),
            (
                json!({"DATE_FROM": "22.11.2026 00:00:00", "DATE_TO": "22.11.2026 00:00:00", "DT_SKIP_TIME": true}),
                Some("2026-11-21T21:00:00Z 2026-11-22T21:00:00Z "),
            ),
            (
                json!({"NAME": null, "DATE_FROM": "2026-11-22 11:00:00", "DATE_TO": "2026-11-22T13:00:00+05:00"}),
                None,
            ),
            (
                json!({"DATE_FROM": "11/12/2026 11:00:00 am", "DATE_TO": "11/12/2026 12:00:00 pm",
                    "DATE_FROM_TS_UTC": "1795334400", "DATE_TO_TS_UTC": 1_795_338_000, "DT_SKIP_TIME": "N"}),
                Some("2026-11-22T08:00:00Z 2026-11-22T09:00:00Z "),
            ),
        ];
        for (entry, expected) in table {
            let expected = expected.map(str::to_owned);
            assert_eq!(span(&entry), Ok(expected), "{entry}");
        }
    }

    #[test]
    fn only_what_means_away_is_an_absence_and_damage_is_told() {
        let entry = |means: &str| json!({"DATE_FROM": "22.11.2026", "DATE_TO": "22.11.2026", "DT_SKIP_TIME": "Y", "ACCESSIBILITY": means});
        let all = [
            entry("busy"),
            entry("ABSENT"),
            entry("quest"),
            entry("free"),
        ];
        let all: Vec<&Value> = all.iter().collect();
        let count = |absent_when: &[Accessibility]| {
            read_entries(&all, &zone(), absent_when).map(|found| found.len())
        };
        assert_eq!(count(&[Accessibility::Absent]), Ok(1));
        assert_eq!(count(&[Accessibility::Absent, Accessibility::Busy]), Ok(2));
        for damaged in [
            json!({"DATE_FROM": "22.11.2026", "DATE_TO": "22.11.2026"}),
            json!({"DATE_FROM": "soon", "DATE_TO": "22.11.2026", "ACCESSIBILITY": "absent"}),
            json!("entry"),
        ] {
            let read = read_entries(&[&damaged], &zone(), &[Accessibility::Absent]);
            assert!(read.is_err(), "{damaged}");
        }
    }

    #[test]
    fn nobody_is_an_empty_list_and_a_list_of_people_is_damage() {
        let user = EmployeeId::new("17");
        for empty in [json!([]), json!({}), json!({"18": []}), json!({"17": null})] {
            assert_eq!(entries_of(&empty, &user), Ok(Vec::new()), "{empty}");
        }
        let one = json!({"17": {"3": {"ACCESSIBILITY": "busy"}}});
        assert_eq!(entries_of(&one, &user).unwrap().len(), 1);
        for damaged in [json!([[]]), json!("x"), json!({"17": "x"})] {
            assert!(entries_of(&damaged, &user).is_err(), "{damaged}");
        }
    }

    #[test]
    fn the_clock_is_read_in_the_vendors_words() {
        for (status, expected) in [
            ("OPENED", Some(Workday::Open)),
            ("PAUSED", Some(Workday::Paused)),
            ("CLOSED", Some(Workday::Closed)),
            ("EXPIRED", Some(Workday::Closed)),
            ("NOT_INSTALLED", None),
        ] {
            assert_eq!(read_workday(&json!({"STATUS": status})), Ok(expected));
        }
        assert!(read_workday(&json!([])).is_err());
    }
}
