//! The former module is asked too: a real HTTP server stands in for it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::daemon::{Daemon, Site, free_address, wait_for};
use crate::page::{PASSWORD, Visitor, set_password};

const CLIENTS: &str = "\
id;kind;name;phone;responsible;extension
1;contact;Иван «Прямой» Петров;79161234501;Анна Соколова;101
2;contact;Мария Весна;79161234502;Борис Жуков;102
3;contact;Пётр Осень;79161234503;Виктор Новенький;
";
const CSV: &str = "[[crm]]\nname = \"list\"\nkind = \"csv\"\nfile = \"clients.csv\"\n";

/// How the former module fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// Takes questions and never answers.
    Hangs,
    /// An error page.
    Ill,
}

/// The former module: answers by the last digit of the number.
struct Former {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    at_once: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
}

impl Former {
    fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let former = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            at_once: Arc::default(),
            most_at_once: Arc::default(),
        };
        let asked = Arc::clone(&former.asked);
        let (at_once, most) = (
            Arc::clone(&former.at_once),
            Arc::clone(&former.most_at_once),
        );
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (asked, at_once, most) =
                    (Arc::clone(&asked), Arc::clone(&at_once), Arc::clone(&most));
                std::thread::spawn(move || {
                    let now = at_once.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    hold(stream, mood, &asked);
                    at_once.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        former
    }

    fn url(&self) -> String {
        format!("http://{}/forward", self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn hold(mut stream: TcpStream, mood: Mood, asked: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => head.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap().to_owned();
    asked.lock().unwrap().push(target.clone());
    let phone = target.split("phone=").nth(1).unwrap_or_default();
    let phone = phone.split('&').next().unwrap_or_default();
    let (status, body) = match (mood, phone) {
        (Mood::Hangs, _) => {
            // Ends when the other side loses its patience.
            let _ = stream.read(&mut buffer);
            return;
        }
        (Mood::Ill, _) => ("500 Internal Server Error", "<html>number=1"),
        (Mood::Well, "79161234501") => (
            "200 OK",
            "name=%D0%98%D0%B2%D0%B0%D0%BD%20%22%D0%9F%D1%80%D1%8F%D0%BC%D0%BE%D0%B9%22%20%D0%9F%D0%B5%D1%82%D1%80%D0%BE%D0%B2&number=101",
        ),
        (Mood::Well, "79161234502") => ("200 OK", "number=103&name=Other"),
        (Mood::Well, "79161234503" | "79160000000") => ("200 OK", "number=104&name=Nobody"),
        (Mood::Well, "+79161234501") => ("200 OK", "number=101&name=Another"),
        (Mood::Well, _) => ("200 OK", ""),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(answer.as_bytes());
}

fn site(shadow: &str) -> Site {
    let site = Site::new("");
    configure(&site, shadow);
    std::fs::write(site.path("clients.csv"), CLIENTS).unwrap();
    site
}

/// Puts `shadow` into `[forward]`, the table that the common part ends with.
fn configure(site: &Site, shadow: &str) {
    site.configure(&format!("{shadow}[fastagi]\nlisten = \"\"\n{CSV}"));
}

fn shadow_of(former: &Former) -> String {
    format!("shadow = \"{}\"\n", former.url())
}

fn compared(site: &Site) -> Value {
    let ran = site.run(&["shadow", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_str(&ran.out).unwrap()
}

fn wait_for_count(site: &Site, verdict: &str, count: u64) -> Value {
    wait_for(&format!("{count} x {verdict}"), || {
        let compared = compared(site);
        (compared["counts"][verdict] == count).then_some(compared)
    })
}

#[test]
fn every_verdict_is_reached_counted_and_told() {
    let former = Former::start(Mood::Well);
    let site = site(&shadow_of(&former));
    let daemon = Daemon::start(&site);
    for (phone, verdict) in [
        ("79161234501", "same"),
        ("79161234502", "other_number"),
        ("79161234503", "only_theirs"),
        ("89161234501", "only_ours"),
        ("+79161234501", "other_name"),
        ("79169999999", "same"),
    ] {
        let before = compared(&site)["counts"][verdict].as_u64().unwrap();
        daemon.forward(&format!(
            "phone={phone}&trunk=7495&callid=c{verdict}&token=k0d3"
        ));
        wait_for_count(&site, verdict, before + 1);
        let label = format!("verdict=\"{verdict}\"");
        assert_eq!(daemon.metric("pryamo_shadow_total", &label), before + 1);
    }
    let found = compared(&site);
    let listed: Vec<_> = found["disagreements"].as_array().unwrap().iter().collect();
    let verdicts: Vec<_> = listed
        .iter()
        .map(|one| one["verdict"].as_str().unwrap())
        .collect();
    assert_eq!(
        verdicts,
        ["other_name", "only_ours", "only_theirs", "other_number"],
        "the newest first"
    );
    let other = listed[3];
    assert_eq!(other["ours"]["number"], "102");
    assert_eq!(other["theirs"]["number"], "103");
    assert_eq!(other["caller"], "+7916***4502");
    assert_eq!(other["call_id"], "cother_number");
    let log = wait_for("four lines in the log", || {
        let log = daemon.log();
        (log.matches("former module disagrees").count() == 4).then_some(log)
    });
    assert!(!log.contains("79161234502"), "{log}");
    // Asked as the PBX asked, but for our own token.
    let asked = former.asked();
    assert!(
        asked.contains(&"/forward?phone=+79161234501&trunk=7495&callid=cother_name".to_owned()),
        "{asked:?}"
    );
    // A second question is not compared: it is answered, and the next first one is the next asked.
    daemon.forward("phone=79161234502&trunk=7495&callid=c2&tried=102&status=NOANSWER");
    daemon.forward("phone=79161234502&trunk=last&callid=c2");
    wait_for_count(&site, "other_number", 2);
    assert_eq!(former.asked().len(), asked.len() + 1);
    let told = site.run(&["shadow"]);
    assert!(
        told.out.contains("only the former module rings"),
        "{}",
        told.out
    );
    assert!(told.out.contains("103 Other"), "{}", told.out);
    let refused = daemon.get("/api/v1/shadow");
    assert_eq!(refused.status, 401);
    let check = site.run(&["check"]);
    assert!(check.out.contains("ok    shadow: "), "{}", check.out);
}

#[test]
fn a_module_that_is_ill_slow_or_dead_holds_nobody_up() {
    const CALLS: usize = 400;
    for mood in [Some(Mood::Ill), Some(Mood::Hangs), None] {
        let former = mood.map(Former::start);
        let shadow = match &former {
            Some(former) => shadow_of(former),
            None => format!("shadow = \"http://{}/forward\"\n", free_address()),
        };
        let site = site(&shadow);
        let daemon = Daemon::start(&site);
        for call in 0..CALLS {
            let answer = daemon.forward(&format!("phone=79161234501&callid={call}"));
            assert!(answer.starts_with("number=101&"), "{mood:?}: {answer}");
        }
        if let (Some(Mood::Hangs), Some(former)) = (mood, &former) {
            let most = former.most_at_once.load(Ordering::SeqCst);
            // Behind the first timeout the module still holds questions that we have given up.
            if compared(&site)["counts"]["failed"] == 0 {
                assert!(most <= 8, "{most} at once");
            }
        }
        let counts = wait_for("all questions to be settled or dropped", || {
            let counts = compared(&site)["counts"].clone();
            let at_least = if mood == Some(Mood::Hangs) {
                1
            } else {
                CALLS as u64
            };
            let settled = counts["failed"].as_u64()? + counts["dropped"].as_u64()?;
            (settled >= at_least && counts["failed"].as_u64()? > 0).then_some(counts)
        });
        assert_eq!(counts["same"], 0, "{mood:?}");
        if mood == Some(Mood::Hangs) {
            // 8 are asked, 256 wait, all others were dropped; none of these waited for a timeout.
            assert!(counts["dropped"].as_u64().unwrap() > 100, "{counts}");
        }
        let check = site.run(&["check"]);
        assert!(check.out.contains("FAULT shadow: "), "{}", check.out);
    }
}

#[test]
fn a_reload_switches_it_on_and_off() {
    let former = Former::start(Mood::Well);
    let site = site("");
    let daemon = Daemon::start(&site);
    let ask = |call: &str| daemon.forward(&format!("phone=79161234502&callid={call}"));
    ask("before");
    configure(&site, &shadow_of(&former));
    let ran = site.run(&["reload"]);
    assert_eq!((ran.code, ran.out.contains("shadow")), (0, true), "{ran:?}");
    ask("on");
    wait_for_count(&site, "other_number", 1);
    configure(&site, "");
    assert_eq!(site.run(&["reload"]).code, 0);
    ask("off");
    configure(&site, &shadow_of(&former));
    assert_eq!(site.run(&["reload"]).code, 0);
    ask("again");
    // What was found before is still there.
    let found = wait_for_count(&site, "other_number", 2);
    assert_eq!(found["disagreements"].as_array().unwrap().len(), 2);
    let asked = former.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[0].ends_with("callid=on") && asked[1].ends_with("callid=again"));
    // The page shows the same, and Now leads there.
    set_password(&site, "olga", "--viewer");
    let mut olga = Visitor::new(&daemon);
    olga.sign_in("olga", PASSWORD);
    assert!(olga.get("/").body.contains("href=\"/comparison\""));
    let shown = olga.get("/comparison").body;
    assert_eq!(
        shown.matches("<td>another number</td>").count(),
        2,
        "{shown}"
    );
    assert!(shown.contains("102 Мария Весна"), "{shown}");
}

#[test]
fn our_own_address_and_two_addresses_are_refused() {
    let site = site("");
    let own = format!(
        "shadow = \"http://localhost:{}/forward\"\n",
        site.address.port()
    );
    for (written, named) in [
        (own.as_str(), "pryamo's own address"),
        ("shadow = \"8078\"\n", "`shadow` is no address"),
        ("shadow = 8078\n", "must be an address"),
    ] {
        configure(&site, written);
        let ran = site.run(&["check"]);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(
            ran.err.contains(named) && ran.err.contains("line"),
            "{ran:?}"
        );
    }
    let both =
        "shadow = \"http://10.0.0.1/forward\"\n[forward]\nshadow = \"http://10.0.0.1/forward\"\n";
    std::fs::write(site.config(), both).unwrap();
    let ran = site.run(&["config"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("write one of them"), "{ran:?}");
    std::fs::write(site.config(), both.lines().next().unwrap()).unwrap();
    assert!(site.run(&["config"]).out.contains("10.0.0.1/forward"));
}
