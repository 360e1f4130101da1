//! Legs of a CDR file -> calls, in bounded memory.

use std::collections::{HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use crate::call::{Extension, ExtensionPattern};
use crate::cdr::Row;
use crate::phone::{self, CallerNumber, Region};

/// Calls whose legs may still come: further apart than this the legs of one call do not lie.
const MOST_OPEN: usize = 50_000;
/// Without a call's own identifier an inner leg belongs to a call of the same caller that began so
/// long before it at most.
const INNER_LEG: SignedDuration = SignedDuration::from_mins(30);

/// A call, put together from its legs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// When it began.
    pub start: Timestamp,
    /// The caller's number.
    pub caller: String,
    /// The number dialled.
    pub did: Option<String>,
    /// Where it came from.
    pub origin: Origin,
    /// The extension that answered; `None` if nobody did.
    pub answered_by: Option<String>,
}

/// Where a call came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From a telephone outside.
    Outside,
    /// From outside, with a number that is hidden or unreadable.
    WithoutNumber,
    /// An extension called a telephone outside.
    Outgoing,
    /// An extension called another.
    Internal,
}

/// What is known of a call while legs come.
struct Open {
    first: Row,
    did: String,
    /// Who answered first; a real telephone's leg rather than an inner one.
    answer: Option<(bool, Timestamp, String)>,
}

/// Puts legs together.
pub struct Calls {
    region: Region,
    pattern: ExtensionPattern,
    open: HashMap<String, Open>,
    order: VecDeque<String>,
    /// The last call of each caller, for inner legs that name no call.
    of_caller: HashMap<String, String>,
}

impl Calls {
    /// For callers written as `region` does and extensions of this pattern.
    pub fn new(region: Region, pattern: ExtensionPattern) -> Self {
        Self {
            region,
            pattern,
            open: HashMap::new(),
            order: VecDeque::new(),
            of_caller: HashMap::new(),
        }
    }

    /// Takes a leg; gives a call that no further leg is expected of.
    pub fn push(&mut self, row: Row) -> Option<Call> {
        let key = self.key(&row);
        let answer = self.answer(&row);
        if let Some(open) = self.open.get_mut(&key) {
            open.join(row, answer);
            return None;
        }
        if row.linkedid.is_empty() {
            self.of_caller.insert(row.src.clone(), key.clone());
        }
        let open = Open {
            did: row.did.clone(),
            first: row,
            answer,
        };
        self.open.insert(key.clone(), open);
        self.order.push_back(key);
        if self.order.len() > MOST_OPEN {
            return self.pop();
        }
        None
    }

    /// The oldest call that is still held; `None` at the end.
    pub fn pop(&mut self) -> Option<Call> {
        let key = self.order.pop_front()?;
        let open = self.open.remove(&key)?;
        if self.of_caller.get(&open.first.src) == Some(&key) {
            self.of_caller.remove(&open.first.src);
        }
        Some(self.call(open))
    }

    /// What the legs of one call share.
    fn key(&self, row: &Row) -> String {
        if !row.linkedid.is_empty() {
            return format!("l{}", row.linkedid);
        }
        let is_inner = row.channel.starts_with("Local/");
        if let Some(key) = self.of_caller.get(&row.src).filter(|_| is_inner) {
            let near = |open: &Open| row.start.duration_since(open.first.start).abs() <= INNER_LEG;
            if self.open.get(key).is_some_and(near) {
                return key.clone();
            }
        }
        if row.uniqueid.is_empty() {
            format!("s{} {}", row.start, row.src)
        } else {
            format!("u{}", row.uniqueid)
        }
    }

    fn is_extension(&self, text: &str) -> bool {
        Extension::read(text, &self.pattern).is_ok_and(|extension| extension.as_str() == text)
    }

    /// Who answered this leg.
    fn answer(&self, row: &Row) -> Option<(bool, Timestamp, String)> {
        // An announcement, a mailbox or a queue answers too, and rings no channel.
        if !row.answered || row.dstchannel.is_empty() {
            return None;
        }
        let is_inner = row.dstchannel.starts_with("Local/");
        let peer = peer(&row.dstchannel);
        let who = if self.is_extension(peer) {
            peer.to_owned()
        } else if self.is_extension(&row.dst) {
            row.dst.clone()
        } else {
            peer.to_owned()
        };
        Some((is_inner, row.start, who))
    }

    fn call(&self, open: Open) -> Call {
        let Open { first, did, answer } = open;
        let origin = self.origin(&first, &did);
        let reads_as_number = |text: &str| {
            matches!(
                phone::read_caller(text, self.region),
                CallerNumber::Number(_)
            )
        };
        let did = if did.is_empty() && reads_as_number(&first.dst) {
            first.dst
        } else {
            did
        };
        Call {
            start: first.start,
            caller: first.src,
            did: Some(did).filter(|did| !did.is_empty()),
            origin,
            answered_by: answer.map(|(_, _, who)| who),
        }
    }

    fn origin(&self, first: &Row, did: &str) -> Origin {
        let read = |text: &str| phone::read_caller(text, self.region);
        let from_extension = !first.outbound_cnum.is_empty()
            || matches!(read(&first.cnum), CallerNumber::Short(_))
            || matches!(read(&first.src), CallerNumber::Short(_))
            || (did.is_empty() && self.is_extension(peer(&first.channel)));
        if from_extension {
            return match read(&first.dst) {
                CallerNumber::Number(_) => Origin::Outgoing,
                _ => Origin::Internal,
            };
        }
        match read(&first.src) {
            CallerNumber::Number(_) => Origin::Outside,
            _ => Origin::WithoutNumber,
        }
    }
}

impl Open {
    fn join(&mut self, row: Row, answer: Option<(bool, Timestamp, String)>) {
        if self.did.is_empty() {
            self.did.clone_from(&row.did);
        }
        self.answer = self.answer.take().into_iter().chain(answer).min();
        // The leg that gave the call its name is the caller's own; else the earliest.
        let place = |row: &Row| (row.uniqueid != row.linkedid, row.start);
        if place(&row) < place(&self.first) {
            self.first = row;
        }
    }
}

/// Whose channel it is: `PJSIP/101-0000002a`, `Local/101@from-queue-0001;1`, `Local/RG-600-101@...`.
fn peer(channel: &str) -> &str {
    let bare = channel.split_once('/').map_or(channel, |(_, rest)| rest);
    match bare.split_once('@') {
        Some((name, _)) => name.rsplit('-').next().unwrap_or(name),
        None => bare.rsplit_once('-').map_or(bare, |(name, _)| name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(start: i64, src: &str, dstchannel: &str, linkedid: &str) -> Row {
        Row {
            start: Timestamp::from_second(1_795_000_000 + start).unwrap(),
            src: src.to_owned(),
            dst: "s".to_owned(),
            channel: "PJSIP/trunk-00000001".to_owned(),
            dstchannel: dstchannel.to_owned(),
            answered: true,
            linkedid: linkedid.to_owned(),
            uniqueid: linkedid.to_owned(),
            ..Row::default()
        }
    }

    fn calls(rows: impl IntoIterator<Item = Row>) -> Vec<Call> {
        let mut calls = Calls::new(Region::default(), ExtensionPattern::default());
        let mut all: Vec<Call> = rows.into_iter().filter_map(|row| calls.push(row)).collect();
        all.extend(std::iter::from_fn(|| calls.pop()));
        all
    }

    #[test]
    fn legs_of_one_call_are_one_call_in_any_order() {
        let mut rows = vec![
            row(0, "79161234501", "", "1.1"),
            row(9, "79161234501", "PJSIP/102-00000005", "1.1"),
            row(5, "79161234501", "Local/103@from-queue-0001;1", "1.1"),
            row(3, "79161234502", "PJSIP/104-00000005", "1.9"),
        ];
        rows[1].uniqueid = "1.3".to_owned();
        rows[2].uniqueid = "1.2".to_owned();
        rows[2].did = "74951234567".to_owned();
        for _ in 0..rows.len() {
            rows.rotate_left(1);
            let mut calls = calls(rows.clone());
            calls.sort_by_key(|call| call.start);
            assert_eq!(calls.len(), 2);
            assert_eq!(calls[0].answered_by.as_deref(), Some("102"));
            assert_eq!(calls[0].did.as_deref(), Some("74951234567"));
            assert_eq!(calls[0].start.as_second(), 1_795_000_000);
            assert_eq!(calls[1].answered_by.as_deref(), Some("104"));
        }
    }

    #[test]
    fn inner_legs_without_a_calls_name_join_their_callers_call() {
        let mut inner = row(4, "79161234501", "PJSIP/101-00000002", "");
        inner.channel = "Local/101@from-queue-00000001;2".to_owned();
        inner.uniqueid = "1.7".to_owned();
        let mut outer = row(0, "79161234501", "", "");
        outer.uniqueid = "1.5".to_owned();
        let calls = calls([outer, inner]);
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0].answered_by.as_deref(), Some("101"));
    }

    #[test]
    fn where_a_call_comes_from() {
        let from = |change: &dyn Fn(&mut Row)| {
            let mut one = row(0, "79161234501", "PJSIP/101-1", "1.1");
            change(&mut one);
            calls([one])[0].origin
        };
        assert_eq!(from(&|_| {}), Origin::Outside);
        assert_eq!(from(&|row| row.src.clear()), Origin::WithoutNumber);
        assert_eq!(
            from(&|row| row.src = "anonymous".to_owned()),
            Origin::WithoutNumber
        );
        let dials_out = |row: &mut Row| row.dst = "89161112233".to_owned();
        assert_eq!(from(&|row| row.src = "101".to_owned()), Origin::Internal);
        assert_eq!(
            from(&|row| {
                dials_out(row);
                row.src = "101".to_owned();
            }),
            Origin::Outgoing
        );
        assert_eq!(
            from(&|row| {
                dials_out(row);
                row.cnum = "101".to_owned();
                row.src = "74951234567".to_owned();
            }),
            Origin::Outgoing,
            "FreePBX shows the company's number"
        );
        assert_eq!(
            from(&|row| {
                dials_out(row);
                row.channel = "SIP/101-00000001".to_owned();
                row.src = "74951234567".to_owned();
            }),
            Origin::Outgoing
        );
    }

    #[test]
    fn whose_channel_it_is() {
        for (channel, expected) in [
            ("PJSIP/101-0000002a", "101"),
            ("SIP/my-trunk-0000002a", "my-trunk"),
            ("Local/101@from-queue-00000001;1", "101"),
            ("Local/RG-600-101@from-internal-00000001;1", "101"),
            ("DAHDI/1", "1"),
            ("", ""),
        ] {
            assert_eq!(peer(channel), expected, "{channel}");
        }
    }
}
