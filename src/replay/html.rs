//! The figures as one self-contained page: nothing is fetched, light and dark, charts as SVG.
//!
//! Written as XML that is HTML too, so that it can be checked.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::chart;
use super::count::{Line, Report};
use super::words::{Language, Words};

/// Rows shown of a table; the rest is in the JSON.
const MOST_ROWS: usize = 30;

const STYLE: &str = "
:root { color-scheme: light dark; --paper: #f6f7f9; --card: #ffffff; --ink: #1c2430; --soft: #5d6b7e;
  --line: #e1e6ed; --all: #c9d2de; --then: #8a97ab; --now: #1769e0; --track: #eef1f5; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161c; --card: #1b212a; --ink: #e8edf4;
  --soft: #97a4b6; --line: #2b333f; --all: #3a4554; --then: #7d8ba0; --now: #5b9dff; --track: #242c37; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 19px; margin: 0 0 12px; }
p { margin: 0; } .soft, .note { color: var(--soft); } .note { font-size: 14px; margin-bottom: 12px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 16px; margin: 28px 0 16px; }
.tile, section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px 22px; }
.tile b { display: block; font-size: 34px; line-height: 1.15; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile span { display: block; } .tile small { color: var(--soft); font-size: 14px; }
.tile.main b { color: var(--now); } section { margin-top: 16px; overflow-x: auto; }
svg { display: block; } svg.hours { width: 100%; min-width: 640px; height: auto; }
svg.share { width: 100%; min-width: 120px; height: 14px; border-radius: 3px; }
.grid { stroke: var(--line); stroke-width: 1; } .scale { fill: var(--soft); font-size: 12px; }
.all { fill: var(--all); background: var(--all); } .then { fill: var(--then); background: var(--then); }
.now { fill: var(--now); background: var(--now); } .track { fill: var(--track); }
.legend { display: flex; flex-wrap: wrap; gap: 6px 20px; font-size: 14px; margin: 0 0 12px; padding: 0; list-style: none; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 7px; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 500; font-size: 14px; color: var(--soft); padding: 0 0 8px 20px; white-space: nowrap; }
td { text-align: right; padding: 7px 0 7px 20px; border-top: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; overflow-wrap: break-word; }
td.bar { width: 32%; } footer { margin-top: 20px; font-size: 14px; color: var(--soft); }
@media (max-width: 640px) { main { padding: 20px 12px 40px; } section { padding: 16px; } td.bar { display: none; } th { white-space: normal; } th, td { padding-left: 10px; } }
@media print { body { background: #fff; } .tile, section { break-inside: avoid; } }
";

/// The page. `file` is the name of the CDR file.
pub fn page(report: &Report, file: &str, language: Language, zone: &TimeZone) -> String {
    let words = language.words();
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"{}\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\
         <title>{}</title><style>{STYLE}</style></head><body><main>",
        words.lang,
        escape(words.title)
    );
    head(&mut page, report, file, words, zone);
    tiles(&mut page, report, words);
    if report.known == 0 {
        let _ = write!(page, "<section><p>{}</p></section>", escape(words.nothing));
    } else {
        hours(&mut page, report, words);
        let lines = &report.by_employee;
        table(
            &mut page,
            words.by_employee,
            words.employee,
            lines,
            words.others,
            words,
        );
    }
    table(
        &mut page,
        words.by_did,
        words.did,
        &report.by_did,
        words.no_did,
        words,
    );
    reasons(&mut page, report, language);
    figures(&mut page, report, words);
    let _ = writeln!(
        page,
        "<footer><p>{}</p></footer></main></body></html>",
        escape(words.how)
    );
    page
}

fn head(page: &mut String, report: &Report, file: &str, words: &Words, zone: &TimeZone) {
    let day = |at: Timestamp| at.to_zoned(zone.clone()).strftime("%d.%m.%Y").to_string();
    let period = report
        .from
        .zip(report.until)
        .map(|(from, until)| format!(" · {}: {} – {}", words.period, day(from), day(until)));
    let _ = write!(
        page,
        "<h1>{}</h1><p class=\"soft\">{}{}</p>",
        escape(words.title),
        escape(file),
        escape(&period.unwrap_or_default())
    );
}

fn tiles(page: &mut String, report: &Report, words: &Words) {
    page.push_str("<div class=\"tiles\">");
    let mut tile = |class: &str, figure: String, text: &str, small: String| {
        let _ = write!(
            page,
            "<div class=\"{class}\"><b>{}</b><span>{}</span><small>{}</small></div>",
            escape(&figure),
            escape(text),
            escape(&small)
        );
    };
    tile(
        "tile",
        number(report.calls, words),
        words.calls,
        String::new(),
    );
    let share = percent(report.known, report.calls, words);
    let small = format!("{share} {}", words.of_calls);
    tile("tile", number(report.known, words), words.known, small);
    for (class, count, text) in [
        ("tile", report.own_then, words.then_long),
        ("tile main", report.own_now, words.now_long),
    ] {
        let small = format!("{} {}", number(count, words), words.of_known);
        tile(class, percent(count, report.known, words), text, small);
    }
    page.push_str("</div>");
}

fn hours(page: &mut String, report: &Report, words: &Words) {
    let _ = write!(
        page,
        "<section><h2>{}</h2><p class=\"note\">{}</p><ul class=\"legend\">",
        escape(words.by_hour),
        escape(words.by_hour_note)
    );
    for (class, text) in [
        ("all", words.known),
        ("then", words.then_long),
        ("now", words.now_long),
    ] {
        let _ = write!(page, "<li><i class=\"{class}\"></i>{}</li>", escape(text));
    }
    let chart = chart::by_hour(&report.by_hour, words);
    let _ = write!(page, "</ul>{chart}</section>");
}

fn table(
    page: &mut String,
    title: &str,
    first: &str,
    lines: &[Line],
    unnamed: &str,
    words: &Words,
) {
    if lines.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "<section><h2>{}</h2><table><thead><tr>",
        escape(title)
    );
    for heading in [first, words.count, words.known, words.then, words.now, ""] {
        let _ = write!(page, "<th>{}</th>", escape(heading));
    }
    page.push_str("</tr></thead><tbody>");
    for line in lines.iter().take(MOST_ROWS) {
        let name = if line.name.is_empty() {
            unnamed
        } else {
            &line.name
        };
        let _ = write!(page, "<tr><td>{}</td>", escape(name));
        for count in [line.calls, line.known, line.own_then, line.own_now] {
            let _ = write!(page, "<td>{}</td>", number(count, words));
        }
        let bar = chart::shares(line, words);
        let _ = write!(page, "<td class=\"bar\">{bar}</td></tr>");
    }
    page.push_str("</tbody></table>");
    let left = lines.len().saturating_sub(MOST_ROWS);
    if left > 0 {
        let _ = write!(
            page,
            "<p class=\"note\">+{left}: {}</p>",
            escape(words.more)
        );
    }
    page.push_str("</section>");
}

fn reasons(page: &mut String, report: &Report, language: Language) {
    let words = language.words();
    let mut reasons: Vec<(&String, &u64)> = report.reasons.iter().collect();
    reasons.sort_by(|one, other| other.1.cmp(one.1).then(one.0.cmp(other.0)));
    let rows = reasons
        .into_iter()
        .map(|(reason, count)| (language.reason(reason), *count));
    let heads = (words.reasons, words.reason, words.count);
    pairs(page, heads, rows, words);
}

fn figures(page: &mut String, report: &Report, words: &Words) {
    let rows = [
        (words.lines, report.lines),
        (words.damaged, report.damaged),
        (words.outgoing, report.outgoing),
        (words.internal, report.internal),
        (words.without_number, report.without_number),
        (words.answered, report.answered),
    ];
    pairs(page, (words.figures, "", ""), rows.into_iter(), words);
}

fn pairs<'a>(
    page: &mut String,
    (title, first, second): (&str, &str, &str),
    rows: impl Iterator<Item = (&'a str, u64)>,
    words: &Words,
) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    let _ = write!(
        page,
        "<section><h2>{}</h2><table><thead><tr><th>{}</th><th>{}</th></tr></thead><tbody>",
        escape(title),
        escape(first),
        escape(second)
    );
    for (text, count) in rows {
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td></tr>",
            escape(text),
            number(count, words)
        );
    }
    page.push_str("</tbody></table></section>");
}

/// A count with its thousands set apart.
pub(super) fn number(count: u64, words: &Words) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(words.thousands);
        }
        text.push(digit);
    }
    text
}

/// A share in percent with one decimal place; a dash of nothing.
fn percent(part: u64, whole: u64, words: &Words) -> String {
    match (part * 1000 + whole / 2).checked_div(whole) {
        None => "—".to_owned(),
        Some(thousandth) => format!(
            "{}{}{}\u{a0}%",
            thousandth / 10,
            words.decimal,
            thousandth % 10
        ),
    }
}

/// Text that can stand anywhere in the page, also in an attribute. Signs that XML forbids are left
/// out.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            '\u{fffe}' | '\u{ffff}' => {}
            letter if letter.is_control() => {}
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_as_the_language_does() {
        let (english, russian) = (Language::En.words(), Language::Ru.words());
        assert_eq!(number(1_234_567, english), "1,234,567");
        assert_eq!(number(999, english), "999");
        assert_eq!(percent(1, 3, english), "33.3\u{a0}%");
        assert_eq!(percent(2, 3, russian), "66,7\u{a0}%");
        assert_eq!(percent(0, 0, english), "—");
    }

    #[test]
    fn nothing_passes_for_markup() {
        assert_eq!(
            escape("<script src='x'>\"&\u{0}\u{1b}\n"),
            "&lt;script src=&#39;x&#39;&gt;&quot;&amp; "
        );
    }
}
