//! Groups of digits become numbers: where one ends and the next begins.
//!
//! Of all ways to cut a run of groups into numbers and extensions the cheapest is taken; where two
//! ways cost the same and differ, nothing is read.

use super::text::{Gap, Group};
use super::{E164, FEWEST_DIGITS, Form, MOST_DIGITS, Reading, Region, google, resolve};

/// Digits of a Russian city number without its code, the longest thing that may be left over.
const LOCAL_DIGITS: usize = 7;

/// Digits of a national number that is complete enough for an extension behind a mere blank.
const COMPLETE_NATIONAL: usize = 8;

/// Digits of a national number that is certainly no extension.
const LONG_NATIONAL: usize = 9;

/// Groups that may be one number, or several with nothing but blanks or slashes between them.
pub(super) struct Run<'run, 'text> {
    groups: &'run [Group<'text>],
    /// Part of another number may stand here, so that only a complete phone is believed.
    doubtful: bool,
}

/// Finds the runs of a text; dates, prices and numbers of another kind are left out and noted.
pub(super) fn runs<'run, 'text>(
    groups: &'run [Group<'text>],
    refused: &mut bool,
) -> Vec<Run<'run, 'text>> {
    let mut runs = Vec::new();
    let joined = |right: &Group<'_>| !matches!(right.gap, Gap::Hard | Gap::Label | Gap::Other);
    for chunk in groups.chunk_by(|_, right| joined(right) && !right.has_plus()) {
        if chunk.iter().any(|group| group.gap == Gap::Smudge) {
            *refused = true;
            continue;
        }
        let (mut chunk, mut doubtful) = (chunk, false);
        if let Some((first, rest)) = chunk.split_first()
            && first.gap == Gap::Other
            && !first.has_plus()
        {
            *refused = true;
            // A long group is the whole other number, and a phone may follow it; short ones are its
            // parts.
            doubtful = first.digits.len() < LONG_NATIONAL;
            let apart = rest
                .first()
                .is_some_and(|next| matches!(next.gap, Gap::Blank | Gap::Wide));
            chunk = if apart || !doubtful { rest } else { &[] };
        }
        let priced = without_price(chunk);
        *refused |= priced.len() < chunk.len();
        chunk = priced;
        while let Some(date) =
            (0..chunk.len()).find(|at| is_date(chunk.get(*at..).unwrap_or_default()))
        {
            *refused = true;
            let (before, rest) = chunk.split_at_checked(date).unwrap_or((chunk, &[]));
            runs.push(Run {
                groups: before,
                doubtful,
            });
            chunk = rest.get(3..).unwrap_or_default();
        }
        runs.push(Run {
            groups: chunk,
            doubtful,
        });
    }
    runs.retain(|run| !run.groups.is_empty());
    runs
}

/// Drops the sum of money that a run may end with, thousands included.
fn without_price<'run, 'text>(groups: &'run [Group<'text>]) -> &'run [Group<'text>] {
    if !groups.last().is_some_and(|last| is_price(last.behind))
        || groups.iter().any(Group::has_plus)
    {
        return groups;
    }
    let goes_on = |right: &Group<'_>| match right.gap {
        Gap::Tight => true,
        Gap::Blank => right.digits.len() == 3,
        _ => false,
    };
    let part_of_sum = groups
        .iter()
        .rev()
        .take_while(|group| goes_on(group))
        .count();
    groups
        .get(..groups.len().saturating_sub(part_of_sum + 1))
        .unwrap_or_default()
}

/// Says whether three groups begin that are a date: `12.03.2020` or `2020-03-12`.
fn is_date(groups: &[Group<'_>]) -> bool {
    let [first, second, third, ..] = groups else {
        return false;
    };
    let follows = groups.get(3).is_some_and(|next| next.gap == Gap::Tight);
    if !second.is_dotted() || !third.is_dotted() || first.is_dotted() || first.has_plus() || follows
    {
        return false;
    }
    let within = |group: &Group<'_>, digits: usize, low: u16, high: u16| {
        group.digits.len() <= digits
            && group
                .digits
                .parse::<u16>()
                .is_ok_and(|value| (low..=high).contains(&value))
    };
    let is_month = within(second, 2, 1, 12);
    let day_first = within(first, 2, 1, 31) && within(third, 4, 1900, 2099);
    let year_first = within(first, 4, 1900, 2099) && within(third, 2, 1, 31);
    is_month && (day_first || year_first)
}

/// Says whether the text behind digits makes them a sum of money.
fn is_price(behind: &str) -> bool {
    let behind = behind.trim_start_matches([' ', '.', ',']).to_lowercase();
    let word = behind
        .split(|sign: char| !sign.is_alphabetic())
        .next()
        .unwrap_or_default();
    behind.starts_with(['₽', '$', '€'])
        || word.starts_with("руб")
        || matches!(
            word,
            "коп" | "тенге" | "сум" | "грн" | "usd" | "eur" | "rub"
        )
}

/// Reads a run, minding the word before it.
pub(super) fn read_labelled(run: &Run<'_, '_>, region: Region) -> Vec<E164> {
    let Some((first, rest)) = run.groups.split_first() else {
        return Vec::new();
    };
    if run.doubtful {
        let reading = read_span(run.groups, region).filter(|reading| reading.form == Form::Full);
        return reading.map(|reading| reading.number).into_iter().collect();
    }
    if first.gap != Gap::Label || first.has_plus() {
        return read_run(run.groups, region);
    }
    // "доп. 8 916 ..." is another phone; an extension is shorter than any complete number.
    if let Some(reading) = read_span(run.groups, region)
        && (reading.form == Form::Full
            || (reading.form == Form::National && reading.number.national().len() >= LONG_NATIONAL))
    {
        return vec![reading.number];
    }
    read_run(rest, region)
}

/// The cheapest way to read a run from some group on.
#[derive(Clone, Copy)]
struct Step {
    cost: u32,
    /// Another way costs the same and gives other numbers.
    ambiguous: bool,
    reading: Reading,
    /// Where the reading goes on.
    next: usize,
}

/// What makes a way of reading a run worse. Only their order matters.
mod cost {
    pub(super) const NUMBER: u32 = 100;
    pub(super) const NATIONAL: u32 = 20;
    pub(super) const FOREIGN: u32 = 50;
    pub(super) const FOREIGN_IN_GROUPS: u32 = 200;
    pub(super) const WIDE_INSIDE: u32 = 30;
    pub(super) const TIGHT_BETWEEN: u32 = 60;
    pub(super) const SKIP: u32 = 150;
}

/// Reads a run that may hold several numbers and their extensions.
///
/// Every group must find its place: a way that leaves digits over, other than an extension, is a
/// guess.
fn read_run(groups: &[Group<'_>], region: Region) -> Vec<E164> {
    if let Some(reading) = read_span(groups, region)
        && reading.form != Form::Foreign
    {
        return vec![reading.number];
    }
    let mut best: Vec<Option<Step>> = vec![None; groups.len() + 1];
    for start in (0..groups.len()).rev() {
        let step = best_step(groups, start, &best, region);
        if let Some(slot) = best.get_mut(start) {
            *slot = step;
        }
    }
    let mut at =
        usize::from(best.first().is_some_and(Option::is_none) && may_skip_first(groups, &best));
    let mut numbers = Vec::new();
    while let Some(step) = best.get(at).copied().flatten() {
        if step.ambiguous {
            return Vec::new();
        }
        numbers.push(step.reading.number);
        at = step.next;
    }
    numbers
}

/// Finds the cheapest number that begins at a group, and what follows it.
fn best_step(
    groups: &[Group<'_>],
    start: usize,
    best: &[Option<Step>],
    region: Region,
) -> Option<Step> {
    let mut chosen: Option<Step> = None;
    for end in start + 1..=groups.len() {
        let span = groups.get(start..end)?;
        if span.iter().map(|group| group.digits.len()).sum::<usize>() > MOST_DIGITS {
            break;
        }
        let Some(reading) = read_span(span, region) else {
            continue;
        };
        let own = span_cost(span, reading.form);
        let skipped = skip_extension(groups, start, end, reading);
        for (next, skip) in [(Some(end), 0), (skipped, cost::SKIP)] {
            let Some(next) = next else { continue };
            let after = best.get(next).copied().flatten();
            if next < groups.len() && after.is_none() {
                continue;
            }
            let tight = groups
                .get(next)
                .is_some_and(|group| group.gap == Gap::Tight);
            let between = if tight { cost::TIGHT_BETWEEN } else { 0 };
            let total = own + skip + between + after.map_or(0, |step| step.cost);
            let ambiguous = after.is_some_and(|step| step.ambiguous);
            match &mut chosen {
                Some(rival) if rival.cost < total => {}
                Some(rival) if rival.cost == total => {
                    rival.ambiguous |= rival.reading.number != reading.number;
                }
                _ => {
                    chosen = Some(Step {
                        cost: total,
                        ambiguous,
                        reading,
                        next,
                    });
                }
            }
        }
    }
    chosen
}

/// Prices one number by its form and by what stands inside it.
fn span_cost(span: &[Group<'_>], form: Form) -> u32 {
    let inner = span.get(1..).unwrap_or_default();
    let wide = inner
        .iter()
        .any(|group| matches!(group.gap, Gap::Wide | Gap::Slash));
    let by_form = match form {
        Form::Full => 0,
        Form::National => cost::NATIONAL,
        Form::Foreign if inner.is_empty() => cost::FOREIGN,
        Form::Foreign => cost::FOREIGN_IN_GROUPS,
    };
    cost::NUMBER + by_form + if wide { cost::WIDE_INSIDE } else { 0 }
}

/// Finds the end of what stands behind the number `start..end` without any word and is no part of
/// it.
///
/// `(123)`, a blank and three to six digits, `/68`: an extension, or the last digits of a second
/// line; a blank and `123-45-67`: a second line without its city code.
fn skip_extension(
    groups: &[Group<'_>],
    start: usize,
    end: usize,
    reading: Reading,
) -> Option<usize> {
    let group = groups.get(end)?;
    if reading.form == Form::Foreign || group.digits.len() > LOCAL_DIGITS {
        return None;
    }
    let digits = |from: usize, to: usize| {
        groups.get(from..to).map_or(0, |groups| {
            groups.iter().map(|one| one.digits.len()).sum::<usize>()
        })
    };
    let tight = groups
        .iter()
        .skip(end + 1)
        .take_while(|one| one.gap == Gap::Tight)
        .count();
    let chunk = end + 1 + tight;
    if group.gap == Gap::Slash {
        let more =
            || skip_extension(groups, start, chunk, reading).filter(|_| is_slashed(groups, chunk));
        return (digits(end, chunk) <= LOCAL_DIGITS).then(|| more().unwrap_or(chunk));
    }
    let apart = matches!(group.gap, Gap::Blank | Gap::Wide);
    if tight > 0 {
        let is_local = digits(end, chunk) == LOCAL_DIGITS && reading.form == Form::Full;
        return (apart && is_local && !group.is_opened()).then_some(chunk);
    }
    let inner = groups.get(start + 1..end)?;
    let grouped_by_blanks = inner.last().is_some_and(|last| last.gap == Gap::Blank);
    let fewest = if grouped_by_blanks { 3 } else { 2 };
    // "... 2) 8 495": the number of a line in a list; "(2 линии)": a word about the number.
    let listed = group.behind.starts_with(')') || group.behind.starts_with(". ");
    let spoken = group.is_opened() && group.behind.trim_start().starts_with(char::is_alphabetic);
    let complete = reading.number.national().len() >= COMPLETE_NATIONAL;
    let counted = group.digits.len() >= fewest
        && (group.digits.len() < LOCAL_DIGITS || reading.form == Form::Full);
    ((apart && complete && (counted || listed || spoken)) || group.is_bracketed())
        .then_some(end + 1)
}

/// Says whether a slash stands before a group.
fn is_slashed(groups: &[Group<'_>], at: usize) -> bool {
    groups.get(at).is_some_and(|group| group.gap == Gap::Slash)
}

/// Says whether the first group is a list's number or a house's, and a complete number follows.
fn may_skip_first(groups: &[Group<'_>], best: &[Option<Step>]) -> bool {
    let [first, second, ..] = groups else {
        return false;
    };
    let follows = best
        .get(1)
        .copied()
        .flatten()
        .is_some_and(|step| step.reading.form == Form::Full);
    let apart = matches!(second.gap, Gap::Blank | Gap::Wide | Gap::Slash);
    let listed = first.behind.starts_with(')') || first.behind.starts_with(". ");
    let is_prefix = matches!(first.digits, "0" | "1" | "7" | "8");
    let counted = if first.before.contains(char::is_alphabetic) {
        first.digits.len() <= 4 && !is_prefix
    } else {
        false
    };
    let listed = listed && first.digits.len() <= 2;
    follows && apart && !first.has_plus() && (listed || counted)
}

/// Reads groups as one number.
fn read_span(span: &[Group<'_>], region: Region) -> Option<Reading> {
    let (first, rest) = span.split_first()?;
    let digits: String = span.iter().map(|group| group.digits).collect();
    if !(FEWEST_DIGITS..=MOST_DIGITS).contains(&digits.len()) {
        return None;
    }
    if first.has_plus() && first.digits == "8" && region.dials_eight() && !rest.is_empty() {
        // "+8 495 123-45-67" is Moscow; read as written it would be Vietnam.
        if let Some(number) = google(&digits, region) {
            return Some(Reading {
                number,
                form: Form::Full,
            });
        }
    }
    let head = (!rest.is_empty()).then_some(first.digits);
    let mut ends = Vec::with_capacity(rest.len());
    for group in span.get(..rest.len()).unwrap_or_default() {
        ends.push(ends.last().copied().unwrap_or(0) + group.digits.len());
    }
    resolve(&digits, first.has_plus(), head, &ends, region).or_else(|| {
        // "+998 (0) 90": the trunk prefix in brackets, where the plan knows none.
        let is_zero = |group: &&Group<'_>| group.is_bracketed() && group.digits == "0";
        rest.iter().find(is_zero)?;
        let kept = rest
            .iter()
            .filter(|group| !is_zero(group))
            .map(|group| group.digits);
        let digits: String = std::iter::once(first.digits).chain(kept).collect();
        resolve(&digits, first.has_plus(), head, &[], region)
    })
}
