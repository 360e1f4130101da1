//! The same lists through a real Asterisk and the printed dialplan: every text comes as the caller's
//! number in an INVITE, and as the name of a client who calls.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::list::{Hostile, KNOWN, fault_of_name, texts};
use super::{ANNAS, IVAN, none_fails, phone_of, portal, portals_table, world};
use crate::daemon::{Daemon, Site, free_address, wait_for};
use crate::lab::{Caller, Lab, Outcome, asterisk_versions, print_dialplan, unquote};

/// The name that the trunk sends with a call whose name does not matter.
const TRUNKS_NAME: &str = "Trunk";
/// A number that no client has.
const STRANGER: &str = "79990000000";
/// Calls that begin in a second, and how long an answered one lasts.
const PER_SECOND: u32 = 40;
const HOLD: Duration = Duration::from_millis(100);
/// So often those are called again whom a busy machine did not answer in time.
const MOST_ROUNDS: usize = 5;
/// What the texts touch if any of them is run.
const TRACE: &str = "/tmp/pryamo-was-here";

/// Where a call may be: the switchboard's own contexts, and those of the printed dialplan.
const CONTEXTS: [&str; 9] = [
    "from-trunk",
    "itgrix-transfer",
    "pryamo",
    "pryamo-back",
    "pryamo-call",
    "pryamo-ask",
    "pryamo-ended",
    "ivr-1",
    "lab-result",
];
/// What a dialplan with these contexts does, and nothing else.
const APPLICATIONS: [&str; 13] = [
    "AGI",
    "Answer",
    "ClearHash",
    "Dial",
    "Gosub",
    "Goto",
    "GotoIf",
    "Hangup",
    "MSet",
    "NoOp",
    "Return",
    "Set",
    "Wait",
];
/// The headers of an INVITE to an employee's phone.
const HEADERS: [&str; 16] = [
    "via",
    "from",
    "to",
    "contact",
    "call-id",
    "cseq",
    "allow",
    "supported",
    "session-expires",
    "min-se",
    "max-forwards",
    "user-agent",
    "content-type",
    "content-length",
    "p-asserted-identity",
    "remote-party-id",
];

/// What is asked how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Curl,
    FastAgi,
}

struct Exchange {
    lab: Lab,
    title: String,
    dialled: u32,
}

impl Exchange {
    /// Calls from these addresses, and where each of them went.
    fn calls(&mut self, from: Vec<String>) -> Vec<Outcome> {
        let named = |from| (from, TRUNKS_NAME.to_owned());
        self.named_calls(from.into_iter().map(named).collect())
    }

    /// The same with the names that the trunk sends, as they stand between quotes.
    fn named_calls(&mut self, from: Vec<(String, String)>) -> Vec<Outcome> {
        if from.is_empty() {
            return Vec::new();
        }
        let callers: Vec<Caller> = from
            .into_iter()
            .map(|(from, name)| {
                self.dialled += 1;
                Caller {
                    from,
                    name,
                    to: format!("7495{:07}", self.dialled),
                }
            })
            .collect();
        self.lab.calls(&callers, PER_SECOND, HOLD)
    }

    /// The same of clients. On a machine that is too busy the dialplan's patience ends, and rightly
    /// leads to the IVR: they call again.
    fn calls_of_clients(&mut self, from: &[(String, String)]) -> Vec<Outcome> {
        let mut outcomes = self.named_calls(from.to_vec());
        for _ in 0..MOST_ROUNDS {
            let late: Vec<usize> = (0..from.len())
                .filter(|index| outcomes[*index].went == "ivr")
                .collect();
            let again = self.named_calls(late.iter().map(|index| from[*index].clone()).collect());
            for (index, outcome) in late.into_iter().zip(again) {
                outcomes[index] = outcome;
            }
        }
        outcomes
    }

    /// Nothing was done but what the dialplan says, and nobody dialled but Anna.
    fn faults_of_steps(&self) -> Vec<String> {
        let log = self.lab.steps();
        let executed = log.lines().filter_map(step);
        let mut faults: Vec<String> = executed.filter_map(|step| step.fault()).collect();
        let dialled = log
            .lines()
            .filter_map(|line| line.split_once("app_dial.c: Called "));
        let strange = dialled.filter(|(_, target)| !is_anna(target.trim_end()));
        faults.extend(strange.map(|(_, target)| format!("called {target}")));
        faults
    }

    /// Every INVITE that Anna's phone got is whole; gives the names shown, by the caller's number.
    fn shown(&self) -> Result<BTreeMap<String, String>, Vec<String>> {
        let mut shown = BTreeMap::new();
        let mut faults = Vec::new();
        for invite in self.lab.invites(ANNAS) {
            match read_invite(&invite) {
                Ok((number, name)) => drop(shown.insert(number, name)),
                Err(fault) => {
                    let invite = String::from_utf8_lossy(&invite);
                    faults.push(format!("{fault}\n{invite:?}"));
                }
            }
        }
        if faults.is_empty() {
            Ok(shown)
        } else {
            Err(faults)
        }
    }
}

/// A step of the dialplan, as Asterisk logs it.
struct Executed<'a> {
    extension: &'a str,
    context: &'a str,
    application: &'a str,
    data: &'a str,
}

/// `... pbx.c: Executing [s@pryamo-call:1] Set("PJSIP/trunk-1", "PRYAMO_DID=7495")`
fn step(line: &str) -> Option<Executed<'_>> {
    let (_, step) = line.split_once(" Executing [")?;
    let (place, done) = step.split_once("] ")?;
    let (extension, rest) = place.rsplit_once('@')?;
    let (context, _) = rest.rsplit_once(':')?;
    let (application, behind) = done.split_once('(')?;
    let data = behind.split_once(", \"").map_or("", |(_, data)| data);
    Some(Executed {
        extension,
        context,
        application,
        data,
    })
}

impl Executed<'_> {
    fn fault(&self) -> Option<String> {
        let Self {
            extension,
            context,
            application,
            data,
        } = self;
        let is_place = match *context {
            "from-internal" => *extension == ANNAS,
            other => CONTEXTS.contains(&other),
        };
        let is_known = APPLICATIONS
            .iter()
            .any(|one| one.eq_ignore_ascii_case(application));
        let is_right = *application != "Dial" || is_anna(data.split(',').next().unwrap());
        (!is_place || !is_known || !is_right)
            .then(|| format!("[{extension}@{context}] {application}({data}"))
    }
}

fn is_anna(target: &str) -> bool {
    [
        "PJSIP/101",
        "101@from-internal/n",
        "Local/101@from-internal/n",
    ]
    .contains(&target)
}

/// The caller's number and name in an INVITE, or what is wrong with it.
fn read_invite(bytes: &[u8]) -> Result<(String, String), String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("has no end")?;
    let mut lines = head.split("\r\n");
    let request = lines.next().unwrap_or_default();
    if !request.starts_with("INVITE sip:101@127.0.0.1:") || !request.ends_with(" SIP/2.0") {
        return Err(format!("is to {request}"));
    }
    let mut headers = BTreeMap::new();
    for line in lines {
        if line.contains(|letter: char| letter.is_control()) {
            return Err(format!("control characters in {line:?}"));
        }
        let (name, value) = line.split_once(": ").ok_or(format!("no header: {line}"))?;
        let name = name.to_lowercase();
        if !HEADERS.contains(&name.as_str()) {
            return Err(format!("an unexpected header: {line}"));
        }
        if headers.insert(name, value.trim()).is_some() {
            return Err(format!("twice: {line}"));
        }
    }
    if headers.get("content-length") != Some(&body.len().to_string().as_str()) {
        return Err("another length than it says".to_owned());
    }
    let identities = ["from", "p-asserted-identity", "remote-party-id"];
    let mut all = identities.iter().filter_map(|name| headers.get(*name));
    all.try_for_each(|value| read_identity(value).map(drop))?;
    read_identity(headers.get("from").ok_or("has no From")?)
}

/// `"Name" <sip:number@host>;tag=...`, in which nothing but these parts can be read.
fn read_identity(value: &str) -> Result<(String, String), String> {
    let broken = || format!("broken: {value}");
    let (name, rest) = if let Some(quoted) = value.strip_prefix('"') {
        let mut escaped = false;
        let ends = |letter| {
            let is_end = letter == '"' && !escaped;
            escaped = letter == '\\' && !escaped;
            is_end
        };
        let end = quoted.find(ends).ok_or_else(broken)?;
        (unquote(&value[..end + 2]), quoted[end + 1..].trim_start())
    } else {
        let (name, _) = value.split_once('<').ok_or_else(broken)?;
        // Words without quotes: a token's signs and blanks.
        let is_token =
            |letter: char| letter.is_ascii_alphanumeric() || "-.!%*_+`'~ ".contains(letter);
        if !name.chars().all(is_token) {
            return Err(broken());
        }
        (name.trim().to_owned(), &value[name.len()..])
    };
    let inner = rest.strip_prefix("<sip:").ok_or_else(broken)?;
    let (address, parameters) = inner.split_once('>').ok_or_else(broken)?;
    if !(parameters.is_empty() || parameters.starts_with(';')) || parameters.contains(['<', '"']) {
        return Err(broken());
    }
    let (number, host) = address.split_once('@').ok_or_else(broken)?;
    // RFC 3261, `user`: unreserved, escaped, and a few more.
    let is_user = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!~*'()%&=+$,;?/".contains(&byte);
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".:;=-".contains(&byte);
    if !number.bytes().all(is_user) || !host.bytes().all(is_host) {
        return Err(broken());
    }
    Ok((number.to_owned(), name))
}

#[test]
fn a_broken_invite_is_noticed() {
    let invite = |from: &str| {
        let head = format!(
            "INVITE sip:101@127.0.0.1:15005 SIP/2.0\r\nFrom: {from}\r\nContent-Length: 3\r\n\r\nv=0"
        );
        read_invite(head.as_bytes())
    };
    let whole = invite("\"A \\\"B\\\" \\\\\" <sip:7916@127.0.0.1>;tag=1").unwrap();
    assert_eq!(whole, ("7916".to_owned(), "A \"B\" \\".to_owned()));
    for from in [
        "\"A\" <sip:1@x> <sip:2@y>",
        "\"A\" <sip:1@x>;tag=1\r\nX-Evil: 1",
        "\"A\nB\" <sip:1@x>",
        "\"A\u{9b}B\" <sip:1@x>",
        "\"A\"B\" <sip:1@x>",
        "A\"B <sip:1@x>",
        "\"A\" <sip:1 2@x>",
        "\"A\" <sip:1\"@x>",
        "\"A\" <sip:1@x>;tag=1\r\nFrom: \"B\" <sip:1@x>",
        "\"A\\\" <sip:1@x>",
    ] {
        assert!(invite(from).is_err(), "{from:?}");
    }
    assert!(read_invite(b"INVITE sip:101@127.0.0.1:1 SIP/2.0\r\nFrom: \xff\r\n\r\n").is_err());
    let log = "[x] VERBOSE[1] pbx.c: Executing [999@from-internal:1] NoOp(\"a\", \"b\")";
    assert!(step(log).unwrap().fault().is_some());
    let log = "pbx.c: Executing [s@pryamo-call:9] Dial(\"a\", \"Local/999@from-internal/n,20\")";
    assert!(step(log).unwrap().fault().is_some());
    let log = "pbx.c: Executing [s@pryamo-call:9] System(\"a\", \"id\")";
    assert!(step(log).unwrap().fault().is_some());
    let log = "pbx.c: Executing [s@pryamo-call:9] Dial(\"a\", \"Local/101@from-internal/n,20\")";
    assert!(step(log).unwrap().fault().is_none());
}

/// Every text as the caller's number: it goes where nobody is rung, or, if a client's number can be
/// read in it, to their employee; and arrives on the phone encoded.
fn numbers_ring_nobody_else(exchange: &mut Exchange, all: &[Hostile]) {
    let outcomes = exchange.calls(all.iter().map(Hostile::encoded).collect());
    let mut faults = Vec::new();
    for (text, outcome) in all.iter().zip(outcomes) {
        let is_known = text.holds_the_known_number() && outcome.went == ANNAS;
        if outcome.went != "ivr" && !is_known {
            faults.push(format!("{}: went to {}", text.line, outcome.went));
        }
        let expected = if outcome.went == ANNAS {
            IVAN
        } else {
            TRUNKS_NAME
        };
        if outcome.name != expected {
            faults.push(format!("{}: is called {:?}", text.line, outcome.name));
        }
    }
    none_fails(&faults);
}

/// Every text as the name of a client: their employee is rung, and sees a name and nothing else.
fn names_are_shown_safely(exchange: &mut Exchange, all: &[Hostile], daemon: &Daemon) {
    let phones: Vec<String> = (0..all.len()).map(|index| phone_of("913", index)).collect();
    let named = |phone: &String| (phone.clone(), TRUNKS_NAME.to_owned());
    let outcomes = exchange.calls_of_clients(&phones.iter().map(named).collect::<Vec<_>>());
    let shown = exchange.shown().unwrap_or_else(|faults| {
        none_fails(&faults);
        BTreeMap::new()
    });
    let mut faults = Vec::new();
    for ((text, phone), outcome) in all.iter().zip(&phones).zip(outcomes) {
        if outcome.went != ANNAS {
            faults.push(format!("{}: went to {}", text.line, outcome.went));
            continue;
        }
        // A name of which nothing is left does not replace the trunk's.
        let expected = match daemon.get(&format!("/name?phone={phone}")).body {
            nothing if nothing.is_empty() => TRUNKS_NAME.to_owned(),
            name => name,
        };
        let Some(name) = shown.get(phone) else {
            faults.push(format!("{}: no INVITE", text.line));
            continue;
        };
        if *name != expected {
            faults.push(format!("{}: shown {name:?}, not {expected:?}", text.line));
        }
        if let Some(fault) = fault_of_name(name) {
            faults.push(format!("{}: shown {name:?}: {fault}", text.line));
        }
    }
    none_fails(&faults);
}

/// Every text as the name that the provider sends: a client reaches their employee, who sees the
/// CRM's name, and a stranger goes where strangers go.
fn the_providers_names_change_nothing(exchange: &mut Exchange, all: &[Hostile]) {
    // What cannot stand in a header's line or in the list of callers is left out.
    let sent: Vec<(&Hostile, String)> = all
        .iter()
        .map(|text| (text, text.text()))
        .filter(|(_, name)| !name.contains([';', '\n', '\r', '\0']))
        .map(|(text, name)| (text, name.replace('\\', "\\\\").replace('"', "\\\"")))
        .collect();
    assert!(sent.len() > 300, "{} texts", sent.len());
    let (mut faults, mut arrived) = (Vec::new(), 0);
    for (from, went) in [(KNOWN, ANNAS), (STRANGER, "ivr")] {
        let callers = sent.iter().map(|(_, name)| (from.to_owned(), name.clone()));
        let callers: Vec<_> = callers.collect();
        let outcomes = match from {
            KNOWN => exchange.calls_of_clients(&callers),
            _ => exchange.named_calls(callers),
        };
        for ((text, _), outcome) in sent.iter().zip(outcomes) {
            arrived += usize::from(outcome.name == text.text());
            if outcome.went != went || (from == KNOWN && outcome.name != IVAN) {
                faults.push(format!("{} from {from}: {outcome:?}", text.line));
            }
        }
    }
    none_fails(&faults);
    assert!(
        arrived > 200,
        "Asterisk had {arrived} names as they were sent"
    );
}

/// One exchange at a time: two at once are more than a small machine answers in time.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn hostile_calls_end_well(way: Way) {
    let _turn = TURN.lock().await;
    let all = texts();
    for version in asterisk_versions() {
        let portal = portal(world("913")).await;
        let (forward, agi) = (free_address(), free_address());
        let site = Site::at(
            forward,
            &format!(
                "[match]\nlive_lookup_ms = 0\n[fastagi]\nlisten = \"{agi}\"\n{}",
                portals_table(&portal)
            ),
        );
        let daemon = Daemon::start(&site);
        let config = format!("[forward]\nlisten = \"{forward}\"\n[fastagi]\nlisten = \"{agi}\"\n");
        let mut arguments = vec!["--for", "asterisk"];
        arguments.extend((way == Way::FastAgi).then_some("--agi"));
        let conf = print_dialplan(site.folder.path(), &config, &arguments, "");
        let mut exchange = Exchange {
            lab: Lab::start_with(&version, &conf, &format!("http://{forward}/forward")),
            title: format!("Asterisk {version}, {way:?}"),
            dialled: 0,
        };
        exchange.lab.recording_phone(ANNAS, "answer");
        // The test proves nothing where nobody is rung at all.
        let first = exchange.calls(vec![KNOWN.to_owned()]).remove(0);
        assert_eq!(first.went, ANNAS, "{}", exchange.title);
        numbers_ring_nobody_else(&mut exchange, &all);
        names_are_shown_safely(&mut exchange, &all, &daemon);
        the_providers_names_change_nothing(&mut exchange, &all);
        let title = &exchange.title;
        wait_for("no channels", || {
            let shown = exchange.lab.console("core show channels count");
            shown.contains("0 active channels").then_some(())
        });
        let faults = exchange.faults_of_steps();
        assert!(faults.is_empty(), "{title}: {faults:#?}");
        let steps = exchange.lab.steps();
        let asked = steps.lines().filter_map(step);
        let asked = asked.filter(|step| step.context == "pryamo-ask").count();
        assert!(asked > 2 * all.len(), "{title}: {asked} steps were logged");
        let called = steps.matches("app_dial.c: Called ").count();
        assert!(called > all.len(), "{title}: {called} were called");
        assert!(!Path::new(TRACE).exists(), "{title}: a text was run");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_calls_end_well_by_curl() {
    hostile_calls_end_well(Way::Curl).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_calls_end_well_by_fastagi() {
    hostile_calls_end_well(Way::FastAgi).await;
}
