//! Now: calls as they come, how many known callers reached their own person, and what needs a hand.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;

use askama::Template;
use axum::extract::{self, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt as _, stream};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::calls::{self, CallRow};
use super::view::View;
use super::{Fault, Page};
use crate::api;
use crate::journal::{self, Feed, HourCount, JournalError, KnownOutcome, Query, Reader};

/// Calls on the page.
const CALLS: usize = 20;
/// Days of the chart.
const DAYS: i64 = 30;
/// The chart.
const WIDTH: u64 = 960;
const HEIGHT: u64 = 200;
const BELOW: u64 = 26;
const LEFT: u64 = 44;

#[derive(Template)]
#[template(path = "now.html")]
struct Shown<'a> {
    view: &'a View,
    has_journal: bool,
    told: i64,
    today: Day,
    chart: String,
    calls: Vec<CallRow>,
    hands: Vec<Hand>,
}

/// Something that needs a hand.
struct Hand {
    level: &'static str,
    text: String,
    path: &'static str,
}

/// The calls of a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Day {
    all: u64,
    known: u64,
    own: u64,
}

/// What the journal says, read once for all who look on.
#[derive(Default)]
pub struct Board(Mutex<Option<Arc<Reading>>>);

/// What was read behind a word of the feed.
struct Reading {
    told: i64,
    by_day: BTreeMap<Date, Day>,
    first: Date,
    last: Date,
    calls: Vec<journal::Shown>,
}

impl Board {
    /// The last reading, or a new one where calls have come since, or a day has begun.
    async fn reading(
        &self,
        reader: &Reader,
        feed: &Feed,
        view: &View,
    ) -> Result<Arc<Reading>, Fault> {
        // Held while one reads: the others want the same.
        let mut latest = self.0.lock().await;
        let told = feed.told();
        let (first, last) = days(view);
        let is_new = |reading: &&Arc<Reading>| reading.told == told && reading.last == last;
        if let Some(reading) = latest.as_ref().filter(is_new) {
            return Ok(Arc::clone(reading));
        }
        let (reader, zone, now) = (reader.clone(), view.zone.clone(), view.now);
        let read = tokio::task::spawn_blocking(move || {
            let (hours, calls) = read(&reader, first, &zone, now)?;
            Ok::<_, JournalError>(Reading {
                told,
                by_day: by_day(&hours, &zone),
                first,
                last,
                calls,
            })
        });
        let reading = match read.await {
            Ok(Ok(reading)) => Arc::new(reading),
            Ok(Err(error)) => return Err(Fault::Failed(crate::fault::told(&error))),
            Err(error) => return Err(Fault::Failed(error.to_string())),
        };
        *latest = Some(Arc::clone(&reading));
        Ok(reading)
    }
}

pub(super) async fn show(State(page): State<Arc<Page>>, view: View) -> Result<Response, Fault> {
    let mut shown = Shown {
        view: &view,
        has_journal: false,
        told: 0,
        today: Day::default(),
        chart: String::new(),
        calls: Vec::new(),
        hands: hands(&page, &view),
    };
    if let Some((reader, feed)) = page.api.journal.as_ref().zip(page.feed.as_ref()) {
        let reading = page.board.reading(reader, feed, &view).await?;
        let Reading { by_day, last, .. } = &*reading;
        shown.has_journal = true;
        shown.told = reading.told;
        shown.today = by_day.get(last).copied().unwrap_or_default();
        shown.chart = chart(&view, by_day, reading.first, *last);
        let calls = reading.calls.iter();
        shown.calls = calls.map(|call| calls::row(&page, &view, call)).collect();
    }
    Ok(view.render(&shown))
}

type Read = (Vec<HourCount>, Vec<journal::Shown>);

fn read(
    reader: &Reader,
    first: Date,
    zone: &TimeZone,
    now: Timestamp,
) -> Result<Read, JournalError> {
    let from = first
        .to_zoned(zone.clone())
        .map_or(now, |zoned| zoned.timestamp());
    let hours = reader.hours(from, now + SignedDuration::from_hours(1))?;
    let newest = Query {
        limit: CALLS,
        ..Query::default()
    };
    Ok((hours, reader.read(&newest)?))
}

/// The first and the last day of the chart, by the office's clock.
fn days(view: &View) -> (Date, Date) {
    let last = view.now.to_zoned(view.zone.clone()).date();
    let first = last.checked_sub(Span::new().days(DAYS - 1)).unwrap_or(last);
    (first, last)
}

fn by_day(hours: &[HourCount], zone: &TimeZone) -> BTreeMap<Date, Day> {
    let mut days: BTreeMap<Date, Day> = BTreeMap::new();
    // An hour has a count for each end: what day it is of is asked once.
    let mut last: Option<(Timestamp, Date)> = None;
    for hour in hours {
        let date = match last {
            Some((known, date)) if known == hour.hour => date,
            _ => hour.hour.to_zoned(zone.clone()).date(),
        };
        last = Some((hour.hour, date));
        let day = days.entry(date).or_default();
        day.all += hour.calls;
        if let Some(outcome) = hour.outcome {
            day.known += hour.calls;
            if outcome == KnownOutcome::OwnPerson {
                day.own += hour.calls;
            }
        }
    }
    days
}

/// Two bars a day: known callers, and in front those who reached their own person.
fn chart(view: &View, by_day: &BTreeMap<Date, Day>, first: Date, last: Date) -> String {
    let most = by_day.values().map(|day| day.known).max().unwrap_or(0);
    let top = most.max(4).next_multiple_of(4);
    let floor = HEIGHT - BELOW;
    let y_of = |count: u64| floor - count * (floor - 12) / top;
    let title = view.say(
        "Звонки известных клиентов по дням",
        "Calls of known callers by day",
    );
    let mut svg = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
    );
    // Writing into a string does not fail.
    for quarter in 0..=4 {
        let count = top * quarter / 4;
        let (y, x) = (y_of(count), LEFT - 8);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y}\" y2=\"{y}\"/>\
             <text class=\"scale\" x=\"{x}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            y + 4,
            view.count(&count)
        );
    }
    let slot = (WIDTH - LEFT) / DAYS.unsigned_abs();
    for (index, date) in first
        .series(Span::new().days(1))
        .take_while(|date| *date <= last)
        .enumerate()
    {
        let day = by_day.get(&date).copied().unwrap_or_default();
        let x = LEFT + slot * index as u64 + 3;
        let (y_known, y_own) = (y_of(day.known), y_of(day.own));
        let _ = write!(
            svg,
            "<g><title>{}: {} / {}, {}</title>\
             <rect class=\"all\" x=\"{x}\" y=\"{y_known}\" width=\"{w}\" height=\"{}\" rx=\"2\"/>\
             <rect class=\"own\" x=\"{x}\" y=\"{y_own}\" width=\"{w}\" height=\"{}\" rx=\"2\"/></g>",
            date.strftime("%d.%m"),
            day.own,
            day.known,
            view.share(&day.own, &day.known),
            floor - y_known,
            floor - y_own,
            w = slot - 6,
        );
        if index % 5 == 4 || date == last {
            let _ = write!(
                svg,
                "<text class=\"scale\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                x + (slot - 6) / 2,
                HEIGHT - 6,
                date.strftime("%d.%m")
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

/// What somebody should look at, the worst first.
fn hands(page: &Page, view: &View) -> Vec<Hand> {
    let mut hands = mirror_hands(page, view);
    let mut add = |level, count: u64, text: &str, path| {
        if count > 0 {
            let text = format!("{text}: {}", view.count(&count));
            hands.push(Hand { level, text, path });
        }
    };
    let roster = page.api.directory.roster();
    let text = view.say(
        "Один добавочный у нескольких сотрудников",
        "Several employees share an extension",
    );
    add("bad", roster.conflicts().len() as u64, text, "/employees");
    let text = view.say(
        "Сотрудники без добавочного",
        "Employees without an extension",
    );
    add(
        "warn",
        roster.without_extension().len() as u64,
        text,
        "/hygiene",
    );
    let counts = page.api.shadow.counts();
    let text = view.say(
        "Прежний модуль послал бы звонок другому",
        "The former module would have sent a call elsewhere",
    );
    let elsewhere = counts.other_number + counts.only_ours + counts.only_theirs;
    add("warn", elsewhere, text, "/comparison");
    if let Some(latest) = page.surveyor.latest() {
        let text = view.say("Карточки на уволенных", "Cards on dismissed employees");
        add("warn", latest.survey.left.total, text, "/hygiene");
        let text = view.say(
            "Номера с двумя ответственными",
            "Numbers with two responsibles",
        );
        add("warn", latest.survey.shared.total, text, "/hygiene");
    }
    hands
}

/// The same of the mirrors.
fn mirror_hands(page: &Page, view: &View) -> Vec<Hand> {
    let hand = |text: String| Hand {
        level: "bad",
        text,
        path: "/mirrors",
    };
    if page.api.mirrors.is_empty() {
        let text = view.say("Ни одна CRM не подключена", "No CRM is connected");
        let path = if view.is_administrator() {
            "/setup"
        } else {
            "/mirrors"
        };
        return vec![Hand {
            path,
            ..hand(text.to_owned())
        }];
    }
    let parts = api::parts(&page.api);
    let told = page.api.mirrors.iter().filter_map(|mirror| {
        let own = || parts.iter().filter(|part| part.crm == *mirror.name());
        let has_trouble = own().any(|part| part.error.is_some());
        let has_doubts = own().any(|part| part.doubts_deletions);
        let is_old = own().any(|part| part.too_old && part.kind != api::EMPLOYEE);
        let text = if has_trouble {
            view.say(
                "копия не обновляется",
                "its mirror cannot be brought up to date",
            )
        } else if has_doubts {
            view.say(
                "подозрительно много удалений",
                "suspiciously many deletions",
            )
        } else if is_old {
            view.say("копия устарела", "its mirror is too old")
        } else {
            return None;
        };
        Some(hand(format!("{}: {text}", mirror.name())))
    });
    told.collect()
}

/// What a page has heard already.
#[derive(Debug, Deserialize)]
pub(super) struct Heard {
    after: Option<i64>,
}

/// Tells a page that calls have come or changed since it was made; it then asks for its list again.
pub(super) async fn events(
    State(page): State<Arc<Page>>,
    heard: extract::Query<Heard>,
) -> Response {
    let Some(feed) = page.feed.clone() else {
        return Fault::NotFound.into_response();
    };
    let known = heard.after.unwrap_or_else(|| feed.told());
    let stop = page.stop.clone();
    let told = stream::unfold((feed, known), async |(mut feed, known)| {
        let told = feed.told_after(known).await?;
        let event = Event::default().event("call").data(told.to_string());
        Some((Ok::<_, Infallible>(event), (feed, told)))
    })
    .take_until(stop.cancelled_owned());
    let mut response = Sse::new(told)
        .keep_alive(KeepAlive::default())
        .into_response();
    // A proxy must not keep events back.
    response
        .headers_mut()
        .insert("x-accel-buffering", http::HeaderValue::from_static("no"));
    response
}
