//! The head of a FastAGI request and what it asks for.
//!
//! Asterisk sends `agi_*: value` lines up to a blank one; a caller's number and name stand in them as
//! they came. Facts: Asterisk's `res_agi.c`.

use crate::call::{Did, IncomingCall, Outcome};
use crate::pbx::{ended, forward};

/// The longest line that is read; Asterisk's own buffer holds 2048 bytes.
pub(super) const LONGEST_LINE: usize = 4096;
/// More lines than Asterisk has to tell.
pub(super) const MOST_LINES: usize = 200;
/// What Asterisk writes where it knows nothing.
const UNKNOWN: &str = "unknown";

/// The lines of a request's head that count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// `agi_network_script`: what stands in the address behind the host.
    script: String,
    caller: String,
    extension: String,
    dnid: String,
    unique_id: String,
    /// `agi_arg_1` and the following, in the order in which they came.
    arguments: Vec<String>,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// Where a call shall go. Its id may be missing: then Asterisk is asked for it.
    Forward(IncomingCall),
    /// Nothing; it tells what became of a number that was rung, if it told it well.
    Ended(Option<Outcome>),
    /// An address that is not ours.
    Unknown(String),
}

impl Head {
    /// Takes a line without its end.
    pub(super) fn take(&mut self, line: &str) {
        let Some((key, value)) = line.split_once(':') else {
            return;
        };
        let value = value.strip_prefix(' ').unwrap_or(value);
        // What is unknown to Asterisk is left out, as if nothing had been said.
        let known = if value == UNKNOWN { "" } else { value }.to_owned();
        match key {
            "agi_network_script" => value.clone_into(&mut self.script),
            "agi_callerid" => self.caller = known,
            "agi_extension" => self.extension = known,
            "agi_dnid" => self.dnid = known,
            "agi_uniqueid" => self.unique_id = known,
            _ if key.starts_with("agi_arg_") => self.arguments.push(value.to_owned()),
            _ => {}
        }
    }

    /// The channel's own id, for a call whose linkedid Asterisk does not tell.
    pub(super) fn unique_id(&self) -> Option<String> {
        (!self.unique_id.is_empty()).then(|| self.unique_id.clone())
    }

    /// What the address and the arguments ask for.
    pub(super) fn asked(&self) -> Asked {
        let (path, query) = self.script.split_once('?').unwrap_or((&self.script, ""));
        // An argument may hold any sign, so that it cannot simply stand behind the query.
        let arguments = self.arguments.iter().map(String::as_str);
        let pairs = query.split('&').chain(arguments);
        match path.trim_matches('/') {
            "forward" => Asked::Forward(self.complete(forward::read_pairs(pairs))),
            "ended" => Asked::Ended(ended::read_pairs(pairs)),
            other => Asked::Unknown(other.chars().take(40).collect()),
        }
    }

    /// What the question leaves out, the channel says.
    fn complete(&self, mut call: IncomingCall) -> IncomingCall {
        if call.phone.is_empty() {
            call.phone.clone_from(&self.caller);
        }
        if call.did.is_none() {
            // Inside a Gosub the extension is a mere `s`; the number dialled is told apart.
            let own = Did::new(&self.extension);
            let says_something = own
                .as_ref()
                .is_some_and(|did| did.is_after_the_call() || did.as_str().len() > 1);
            call.did = match own {
                Some(own) if says_something => Some(own),
                own => Did::new(&self.dnid).or(own),
            };
        }
        call
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[&str]) -> Head {
        let mut head = Head::default();
        for line in lines {
            head.take(line);
        }
        head
    }

    fn call(lines: &[&str]) -> (String, Option<String>, Option<String>) {
        let Asked::Forward(call) = head(lines).asked() else {
            panic!("{lines:?}");
        };
        let did = call.did.map(|did| did.as_str().to_owned());
        (call.phone, did, call.call_id)
    }

    #[test]
    fn what_the_question_leaves_out_the_channel_says() {
        let own = |text: &str| Some(text.to_owned());
        let script = |query: &str| format!("agi_network_script: forward{query}");
        for (query, lines, phone, did, call_id, why) in [
            (
                "?phone=%2B7916&trunk=7495&callid=1.2",
                vec!["agi_callerid: 7917", "agi_extension: 7812"],
                "+7916",
                own("7495"),
                own("1.2"),
                "all given",
            ),
            (
                "",
                vec!["agi_callerid: +7916", "agi_extension: 7495"],
                "+7916",
                own("7495"),
                None,
                "nothing given",
            ),
            (
                "",
                vec![
                    "agi_callerid: unknown",
                    "agi_extension: s",
                    "agi_dnid: 7495",
                ],
                "",
                own("7495"),
                None,
                "withheld, inside a Gosub",
            ),
            (
                "",
                vec!["agi_extension: s", "agi_dnid: unknown"],
                "",
                own("s"),
                None,
                "no number dialled",
            ),
            (
                "",
                vec!["agi_extension: h", "agi_dnid: 7495"],
                "",
                own("h"),
                None,
                "the caller hung up",
            ),
            (
                "",
                vec!["agi_arg_1: phone=7916", "agi_arg_2: trunk=a&callid=b"],
                "7916",
                own("a&callid=b"),
                None,
                "arguments, parted by Asterisk",
            ),
        ] {
            let mut all = vec![script(query)];
            all.extend(lines.into_iter().map(str::to_owned));
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            assert_eq!(call(&all), (phone.to_owned(), did, call_id), "{why}");
        }
    }

    #[test]
    fn an_address_is_forward_ended_or_not_ours() {
        let asked = |script: &str| head(&[&format!("agi_network_script: {script}")]).asked();
        assert!(matches!(asked("forward"), Asked::Forward(_)));
        assert!(matches!(asked("/forward/?x"), Asked::Forward(_)));
        assert!(matches!(
            asked("ended?callid=1.2&number=101"),
            Asked::Ended(Some(_))
        ));
        assert_eq!(asked("ended"), Asked::Ended(None));
        assert_eq!(asked(""), Asked::Unknown(String::new()));
        assert_eq!(asked("other?x=1"), Asked::Unknown("other".to_owned()));
    }

    proptest::proptest! {
        #[test]
        fn no_head_is_an_error(lines in proptest::collection::vec("(agi_[a-z_0-9]{1,14}: )?.{0,80}", 0..20)) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let _ = head(&lines).asked();
        }
    }
}
