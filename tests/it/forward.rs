//! `/forward` and its neighbours over HTTP, against a daemon process: every form that Asterisk's
//! `CURL()` sends, and what strangers send.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::daemon::{Answer, Daemon, PATIENCE, Site, request};

/// No answer may be longer.
const LARGEST_BODY: usize = 1024;
/// The daemon closes an idle connection after 5 s.
const IDLE: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(4);
/// Waiting calls that must be no problem.
const MANY: usize = 1000;

const CLIENTS: &str = "\
id;kind;name;company;phone;responsible;extension
1;contact;Иван Петров;ООО «Ромашка»;79161234501;Анна Соколова;101
2;contact;Мария Весна;;79161234502;Виктор Новенький;
3;contact;Анна + Ко;;79161234503;Борис Жуков;102
";

const IVAN: &str = "number=101&ring=20&reason=responsible&name=%D0%98%D0%B2%D0%B0%D0%BD%20%D0%9F%D0%B5%D1%82%D1%80%D0%BE%D0%B2";

fn daemon() -> (Daemon, Site) {
    let site = Site::with_csv(CLIENTS);
    (Daemon::start(&site), site)
}

/// Sends a request line's target as these very bytes.
fn ask_raw(daemon: &Daemon, target: &[u8]) -> Answer {
    let mut bytes = b"GET ".to_vec();
    bytes.extend_from_slice(target);
    bytes.extend_from_slice(b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    daemon.raw(&bytes)
}

/// Reads what there is until the other side closes.
fn read_to_end(stream: &mut TcpStream) -> Answer {
    let mut read = Vec::new();
    // A reset says as much as an end.
    let _ = stream.read_to_end(&mut read);
    Answer::parse(&read)
}

/// A request's target as it stands in the request line, the answer, and why.
const QUESTIONS: &[(&str, &str, &str)] = &[
    (
        "/forward?phone=79161234501&trunk=74951234567&callid=1.1",
        IVAN,
        "plain",
    ),
    (
        "/forward?phone=+79161234501&trunk=s&callid=1.1",
        IVAN,
        "raw plus",
    ),
    (
        "/forward?phone=%2B79161234501&trunk=s&callid=1.1",
        IVAN,
        "encoded plus",
    ),
    (
        "/forward?phone= 79161234501&trunk=s",
        IVAN,
        "a plus that a form decoder ate",
    ),
    (
        "/forward?phone=89161234501&trunk=s&callid=1.1",
        IVAN,
        "eight",
    ),
    (
        "/forward?phone=8 (916) 123-45-01&trunk=s",
        IVAN,
        "raw blanks and brackets",
    ),
    (
        "/forward?phone=79161234501",
        IVAN,
        "trunk and callid missing",
    ),
    (
        "/forward?phone=79161234501&trunk=&callid=",
        IVAN,
        "trunk and callid empty",
    ),
    (
        "/forward?callid=1.1&trunk=s&phone=79161234501",
        IVAN,
        "another order",
    ),
    (
        "/forward?phone=79161234501&phone=79161234503&trunk=s",
        IVAN,
        "the first phone counts",
    ),
    (
        "/forward?phone=79161234501&trunk=h&trunk=7495",
        IVAN,
        "the last trunk counts",
    ),
    (
        "/forward?phone=79161234501&trunk=dest-3&x=y&&=&",
        IVAN,
        "unknown parameters",
    ),
    ("//forward?phone=79161234501", IVAN, "a slash too many"),
    ("/forward?phone=79161234501#x", IVAN, "a raw hash sign"),
    (
        "/forward?phone=79161234501&trunk=h",
        "",
        "the caller hung up",
    ),
    (
        "/forward?phone=79161234501&trunk=i",
        "",
        "invalid extension",
    ),
    ("/forward?phone=79161234501&trunk=t", "", "time-out"),
    ("/forward?phone=&trunk=s", "", "no number"),
    ("/forward?trunk=s", "", "no phone at all"),
    ("/forward", "", "no query at all"),
    ("/forward?phone=anonymous&trunk=s", "", "withheld"),
    ("/forward?phone=79169999999&trunk=s", "", "unknown"),
    ("/forward?phone=101&trunk=s", "", "a colleague"),
    ("/forward?phone=7916%&trunk=s", "", "a percent sign alone"),
    ("/forward?phone=%zz%&trunk=%", "", "no hex"),
    ("/forward?phone=%00%FF%0D%0A&trunk=s", "", "no text"),
    ("/forward?phone=Иван&trunk=s", "", "raw UTF-8"),
    (
        "/forward?phone=\"{x}\\|^`<>&trunk=${EXTEN}",
        "",
        "quotes and braces",
    ),
    ("/forward?phone=7916 sp  x&trunk=s", "", "many blanks"),
    ("/forward?phone=/../../etc/passwd", "", "a path"),
];

#[test]
fn whatever_the_dialplan_sends_is_read() {
    let (daemon, _site) = daemon();
    for (target, expected, why) in QUESTIONS {
        let answer = ask_raw(&daemon, target.as_bytes());
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, *expected),
            "{target}: {why}"
        );
        assert!(answer.head.contains("content-type: text/plain"), "{target}");
    }
    for bytes in [
        &b"/forward?phone=\xff\xfe\x01\x7f&trunk=s"[..],
        b"/forward?\xd0&phone",
    ] {
        let answer = ask_raw(&daemon, bytes);
        assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    }
}

#[test]
fn a_question_with_a_body_gets_an_empty_answer() {
    let (daemon, _site) = daemon();
    let body = "a=b&trunk=74951234567&callid=1.1";
    for method in ["POST", "PUT", "DELETE", "BREW"] {
        let bytes = format!(
            "{method} /forward?phone=79161234501 HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = daemon.raw(bytes.as_bytes());
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{method}");
    }
    let old = daemon.raw(b"GET /forward?phone=79161234501 HTTP/1.0\r\n\r\n");
    assert_eq!((old.status, old.body.as_str()), (200, IVAN));
}

#[test]
fn questions_after_the_call_are_not_counted() {
    let (daemon, _site) = daemon();
    for trunk in ["h", "i", "t"] {
        daemon.forward(&format!("phone=79161234501&trunk={trunk}"));
    }
    assert_eq!(daemon.metric("pryamo_answers_total", ""), 0);
    daemon.forward("phone=79161234501&trunk=s");
    assert_eq!(daemon.metric("pryamo_answers_total", "responsible"), 1);
}

/// Whatever goes wrong inside or is asked outside the rules: nothing to read for `HASH()`.
#[test]
fn failure_is_silence() {
    let (daemon, site) = daemon();
    let other_ways = [
        ask_raw(&daemon, b"/forward/?phone=79161234501"),
        ask_raw(&daemon, b"/forwarded?phone=79161234501"),
        daemon.raw(b"GET /forward?phone=79161234501\r\n\r\n"),
        daemon.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        daemon.raw(b"GET /forward?phone=79161234501 HTTP/1.1\r\nContent-Length: x\r\n\r\n"),
        daemon.raw(
            format!(
                "GET /forward?phone={} HTTP/1.1\r\n\r\n",
                "7".repeat(100_000)
            )
            .as_bytes(),
        ),
        ask_raw(&daemon, b"/api/v1/nothing"),
    ];
    for answer in other_ways {
        assert_eq!(answer.body, "", "{}", answer.head);
    }
    // The directory is damaged under the running daemon: every caller still gets a quiet answer.
    damage(&site.path("data"));
    for caller in 0..50 {
        assert_eq!(
            daemon.forward(&format!("phone=7916123{caller:04}&trunk=s")),
            ""
        );
    }
    assert_eq!(daemon.metric("pryamo_answers_total", "fault"), 50);
}

/// Writes noise over every file of a folder, in place.
fn damage(folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            damage(&path);
        } else {
            let length = std::fs::metadata(&path).unwrap().len();
            let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            let noise: Vec<u8> = (0..length).map(|at| (at * 31 % 251) as u8).collect();
            file.write_all(&noise).unwrap();
        }
    }
}

/// Only extensions of the employees' list that look like one are ever answered, and no byte of a
/// name can be taken for anything else.
#[test]
fn nothing_hostile_reaches_the_dialplan() {
    let extensions = [
        "89161234567",
        "+79161234567",
        "*98",
        "101,5,x",
        "101 | 0",
        "1",
        "1234567",
        "101?x",
        "abc",
        "${EXTEN}",
        "101&name=x",
        "0",
        "1\n01",
    ];
    let mut table = csv::Writer::from_writer(Vec::new());
    table
        .write_record(["id", "name", "phone", "responsible", "extension"])
        .unwrap();
    for (index, extension) in extensions.iter().enumerate() {
        let name = format!("\"&number=9{index};({{[\r\n${{EXTEN}}='");
        let phone = format!("791612350{index:02}");
        let employee = format!("Работник {index}");
        table
            .write_record([&index.to_string(), &name, &phone, &employee, *extension])
            .unwrap();
    }
    let rows = String::from_utf8(table.into_inner().unwrap()).unwrap();
    let site = Site::with_csv(&rows);
    let daemon = Daemon::start(&site);
    for (index, extension) in extensions.iter().enumerate() {
        let answer = daemon.forward(&format!("phone=791612350{index:02}&trunk=s"));
        let name = answer.strip_prefix("number=&reason=nobody_can_be_rung&name=");
        let name = name.unwrap_or_else(|| panic!("{extension:?} was answered: {answer}"));
        assert!(!name.is_empty(), "the name is given all the same");
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte);
        assert!(name.bytes().all(is_plain), "{name}");
        let shown = percent_decode_str(name).decode_utf8().unwrap();
        assert!(
            !shown.contains(['"', '(', '[']) && !shown.chars().any(char::is_control),
            "{shown}"
        );
    }
}

/// What `HASH()` decodes is the name that the CRM holds: a space is `%20` and a plus stays one,
/// and `number` stands first.
#[test]
fn names_arrive_as_written() {
    let names = [
        "Анна + Ко",
        "A&B=C, 100% D;E",
        "Пётр Ёлкин",
        "A\\B 😀",
        "О'Нил (Самара)",
        "a_b-c.d~e",
    ];
    let mut rows = String::from("id;name;phone;responsible;extension\n");
    for (index, name) in names.iter().enumerate() {
        writeln!(
            rows,
            "{index};\"{name}\";7916123460{index};Анна Соколова;101"
        )
        .unwrap();
    }
    let site = Site::with_csv(&rows);
    let daemon = Daemon::start(&site);
    for (index, name) in names.iter().enumerate() {
        let answer = daemon.forward(&format!("phone=7916123460{index}&trunk=s"));
        let written = answer
            .strip_prefix("number=101&ring=20&reason=responsible&name=")
            .unwrap();
        assert!(
            !written.contains(['+', ' ', '&', '=', ',', ';']),
            "{written}"
        );
        assert_eq!(percent_decode_str(written).decode_utf8().unwrap(), *name);
        let plain = daemon.get(&format!("/name?phone=7916123460{index}"));
        assert_eq!(plain.body, *name);
    }
}

#[test]
fn every_answer_is_short_and_comes_in_one_piece() {
    let long = "Ж".repeat(3000);
    let site = Site::with_csv(&format!(
        "id;name;phone;responsible;extension\n1;{long};79161234501;Анна;101\n"
    ));
    let config = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), format!("{config}[name]\nbytes = 240\n")).unwrap();
    let daemon = Daemon::start(&site);
    for _ in 0..100 {
        let mut stream = daemon.connect();
        stream
            .write_all(
                b"GET /forward?phone=79161234501&trunk=s&callid=1.1 HTTP/1.1\r\nHost: x\r\n\r\n",
            )
            .unwrap();
        // What one write sent, one read receives.
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).unwrap();
        let answer = Answer::parse(&buffer[..count]);
        assert!(
            answer
                .body
                .starts_with("number=101&ring=20&reason=responsible&name=%D0%96")
        );
        assert!(answer.body.len() > 700 && answer.body.len() < LARGEST_BODY);
        let length = format!("content-length: {}", answer.body.len());
        assert!(answer.head.contains(&length), "{}", answer.head);
    }
}

/// Asterisk leaves its connection open until the call ends; others never send a whole head.
#[test]
fn idle_and_unfinished_connections_are_closed() {
    let (daemon, _site) = daemon();
    let began = Instant::now();
    let send = |bytes: &[u8]| {
        let mut stream = daemon.connect();
        stream.write_all(bytes).unwrap();
        stream
    };
    let mut kept = send(b"GET /forward?phone=79161234501 HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut silent = send(b"");
    let mut half = send(b"GET /forward?phone=791612");
    let mut headless = send(b"GET /forward?phone=79161234501 HTTP/1.1\r\nHost: x\r\n");
    let mut bodyless =
        send(b"POST /forward?phone=7916 HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na=");
    let mut dripping = send(b"GET /forward?phone=");
    while dripping.write_all(b"7").is_ok() {
        assert!(
            began.elapsed() < IDLE + SLACK,
            "a head may not drip in for ever"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    for (what, stream) in [
        ("kept alive", &mut kept),
        ("silent", &mut silent),
        ("half a request line", &mut half),
        ("half a head", &mut headless),
        ("half a body", &mut bodyless),
    ] {
        let answer = read_to_end(stream);
        assert!(
            began.elapsed() < IDLE + SLACK,
            "{what}: open for {:?}",
            began.elapsed()
        );
        match what {
            "kept alive" => assert_eq!(answer.body, IVAN),
            _ => assert_eq!(answer.body, "", "{what}"),
        }
    }
}

/// Reads one answer and not a byte more.
fn read_one(stream: &mut TcpStream) -> Answer {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
    let head = Answer::parse(&read).head;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    Answer::parse(&[read, body].concat())
}

#[test]
fn one_connection_takes_questions_in_pieces_in_a_row_and_among_others() {
    let (daemon, _site) = daemon();
    let question = b"GET /forward?phone=7916 123 45-01&trunk=s HTTP/1.1\r\nHost: x\r\n\r\n";
    let plain = b"GET /forward?phone=79161234501&trunk=s HTTP/1.1\r\nHost: x\r\n\r\n";
    let alive = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut stream = daemon.connect();
    for bytes in [&question[..], plain] {
        for byte in bytes {
            stream.write_all(&[*byte]).unwrap();
        }
        assert_eq!(read_one(&mut stream).body, IVAN);
    }
    let (beginning, rest) = plain.split_at(20);
    let row = [&plain[..], question, beginning].concat();
    stream.write_all(&row).unwrap();
    for _ in 0..2 {
        assert_eq!(read_one(&mut stream).body, IVAN);
    }
    stream.write_all(&[rest, alive, plain].concat()).unwrap();
    assert_eq!(read_one(&mut stream).body, IVAN);
    assert_eq!(read_one(&mut stream).json()["status"], "alive");
    // Asked of another address, the connection is in other hands: to the caller it is the same one.
    assert_eq!(read_one(&mut stream).body, IVAN);
    stream.write_all(question).unwrap();
    assert_eq!(read_one(&mut stream).body, IVAN);
}

#[test]
fn who_asks_and_says_no_more_has_the_whole_answer_and_then_the_end() {
    let (daemon, _site) = daemon();
    for end in ["", "Connection: close\r\n", "connection: Keep-Alive\r\n"] {
        let mut stream = daemon.connect();
        let question = format!("GET /forward?phone=79161234501 HTTP/1.1\r\nHost: x\r\n{end}\r\n");
        stream.write_all(question.as_bytes()).unwrap();
        if !end.contains("close") {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let mut read = Vec::new();
        stream.read_to_end(&mut read).unwrap();
        let answer = Answer::parse(&read);
        assert_eq!((answer.status, answer.body.as_str()), (200, IVAN), "{end}");
        let date = answer
            .head
            .lines()
            .find_map(|line| line.strip_prefix("date: "));
        assert!(date.unwrap().ends_with(" gmt"), "{}", answer.head);
        let says_close = answer.head.contains("connection: close");
        assert_eq!(says_close, end.contains("close"), "{}", answer.head);
    }
}

#[test]
fn a_request_line_without_an_end_is_cut() {
    const MOST: usize = 32 * 1024 * 1024;
    let (daemon, _site) = daemon();
    let mut stream = daemon.connect();
    stream.write_all(b"GET /forward?phone=").unwrap();
    let chunk = [b'7'; 16 * 1024];
    let mut sent = 0;
    while stream.write_all(&chunk).is_ok() {
        sent += chunk.len();
        assert!(sent < MOST, "the daemon still reads after {sent} bytes");
    }
    assert!(read_to_end(&mut stream).body.len() <= LARGEST_BODY);
    assert_eq!(daemon.forward("phone=79161234501"), IVAN);
}

#[test]
fn a_thousand_connections_are_no_problem() {
    rlimit::increase_nofile_limit(4096).unwrap();
    let (daemon, _site) = daemon();
    let idle: Vec<TcpStream> = (0..MANY).map(|_| daemon.connect()).collect();
    let began = Instant::now();
    assert_eq!(daemon.forward("phone=79161234501&trunk=s"), IVAN);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    let question = request("GET", "/forward?phone=79161234501&trunk=s&callid=1.1");
    // All of them ask before anybody reads.
    let mut asking: Vec<TcpStream> = (0..MANY).map(|_| daemon.connect()).collect();
    for stream in &mut asking {
        stream.write_all(&question).unwrap();
    }
    for stream in &mut asking {
        assert_eq!(read_to_end(stream).body, IVAN);
    }
    assert!(began.elapsed() < PATIENCE);
    drop(idle);
}

#[test]
fn the_api_tells_the_same_decision_and_counts_nothing() {
    let (daemon, _site) = daemon();
    let known = daemon.get(
        "/api/v1/route?phone=+7 916 123-45-01&did=74951234567"
            .replace(' ', "%20")
            .as_str(),
    );
    assert_eq!(known.status, 200);
    let known = known.json();
    assert_eq!(known["number"], "101");
    assert_eq!(known["name"], "Иван Петров");
    assert_eq!(known["reason"], "responsible");
    assert_eq!(known["entity"]["id"], "1");
    assert_eq!(known["employee"]["name"], "Анна Соколова");
    assert!(
        known["steps"]
            .as_array()
            .is_some_and(|steps| steps.len() >= 3),
        "{known}"
    );
    let nobody = daemon.get("/api/v1/route?phone=79161234502").json();
    assert_eq!(
        (&nobody["number"], &nobody["name"]),
        (&Value::Null, &Value::from("Мария Весна"))
    );
    let unknown = daemon.get("/api/v1/route?phone=79169999999").json();
    assert_eq!(
        (&unknown["number"], &unknown["name"]),
        (&Value::Null, &Value::Null)
    );
    let at = daemon
        .get("/api/v1/route?phone=79161234501&at=2026-11-22T15:00")
        .json();
    assert_eq!(at["number"], "101");
    let wrong = daemon.get("/api/v1/route?phone=79161234501&at=tomorrow");
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.contains("2026-11-22T15:00"), "{}", wrong.body);
    assert_eq!(daemon.metric("pryamo_answers_total", ""), 0);
}

#[test]
fn health_and_readiness_tell_how_the_mirror_stands() {
    let (daemon, _site) = daemon();
    let alive = daemon.get("/healthz");
    assert_eq!(
        (alive.status, &alive.json()["status"]),
        (200, &Value::from("alive"))
    );
    let ready = daemon.get("/readyz");
    assert_eq!(
        (ready.status, &ready.json()["ready"]),
        (200, &Value::from(true))
    );
    let mirrors = ready.json()["mirrors"].clone();
    let contacts = mirrors
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["kind"] == "contact");
    let contacts = contacts.unwrap();
    assert_eq!(
        (&contacts["crm"], &contacts["records"]),
        (&Value::from("list"), &Value::from(3))
    );
    let metrics = daemon.get("/metrics").body;
    assert!(metrics.contains("pryamo_mirror_cards"), "{metrics}");

    // A CRM that never answered: alive, not ready, and callers go the standard route.
    let site = Site::with_csv("");
    std::fs::remove_file(site.path("clients.csv")).unwrap();
    let daemon = Daemon::start_unready(&site);
    assert_eq!(daemon.get("/healthz").status, 200);
    let ready = daemon.get("/readyz");
    assert_eq!(
        (ready.status, &ready.json()["ready"]),
        (503, &Value::from(false))
    );
    assert_eq!(daemon.forward("phone=79161234501&trunk=s"), "");
}

#[test]
fn the_owners_addresses_want_the_token() {
    let (daemon, _site) = daemon();
    for target in ["/api/v1/employees", "/api/v1/sync"] {
        assert_eq!(daemon.get(target).status, 401, "{target}");
    }
    // Refused before a byte of the file is read.
    let import =
        "POST /api/v1/import?crm=list HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nid";
    assert_eq!(daemon.raw(import.as_bytes()).status, 401);
}
