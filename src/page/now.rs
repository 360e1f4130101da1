//! Now: calls as they come, how many known callers reached their own person, and what needs a hand.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use jiff::civil::Date;
use jiff::{Span, Timestamp};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::Instant;

use super::calls::{self, CallRow};
use super::view::View;
use super::{Fault, Page};
use crate::api;
use crate::journal::{HourCount, KnownOutcome, Query, Reader};

/// Calls on the page.
const CALLS: usize = 20;
/// How long a page is told nothing behind a word: in a busy office it asks once for all calls of this
/// time, and what came last is never missed.
const PAUSE: Duration = Duration::from_secs(2);
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

pub(super) async fn show(State(page): State<Arc<Page>>, view: View) -> Response {
    let mut shown = Shown {
        view: &view,
        has_journal: page.api.journal.is_some(),
        today: Day::default(),
        chart: String::new(),
        calls: Vec::new(),
        hands: hands(&page, &view),
    };
    if let Some(reader) = page.api.journal.clone() {
        let (first, last) = days(&view);
        let zone = view.zone.clone();
        let now = view.now;
        let read = tokio::task::spawn_blocking(move || read(&reader, first, &zone, now));
        match read.await {
            Ok(Ok((hours, calls))) => {
                let by_day = by_day(&hours, &view);
                shown.today = by_day.get(&last).copied().unwrap_or_default();
                shown.chart = chart(&view, &by_day, first, last);
                shown.calls = calls
                    .iter()
                    .map(|call| calls::row(&page, &view, call))
                    .collect();
            }
            Ok(Err(error)) => return Fault::Failed(crate::fault::told(&error)).into_response(),
            Err(error) => return Fault::Failed(error.to_string()).into_response(),
        }
    }
    view.render(&shown)
}

type Read = (Vec<HourCount>, Vec<crate::journal::Shown>);

fn read(
    reader: &Reader,
    first: Date,
    zone: &jiff::tz::TimeZone,
    now: Timestamp,
) -> Result<Read, crate::journal::JournalError> {
    let from = first
        .to_zoned(zone.clone())
        .map_or(now, |zoned| zoned.timestamp());
    let hours = reader.hours(from, now + jiff::SignedDuration::from_hours(1))?;
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

fn by_day(hours: &[HourCount], view: &View) -> BTreeMap<Date, Day> {
    let mut days: BTreeMap<Date, Day> = BTreeMap::new();
    // An hour has a count for each end: what day it is of is asked once.
    let mut last: Option<(Timestamp, Date)> = None;
    for hour in hours {
        let date = match last {
            Some((known, date)) if known == hour.hour => date,
            _ => hour.hour.to_zoned(view.zone.clone()).date(),
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

/// Tells a page that a call has come or changed; the page then asks for its list again.
pub(super) async fn events(State(page): State<Arc<Page>>) -> Response {
    let Some(feed) = page.feed.clone() else {
        return Fault::NotFound.into_response();
    };
    let Ok(receiver) = tokio::task::spawn_blocking(move || feed.subscribe()).await else {
        return Fault::NotFound.into_response();
    };
    let stop = page.stop.clone();
    let begins = Instant::now();
    let told = stream::unfold(
        (receiver, stop, begins),
        async |(mut receiver, stop, next)| {
            let heard = async {
                tokio::time::sleep_until(next).await;
                receiver.recv().await
            };
            let id = tokio::select! {
                told = heard => match told {
                    Ok(call) => call.id,
                    // Many at once: the page asks for its list again all the same.
                    Err(RecvError::Lagged(_)) => 0,
                    Err(RecvError::Closed) => return None,
                },
                () = stop.cancelled() => return None,
            };
            // One word for all that were told meanwhile: the page asks only once for them.
            while let Ok(_) | Err(TryRecvError::Lagged(_)) = receiver.try_recv() {}
            let event = Event::default().event("call").data(id.to_string());
            let next = Instant::now() + PAUSE;
            Some((Ok::<_, Infallible>(event), (receiver, stop, next)))
        },
    );
    let mut response = Sse::new(told)
        .keep_alive(KeepAlive::default())
        .into_response();
    // A proxy must not keep events back.
    response
        .headers_mut()
        .insert("x-accel-buffering", http::HeaderValue::from_static("no"));
    response
}
