//! FastAGI as Asterisk speaks it, by raw sockets: what is asked, what is set, and what hostile or
//! slow peers get.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, PATIENCE, Site, free_address, wait_for};

/// Longer than any conversation may last, shorter than a dialplan's own patience.
const BUDGET: Duration = Duration::from_millis(2500);
/// How much longer it may look on a busy machine.
const SLACK: Duration = Duration::from_secs(8);

const CLIENTS: &str = "id,kind,name,phone,responsible,extension\n\
    1,contact,\"A \"\"B\"\" \\C\nHANGUP\",79161230001,Анна,101\n\
    2,contact,Мария,79161230002,Новенький,\n";

struct Agi {
    daemon: Daemon,
    address: SocketAddr,
}

impl Agi {
    fn start() -> Self {
        let address = free_address();
        let site = Site::new(&format!(
            "[fastagi]\nlisten = \"{address}\"\n[log]\nlevel = \"debug\"\n\
             [[crm]]\nname = \"list\"\nkind = \"csv\"\nfile = \"clients.csv\"\n"
        ));
        std::fs::write(site.path("clients.csv"), CLIENTS).unwrap();
        Self {
            daemon: Daemon::start(&site),
            address,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a head and answers every command as Asterisk does; gives the commands.
    fn talk(&self, head: &str) -> Vec<String> {
        self.talk_with(head, |command| {
            if command.starts_with("GET FULL VARIABLE") {
                "200 result=1 (1795347631.12)\n".to_owned()
            } else {
                "200 result=1\n".to_owned()
            }
        })
    }

    fn talk_with(&self, head: &str, reply: impl Fn(&str) -> String) -> Vec<String> {
        let mut stream = self.connect();
        stream.write_all(head.as_bytes()).unwrap();
        let mut commands = Vec::new();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        for line in lines {
            // A peer that is refused may be reset.
            let Ok(line) = line else { break };
            let _ = stream.write_all(reply(&line).as_bytes());
            commands.push(line);
        }
        commands
    }
}

/// A head as Asterisk sends it.
fn head(script: &str, more: &[&str]) -> String {
    let mut head = format!(
        "agi_network: yes\nagi_network_script: {script}\nagi_request: agi://127.0.0.1/{script}\n\
         agi_channel: PJSIP/trunk-1\nagi_uniqueid: 1795347631.13\n"
    );
    for line in more {
        head.push_str(line);
        head.push('\n');
    }
    head + "\n"
}

fn set(name: &str, number: &str, ring: &str, reason: &str) -> Vec<String> {
    vec![
        format!("SET VARIABLE PRYAMO_NAME \"{name}\""),
        format!("SET VARIABLE PRYAMO_REASON \"{reason}\""),
        format!("SET VARIABLE PRYAMO_RING \"{ring}\""),
        format!("SET VARIABLE PRYAMO_NUMBER \"{number}\""),
    ]
}

#[test]
fn an_answer_is_set_in_order_and_no_name_is_a_command() {
    let agi = Agi::start();
    // The card's name holds quotes, a backslash and a line break.
    let known = set("A «B» \\\\C HANGUP", "101", "20", "responsible");
    let asked_for_id = vec!["GET FULL VARIABLE \"${CHANNEL(linkedid)}\"".to_owned()];
    let with_id = [asked_for_id.clone(), known.clone()].concat();
    for (script, more, expected, why) in [
        (
            "forward?phone=%2B79161230001&trunk=7495&callid=1.2",
            vec![],
            known.clone(),
            "all in the address",
        ),
        (
            "forward",
            vec!["agi_callerid: 89161230001", "agi_extension: 7495"],
            with_id,
            "all from the channel",
        ),
        (
            "/forward",
            vec!["agi_arg_1: phone=+79161230001", "agi_arg_2: callid=1.2"],
            known,
            "arguments",
        ),
        (
            "forward?phone=79161230002&callid=1.2",
            vec![],
            set("Мария", "", "", "nobody_can_be_rung"),
            "known, without an extension",
        ),
        (
            "forward?phone=79169999999&callid=1.2",
            vec![],
            set("", "", "", ""),
            "unknown",
        ),
        (
            "forward?callid=1.2",
            vec!["agi_callerid: unknown"],
            set("", "", "", ""),
            "withheld",
        ),
        (
            "forward?phone=%FF&callid=%00",
            vec![],
            set("", "", "", ""),
            "no number",
        ),
        ("other?phone=79161230001", vec![], vec![], "not ours"),
    ] {
        assert_eq!(agi.talk(&head(script, &more)), expected, "{why}");
    }
}

#[test]
fn the_end_of_a_call_is_told() {
    let agi = Agi::start();
    let commands = agi.talk(&head(
        "ended?callid=1.7&number=101&status=ANSWER&rang=7&talked=63",
        &[],
    ));
    assert_eq!(commands, [""; 0]);
    let http = agi
        .daemon
        .get("/ended?callid=1.8&number=102&status=CANCEL&rang=7");
    assert_eq!((http.status, http.body.as_str()), (200, ""));
    let nothing = agi.daemon.get("/ended?number=%0A");
    assert_eq!((nothing.status, nothing.body.as_str()), (200, ""));
    for words in [
        [
            "call_id=\"1.7\"",
            "number=\"101\"",
            "status=\"ANSWER\"",
            "talked_seconds=63",
        ],
        [
            "call_id=\"1.8\"",
            "number=\"102\"",
            "status=\"CANCEL\"",
            "rang_seconds=7",
        ],
    ] {
        wait_for("the end in the log", || {
            let log = agi.daemon.log();
            let mut lines = log.lines().filter(|line| line.contains(" ended "));
            lines
                .any(|line| words.iter().all(|word| line.contains(word)))
                .then_some(())
        });
    }
}

#[test]
fn a_reply_may_be_odd() {
    let agi = Agi::start();
    let script = head("forward?phone=79161230001&callid=1.2", &[]);
    let replies = [
        "HANGUP\n200 result=1\n",
        "511 result=-1 Command Not Permitted on a dead channel\n",
        "520-Invalid command syntax.  Proper usage follows:\nusage\n520 End of proper usage.\n",
        "200 result=1\r\n",
    ];
    for reply in replies {
        let commands = agi.talk_with(&script, |_| reply.to_owned());
        assert_eq!(commands.len(), 4, "{reply}");
    }
    // Asterisk that does not know the linkedid: the channel's own id must do.
    let unknown = agi.talk_with(&head("forward?phone=79161230001", &[]), |_| {
        "200 result=0\n".to_owned()
    });
    assert_eq!(unknown.len(), 5);
    wait_for("the channel's id in the log", || {
        agi.daemon.log().contains("1795347631.13").then_some(())
    });
    // Who answers nothing but nonsense is not listened to for ever.
    let endless = agi.talk_with(&script, |_| "x\n".repeat(1000));
    assert_eq!(endless.len(), 1);
}

#[test]
fn hostile_peers_are_closed_and_others_are_answered_meanwhile() {
    let agi = Agi::start();
    let hostile: [Vec<u8>; 6] = [
        b"agi_network: ".repeat(10_000),
        b"agi_x: y\n".repeat(100_000),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0; 100_000],
        vec![0xFF; 5000],
        b"\n".to_vec(),
    ];
    for bytes in hostile {
        let began = Instant::now();
        let mut stream = agi.connect();
        // It may be closed before it has sent all.
        let _ = stream.write_all(&bytes);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(rest, b"", "{:?}", &bytes[..bytes.len().min(20)]);
        assert!(began.elapsed() < BUDGET + SLACK);
    }
    for cut in [0, 1, 20, 60] {
        let whole = head("forward?phone=79161230001", &[]);
        let mut stream = agi.connect();
        stream.write_all(&whole.as_bytes()[..cut]).unwrap();
        drop(stream);
    }
    let commands = agi.talk(&head("forward?phone=79161230001&callid=1.2", &[]));
    assert_eq!(commands.len(), 4);
    assert_eq!(agi.daemon.metric("pryamo_panics_total", ""), 0);
}

/// Asterisk would wait for ever: so the daemon ends it, before or within its own answer.
#[test]
fn a_silent_peer_is_closed_within_the_budget() {
    let agi = Agi::start();
    let whole = head("forward?phone=79161230001&callid=1.2", &[]);
    for sent in ["", "agi_network: yes\n", &whole] {
        let began = Instant::now();
        let mut stream = agi.connect();
        stream.write_all(sent.as_bytes()).unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        let took = began.elapsed();
        assert!(took < BUDGET + SLACK, "{took:?}");
        assert!(rest.lines().count() <= 1, "{rest}");
    }
}

#[test]
fn a_thousand_connections_are_answered_at_once() {
    const COUNT: usize = 1000;
    let agi = Agi::start();
    // All are open and have asked before the first is read.
    let mut streams: Vec<TcpStream> = (0..COUNT).map(|_| agi.connect()).collect();
    for stream in &mut streams {
        let asked = head("forward?phone=79161230001&callid=1.2", &[]);
        stream.write_all(asked.as_bytes()).unwrap();
        // Asterisk's replies to what will be set; the order is what counts.
        stream
            .write_all("200 result=1\n".repeat(4).as_bytes())
            .unwrap();
    }
    for mut stream in streams {
        let mut commands = String::new();
        stream.read_to_string(&mut commands).unwrap();
        assert_eq!(commands.lines().count(), 4);
        assert!(commands.ends_with("SET VARIABLE PRYAMO_NUMBER \"101\"\n"));
    }
}

#[test]
fn a_taken_port_stops_only_who_asked_for_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let site = Site::new(&format!("[fastagi]\nlisten = \"{address}\"\n"));
    let ran = site.run(&["serve"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("`fastagi.listen`"), "{}", ran.err);
    // The usual port may be another daemon's: of two, one cannot have it, and both answer.
    let first = Daemon::start(&Site::new(""));
    let second = Daemon::start(&Site::new(""));
    assert_eq!(first.forward("phone=1"), "");
    assert_eq!(second.forward("phone=1"), "");
    wait_for("the error of the second", || {
        second
            .log()
            .contains("FastAGI is not answered")
            .then_some(())
    });
    let off = Daemon::start(&Site::new("[fastagi]\nlisten = \"\"\n"));
    assert!(!off.log().contains("FastAGI"));
    let open = Site::new("[fastagi]\nlisten = \"0.0.0.0:4574\"\n").run(&["serve"]);
    assert_eq!(open.code, 2);
    assert!(open.err.contains("`fastagi.allow"), "{}", open.err);
}
