//! The Manager Interface of a real Asterisk: phones' states are known before ringing, talks are
//! learned, and the rights that pryamo asks for allow nothing else.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pryamo::call::{DialStatus, ExtensionPattern, Outcome};
use pryamo::pbx::ami::{self, Ami, AmiError};
use pryamo::pbx::talks::Talks;
use pryamo::phone::Region;
use pryamo::presence::{Direction, PhoneState, Presence as _};
use pryamo::serve;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::daemon::{Daemon, Site, free_address, free_listener, wait_for};
use crate::lab::{Dialplan, Lab, asterisk_versions};
use crate::messy::Dice;
use crate::office::{extension, number};
use crate::wire::{Mood, Wire};

fn settings(address: SocketAddr, user: &str, secret: &str) -> ami::Settings {
    ami::Settings {
        address: Some(address),
        user: user.to_owned(),
        secret: Some(secret.to_owned().into()),
        ..ami::Settings::default()
    }
}

/// A line to an Asterisk, and what it told.
struct Listener {
    ami: Arc<Ami>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    stop: CancellationToken,
    runtime: Runtime,
}

impl Listener {
    fn start(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let talks = Arc::new(Talks::in_memory());
        let settings = settings(address, "pryamo", "s3cret");
        let ami = Ami::new(
            settings,
            talks,
            ExtensionPattern::default(),
            Region::default(),
        );
        let (ami, stop) = (Arc::new(ami), CancellationToken::new());
        let outcomes: Arc<Mutex<Vec<Outcome>>> = Arc::default();
        let (own, heard, ended) = (Arc::clone(&ami), Arc::clone(&outcomes), stop.clone());
        runtime.spawn(async move {
            let hear = move |outcome: &Outcome| heard.lock().unwrap().push(outcome.clone());
            own.run(serve::clock(), hear, ended).await;
        });
        Self {
            ami,
            outcomes,
            stop,
            runtime,
        }
    }

    fn state(&self, number: &str) -> PhoneState {
        self.ami.phone(&extension(number))
    }

    fn await_state(&self, number: &str, wanted: PhoneState) {
        let is_so = || (self.state(number) == wanted).then_some(());
        wait_for(
            &format!("{number} to be {wanted:?}, not {:?}", self.state(number)),
            is_so,
        );
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Hints of extensions that no phone has: a test sets their devices by hand.
const HINTS: &str =
    "[from-internal]\nexten => 111,hint,Custom:p111\nexten => 112,hint,Custom:p112\n";

fn lab(version: &str) -> Lab {
    let lab = Lab::start(version, Dialplan::Vendor, "http://127.0.0.1:9/forward");
    std::fs::write(lab.etc().join("extensions_test.conf"), HINTS).unwrap();
    lab.console("dialplan reload");
    lab
}

#[test]
fn phones_states_are_known_before_ringing() {
    for version in asterisk_versions() {
        let lab = lab(&version);
        lab.console("devstate change Custom:p111 BUSY");
        let listener = Listener::start(lab.ami_address());
        listener.await_state("101", PhoneState::Free);
        listener.await_state("103", PhoneState::Unavailable);
        listener.await_state("111", PhoneState::Busy);
        assert_eq!(listener.state("999"), PhoneState::Unknown);
        for (device, expected) in [
            ("INUSE", PhoneState::InUse),
            ("RINGING", PhoneState::Ringing),
            ("RINGINUSE", PhoneState::InUse),
            ("ONHOLD", PhoneState::InUse),
            ("UNAVAILABLE", PhoneState::Unavailable),
            ("NOT_INUSE", PhoneState::Free),
        ] {
            lab.console(&format!("devstate change Custom:p111 {device}"));
            listener.await_state("111", expected);
        }
        lab.console("devstate change Custom:DND101 BUSY");
        listener.await_state("101", PhoneState::DoNotDisturb);
        lab.console("devstate change Custom:DND101 NOT_INUSE");
        listener.await_state("101", PhoneState::Free);
        lab.phone("101", "noanswer");
        lab.console("channel originate PJSIP/101 application Wait 5");
        listener.await_state("101", PhoneState::Ringing);
        lab.console("channel request hangup all");
        listener.await_state("101", PhoneState::Free);
        lab.phone("101", "answer");
        lab.console("channel originate PJSIP/101 application Wait 20");
        listener.await_state("101", PhoneState::InUse);
    }
}

#[test]
fn who_spoke_with_whom_is_learned_in_both_directions() {
    for version in asterisk_versions() {
        let mut lab = lab(&version);
        let listener = Listener::start(lab.ami_address());
        listener.await_state("101", PhoneState::Free);
        // The vendor's dialplan reaches nobody: the call goes to an employee by hand.
        std::fs::write(
            lab.etc().join("extensions_test.conf"),
            format!(
                "{HINTS}[lab-entry]\nexten => 74950000001,1,Dial(Local/101@from-internal/n,20)\n same => n,Goto(ivr-1,s,1)\n\
                 [out]\nexten => 89161234567,1,Dial(PJSIP/trunk/sip:102@127.0.0.1:{},20)\n",
                lab.variable("PHONE_102_PORT")
            ),
        )
        .unwrap();
        lab.console("dialplan reload");
        lab.call("79160000001", "74950000001");
        let talk = wait_for("the talk", || listener.ami.last_talk(number("79160000001")));
        assert_eq!(
            (talk.extension.as_str(), talk.direction),
            ("101", Direction::Incoming)
        );
        let outcomes = wait_for("its end", || {
            let outcomes = listener.outcomes.lock().unwrap().clone();
            outcomes
                .iter()
                .any(|one| one.talked_seconds.is_some())
                .then_some(outcomes)
        });
        assert!(
            outcomes
                .iter()
                .all(|one| one.number == "101" && one.status == DialStatus::Answer),
            "{outcomes:?}"
        );
        assert!(
            outcomes
                .iter()
                .all(|one| !one.call_id.is_empty() && one.call_id == outcomes[0].call_id)
        );
        lab.console("channel originate PJSIP/101 extension 89161234567@out");
        let talk = wait_for("her own call", || {
            listener.ami.last_talk(number("+79161234567"))
        });
        assert_eq!(
            (talk.extension.as_str(), talk.direction),
            ("101", Direction::Outgoing)
        );
        lab.console("channel request hangup all");
        lab.phone("101", "busy");
        lab.call("79160000002", "74950000001");
        wait_for("the busy phone", || {
            let outcomes = listener.outcomes.lock().unwrap();
            outcomes
                .iter()
                .any(|one| one.status == DialStatus::Busy)
                .then_some(())
        });
        assert_eq!(listener.ami.last_talk(number("79160000002")), None);
    }
}

#[test]
fn restarts_of_either_side_are_survived() {
    for version in asterisk_versions() {
        let site = Site::with_csv(
            "id;name;phone;responsible;extension\n1;Иван;79161234501;Анна;111\n2;Олег;79161234502;Борис;112\n",
        );
        // Whichever Asterisk answers, its address stays: a door that is opened to one after another.
        let door = Door::open();
        let config = format!(
            "[ami]\naddress = \"{}\"\nsecret = \"s3cret\"\n[[crm]]\nname = \"list\"\nkind = \"csv\"\nfile = \"clients.csv\"\n",
            door.address
        );
        site.configure(&config);
        let first = lab(&version);
        first.console("devstate change Custom:p111 UNAVAILABLE");
        door.lead_to(first.ami_address());
        let mut daemon = Daemon::start(&site);
        let rings = |daemon: &Daemon| daemon.rings("phone=79161234501&callid=1.1");
        wait_for("the phone to be known as off", || {
            (rings(&daemon) == Some(String::new())).then_some(())
        });
        drop(first);
        // Without Asterisk nothing is known, and the phone is rung.
        wait_for("the phone to be unknown", || {
            (rings(&daemon).as_deref() == Some("111")).then_some(())
        });
        let second = lab(&version);
        second.console("devstate change Custom:p111 BUSY");
        door.lead_to(second.ami_address());
        wait_for("the phone to be known as busy", || {
            (rings(&daemon) == Some(String::new())).then_some(())
        });
        daemon.kill();
        let daemon = Daemon::start(&site);
        wait_for("the restarted daemon to know it", || {
            (rings(&daemon) == Some(String::new())).then_some(())
        });
        daemon.logged("Asterisk tells how its phones stand");
    }
}

#[test]
fn a_bad_line_to_the_exchange_costs_no_call() {
    for version in asterisk_versions() {
        let site =
            Site::with_csv("id;name;phone;responsible;extension\n1;Иван;79161234501;Анна;111\n");
        let lab = lab(&version);
        let stands = |state: &str| lab.console(&format!("devstate change Custom:p111 {state}"));
        stands("BUSY");
        let wire = Wire::lay(free_listener(), lab.ami_address(), Dice(6));
        site.configure(&format!(
            "[ami]\naddress = \"{}\"\nsecret = \"s3cret\"\n[[crm]]\nname = \"list\"\nkind = \"csv\"\nfile = \"clients.csv\"\n",
            wire.address()
        ));
        let daemon = Daemon::start(&site);
        let rings = || daemon.rings("phone=79161234501&callid=1.1").unwrap();
        wait_for("the busy phone", || rings().is_empty().then_some(()));
        let mut dice = Dice(7);
        for mood in [
            Mood::Slow(100),
            Mood::Corrupt,
            Mood::Half,
            Mood::Cut,
            Mood::Refused,
            Mood::Hang,
        ] {
            wire.set(mood);
            for _ in 0..40 {
                let busy = dice.below(2) == 0;
                stands(if busy { "BUSY" } else { "NOT_INUSE" });
                let rung = rings();
                assert!(rung.is_empty() || rung == "111", "{mood:?}: {rung}");
            }
            wire.set(Mood::Well);
            // What hung is found out by the next event, and what is so already is told to nobody.
            for (before, then, wanted) in [("BUSY", "NOT_INUSE", "111"), ("NOT_INUSE", "BUSY", "")]
            {
                wait_for(&format!("{then} behind {mood:?}"), || {
                    stands(before);
                    stands(then);
                    let told = Instant::now();
                    while told.elapsed() < Duration::from_secs(1) {
                        if rings() == wanted {
                            return Some(());
                        }
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    None
                });
            }
        }
        assert!(wire.spoilt() >= 5, "{} pieces spoilt", wire.spoilt());
    }
}

#[test]
fn the_rights_allow_listening_and_nothing_else() {
    for version in asterisk_versions() {
        let lab = lab(&version);
        let address = lab.ami_address();
        let mut line = TcpStream::connect(address).unwrap();
        line.set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        line.write_all(
            b"Action: Login\r\nUsername: pryamo\r\nSecret: s3cret\r\nEvents: off\r\n\r\n",
        )
        .unwrap();
        for action in [
            "Originate\r\nChannel: Local/101@from-internal\r\nApplication: Wait\r\nData: 1",
            "Command\r\nCommand: core stop now",
            "Redirect\r\nChannel: x\r\nContext: from-internal\r\nExten: 101\r\nPriority: 1",
            "Setvar\r\nVariable: X\r\nValue: 1",
            "Hangup\r\nChannel: x",
            "GetConfig\r\nFilename: manager.conf",
        ] {
            line.write_all(format!("Action: {action}\r\nActionID: tried\r\n\r\n").as_bytes())
                .unwrap();
        }
        line.write_all(b"Action: Logoff\r\n\r\n").unwrap();
        let mut answered = String::new();
        line.read_to_string(&mut answered).unwrap();
        assert_eq!(
            answered.matches("Permission denied").count(),
            6,
            "{answered}"
        );
        assert!(
            lab.console("core show channels count")
                .contains("0 active channels")
        );

        let runtime = Runtime::new().unwrap();
        let probe = |user: &str, secret: &str| {
            runtime.block_on(ami::probe(&settings(address, user, secret)))
        };
        assert!(
            probe("pryamo", "s3cret")
                .unwrap()
                .contains(&"111".to_owned())
        );
        assert!(matches!(
            probe("pryamo", "wrong").unwrap_err(),
            AmiError::Refused { .. }
        ));
        assert!(matches!(
            probe("nobody", "s3cret").unwrap_err(),
            AmiError::Refused { .. }
        ));
        assert!(matches!(
            probe("deaf", "s3cret").unwrap_err(),
            AmiError::NoRight { .. }
        ));
        let nowhere = runtime.block_on(ami::probe(&settings(free_address(), "pryamo", "s3cret")));
        assert!(matches!(nowhere.unwrap_err(), AmiError::Unreachable(..)));
    }
}

/// An address of its own that leads to another one, or to nobody.
struct Door {
    address: SocketAddr,
    leads_to: Arc<Mutex<Option<SocketAddr>>>,
}

impl Door {
    fn open() -> Self {
        let listener = free_listener();
        let address = listener.local_addr().unwrap();
        let leads_to: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let target = Arc::clone(&leads_to);
        // Ends with the process: it waits for callers.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(address) = *target.lock().unwrap() else {
                    continue;
                };
                let Ok(other) = TcpStream::connect(address) else {
                    continue;
                };
                let copy = |mut from: TcpStream, mut to: TcpStream| {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Both);
                        let _ = from.shutdown(std::net::Shutdown::Both);
                    });
                };
                copy(stream.try_clone().unwrap(), other.try_clone().unwrap());
                copy(other, stream);
            }
        });
        Self { address, leads_to }
    }

    fn lead_to(&self, address: SocketAddr) {
        *self.leads_to.lock().unwrap() = Some(address);
    }
}
