//! What the portal may send, read by all who read it.

use serde_json::Value;

use super::access::By;
use super::availability::fuzz as read_calendar;
use super::client::read_envelope;
use super::hook::{Form, event_of};
use super::lookup::read_hits;
use super::refusal::Refusal;
use super::wire;
use crate::fuzz::{card, employee, notices};
use crate::record::EntityKind;

/// A notice, and a form of another event.
pub(crate) fn hook(body: &[u8]) {
    let Ok(form) = Form::read(body) else {
        return;
    };
    if let Ok(notice) = form.notice(&EntityKind::ALL) {
        notices(notice.as_slice());
    }
    let _ = (
        form.is_installation(),
        form.host(),
        form.installation().pair(),
    );
    let secret = "made-up-token".to_owned();
    if form.proves(&[secret.clone().into()]) {
        let encoded = body.contains(&b'%');
        assert!(encoded || String::from_utf8_lossy(body).contains(&secret));
    }
    assert!(
        !form.proves(&[String::new().into()]),
        "nothing proves nothing"
    );
}

/// An answer to any method.
pub(crate) fn page(body: &[u8]) {
    let Ok(envelope) = read_envelope("any.method", 200, body) else {
        return;
    };
    for status in [200, 401, 403, 429, 503] {
        if let Some(refusal) = Refusal::read(status, &envelope) {
            assert!(!refusal.words().contains(char::is_control));
            let _ = refusal.without("secret").into_error(
                "any.method",
                By::Webhook,
                crate::fuzz::MOMENT,
            );
        }
    }
    if let Some(time) = envelope.get("time") {
        let _ = (
            wire::server_time(time),
            wire::local_time(time),
            wire::finish_time(time),
        );
    }
    let result = envelope.get("result").unwrap_or(&envelope);
    read_result(result);
    // A batch holds the answers of several.
    let inside = result.get("result").and_then(wire::items);
    inside.unwrap_or_default().into_iter().for_each(read_result);
}

fn read_result(result: &Value) {
    let _ = read_hits(result, "CONTACT");
    read_calendar(result);
    for row in wire::items(result).unwrap_or_default() {
        let fields = ["TITLE".to_owned(), "UF_CRM_1".to_owned()];
        for kind in EntityKind::ALL {
            if let Ok((id, read)) = wire::card(kind, row, &fields) {
                assert!(id > 0);
                card(&read);
            }
        }
        if let Ok(read) = wire::employee(row) {
            employee(&read);
        }
        let _ = wire::department(row);
        let _ = row
            .get("EVENT_NAME")
            .and_then(wire::text)
            .map(|name| event_of(&name));
    }
}
