//! `GET /forward`, for Asterisk's `CURL()`: the vendor page's question and answer, to the letter.
//!
//! The page's dialplan does not encode what it sends, so the query is read by hand and nothing in it
//! is an error. The answer is read by `HASH()`: `number` stands first, so that no name can swallow
//! it, and every byte beyond letters, digits and `-_.~` is percent-encoded. Facts: experiments with
//! Asterisk 16 and 22 and their `func_curl.c` and `func_strings.c`.

use std::borrow::Cow;

use percent_encoding::{percent_decode_str, percent_encode_byte};

use crate::call::{DialStatus, Did, IncomingCall, MOST_TRIED};
use crate::caller_name;
use crate::decision::Decision;

/// A longer parameter is no phone, DID or call id of any PBX.
const LONGEST_VALUE: usize = 512;

/// Reads the query of `/forward`, raw or encoded; `did` is the API's word for `trunk`.
///
/// Of a repeated parameter the first `phone` and the last `trunk` and `callid` count: what a caller
/// smuggles in through their number stands between them. A leading space in `phone` is a plus that
/// a form decoder has eaten; a plus is never a space here.
pub fn read_query(query: &str) -> IncomingCall {
    let mut rest = Some(query);
    read_pairs(std::iter::from_fn(move || {
        let (pair, behind) = part(rest?, b'&');
        rest = behind;
        Some(pair)
    }))
}

/// What stands before a separator, and what behind it if there is one.
fn part(text: &str, separator: u8) -> (&str, Option<&str>) {
    let parted = memchr::memchr(separator, text.as_bytes())
        .and_then(|at| Some((text.get(..at)?, text.get(at + 1..))));
    parted.unwrap_or((text, None))
}

/// Reads parameters that are parted already, each `key=value`.
pub(super) fn read_pairs<'a>(pairs: impl Iterator<Item = &'a str>) -> IncomingCall {
    let mut call = IncomingCall::default();
    let mut has_phone = false;
    for pair in pairs {
        let (key, raw) = part(pair, b'=');
        let raw = raw.unwrap_or_default();
        match key {
            "phone" if !has_phone => {
                has_phone = true;
                call.phone = decode(raw).into_owned();
            }
            "trunk" | "did" => call.did = Did::new(&decode(raw)),
            "callid" => call.call_id = Some(decode(raw).into_owned()).filter(|id| !id.is_empty()),
            "tried" => call.tried = read_tried(&decode(raw)),
            "status" => call.status = DialStatus::read(&decode(raw)),
            _ => {}
        }
    }
    if let Some(eaten) = call.phone.strip_prefix(' ') {
        call.phone = format!("+{}", eaten.trim_start());
    }
    call
}

/// The numbers of a comma list, digits alone; what is no number was never rung.
fn read_tried(list: &str) -> Vec<String> {
    let is_number =
        |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts = list.split(',').map(str::trim).filter(is_number);
    parts.take(MOST_TRIED).map(str::to_owned).collect()
}

pub(super) fn decode(raw: &str) -> Cow<'_, str> {
    if memchr::memchr(b'%', raw.as_bytes()).is_none() {
        return Cow::Borrowed(cut(raw));
    }
    let text = percent_decode_str(raw).decode_utf8_lossy();
    Cow::Owned(cut(&text).to_owned())
}

/// What is looked at of a value.
fn cut(text: &str) -> &str {
    if text.len() <= LONGEST_VALUE {
        return text;
    }
    let end = text.floor_char_boundary(LONGEST_VALUE);
    text.get(..end).unwrap_or_default()
}

/// Writes the answer: `number=101&ring=20&reason=responsible&name=...`, or nothing for a caller whom
/// nobody knows.
///
/// A known caller whose people cannot be rung gets an empty `number` and the name. Always below
/// 1 KiB.
pub fn write_answer(decision: &Decision, names: &caller_name::Settings) -> String {
    let name = shown_name(decision, names);
    if name.is_none() && decision.ring.is_none() {
        return String::new();
    }
    let number = decision.ring.as_ref().map_or("", |target| target.as_str());
    let name = name.unwrap_or_default();
    let reason = decision.reason.as_str();
    let mut answer = String::with_capacity(48 + number.len() + name.len() * 3);
    answer.push_str("number=");
    answer.push_str(number);
    if !number.is_empty() {
        answer.push_str("&ring=");
        answer.push_str(&decision.ring_seconds.to_string());
    }
    answer.push_str("&reason=");
    answer.push_str(reason);
    answer.push_str("&name=");
    encode(&name, &mut answer);
    answer
}

/// Percent-encodes all but what never needs it (RFC 3986): a space must be `%20`, since with
/// `hashcompat=yes` a plus stays one.
fn encode(value: &str, answer: &mut String) {
    for byte in value.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' | b'~' => {
                answer.push(char::from(byte));
            }
            other => answer.push_str(percent_encode_byte(other)),
        }
    }
}

/// The name that a phone may show, made safe; `None` for a caller whom nobody knows.
pub fn shown_name(decision: &Decision, names: &caller_name::Settings) -> Option<String> {
    if let Some(name) = &decision.name {
        return Some(caller_name::show(name, None, names));
    }
    let entity = decision.entity.as_ref()?;
    Some(caller_name::show(
        &entity.name,
        entity.company.as_deref(),
        names,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> (String, Option<String>, Option<String>) {
        let call = read_query(query);
        (
            call.phone,
            call.did.map(|did| did.as_str().to_owned()),
            call.call_id,
        )
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn raw_and_encoded_queries_are_read_alike() {
        let own = |text: &str| Some(text.to_owned());
        for (query, phone, did, call_id, why) in [
            (
                "phone=79161234567&trunk=74951234567&callid=1.2",
                "79161234567",
                own("74951234567"),
                own("1.2"),
                "plain",
            ),
            (
                "phone=+79161234567&trunk=s&callid=1.1",
                "+79161234567",
                own("s"),
                own("1.1"),
                "raw plus",
            ),
            (
                "phone=%2B79161234567&trunk=s",
                "+79161234567",
                own("s"),
                None,
                "encoded plus",
            ),
            (
                "phone=%2079161234567",
                "+79161234567",
                None,
                None,
                "a form decoder's space",
            ),
            (
                "phone=7916&trunk=evil&trunk=7495&callid=1.1",
                "7916",
                own("7495"),
                own("1.1"),
                "injected trunk",
            ),
            (
                "phone=7916&phone=7917&trunk=7495",
                "7916",
                own("7495"),
                None,
                "injected phone",
            ),
            ("phone=7916", "7916", None, None, "cut off by #"),
            (
                "phone=7916%&trunk=s",
                "7916%",
                own("s"),
                None,
                "percent sign alone",
            ),
            ("phone=%zz&trunk=s", "%zz", own("s"), None, "no hex"),
            ("phone=&trunk=s", "", own("s"), None, "empty"),
            ("trunk=s", "", own("s"), None, "missing"),
            ("", "", None, None, "nothing at all"),
            ("phone=%D0%A0", "Р", None, None, "Cyrillic"),
            ("phone=%FF", "\u{fffd}", None, None, "no UTF-8"),
            (
                "phone=7916=7&trunk==",
                "7916=7",
                own("="),
                None,
                "equals signs",
            ),
            ("&&&=&phone=7916", "7916", None, None, "empty pieces"),
            (
                "phone=anonymous&trunk=&callid=",
                "anonymous",
                None,
                None,
                "empty values",
            ),
        ] {
            assert_eq!(
                read(query),
                (phone.to_owned(), did, call_id),
                "{query}: {why}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_query_is_an_error(query in ".{0,200}") {
            let call = read_query(&query);
            assert!(call.phone.len() <= LONGEST_VALUE + 1);
        }
    }
}
