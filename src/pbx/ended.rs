//! `GET /ended`: the dialplan tells what became of a number that it rang.
//!
//! Nothing in it is an error; what makes no sense is not told on.

use crate::call::{DialStatus, Outcome};
use crate::pbx::forward::decode;

/// Longer call ids, and numbers with more digits, come from no dialplan of ours.
const LONGEST_NUMBER: usize = 20;

/// Reads `callid=..&number=101&status=ANSWER&rang=7&talked=63`; `None` if it names no call or number.
///
/// As in `/forward` the last `callid` counts.
pub fn read_query(query: &str) -> Option<Outcome> {
    read_pairs(query.split('&'))
}

/// Reads parameters that are parted already, each `key=value`.
pub(super) fn read_pairs<'a>(pairs: impl Iterator<Item = &'a str>) -> Option<Outcome> {
    let mut outcome = Outcome {
        call_id: String::new(),
        number: String::new(),
        status: DialStatus::Other,
        rang_seconds: None,
        talked_seconds: None,
    };
    for pair in pairs {
        let (key, raw) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(raw);
        match key {
            "callid" => outcome.call_id = value.into_owned(),
            "number" => outcome.number = value.into_owned(),
            "status" => outcome.status = DialStatus::read(&value).unwrap_or(DialStatus::Other),
            "rang" => outcome.rang_seconds = value.parse().ok(),
            "talked" => outcome.talked_seconds = value.parse().ok(),
            _ => {}
        }
    }
    let is_number = (1..=LONGEST_NUMBER).contains(&outcome.number.len())
        && outcome.number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && !outcome.call_id.is_empty()).then_some(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_read_and_nonsense_is_not_told_on() {
        let ended = |call_id: &str, status, rang, talked| {
            Some(Outcome {
                call_id: call_id.to_owned(),
                number: "101".to_owned(),
                status,
                rang_seconds: rang,
                talked_seconds: talked,
            })
        };
        for (query, expected) in [
            (
                "callid=1.2&number=101&status=ANSWER&rang=7&talked=63",
                ended("1.2", DialStatus::Answer, Some(7), Some(63)),
            ),
            (
                "callid=pbx%2D1.2&number=101&status=CANCEL&rang=-1&talked=",
                ended("pbx-1.2", DialStatus::Cancel, None, None),
            ),
            (
                "callid=1.2&number=101",
                ended("1.2", DialStatus::Other, None, None),
            ),
            ("number=101&status=BUSY", None),
            ("callid=1.2&status=BUSY", None),
            ("callid=1.2&number=*98&status=BUSY", None),
            ("callid=1.2&number=%0A&status=BUSY", None),
            ("", None),
        ] {
            assert_eq!(read_query(query), expected, "{query}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_end_is_an_error(query in ".{0,200}") {
            let _ = read_query(&query);
        }
    }
}
