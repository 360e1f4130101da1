//! Asks the former module too, in the background, and shows where the two disagree: the way to switch
//! over without fear.
//!
//! An answering thread only hands a copy over and never waits. Where the former module cannot keep up,
//! questions are dropped and counted. Only first questions are compared: the former module knows no
//! second ones.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::StreamExt as _;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use reqwest::Url;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::fault::{self, lock};
use crate::http_client;
use crate::metrics;
use crate::phone::E164;

/// How long the former module may take: the dialplan of its page waits as long.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Questions that it is asked at once.
pub const MOST_AT_ONCE: usize = 8;
/// Questions that wait for it; beyond them they are dropped.
pub const MOST_WAITING: usize = 256;
/// Disagreements that are remembered.
pub const MOST_REMEMBERED: usize = 1000;
/// A longer answer is none of `/forward`.
const LONGEST_ANSWER: usize = 16 * 1024;
/// A name that fills all but so many bytes of its room may have been cut: no letter is longer.
const LONGEST_LETTER: usize = 4;
/// Says that a question is a comparison: it is not compared once more.
pub const HEADER: &str = "x-pryamo-shadow";

/// `shadow`: the address of the former module's `/forward`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Settings {
    /// Nobody is asked without it.
    pub address: Option<Address>,
}

impl Settings {
    /// The option with its default, for the example configuration.
    pub const EXAMPLE: &'static str = "\
# shadow = \"http://127.0.0.1:8078/forward\"   # the former module is asked too, in the background: `pryamo shadow` shows where the two disagree
";

    /// Refuses our own address.
    pub fn check(&self, own: SocketAddr) -> Result<(), String> {
        match &self.address {
            Some(address) if address.is(own) => Err(format!(
                "`shadow = \"{address}\"` is pryamo's own address (`forward.listen`): let the former \
                 module listen on another port, and name that one"
            )),
            _ => Ok(()),
        }
    }
}

/// An address of `http` or `https`.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Url);

impl Address {
    /// Reads what was written down.
    pub fn read(written: &str) -> Result<Self, String> {
        let refused = |why: &str| {
            format!("`shadow` is no address ({why}); write \"http://127.0.0.1:8078/forward\"")
        };
        let url = Url::parse(written.trim()).map_err(|error| refused(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(refused("it must begin with http://"));
        }
        Ok(Self(url))
    }

    /// Says whether who listens on `own` would be asked.
    fn is(&self, own: SocketAddr) -> bool {
        let host = self.0.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_local = host == "localhost";
        let ip = host.parse::<IpAddr>().map(|ip| ip.to_canonical()).ok();
        let means_this_machine =
            is_local || ip.is_some_and(|ip| ip.is_loopback() || ip.is_unspecified());
        let own_ip = own.ip().to_canonical();
        let is_host = ip == Some(own_ip)
            || (own_ip.is_unspecified() && means_this_machine)
            || (own_ip.is_loopback() && (is_local || ip.is_some_and(|ip| ip.is_unspecified())));
        is_host && self.0.port_or_known_default() == Some(own.port())
    }

    /// With the parameters of a question.
    fn with(&self, query: &str) -> Url {
        let mut url = self.0.clone();
        let all = match url.query().filter(|own| !own.is_empty()) {
            None => query.to_owned(),
            Some(own) => format!("{own}&{query}"),
        };
        url.set_query(Some(&all));
        url
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        // Neither can fail where there is a host, and what stays is what was there.
        let _ = shown.set_password(None);
        let _ = shown.set_username("");
        // What stands behind it may be what proves who asks.
        if shown.query().is_some() {
            shown.set_query(Some("***"));
        }
        shown.fmt(formatter)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = String::deserialize(deserializer)?;
        Self::read(&written).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How the two answers stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The same number, or none from either, and the same name.
    Same,
    /// Both ring somebody, and not the same one.
    OtherNumber,
    /// Only pryamo rings somebody.
    OnlyOurs,
    /// Only the former module rings somebody.
    OnlyTheirs,
    /// The same number, another name.
    OtherName,
    /// The former module did not answer, or not as its page says.
    Failed,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 6] = [
        Self::Same,
        Self::OtherNumber,
        Self::OnlyOurs,
        Self::OnlyTheirs,
        Self::OtherName,
        Self::Failed,
    ];

    /// The word for labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::OtherNumber => "other_number",
            Self::OnlyOurs => "only_ours",
            Self::OnlyTheirs => "only_theirs",
            Self::OtherName => "other_name",
            Self::Failed => "failed",
        }
    }
}

/// What one of the two answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whom to ring.
    pub number: Option<String>,
    /// What the phone shows.
    pub name: Option<String>,
}

impl Answer {
    /// The number and the name; `nobody` stands for no number.
    pub fn shown(&self, nobody: &str) -> String {
        let number = self.number.as_deref().unwrap_or(nobody);
        match &self.name {
            Some(name) => format!("{number} {name}"),
            None => number.to_owned(),
        }
    }

    /// Reads an answer as `HASH()` does: `number=101&name=...`, in any order, percent-encoded.
    pub fn read(body: &str) -> Self {
        let value = |key: &str| {
            let mut pairs = body
                .trim()
                .split('&')
                .filter_map(|pair| pair.split_once('='));
            let (_, raw) = pairs.find(|(found, _)| *found == key)?;
            let text = percent_decode_str(raw).decode_utf8_lossy();
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        Self {
            number: value("number"),
            name: value("name"),
        }
    }
}

/// A question on which the two disagreed, or which the former module did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disagreement {
    /// When the call asked.
    pub at: Timestamp,
    /// The call.
    pub call_id: Option<String>,
    /// Who called, the middle of the number hidden.
    pub caller: Option<String>,
    /// What became of it.
    pub verdict: Verdict,
    /// What pryamo answered.
    pub ours: Answer,
    /// What the former module answered.
    pub theirs: Answer,
    /// Why there is no answer of theirs.
    pub error: Option<String>,
}

/// How often each verdict was reached since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// [`Verdict::Same`].
    pub same: u64,
    /// [`Verdict::OtherNumber`].
    pub other_number: u64,
    /// [`Verdict::OnlyOurs`].
    pub only_ours: u64,
    /// [`Verdict::OnlyTheirs`].
    pub only_theirs: u64,
    /// [`Verdict::OtherName`].
    pub other_name: u64,
    /// [`Verdict::Failed`].
    pub failed: u64,
    /// Questions that were not asked because too many waited.
    pub dropped: u64,
}

/// A question that was answered by us.
#[derive(Debug)]
pub struct Question {
    /// The query as it came.
    pub query: String,
    /// When.
    pub at: Timestamp,
    /// The call.
    pub call_id: Option<String>,
    /// Who calls, where the number could be read.
    pub caller: Option<E164>,
    /// Our answer as the PBX gets it.
    pub answer: String,
    /// How many bytes our name may have: a longer one was cut.
    pub name_bytes: usize,
}

/// Compares, for as long as the process lives.
#[derive(Default)]
pub struct Shadow {
    asking: ArcSwapOption<Asking>,
    record: Arc<Record>,
}

/// Dropped, it ends the task that asks once nothing waits any more.
struct Asking {
    address: Address,
    questions: mpsc::Sender<Question>,
}

#[derive(Default)]
struct Record {
    counts: [AtomicU64; Verdict::ALL.len()],
    dropped: AtomicU64,
    disagreements: Mutex<VecDeque<Arc<Disagreement>>>,
}

impl Shadow {
    /// Asks this module from now on, on `runtime`; what was found so far stays.
    pub fn follow(&self, settings: &Settings, runtime: &Handle) -> Result<(), ShadowError> {
        let asking = self.asking.load();
        let asked = asking.as_ref().map(|asking| &asking.address);
        if asked == settings.address.as_ref() {
            return Ok(());
        }
        let asking = match &settings.address {
            None => None,
            Some(address) => {
                let (questions, waiting) = mpsc::channel(MOST_WAITING);
                let client = client()?;
                let record = Arc::clone(&self.record);
                runtime.spawn(ask_on(client, address.clone(), waiting, record));
                let address = address.clone();
                Some(Arc::new(Asking { address, questions }))
            }
        };
        self.asking.store(asking);
        Ok(())
    }

    /// Whether anybody is asked: without, no question need be made.
    pub fn is_on(&self) -> bool {
        self.asking.load().is_some()
    }

    /// The module that is asked.
    pub fn address(&self) -> Option<String> {
        let asking = self.asking.load();
        asking.as_ref().map(|asking| asking.address.to_string())
    }

    /// Hands a question over. Never waits.
    pub fn compare(&self, question: Question) {
        let asking = self.asking.load();
        let Some(asking) = asking.as_ref() else {
            return;
        };
        if asking.questions.try_send(question).is_err() {
            self.record.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::count_shadow_dropped();
        }
    }

    /// The last disagreements, the newest first.
    pub fn disagreements(&self) -> Vec<Arc<Disagreement>> {
        let kept = lock(&self.record.disagreements);
        kept.iter().rev().cloned().collect()
    }

    /// How often each verdict was reached since the start.
    pub fn counts(&self) -> Counts {
        let count = |verdict: Verdict| {
            let counted = self.record.counts.get(verdict as usize);
            counted.map_or(0, |count| count.load(Ordering::Relaxed))
        };
        Counts {
            same: count(Verdict::Same),
            other_number: count(Verdict::OtherNumber),
            only_ours: count(Verdict::OnlyOurs),
            only_theirs: count(Verdict::OnlyTheirs),
            other_name: count(Verdict::OtherName),
            failed: count(Verdict::Failed),
            dropped: self.record.dropped.load(Ordering::Relaxed),
        }
    }
}

impl Record {
    fn take(&self, question: &Question, theirs: Result<Answer, ShadowError>) {
        let ours = Answer::read(&question.answer);
        let (verdict, theirs, error) = match theirs {
            Ok(theirs) => (judge(&ours, &theirs, question.name_bytes), theirs, None),
            Err(error) => (
                Verdict::Failed,
                Answer::default(),
                Some(fault::told(&error)),
            ),
        };
        if let Some(count) = self.counts.get(verdict as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        metrics::count_shadow(verdict.as_str());
        if verdict == Verdict::Same {
            return;
        }
        let found = Disagreement {
            at: question.at,
            call_id: question.call_id.clone(),
            caller: question.caller.map(E164::masked),
            verdict,
            ours,
            theirs,
            error,
        };
        tracing::info!(
            call_id = found.call_id.as_deref().unwrap_or("-"),
            caller = found.caller.as_deref().unwrap_or("-"),
            verdict = verdict.as_str(),
            ours = found.ours.number.as_deref().unwrap_or("-"),
            theirs = found.theirs.number.as_deref().unwrap_or("-"),
            error = found.error,
            "the former module disagrees"
        );
        let mut kept = lock(&self.disagreements);
        if kept.len() >= MOST_REMEMBERED {
            kept.pop_front();
        }
        kept.push_back(Arc::new(found));
    }
}

/// Why the former module gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    /// No connection can be set up at all.
    #[error("cannot set up HTTP for `shadow`")]
    Client(#[source] reqwest::Error),
    /// It does not answer, or too late.
    #[error("no answer")]
    Silent(#[source] reqwest::Error),
    /// It refuses.
    #[error("answered {0}")]
    Refused(u16),
    /// It is something else.
    #[error("answered what is none of `number=...&name=...`")]
    Unreadable,
}

/// Asks in the background until nobody hands questions over any more.
async fn ask_on(
    client: reqwest::Client,
    address: Address,
    waiting: mpsc::Receiver<Question>,
    record: Arc<Record>,
) {
    let questions = futures::stream::unfold(waiting, async |mut waiting| {
        let question = waiting.recv().await?;
        Some((question, waiting))
    });
    let ask_one = async |question: Question| {
        let theirs = ask(&client, address.with(&shared(&question.query))).await;
        record.take(&question, theirs);
    };
    questions.for_each_concurrent(MOST_AT_ONCE, ask_one).await;
}

/// The query without our own token, which is nobody else's business.
fn shared(query: &str) -> String {
    let pairs = query.split('&').filter(|pair| !pair.starts_with("token="));
    pairs.collect::<Vec<_>>().join("&")
}

async fn ask(client: &reqwest::Client, url: Url) -> Result<Answer, ShadowError> {
    let silent = |error: reqwest::Error| ShadowError::Silent(error.without_url());
    let request = client.get(url).header(HEADER, "1");
    let mut response = request.send().await.map_err(silent)?;
    if !response.status().is_success() {
        return Err(ShadowError::Refused(response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(silent)? {
        body.extend_from_slice(&chunk);
        if body.len() > LONGEST_ANSWER {
            return Err(ShadowError::Unreadable);
        }
    }
    let body = String::from_utf8_lossy(&body);
    let answer = Answer::read(&body);
    // An empty body is an answer: nobody was found.
    let is_answer = body.trim().is_empty() || body.contains("number=") || body.contains("name=");
    if is_answer {
        Ok(answer)
    } else {
        Err(ShadowError::Unreadable)
    }
}

/// Asks the former module about no number at all: who would be rung for it, nobody knows.
pub async fn probe(address: &Address) -> Result<(), ShadowError> {
    ask(&client()?, address.with("phone=")).await.map(drop)
}

fn client() -> Result<reqwest::Client, ShadowError> {
    let client = http_client::build(Vec::new(), |builder| {
        builder
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
    });
    client.map_err(ShadowError::Client)
}

fn judge(ours: &Answer, theirs: &Answer, name_bytes: usize) -> Verdict {
    match (&ours.number, &theirs.number) {
        (Some(_), None) => Verdict::OnlyOurs,
        (None, Some(_)) => Verdict::OnlyTheirs,
        (Some(our), Some(their)) if our != their => Verdict::OtherNumber,
        _ if is_same_name(ours, theirs, name_bytes) => Verdict::Same,
        _ => Verdict::OtherName,
    }
}

/// Compares letters and digits alone: quotes and brackets are made safe by us and not by them. A name
/// that was cut to fit is the same as far as it goes.
fn is_same_name(ours: &Answer, theirs: &Answer, name_bytes: usize) -> bool {
    let letters = |answer: &Answer| -> String {
        let name = answer.name.as_deref().unwrap_or_default();
        let kept = name.chars().filter(|letter| letter.is_alphanumeric());
        kept.flat_map(char::to_lowercase).collect()
    };
    let (our, their) = (letters(ours), letters(theirs));
    let length = ours.name.as_ref().map_or(0, String::len);
    let was_cut = length + LONGEST_LETTER > name_bytes;
    our == their || (was_cut && !our.is_empty() && their.starts_with(&our))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_answers_are_judged() {
        for (ours, theirs, expected) in [
            ("", "", Verdict::Same),
            ("number=101&name=A", "name=A&number=101", Verdict::Same),
            (
                "number=101&reason=x&name=%C2%ABA%C2%BB",
                "number=101&name=%22a%22",
                Verdict::Same,
            ),
            (
                "number=101&name=A",
                "number=102&name=B",
                Verdict::OtherNumber,
            ),
            ("number=101&name=A", "", Verdict::OnlyOurs),
            ("number=&name=A", "number=101&name=A", Verdict::OnlyTheirs),
            ("number=101&name=A", "number=101&name=B", Verdict::OtherName),
            ("number=&name=A", "", Verdict::OtherName),
            (
                "number=101&name=Abcdefgh",
                "number=101&name=Abcdefghijk",
                Verdict::Same,
            ),
            (
                "number=101&name=Ab",
                "number=101&name=Abcdefghijk",
                Verdict::OtherName,
            ),
        ] {
            let verdict = judge(&Answer::read(ours), &Answer::read(theirs), 10);
            assert_eq!(verdict, expected, "{ours} against {theirs}");
        }
    }

    #[test]
    fn our_own_address_is_known_however_it_is_written() {
        for (address, own, expected) in [
            ("http://127.0.0.1:8077/forward", "127.0.0.1:8077", true),
            ("http://localhost:8077/forward", "127.0.0.1:8077", true),
            ("http://localhost:8077/forward", "0.0.0.0:8077", true),
            ("http://127.0.0.1:8077/forward", "[::]:8077", true),
            ("http://[::1]:8077/forward", "[::1]:8077", true),
            ("http://10.0.0.5:8077/forward", "10.0.0.5:8077", true),
            ("http://127.0.0.1/forward", "127.0.0.1:80", true),
            ("http://127.0.0.1:8078/forward", "127.0.0.1:8077", false),
            ("http://10.0.0.6:8077/forward", "127.0.0.1:8077", false),
        ] {
            let read = Address::read(address).unwrap();
            assert_eq!(read.is(own.parse().unwrap()), expected, "{address} {own}");
        }
        for wrong in ["", "8078", "127.0.0.1:8078", "ftp://x/forward"] {
            assert!(Address::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_query_goes_on_as_it_came_but_for_our_token() {
        let address = Address::read("http://127.0.0.1:8078/forward").unwrap();
        let url = address.with(&shared("phone=+7916%20x&token=s3cret&trunk=s"));
        assert_eq!(url.query(), Some("phone=+7916%20x&trunk=s"));
    }
}
