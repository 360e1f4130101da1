//! Calls as Asterisk tells of them while they happen -> who spoke with whom, and what became of ringing.
//!
//! `DialBegin` and `DialEnd` name both channels and the call they belong to; `Hangup` ends a leg. Local
//! channels stand between the parts of one call and are nobody's phone. Facts: `stasis_channels.c`,
//! `app_dial.c`.

use std::collections::HashMap;

use jiff::Timestamp;

use super::message::Message;
use crate::call::{DialStatus, Extension, ExtensionPattern, Outcome};
use crate::phone::{CallerNumber, E164, Region, read_caller};
use crate::presence::{Direction, Talk};

/// More legs than any exchange carries at once; further ones are not followed.
const MOST_LEGS: usize = 20_000;

/// What an event brought to light.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Learned {
    /// A phone that was rung took the call or did not, or hung up.
    pub(super) outcome: Option<Outcome>,
    /// An employee and a caller speak.
    pub(super) talk: Option<(E164, Talk)>,
}

/// The legs that ring or speak.
#[derive(Debug)]
pub(super) struct Legs {
    /// By the rung channel's unique id.
    rung: HashMap<String, Leg>,
    pattern: ExtensionPattern,
    region: Region,
}

#[derive(Debug)]
struct Leg {
    call_id: String,
    extension: Extension,
    began: Timestamp,
    answered: Option<Timestamp>,
}

impl Legs {
    pub(super) fn new(pattern: ExtensionPattern, region: Region) -> Self {
        Self {
            rung: HashMap::new(),
            pattern,
            region,
        }
    }

    /// Takes an event that came at `now`.
    pub(super) fn take(&mut self, event: &Message, now: Timestamp) -> Learned {
        match event.get("Event") {
            "DialBegin" => {
                self.begin(event, now);
                Learned::default()
            }
            "DialEnd" => self.end(event, now),
            "Hangup" => self.hang_up(event, now),
            _ => Learned::default(),
        }
    }

    fn begin(&mut self, event: &Message, now: Timestamp) {
        let Some(extension) = self.extension_of(event.get("DestChannel")) else {
            return;
        };
        if self.rung.len() < MOST_LEGS {
            let leg = Leg {
                call_id: call_id(event),
                extension,
                began: now,
                answered: None,
            };
            self.rung.insert(event.get("DestUniqueid").to_owned(), leg);
        }
    }

    fn end(&mut self, event: &Message, now: Timestamp) -> Learned {
        let Some(status) = DialStatus::read(event.get("DialStatus")) else {
            return Learned::default();
        };
        let mut learned = Learned::default();
        if status == DialStatus::Answer {
            learned.talk = self.talk(event, now);
        }
        let id = event.get("DestUniqueid");
        let Some(leg) = self.rung.get_mut(id) else {
            return learned;
        };
        learned.outcome = Some(Outcome {
            call_id: leg.call_id.clone(),
            number: leg.extension.to_string(),
            status,
            rang_seconds: seconds(leg.began, now),
            talked_seconds: None,
        });
        if status == DialStatus::Answer {
            leg.answered = Some(now);
        } else {
            self.rung.remove(id);
        }
        learned
    }

    fn hang_up(&mut self, event: &Message, now: Timestamp) -> Learned {
        let ended = self.rung.remove(event.get("Uniqueid"));
        let outcome = ended.and_then(|leg| {
            let answered = leg.answered?;
            Some(Outcome {
                call_id: leg.call_id,
                number: leg.extension.to_string(),
                status: DialStatus::Answer,
                rang_seconds: seconds(leg.began, answered),
                talked_seconds: seconds(answered, now),
            })
        });
        Learned {
            outcome,
            talk: None,
        }
    }

    /// Who speaks with whom from now on; `None` between employees, and where a number is hidden.
    fn talk(&self, event: &Message, now: Timestamp) -> Option<(E164, Talk)> {
        let from = self.extension_of(event.get("Channel"));
        let to = self.extension_of(event.get("DestChannel"));
        let (extension, other, direction) = match (from, to) {
            (None, Some(extension)) => (extension, event.get("CallerIDNum"), Direction::Incoming),
            (Some(extension), None) if !is_local(event.get("DestChannel")) => {
                (extension, event.get("DestCallerIDNum"), Direction::Outgoing)
            }
            _ => return None,
        };
        match read_caller(other, self.region) {
            CallerNumber::Number(number) => Some((
                number,
                Talk {
                    extension,
                    at: now,
                    direction,
                },
            )),
            _ => None,
        }
    }

    /// The extension of a phone's channel, `PJSIP/101-0000002a`; `None` for trunks and Local channels.
    fn extension_of(&self, channel: &str) -> Option<Extension> {
        extension_of(channel, &self.pattern)
    }
}

/// The extension of a phone's channel or device, `PJSIP/101-0000002a`.
pub(crate) fn extension_of(channel: &str, pattern: &ExtensionPattern) -> Option<Extension> {
    if is_local(channel) {
        return None;
    }
    let (_, rest) = channel.split_once('/')?;
    let peer = rest.rsplit_once('-').map_or(rest, |(peer, _)| peer);
    Extension::read(peer, pattern).ok()
}

fn is_local(channel: &str) -> bool {
    channel.starts_with("Local/")
}

fn call_id(event: &Message) -> String {
    let own = event.get("Linkedid");
    let own = if own.is_empty() {
        event.get("DestLinkedid")
    } else {
        own
    };
    own.to_owned()
}

fn seconds(from: Timestamp, to: Timestamp) -> Option<u64> {
    u64::try_from(to.duration_since(from).as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn legs() -> Legs {
        Legs::new(ExtensionPattern::default(), Region::default())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + second).unwrap()
    }

    fn dial(
        event: &str,
        channel: &str,
        caller: &str,
        dest: &str,
        dest_number: &str,
        more: &str,
    ) -> Message {
        Message::of(&format!(
            "Event: {event}\nChannel: {channel}\nCallerIDNum: {caller}\nLinkedid: 7.1\nDestChannel: {dest}\n\
             DestCallerIDNum: {dest_number}\nDestUniqueid: 7.9\n{more}"
        ))
    }

    fn outcome(status: DialStatus, rang: u64, talked: Option<u64>) -> Outcome {
        Outcome {
            call_id: "7.1".to_owned(),
            number: "101".to_owned(),
            status,
            rang_seconds: Some(rang),
            talked_seconds: talked,
        }
    }

    #[test]
    fn an_answered_call_is_a_talk_and_two_outcomes() {
        let mut legs = legs();
        let (from, to) = ("Local/101@from-internal-0001;2", "PJSIP/101-0000002a");
        assert_eq!(
            legs.take(
                &dial("DialBegin", from, "79161234567", to, "101", ""),
                at(0)
            ),
            Learned::default()
        );
        let learned = legs.take(
            &dial(
                "DialEnd",
                from,
                "79161234567",
                to,
                "101",
                "DialStatus: ANSWER",
            ),
            at(7),
        );
        assert_eq!(learned.outcome, Some(outcome(DialStatus::Answer, 7, None)));
        let (number, talk) = learned.talk.unwrap();
        assert_eq!(number.to_string(), "+79161234567");
        assert_eq!(
            (talk.extension.as_str(), talk.direction),
            ("101", Direction::Incoming)
        );
        let ended = legs.take(&Message::of("Event: Hangup\nUniqueid: 7.9"), at(70));
        assert_eq!(
            ended.outcome,
            Some(outcome(DialStatus::Answer, 7, Some(63)))
        );
        assert_eq!(
            legs.take(&Message::of("Event: Hangup\nUniqueid: 7.9"), at(71)),
            Learned::default()
        );
    }

    #[test]
    fn unanswered_rings_and_calls_between_employees_are_no_talks() {
        let phone = "PJSIP/101-0000002a";
        for (from, caller, to, status, expected) in [
            (
                "PJSIP/trunk-01",
                "79161234567",
                phone,
                "BUSY",
                Some(DialStatus::Busy),
            ),
            (
                "PJSIP/trunk-01",
                "79161234567",
                phone,
                "NOANSWER",
                Some(DialStatus::NoAnswer),
            ),
            (
                "PJSIP/102-01",
                "102",
                phone,
                "ANSWER",
                Some(DialStatus::Answer),
            ),
            (
                "PJSIP/trunk-01",
                "anonymous",
                phone,
                "ANSWER",
                Some(DialStatus::Answer),
            ),
            (
                "PJSIP/trunk-01",
                "79161234567",
                "Local/101@x-01;1",
                "ANSWER",
                None,
            ),
            ("PJSIP/trunk-01", "79161234567", phone, "", None),
        ] {
            let mut legs = legs();
            legs.take(&dial("DialBegin", from, caller, to, "101", ""), at(0));
            let learned = legs.take(
                &dial(
                    "DialEnd",
                    from,
                    caller,
                    to,
                    "101",
                    &format!("DialStatus: {status}"),
                ),
                at(5),
            );
            assert_eq!(learned.talk, None, "{from} {status}");
            assert_eq!(
                learned.outcome.map(|outcome| outcome.status),
                expected,
                "{from} {status}"
            );
        }
    }

    #[test]
    fn an_employees_own_call_is_a_talk_too() {
        let event = dial(
            "DialEnd",
            "PJSIP/101-01",
            "101",
            "PJSIP/trunk-02",
            "89161234567",
            "DialStatus: ANSWER",
        );
        let (number, talk) = legs().take(&event, at(5)).talk.unwrap();
        assert_eq!(
            (number.to_string().as_str(), talk.direction),
            ("+79161234567", Direction::Outgoing)
        );
        assert_eq!(talk.extension.as_str(), "101");
    }
}
