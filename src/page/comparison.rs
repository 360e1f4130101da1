//! The comparison with the former module, which is asked in the background: where the two disagree.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::view::View;
use super::{Fault, Page};
use crate::shadow::{Counts, Disagreement, Verdict};

/// Rows; `pryamo shadow` prints all that are remembered.
const MOST_ROWS: usize = 200;

#[derive(Template)]
#[template(path = "comparison.html")]
struct Shown<'a> {
    view: &'a View,
    /// The former module; `None` where it is not asked any more.
    address: Option<String>,
    compared: u64,
    same: u64,
    counts: Vec<(&'static str, u64)>,
    rows: Vec<Row>,
}

struct Row {
    at: String,
    caller: String,
    ours: String,
    theirs: String,
    what: String,
}

pub(super) async fn show(State(page): State<Arc<Page>>, view: View) -> Response {
    let shadow = &page.api.shadow;
    let (address, counts) = (shadow.address(), shadow.counts());
    if address.is_none() && counts == Counts::default() {
        return Fault::NotFound.into_response();
    }
    let differ: [(Verdict, u64); 5] = [
        (Verdict::OtherNumber, counts.other_number),
        (Verdict::OnlyOurs, counts.only_ours),
        (Verdict::OnlyTheirs, counts.only_theirs),
        (Verdict::OtherName, counts.other_name),
        (Verdict::Failed, counts.failed),
    ];
    let compared = counts.same + differ.iter().map(|(_, count)| count).sum::<u64>();
    let mut told: Vec<(&'static str, u64)> = differ
        .iter()
        .map(|(verdict, count)| (word(&view, *verdict), *count))
        .collect();
    told.push((
        view.language
            .say("не успели спросить", "not compared: too many waited"),
        counts.dropped,
    ));
    let found = shadow.disagreements();
    let rows = found.iter().take(MOST_ROWS).map(|one| row(&view, one));
    view.render(&Shown {
        view: &view,
        address,
        compared,
        same: counts.same,
        counts: told,
        rows: rows.collect(),
    })
}

fn row(view: &View, found: &Disagreement) -> Row {
    let what = word(view, found.verdict);
    Row {
        at: view.moment(&found.at),
        caller: found
            .caller
            .clone()
            .unwrap_or_else(|| view.say("скрыт", "hidden").to_owned()),
        ours: found.ours.shown("—"),
        theirs: found.theirs.shown("—"),
        what: match &found.error {
            Some(error) => format!("{what} ({error})"),
            None => what.to_owned(),
        },
    }
}

fn word(view: &View, verdict: Verdict) -> &'static str {
    let (russian, english) = match verdict {
        Verdict::Same => ("одинаково", "the same"),
        Verdict::OtherNumber => ("другой номер", "another number"),
        Verdict::OnlyOurs => ("звонит только pryamo", "only pryamo rings somebody"),
        Verdict::OnlyTheirs => (
            "звонит только прежний модуль",
            "only the former module rings somebody",
        ),
        Verdict::OtherName => ("другое имя", "another name"),
        Verdict::Failed => (
            "прежний модуль не ответил",
            "the former module gave no answer",
        ),
    };
    view.language.say(russian, english)
}
