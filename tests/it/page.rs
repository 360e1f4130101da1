//! The operators' page without a browser: who gets in, what they may do, and what comes of it.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use pryamo::config::Config;
use pryamo::serve;

use crate::daemon::{Answer, Daemon, Site, connect, wait_for};

const CLIENTS: &str = "\
id;kind;name;company;phone;responsible;extension
1;contact;Иван Петров;;79161234501;Анна Соколова;101
2;contact;Мария Весна;;79161234502;Виктор Новенький;
3;contact;=HYPERLINK(1);;79161234503;Анна Соколова;101
";
pub const PASSWORD: &str = "correct horse";

/// Somebody's browser: a session's cookie.
pub struct Visitor {
    address: SocketAddr,
    cookie: String,
}

impl Visitor {
    pub fn new(daemon: &Daemon) -> Self {
        Self::at(daemon.address)
    }

    fn at(address: SocketAddr) -> Self {
        let cookie = String::new();
        Self { address, cookie }
    }

    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> Answer {
        let cookie = match self.cookie.as_str() {
            "" => String::new(),
            cookie => format!("Cookie: pryamo={cookie}\r\n"),
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{cookie}\
             Accept-Language: en\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = connect(self.address);
        stream.write_all(request.as_bytes()).unwrap();
        let mut read = Vec::new();
        stream.read_to_end(&mut read).unwrap();
        // A session's name has capitals, which an answer's head has lost.
        let written = String::from_utf8_lossy(&read);
        if let Some((_, cookie)) = written.split_once("set-cookie: pryamo=") {
            self.cookie = cookie.split_once(';').unwrap().0.into();
        }
        Answer::parse(&read)
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    pub fn sign_in(&mut self, name: &str, password: &str) -> Answer {
        let body = format!("name={name}&password={}", password.replace(' ', "%20"));
        self.ask("POST", "/sign-in", &body)
    }

    /// The session's own token, from a page's form.
    pub fn token(&mut self) -> String {
        // Every page has a form: the one that signs out.
        let page = self.get("/who").body;
        let (_, token) = page.split_once("name=\"csrf\" value=\"").unwrap();
        token.split('"').next().unwrap().to_owned()
    }
}

fn site() -> Site {
    Site::with_csv(CLIENTS)
}

pub fn set_password(site: &Site, name: &str, more: &str) {
    use std::process::Stdio;
    let config = site.config();
    let mut arguments = vec!["password", name, "--config", config.to_str().unwrap()];
    arguments.extend(more.split(' ').filter(|one| !one.is_empty()));
    let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_pryamo"))
        .args(&arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = process.stdin.take().unwrap();
    input.write_all(PASSWORD.as_bytes()).unwrap();
    drop(input);
    assert!(process.wait().unwrap().success());
}

#[test]
fn nobody_sees_a_page_without_a_password() {
    let site = site();
    let daemon = Daemon::start(&site);
    let mut stranger = Visitor::new(&daemon);
    for path in [
        "/",
        "/who?phone=79161234501",
        "/employees",
        "/journal",
        "/journal.csv",
        "/hygiene",
        "/mirrors",
        "/now/events",
    ] {
        let answer = stranger.get(path);
        assert_eq!((answer.status, answer.body.as_str()), (303, ""), "{path}");
        assert!(
            answer.head.contains("location: /first?to="),
            "{}",
            answer.head
        );
    }
    // Nobody has a password: the code that only the server's administrator can read lets one in.
    let with = |code: &str| format!("code={code}&name=anna&password=correct%20horse&to=/employees");
    let refused = stranger.ask("POST", "/first", &with("0"));
    assert_eq!(refused.status, 401, "{}", refused.head);
    let code = std::fs::read_to_string(site.path("data/page-first.code")).unwrap();
    let let_in = stranger.ask("POST", "/first", &with(code.trim()));
    assert_eq!(let_in.status, 303, "{}", let_in.body);
    assert!(
        let_in.head.contains("location: /employees"),
        "{}",
        let_in.head
    );
    assert!(!site.path("data/page-first.code").exists());
    let page = stranger.get("/employees");
    assert!(page.body.contains("Виктор Новенький"), "{}", page.body);
    // The code is worth nothing any more, and the others still wait outside.
    let mut late = Visitor::new(&daemon);
    assert_eq!(late.ask("POST", "/first", &with(code.trim())).status, 303);
    let answer = late.get("/employees");
    assert!(
        answer.head.contains("location: /sign-in"),
        "{}",
        answer.head
    );
}

#[test]
fn a_session_ends_with_its_password_and_forms_must_be_ours() {
    let site = site();
    let daemon = Daemon::start(&site);
    set_password(&site, "anna", "");
    set_password(&site, "boris", "--viewer");
    let mut anna = Visitor::new(&daemon);
    assert_eq!(anna.sign_in("anna", "wrong horse").status, 401);
    let planted = anna.cookie.clone();
    assert_eq!(anna.sign_in("anna", PASSWORD).status, 303);
    assert_ne!(anna.cookie, planted);
    let page = anna.get("/who?phone=79161234502");
    assert_eq!(page.status, 200);
    for header in [
        "content-security-policy: default-src 'none'",
        "x-frame-options: deny",
        "cache-control: no-store",
    ] {
        assert!(page.head.to_lowercase().contains(header), "{}", page.head);
    }
    let set = |token: &str| {
        format!(
            "csrf={token}&crm=list&id=%D0%92%D0%B8%D0%BA%D1%82%D0%BE%D1%80%20%D0%9D%D0%BE%D0%B2%D0%B5%D0%BD%D1%8C%D0%BA%D0%B8%D0%B9&extension=105"
        )
    };
    // From another site's page, with an old token, and by somebody who may only look.
    assert_eq!(anna.ask("POST", "/employees/set", &set("")).status, 403);
    let mut boris = Visitor::new(&daemon);
    assert_eq!(boris.sign_in("boris", PASSWORD).status, 303);
    let of_boris = {
        let page = boris.get("/").body;
        let (_, token) = page.split_once("name=\"csrf\" value=\"").unwrap();
        token.split('"').next().unwrap().to_owned()
    };
    assert_eq!(
        boris.ask("POST", "/employees/set", &set(&of_boris)).status,
        403
    );
    assert_eq!(
        anna.ask("POST", "/employees/set", &set(&of_boris)).status,
        403
    );
    assert_eq!(daemon.rings("phone=79161234502").as_deref(), Some(""));
    // The real form: the next call rings the new extension.
    let token = anna.token();
    let saved = anna.ask("POST", "/employees/set", &set(&token));
    assert_eq!(saved.status, 303, "{}", saved.body);
    assert_eq!(daemon.rings("phone=79161234502").as_deref(), Some("105"));
    // A wrong value comes back with its reason and changes nothing.
    let wrong = anna.ask(
        "POST",
        "/employees/set",
        &set(&token).replace("extension=105", "extension=89161234567"),
    );
    assert_eq!(wrong.status, 422);
    assert!(wrong.body.contains("role=\"alert\""), "{}", wrong.body);
    assert_eq!(daemon.rings("phone=79161234502").as_deref(), Some("105"));
    // A new password: the old session is over at once.
    set_password(&site, "anna", "");
    assert_eq!(anna.get("/employees").status, 303);
    assert_eq!(boris.get("/employees").status, 200);
}

#[test]
fn guessing_passwords_is_stopped() {
    let site = site();
    let daemon = Daemon::start(&site);
    set_password(&site, "anna", "");
    let mut guest = Visitor::new(&daemon);
    for _ in 0..5 {
        assert_eq!(guest.sign_in("anna", "wrong horse").status, 401);
    }
    assert_eq!(guest.sign_in("anna", PASSWORD).status, 429);
    // Others still get in, and calls are answered.
    set_password(&site, "boris", "");
    assert_eq!(Visitor::new(&daemon).sign_in("boris", PASSWORD).status, 303);
    assert_eq!(daemon.rings("phone=79161234501").as_deref(), Some("101"));
}

#[test]
fn calls_are_shown_exported_and_told_as_they_come() {
    let site = site();
    let daemon = Daemon::start(&site);
    set_password(&site, "anna", "");
    let mut anna = Visitor::new(&daemon);
    anna.sign_in("anna", PASSWORD);
    let mut events = daemon.connect();
    let request = format!(
        "GET /now/events HTTP/1.1\r\nHost: x\r\nCookie: pryamo={}\r\n\r\n",
        anna.cookie
    );
    events.write_all(request.as_bytes()).unwrap();
    let mut told = String::new();
    let mut buffer = [0_u8; 4096];
    while !told.contains("\r\n\r\n") {
        let read = events.read(&mut buffer).unwrap();
        told.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(told.contains("text/event-stream"), "{told}");
    daemon.forward("phone=79161234501&trunk=74951234567&callid=1.1");
    while !told.contains("event: call") {
        let read = events.read(&mut buffer).unwrap();
        assert!(read > 0, "{told}");
        told.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    let now = anna.get("/");
    assert!(
        now.body.contains("+79161234501") && now.body.contains("101: Анна Соколова"),
        "{}",
        now.body
    );
    daemon.get("/ended?callid=1.1&number=101&status=ANSWER&rang=4&talked=60");
    daemon.forward("phone=79161234503&trunk=78121234567&callid=1.2");
    let found = wait_for("both calls in the journal", || {
        let page = anna.get("/journal").body;
        (page.contains("+79161234503") && page.contains("own person")).then_some(page)
    });
    assert!(found.contains("74951234567"));
    let narrowed = anna.get("/journal?did=78121234567").body;
    assert!(
        narrowed.contains("+79161234503") && !narrowed.contains("+79161234501"),
        "{narrowed}"
    );
    let wrong = anna.get("/journal?phone=abc").body;
    assert!(
        wrong.contains("This is no telephone number: abc"),
        "{wrong}"
    );
    let csv = anna.get("/journal.csv");
    assert!(csv.head.contains("attachment"), "{}", csv.head);
    assert!(
        csv.body.contains("'+79161234501") && csv.body.contains("own_person"),
        "{}",
        csv.body
    );
}

#[test]
fn it_works_behind_a_proxy_and_at_an_address_of_its_own() {
    let own = crate::daemon::free_address();
    let csv = "[[crm]]\nname = \"list\"\nkind = \"csv\"\nfile = \"clients.csv\"\n";
    let site = Site::new(&format!(
        "[page]\nlisten = \"{own}\"\nbase_path = \"/pryamo\"\n{csv}"
    ));
    std::fs::write(site.path("clients.csv"), CLIENTS).unwrap();
    let daemon = Daemon::start(&site);
    // What faces Asterisk shows no page, and what faces people answers no call.
    assert_eq!(daemon.get("/").status, 404);
    let page = Daemon::raw_at(
        own,
        b"GET /forward?phone=79161234501 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert_eq!((page.status, page.body.as_str()), (404, ""));
    for path in ["/pryamo/employees", "/employees"] {
        let asked = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = Daemon::raw_at(own, asked.as_bytes());
        assert!(
            answer
                .head
                .contains("location: /pryamo/first?to=%2femployees"),
            "{}",
            answer.head
        );
    }
    let door = Daemon::raw_at(
        own,
        b"GET /pryamo/first HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert!(
        door.body.contains("href=\"/pryamo/assets/style.css"),
        "{}",
        door.body
    );
    let style = Daemon::raw_at(
        own,
        b"GET /pryamo/assets/style.css HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(style.status, 200);
}

/// How many days' figures of what is to be mended lie in the directory.
fn days_kept(site: &Site) -> Option<i64> {
    let file = rusqlite::Connection::open(site.path("data/directory.sqlite")).unwrap();
    file.query_row("SELECT count(*) FROM findings", [], |row| row.get(0))
        .ok()
}

/// A tile of the page, from its list's name to its end.
fn tile(page: &str, list: &str) -> String {
    let begins = format!("<a class=\"tile\" href=\"#{list}\">");
    let (_, tile) = page.split_once(&begins).unwrap_or_default();
    tile.split("</a>").next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_to_be_mended_falls_from_one_survey_to_the_next() {
    const MONTH: i64 = 30 * 86_400;
    let site = site();
    let config = Config::load(Some(&site.config())).unwrap();
    let second = Arc::new(AtomicI64::new(1_795_348_800));
    let clock = Arc::clone(&second);
    let clock = move || Timestamp::from_second(clock.load(Ordering::SeqCst)).unwrap();
    let daemon = serve::Daemon::start(&config, Arc::new(clock))
        .await
        .unwrap();
    set_password(&site, "anna", "");
    let mut anna = Visitor::at(daemon.address);
    anna.sign_in("anna", PASSWORD);
    wait_for("the first mirror", || {
        (anna.get("/readyz").status == 200).then_some(())
    });
    // The page's first visitor begins a survey, and so does the button.
    let first = wait_for("the first survey", || {
        let page = anna.get("/hygiene").body;
        page.contains("href=\"#shared\"").then_some(page)
    });
    wait_for("the first day's figures", || {
        (days_kept(&site) == Some(1)).then_some(())
    });
    let first = tile(&first, "without-extension");
    assert!(first.contains("<b>1</b>"), "{first}");
    assert!(!first.contains("<svg") && !first.contains("ago"), "{first}");

    second.fetch_add(MONTH, Ordering::SeqCst);
    let token = anna.token();
    let who = "%D0%92%D0%B8%D0%BA%D1%82%D0%BE%D1%80%20%D0%9D%D0%BE%D0%B2%D0%B5%D0%BD%D1%8C%D0%BA%D0%B8%D0%B9";
    let set = format!("csrf={token}&crm=list&id={who}&extension=105");
    assert_eq!(anna.ask("POST", "/employees/set", &set).status, 303);
    let again = format!("csrf={token}");
    assert_eq!(anna.ask("POST", "/hygiene/refresh", &again).status, 303);
    wait_for("another day's figures", || {
        (days_kept(&site) == Some(2)).then_some(())
    });
    let page = anna.get("/hygiene").body;
    let fell = tile(&page, "without-extension");
    for part in [
        "<b>0</b>",
        "role=\"img\" aria-label=\"30 days ago: 1, now: 0\"",
        "<small class=\"good\">30 days ago: 1</small>",
    ] {
        assert!(fell.contains(part), "{part}: {fell}");
    }
    let stayed = tile(&page, "shared");
    assert!(
        stayed.contains("<small class=\"\">30 days ago: 0</small>"),
        "{stayed}"
    );
    assert!(!page.contains("style="), "{page}");
    daemon.stop().await;
}
