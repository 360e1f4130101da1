//! How a count that should fall went over the last weeks: a small line and a sentence.

use std::fmt::Write as _;

use super::view::View;
use crate::told::russian::plural;

/// How far it looks back.
pub(super) const DAYS: i64 = 30;

/// The line. It keeps clear of the edges, so that its end is a whole dot.
const WIDTH: u64 = 120;
const HEIGHT: u64 = 30;
const EDGE: u64 = 4;

/// How a count went.
pub(super) struct Trend {
    /// SVG.
    pub(super) chart: String,
    /// How much it was, and when.
    pub(super) text: String,
    /// `good` where it fell, `bad` where it rose, else empty.
    pub(super) level: &'static str,
}

/// From the oldest count of the last [`DAYS`] to the one of now; `None` where no earlier day is known.
/// `past` has days and counts, the oldest first.
pub(super) fn of(
    view: &View,
    past: impl Iterator<Item = (i64, u64)>,
    today: i64,
    now: u64,
) -> Option<Trend> {
    let mut points: Vec<(i64, u64)> = past
        .filter(|(day, _)| (today - DAYS..today).contains(day))
        .collect();
    let (first, then) = points.first().copied()?;
    points.push((today, now));
    let level = match now.cmp(&then) {
        std::cmp::Ordering::Less => "good",
        std::cmp::Ordering::Equal => "",
        std::cmp::Ordering::Greater => "bad",
    };
    let days = (today - first).unsigned_abs();
    let text = format!("{}: {}", ago(view, days), view.count(&then));
    let label = format!(
        "{text}, {}: {}",
        view.say("сейчас", "now"),
        view.count(&now)
    );
    Some(Trend {
        chart: chart(&points, &label, level),
        text,
        level,
    })
}

fn ago(view: &View, days: u64) -> String {
    let count = usize::try_from(days).unwrap_or(usize::MAX);
    let russian = plural(count, ["день назад", "дня назад", "дней назад"]);
    let english = if days == 1 { "day ago" } else { "days ago" };
    format!("{days} {}", view.say(russian, english))
}

/// A line through all points, the last of them a dot. Days without a count are passed straight over.
fn chart(points: &[(i64, u64)], label: &str, level: &str) -> String {
    let first = points.first().map_or(0, |(day, _)| *day);
    let last = points.last().map_or(0, |(day, _)| *day);
    let span = (last - first).unsigned_abs().max(1);
    let most = points.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let place = |(day, count): &(i64, u64)| {
        let x = EDGE + (day - first).unsigned_abs() * (WIDTH - 2 * EDGE) / span;
        (x, HEIGHT - EDGE - scaled(*count, most))
    };
    let mut line = String::new();
    let mut end = (0, 0);
    for point in points {
        end = place(point);
        // Writing into a string does not fail.
        let _ = write!(line, "{},{} ", end.0, end.1);
    }
    format!(
        "<svg class=\"spark {level}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">\
         <polyline points=\"{}\"/><circle cx=\"{}\" cy=\"{}\" r=\"3\"/></svg>",
        line.trim_end(),
        end.0,
        end.1
    )
}

/// The height of a count where `most` reaches the top. Zero is the bottom: a fall from 1000 to 990
/// must not look like the end of it.
fn scaled(count: u64, most: u64) -> u64 {
    let height = u128::from(HEIGHT - 2 * EDGE);
    let scaled = (u128::from(count) * height).checked_div(u128::from(most));
    scaled.map_or(0, |scaled| u64::try_from(scaled).unwrap_or(HEIGHT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::told::Language;

    const TODAY: i64 = 20_779;

    fn trend(language: Language, past: &[(i64, u64)], now: u64) -> Option<Trend> {
        let view = View::of_stranger(language, "/hygiene");
        let past = past.iter().map(|(ago, count)| (TODAY - ago, *count));
        of(&view, past, TODAY, now)
    }

    #[test]
    fn the_oldest_day_of_the_last_thirty_is_told() {
        for (language, past, now, text, level) in [
            (
                Language::Ru,
                vec![(30, 120)],
                80,
                "30 дней назад: 120",
                "good",
            ),
            (
                Language::En,
                vec![(30, 120)],
                80,
                "30 days ago: 120",
                "good",
            ),
            (
                Language::Ru,
                vec![(31, 9), (22, 5), (1, 7)],
                6,
                "22 дня назад: 5",
                "bad",
            ),
            (
                Language::Ru,
                vec![(1, 1_000), (0, 999)],
                0,
                "1 день назад: 1\u{202f}000",
                "good",
            ),
            (Language::En, vec![(1, 0)], 0, "1 day ago: 0", ""),
        ] {
            let trend = trend(language, &past, now).unwrap();
            assert_eq!((trend.text.as_str(), trend.level), (text, level));
        }
    }

    #[test]
    fn one_day_alone_has_no_trend() {
        for past in [vec![], vec![(0, 5)], vec![(31, 5)], vec![(31, 5), (-1, 5)]] {
            assert!(trend(Language::En, &past, 3).is_none(), "{past:?}");
        }
    }

    #[test]
    fn the_line_goes_from_the_first_day_to_now_and_has_a_name() {
        let chart = |past: &[(i64, u64)], now| trend(Language::Ru, past, now).unwrap().chart;
        let fell = chart(&[(30, 120), (15, 60)], 0);
        assert!(
            fell.contains("role=\"img\" aria-label=\"30 дней назад: 120, сейчас: 0\""),
            "{fell}"
        );
        assert!(fell.contains("points=\"4,4 60,15 116,26\""), "{fell}");
        assert!(fell.contains("cx=\"116\" cy=\"26\""), "{fell}");
        assert!(chart(&[(1, 0)], 0).contains("points=\"4,26 116,26\""));
        let rose = chart(&[(2, 0)], u64::MAX);
        assert!(rose.contains("points=\"4,26 116,4\""), "{rose}");
        assert!(!rose.contains("style"), "{rose}");
    }
}
