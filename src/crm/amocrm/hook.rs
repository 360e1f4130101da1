//! What an account sends when something happens: which cards to read again.
//!
//! The body is a hint and no more. It is not signed, it may be late, twice or in a wrong order, and
//! its values take several forms; so nothing is used but the account's name and the cards' kinds and
//! numbers. Forms after amocrm.ru/developers/content/crm_platform/webhooks-format: PHP's brackets
//! (`contacts[update][0][id]=3001`), companies among the contacts, deals called `leads`.

use std::borrow::Cow;
use std::collections::HashMap;

use percent_encoding::percent_decode;
use serde_json::Value;

use super::account::Claim;
use super::strongest;
use crate::crm::{Hook, HookError};
use crate::record::{EntityId, EntityKind, Event, Notice};

/// The most cards that one body may name. amoCRM writes at most 250 at once.
const MOST_CARDS: usize = 1000;
/// Longer names are none of those that are looked for.
const LONGEST_NAME_BYTES: usize = 200;
/// Longer values are none of those that are looked for.
const LONGEST_VALUE_BYTES: usize = 100;

/// What a body tells.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Told {
    /// Whose it claims to be.
    pub(super) account: Claim,
    cards: Vec<Mentioned>,
}

/// A card as a body mentions it.
#[derive(Debug, PartialEq)]
struct Mentioned {
    list: List,
    event: Event,
    /// `contact` or `company`, as written.
    kind: Option<String>,
    id: Option<String>,
}

/// The lists whose cards may be mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum List {
    /// Contacts and companies.
    Contacts,
    Companies,
    Leads,
}

impl List {
    fn called(name: &str) -> Option<Self> {
        match name {
            "contacts" => Some(Self::Contacts),
            "companies" => Some(Self::Companies),
            "leads" => Some(Self::Leads),
            _ => None,
        }
    }
}

impl Told {
    /// The cards of these kinds, each once.
    pub(super) fn notices(&self, kinds: &[EntityKind]) -> Vec<Notice> {
        strongest(self.cards.iter().flat_map(|card| {
            let wanted = card.kinds().iter().filter(|kind| kinds.contains(kind));
            wanted.filter_map(|kind| card.notice(*kind))
        }))
    }
}

impl Mentioned {
    fn new(list: List, action: &str) -> Self {
        Self {
            list,
            event: event_of(action),
            kind: None,
            id: None,
        }
    }

    /// Where the body leaves open which it is, both are looked at: reading too much is harmless.
    fn kinds(&self) -> &'static [EntityKind] {
        match (self.list, self.kind.as_deref()) {
            (List::Leads, _) => &[EntityKind::Deal],
            (List::Companies, _) | (List::Contacts, Some("company")) => &[EntityKind::Company],
            (List::Contacts, Some("contact")) => &[EntityKind::Contact],
            (List::Contacts, _) => &[EntityKind::Contact, EntityKind::Company],
        }
    }

    fn notice(&self, kind: EntityKind) -> Option<Notice> {
        let id = EntityId::new(self.id.as_deref()?);
        let is_number = id.as_number().is_some_and(|number| number > 0);
        is_number.then_some(Notice {
            kind,
            id,
            event: self.event,
        })
    }
}

/// What an action says of a card; whatever a later amoCRM may send besides, the card has changed.
fn event_of(action: &str) -> Event {
    match action {
        "delete" => Event::Gone,
        // add, update, responsible, restore, note, status
        _ => Event::Changed,
    }
}

/// Reads a body; asks nobody.
pub(super) fn read(hook: Hook<'_>) -> Result<Told, HookError> {
    let body = hook.body.trim_ascii();
    if body.is_empty() {
        return Err(unreadable("it is empty"));
    }
    let kind = hook.content_type.trim().to_ascii_lowercase();
    if kind.starts_with("multipart/") {
        return Err(unreadable("it is a multipart form"));
    }
    if kind.contains("json") || (body.starts_with(b"{") && !kind.contains("form")) {
        return read_json(body);
    }
    read_form(body)
}

fn unreadable(text: impl Into<String>) -> HookError {
    HookError::Unreadable(text.into())
}

fn read_form(body: &[u8]) -> Result<Told, HookError> {
    let mut account = Claim::default();
    let mut cards: HashMap<Place, Mentioned> = HashMap::new();
    let mut is_form = false;
    for pair in body.split(|byte| *byte == b'&') {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let (Some(name), Some(value)) = (halves.next(), halves.next()) else {
            continue;
        };
        is_form = true;
        let Some(name) = decoded(name, LONGEST_NAME_BYTES) else {
            continue;
        };
        let value = || decoded(value, LONGEST_VALUE_BYTES).map(Cow::into_owned);
        match Name::read(&name) {
            Some(Name::Account("id")) => account.id = value(),
            Some(Name::Account("subdomain")) => account.subdomain = value(),
            Some(Name::Card(place, key @ ("id" | "type"))) => {
                let card = card_at(&mut cards, place)?;
                match key {
                    "id" => card.id = value(),
                    _ => card.kind = value(),
                }
            }
            _ => {}
        }
    }
    if !is_form {
        return Err(unreadable("it is no form"));
    }
    Ok(Told {
        account,
        cards: cards.into_values().collect(),
    })
}

/// The card at this place of a form, known from an earlier name or new.
fn card_at(
    cards: &mut HashMap<Place, Mentioned>,
    place: Place,
) -> Result<&mut Mentioned, HookError> {
    if cards.len() >= MOST_CARDS && !cards.contains_key(&place) {
        return Err(too_many());
    }
    let new = Mentioned::new(place.0, &place.1);
    Ok(cards.entry(place).or_insert(new))
}

fn too_many() -> HookError {
    unreadable(format!("it names more than {MOST_CARDS} cards"))
}

/// A part of a form as text; `None` if it is longer than anything that is looked for, or no text.
fn decoded(part: &[u8], longest: usize) -> Option<Cow<'_, str>> {
    // Encoded, each byte takes up to three.
    if part.len() > longest * 3 {
        return None;
    }
    percent_decode(part).decode_utf8().ok()
}

/// Where a form has a card: list, action and index.
type Place = (List, String, String);

/// A name in brackets that means something here.
enum Name<'a> {
    /// `account[key]`
    Account(&'a str),
    /// `list[action][index][key]`
    Card(Place, &'a str),
}

impl<'a> Name<'a> {
    /// Most names mean nothing here: they are longer, shorter or begin otherwise.
    fn read(name: &'a str) -> Option<Self> {
        let (first, rest) = name.split_once('[')?;
        let mut inside = rest.strip_suffix(']')?.split("][");
        let key = inside.next()?;
        if first == "account" {
            return inside.next().is_none().then_some(Self::Account(key));
        }
        let (action, list) = (key, List::called(first)?);
        let (index, key) = inside.next().zip(inside.next())?;
        let place = (list, action.to_owned(), index.to_owned());
        inside.next().is_none().then_some(Self::Card(place, key))
    }
}

/// Some hooks may come as JSON: the same keys as objects inside each other.
fn read_json(body: &[u8]) -> Result<Told, HookError> {
    let body: Value =
        serde_json::from_slice(body).map_err(|_| unreadable("it calls itself JSON and is none"))?;
    let Value::Object(lists) = body else {
        return Err(unreadable("it is JSON, but no object"));
    };
    let mut told = Told::default();
    for (name, inside) in &lists {
        if name == "account" {
            told.account = Claim {
                id: scalar(inside.get("id")),
                subdomain: scalar(inside.get("subdomain")),
            };
        }
        let (Some(list), Some(actions)) = (List::called(name), inside.as_object()) else {
            continue;
        };
        for (action, cards) in actions {
            for card in members(cards) {
                if told.cards.len() == MOST_CARDS {
                    return Err(too_many());
                }
                told.cards.push(Mentioned {
                    id: scalar(card.get("id")),
                    kind: scalar(card.get("type")),
                    ..Mentioned::new(list, action)
                });
            }
        }
    }
    Ok(told)
}

/// PHP writes a list as an array, or as an object whose names are indices.
fn members(list: &Value) -> Vec<&Value> {
    match list {
        Value::Array(cards) => cards.iter().collect(),
        Value::Object(cards) => cards.values().collect(),
        _ => Vec::new(),
    }
}

fn scalar(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) if text.len() <= LONGEST_VALUE_BYTES => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded";

    fn hook<'a>(content_type: &'a str, body: &'a [u8]) -> Hook<'a> {
        Hook { content_type, body }
    }

    fn told(content_type: &str, body: &str) -> Result<Vec<String>, String> {
        let told = read(hook(content_type, body.as_bytes())).map_err(|error| error.to_string())?;
        let kinds = [EntityKind::Contact, EntityKind::Company, EntityKind::Deal];
        let notices = told.notices(&kinds).into_iter();
        Ok(notices
            .map(|it| format!("{} {} {:?}", it.kind, it.id, it.event).to_lowercase())
            .collect())
    }

    /// A body, the notices in it, and what it shows.
    const FORMS: [(&str, &[&str], &str); 19] = [
        (
            "contacts[update][0][id]=3001&contacts[update][0][type]=contact",
            &["contact 3001 changed"],
            "plain brackets",
        ),
        (
            "contacts%5Badd%5D%5B0%5D%5Bid%5D=3001&contacts%5Badd%5D%5B0%5D%5Btype%5D=contact",
            &["contact 3001 changed"],
            "encoded brackets",
        ),
        (
            "contacts[update][0][type]=company&contacts[update][0][id]=4001",
            &["company 4001 changed"],
            "a company among contacts, its type first",
        ),
        (
            "contacts[delete][0][id]=3001&contacts[delete][0][type]=contact",
            &["contact 3001 gone"],
            "deleted",
        ),
        (
            "contacts[delete][0][id]=3001",
            &["contact 3001 gone", "company 3001 gone"],
            "deleted, of a kind that is not told",
        ),
        (
            "leads[status][0][id]=6001&leads[status][0][status_id]=142",
            &["deal 6001 changed"],
            "a deal's status",
        ),
        ("leads[delete][0][id]=6001", &["deal 6001 gone"], "a deal"),
        (
            "contacts[note][0][id]=3001&contacts[note][0][type]=contact",
            &["contact 3001 changed"],
            "a note",
        ),
        (
            "contacts[responsible][0][id]=3001&contacts[responsible][0][type]=contact\
                 &contacts[responsible][0][old_responsible_user_id]=501",
            &["contact 3001 changed"],
            "another responsible",
        ),
        (
            "contacts[restore][0][id]=3001&contacts[restore][0][type]=contact",
            &["contact 3001 changed"],
            "restored",
        ),
        (
            "contacts[update][0][id]=3002&contacts[update][0][type]=contact\
                 &contacts[update][1][id]=4001&contacts[update][1][type]=company\
                 &contacts[delete][0][id]=3003&contacts[delete][0][type]=contact\
                 &leads[add][0][id]=6001",
            &[
                "contact 3002 changed",
                "contact 3003 gone",
                "company 4001 changed",
                "deal 6001 changed",
            ],
            "several cards",
        ),
        (
            "contacts[update][0][id]=3001&contacts[update][0][type]=contact\
                 &contacts[delete][0][id]=3001&contacts[delete][0][type]=contact",
            &["contact 3001 gone"],
            "one card twice: what says most",
        ),
        (
            "contacts[update][0][id]=3001&contacts[update][0][type]=contact\
                 &contacts[update][0][custom_fields][0][id]=9001\
                 &contacts[update][0][custom_fields][0][values][0]=%2B79000000001\
                 &contacts[update][0][custom_fields][1][values][0][value]=x",
            &["contact 3001 changed"],
            "a field's number is no card's, values are scalar or not",
        ),
        (
            "task[add][0][id]=1&task[add][0][element_id]=2",
            &[],
            "tasks",
        ),
        ("unsorted[add][0][uid]=ab", &[], "the inbox"),
        ("talk[update][0][id]=7&account[id]=100", &[], "a talk"),
        ("contacts[update][0][id]=", &[], "no number"),
        (
            "contacts[update][0][id]=1'--&contacts[add][1][id]=-1&leads[add][0][id]=007\
                 &leads[add][1][id]=0&leads[add][2][id]=99999999999999999999",
            &[],
            "none of these is a number of a card",
        ),
        (
            "contacts=1&contacts[]=1&contacts[update]=1&contacts[update][0]=1&[=&]=&=\
                 &contacts[update][0][id=1&contacts[update][0][id][]=1&contacts[%FF][0][id]=1&&&",
            &[],
            "torn brackets",
        ),
    ];

    #[test]
    fn every_form_of_a_notice_is_read() {
        for (body, expected, why) in FORMS {
            assert_eq!(told(FORM, body).unwrap(), expected, "{why}");
        }
    }

    #[test]
    fn json_is_read_where_it_has_the_same_keys() {
        let expected = ["contact 3001 changed", "company 4001 gone"];
        let bodies = [
            r#"{"contacts":{"update":[{"id":3001,"type":"contact"}],
                "delete":[{"id":"4001","type":"company"}]},"account":{"id":100}}"#,
            r#"{"contacts":{"update":{"0":{"id":"3001","type":"contact"}},
                "delete":{"5":{"id":4001,"type":"company"}}}}"#,
        ];
        for body in bodies {
            for content_type in ["application/json; charset=utf-8", "", "text/plain"] {
                assert_eq!(told(content_type, body).unwrap(), expected);
            }
        }
        let claim = read(hook("application/json", bodies[0].as_bytes()))
            .unwrap()
            .account;
        assert_eq!(claim.id.as_deref(), Some("100"));
        for simple in [r#"{"a":1}"#, r#"{"contacts":[1],"leads":{"add":7}}"#] {
            assert_eq!(told("application/json", simple).unwrap(), [""; 0]);
        }
    }

    #[test]
    fn what_nobody_sends_is_unreadable() {
        let deep = "[".repeat(100_000);
        let many: Vec<String> = (0..=MOST_CARDS)
            .map(|index| format!("leads[add][{index}][id]={}", index + 1))
            .collect();
        let cases = [
            (FORM, "", "empty"),
            (FORM, "  \r\n", "empty"),
            (FORM, "hello", "no form"),
            ("application/json", "{", "JSON"),
            ("application/json", "[]", "no object"),
            ("application/json", &deep, "JSON"),
            ("application/json", "a=b", "JSON"),
            ("multipart/form-data; boundary=x", "a=b", "multipart"),
            (FORM, &many.join("&"), "more than 1000"),
        ];
        for (content_type, body, part) in cases {
            let error = told(content_type, body).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn whose_it_is_is_read_whatever_comes_before() {
        let body = b"account[subdomain]=demo&contacts[add][0][id]=1&account[id]=100\
            &account[_links][self]=https://demo.amocrm.ru&account[id][x]=7";
        let account = read(hook(FORM, body)).unwrap().account;
        assert_eq!(account.id.as_deref(), Some("100"));
        assert_eq!(account.subdomain.as_deref(), Some("demo"));
    }

    #[test]
    fn only_kinds_that_are_mirrored_are_told() {
        let body = b"contacts[delete][0][id]=3001&leads[add][0][id]=6001";
        let told = read(hook(FORM, body)).unwrap();
        let kinds = |kinds: &[EntityKind]| told.notices(kinds).len();
        assert_eq!(kinds(&[EntityKind::Company]), 1);
        assert_eq!(kinds(&[EntityKind::Deal, EntityKind::Contact]), 2);
        assert_eq!(kinds(&[]), 0);
    }

    #[test]
    fn the_largest_body_takes_no_time() {
        let began = std::time::Instant::now();
        for unit in [
            "&",
            "=&",
            "[",
            "%",
            "a[",
            "contacts[a][",
            "contacts[update][0][id]=1&",
            "%5B",
            "contacts[update][0][custom_fields][0][values][0][value]=1&",
            "{\"a\":",
        ] {
            let body = unit.repeat(crate::crm::HOOK_BYTES / unit.len());
            for content_type in [FORM, "application/json"] {
                let _ = read(hook(content_type, body.as_bytes()));
            }
        }
        // Twenty bodies of 4 MB, by a build that is not optimised much.
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }

    proptest! {
        #[test]
        fn no_body_panics(
            parts in prop::collection::vec(prop_oneof![
                Just("contacts"), Just("leads"), Just("account"), Just("["), Just("]"),
                Just("[update]"), Just("[delete]"), Just("[0]"), Just("[id]"), Just("[type]"),
                Just("=1"), Just("=company"), Just("&"), Just("%5B"), Just("%"), Just("%F"),
                Just("{\"contacts\":"), Just("}"), Just("\u{44f}"),
            ], 0..60),
            noise in prop::collection::vec(any::<u8>(), 0..200),
            content_type in prop_oneof![Just(FORM), Just("application/json"), Just("")],
        ) {
            let text = parts.concat();
            for body in [text.as_bytes(), &noise] {
                if let Ok(told) = read(hook(content_type, body)) {
                    for notice in told.notices(&EntityKind::ALL) {
                        prop_assert!(notice.id.as_number().is_some());
                    }
                }
            }
        }
    }
}
