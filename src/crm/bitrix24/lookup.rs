//! A caller's number, asked for live: at most two requests.
//!
//! `crm.duplicate.findbycomm` compares whole normalised numbers and knows only identifiers, so the
//! first batch asks it once for each kind (in one question 20 leads would hide the contacts), and
//! the second reads the cards it named. The telephony search is not used: it shows one card of each
//! kind and needs a further right.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::super::CrmError;
use super::super::budget::Lane;
use super::client::{AfterFault, Client, Command, shape};
use super::query::{encode, select};
use super::wire;
use crate::phone::E164;
use crate::record::{Card, EntityKind};

const FIND: &str = "crm.duplicate.findbycomm";
/// The country code of Russia and Kazakhstan, where a number is written with 8, 7 or neither.
const TRUNK_EIGHT_COUNTRY: u16 = 7;
/// The most cards of a kind that one number may have: a page.
const CARDS_LIMIT: usize = 50;

/// Reads the cards of these kinds that the portal finds by this number.
pub(super) async fn find(
    client: &Client,
    kinds: &[EntityKind],
    fields: &[String],
    phone: E164,
) -> Result<Vec<Card>, CrmError> {
    let hits = search(client, kinds, phone).await?;
    if hits.is_empty() {
        return Ok(Vec::new());
    }
    read(client, &hits, fields).await
}

/// Identifiers by kind, only kinds with hits.
async fn search(
    client: &Client,
    kinds: &[EntityKind],
    phone: E164,
) -> Result<Vec<(EntityKind, BTreeSet<u64>)>, CrmError> {
    let types: Vec<(EntityKind, &'static str)> = kinds
        .iter()
        .filter_map(|kind| Some((*kind, wire::wording(*kind).duplicate_type?)))
        .collect();
    if types.is_empty() {
        return Ok(Vec::new());
    }
    let mut values = String::new();
    for variant in variants(phone) {
        let _ = write!(values, "&values[]={}", encode(&variant));
    }
    let commands = types
        .iter()
        .map(|(_, name)| Command {
            method: FIND,
            query: format!("type=PHONE&entity_type={name}{values}"),
        })
        .collect();
    let mut batch = client.batch(Lane::Live, commands, AfterFault::GoOn).await?;
    let mut hits = Vec::new();
    let mut forbidden = Vec::new();
    for (place, (kind, name)) in types.iter().enumerate() {
        match batch.take(place) {
            Ok(answer) => {
                let ids = read_hits(&answer, name)?;
                if !ids.is_empty() {
                    hits.push((*kind, ids));
                }
            }
            // Who may not read leads may still read contacts.
            Err(error @ CrmError::Forbidden { .. }) => forbidden.push(error),
            Err(error) => return Err(error),
        }
    }
    match forbidden.pop() {
        Some(error) if forbidden.len() + 1 == types.len() => Err(error),
        _ => Ok(hits),
    }
}

/// `[]` without hits, else a map from the type's name to identifiers.
pub(super) fn read_hits(answer: &Value, name: &str) -> Result<BTreeSet<u64>, CrmError> {
    let ids = match answer {
        Value::Array(list) if list.is_empty() => return Ok(BTreeSet::new()),
        Value::Object(types) => match types.get(name) {
            None => return Ok(BTreeSet::new()),
            Some(ids) => wire::items(ids),
        },
        _ => None,
    };
    ids.and_then(|ids| ids.into_iter().map(wire::positive).collect())
        .ok_or_else(|| shape(FIND, "the hits are no lists of identifiers"))
}

/// Reads the cards; one that may not be read is left out by the portal.
async fn read(
    client: &Client,
    hits: &[(EntityKind, BTreeSet<u64>)],
    fields: &[String],
) -> Result<Vec<Card>, CrmError> {
    let commands = hits
        .iter()
        .map(|(kind, ids)| {
            let wording = wire::wording(*kind);
            let mut query = format!("order[ID]=ASC&start=-1{}", select(wording.select, fields));
            for id in ids.iter().take(CARDS_LIMIT) {
                let _ = write!(query, "&filter[@ID][]={id}");
            }
            Command {
                method: wording.list,
                query,
            }
        })
        .collect();
    let mut batch = client.batch(Lane::Live, commands, AfterFault::GoOn).await?;
    let mut cards = Vec::new();
    for (place, (kind, ids)) in hits.iter().enumerate() {
        let method = wire::wording(*kind).list;
        let rows = batch.take(place)?;
        let rows = wire::items(&rows).ok_or_else(|| shape(method, "a page is no list"))?;
        for row in rows {
            let (id, card) =
                wire::card(*kind, row, fields).map_err(|fault| shape(method, fault))?;
            if !ids.contains(&id) {
                return Err(CrmError::FilterIgnored {
                    method: method.to_owned(),
                });
            }
            cards.push(card);
        }
    }
    Ok(cards)
}

/// The ways in which a number may be stored that the portal's own normalising keeps apart.
fn variants(phone: E164) -> Vec<String> {
    let digits = phone.digits().to_string();
    let national = phone.national();
    if phone.country_code() != TRUNK_EIGHT_COUNTRY {
        return vec![digits.clone(), format!("+{digits}"), national];
    }
    let with_eight = format!("8{national}");
    vec![
        digits.clone(),
        national,
        with_eight.clone(),
        format!("+{digits}"),
        format!("+{with_eight}"),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_russian_number_is_sought_in_each_of_its_forms() {
        let phone = E164::from_digits(79_000_000_001).unwrap();
        let expected = [
            "79000000001",
            "9000000001",
            "89000000001",
            "+79000000001",
            "+89000000001",
        ];
        assert_eq!(variants(phone), expected);
    }

    #[test]
    fn hits_come_as_a_map_or_as_an_empty_list() {
        let ids = |answer: Value| -> Result<Vec<u64>, CrmError> {
            Ok(read_hits(&answer, "CONTACT")?.into_iter().collect())
        };
        assert_eq!(ids(json!([])).unwrap(), [0; 0]);
        assert_eq!(ids(json!({"COMPANY": [9]})).unwrap(), [0; 0]);
        assert_eq!(ids(json!({"CONTACT": [201, "156"]})).unwrap(), [156, 201]);
        assert!(ids(json!({"CONTACT": 156})).is_err());
        assert!(ids(json!({"CONTACT": [{"ID": 1}]})).is_err());
        assert!(ids(json!(true)).is_err());
        assert!(ids(json!([156])).is_err());
    }
}
