//! What the account may send, read by all who read it.

use super::KINDS;
use super::events::fuzz as read_events;
use super::hook;
use super::webhooks::Webhook;
use super::wire::{self, Account, Grant, List, Problem, Row, User};
use crate::crm::Hook;
use crate::fuzz::{card, employee, notices};
use crate::record::{Employee, EntityKind};

/// A notice, as a form or as JSON.
pub(crate) fn hook(body: &[u8]) {
    for content_type in ["application/x-www-form-urlencoded", "application/json", ""] {
        if let Ok(told) = hook::read(Hook { content_type, body }) {
            notices(&told.notices(&KINDS));
        }
    }
}

/// An answer to any request.
pub(crate) fn page(body: &[u8]) {
    let fields = ["tags".to_owned(), "EMAIL".to_owned(), "1".to_owned()];
    for kind in [EntityKind::Contact, EntityKind::Company, EntityKind::Deal] {
        let Ok(list) = wire::read::<List<Row>>(body) else {
            break;
        };
        let _ = (list.next(), list.has_more());
        for row in list.into_rows() {
            let _ = row.deals().count();
            if let Ok(Some(read)) = row.into_card(kind, &fields) {
                card(&read);
            }
        }
    }
    if let Ok(list) = wire::read::<List<User>>(body) {
        let people: Vec<Employee> = list.into_rows().into_iter().map(Employee::from).collect();
        people.iter().for_each(employee);
    }
    if let Ok(account) = wire::read::<Account>(body) {
        let _ = account.groups();
    }
    read_events(body);
    let _ = wire::read::<List<Webhook>>(body);
    let _ = wire::read::<Grant>(body);
    let words = Problem::read(body).words();
    assert!(!words.contains(char::is_control), "{words:?}");
}
