//! A caller's number, asked for live.
//!
//! Other fields match as well, so what comes back is a claim. A deal carries no phone: it is found by
//! its contacts.

use std::collections::HashSet;

use super::wire::Row;
use super::{Amocrm, LARGEST_PAGE_RECORDS, Listed, Query, path_of, too_heavy};
use crate::crm::CrmError;
use crate::crm::budget::Lane;
use crate::phone::E164;
use crate::record::{Card, EntityKind};

/// How many hits of a search are looked at: other fields match too, so the right one need not be
/// the first.
const SEARCH_RECORDS: u32 = 50;
/// How many deals of the found contacts are asked for, the youngest.
const FOUND_DEALS: usize = 50;

/// The cards that have this number, and the deals of the contacts among them.
pub(super) async fn find(crm: &Amocrm, phone: E164) -> Result<Vec<Card>, CrmError> {
    // `+7900...` and `8900...` are different texts to amoCRM; their end is the same.
    let digits = phone.national();
    let wants = |kind| crm.kinds.contains(&kind);
    let wants_deals = wants(EntityKind::Deal);
    let contacts = async {
        if !wants(EntityKind::Contact) && !wants_deals {
            return Ok(Vec::new());
        }
        let with = wants_deals.then(|| ("with", "leads".to_owned()));
        let path = path_of(EntityKind::Contact);
        search(crm, path, &digits, with.into_iter().collect()).await
    };
    let companies = async {
        if !wants(EntityKind::Company) {
            return Ok(Vec::new());
        }
        let path = path_of(EntityKind::Company);
        search(crm, path, &digits, Vec::new()).await
    };
    let (contacts, companies) = futures::try_join!(contacts, companies)?;
    let deals = if wants_deals {
        deals_of(crm, &contacts, &digits).await?
    } else {
        Vec::new()
    };
    let mut cards = crm.cards(EntityKind::Contact, contacts)?;
    cards.extend(crm.cards(EntityKind::Company, companies)?);
    cards.extend(crm.cards(EntityKind::Deal, deals)?);
    Ok(cards)
}

async fn search(crm: &Amocrm, path: &str, text: &str, more: Query) -> Result<Vec<Row>, CrmError> {
    let mut query = vec![
        ("query", text.to_owned()),
        ("limit", SEARCH_RECORDS.to_string()),
    ];
    query.extend(more);
    rows(crm, path, &query).await
}

/// The rows of a list, asked for while somebody waits.
pub(super) async fn rows(crm: &Amocrm, path: &str, query: &Query) -> Result<Vec<Row>, CrmError> {
    match crm.list(Lane::Live, path, query).await?.0 {
        Listed::Rows(list) => Ok(list.into_rows()),
        Listed::Nothing => Ok(Vec::new()),
        Listed::TooHeavy => Err(too_heavy(path)),
    }
}

/// The deals of the contacts that hold these digits. A row that was not asked for shows that the
/// account ignores filters: then only those that belong are taken.
async fn deals_of(crm: &Amocrm, contacts: &[Row], digits: &str) -> Result<Vec<Row>, CrmError> {
    let mut wanted: Vec<u64> = contacts
        .iter()
        .filter(|contact| contact.phones().iter().any(|phone| holds(phone, digits)))
        .flat_map(Row::deals)
        .collect::<HashSet<_>>()
        .into_iter()
        .collect();
    wanted.sort_unstable_by(|a, b| b.cmp(a));
    wanted.truncate(FOUND_DEALS);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = vec![
        ("with", "contacts".to_owned()),
        ("limit", LARGEST_PAGE_RECORDS.to_string()),
    ];
    query.extend(wanted.iter().map(|id| ("filter[id][]", id.to_string())));
    let mut rows = rows(crm, path_of(EntityKind::Deal), &query).await?;
    rows.retain(|row| wanted.contains(&row.id));
    Ok(rows)
}

/// Says whether a written phone contains these digits, whatever stands between them.
fn holds(written: &str, digits: &str) -> bool {
    let written: String = written.chars().filter(char::is_ascii_digit).collect();
    written.contains(digits)
}
