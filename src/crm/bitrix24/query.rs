//! What a command of a batch asks, as a query.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// `&select[]=..` for each of the kind's own fields and the wanted ones.
pub(super) fn select(own: &[&str], wanted: &[String]) -> String {
    let wanted = wanted.iter().map(String::as_str);
    let more = wanted.filter(|field| !own.contains(field));
    let mut query = String::new();
    for field in own.iter().copied().chain(more) {
        let _ = write!(query, "&select[]={}", encode(field));
    }
    query
}

/// What a query need not escape besides letters and digits.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.');

/// A value as a batch's command takes it.
pub(super) fn encode(value: &str) -> String {
    utf8_percent_encode(value, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_asked_for_once_and_cannot_break_out() {
        let wanted = ["ID".to_owned(), "UF_X&start=0".to_owned()];
        let query = select(&["ID", "PHONE"], &wanted);
        assert_eq!(
            query,
            "&select[]=ID&select[]=PHONE&select[]=UF_X%26start%3D0"
        );
    }
}
