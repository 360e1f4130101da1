//! `pryamo replay`: a made-up CDR of some thousand lines whose truth is known.

use std::fmt::Write as _;

use serde_json::Value;

use crate::daemon::{Daemon, Ran, Site};

const CLIENTS: &str = "\
id;kind;name;company;phone;responsible;extension
1;contact;Иван Петров;ООО «Ромашка»;79161234501;Анна <b>Соколова</b>;101
2;contact;Мария Весна;;79161234502;Борис Жуков;102
3;contact;Пётр Зимин;;79161234503;Виктор Новенький;
";

/// Calls from outside.
const CALLS: u64 = 2400;
/// A line that nobody can read stands before every so many calls.
const DAMAGED_EVERY: u64 = 200;

/// What the file holds, counted while it is written.
#[derive(Default)]
struct Truth {
    calls: u64,
    known: u64,
    answered: u64,
    own_then: u64,
    own_now: u64,
    damaged: u64,
    outgoing: u64,
    internal: u64,
    without_number: u64,
}

/// A leg as both kinds of file write it.
struct Leg {
    start: String,
    src: String,
    dst: &'static str,
    channel: String,
    dstchannel: String,
    disposition: &'static str,
    uniqueid: String,
    linkedid: String,
    did: &'static str,
}

impl Leg {
    /// As `cdr_csv` with `loguniqueid`, `loguserfield` and `newcdrcolumns`.
    fn master(&self) -> String {
        let Self {
            start,
            src,
            dst,
            channel,
            dstchannel,
            disposition,
            uniqueid,
            linkedid,
            did,
        } = self;
        format!(
            "\"\",\"{src}\",\"{dst}\",\"from-trunk\",\"\"\"Клиент, \"\"\"\" <{src}>\",\"{channel}\",\
             \"{dstchannel}\",\"Dial\",\"x,20\",\"{start}\",\"\",\"{start}\",30,20,\"{disposition}\",\
             \"DOCUMENTATION\",\"{uniqueid}\",\"{did}\",\"\",\"{linkedid}\",1\n"
        )
    }

    /// As a table exported with its header.
    fn table(&self) -> String {
        let Self {
            start,
            src,
            dst,
            channel,
            dstchannel,
            disposition,
            uniqueid,
            linkedid,
            did,
        } = self;
        format!(
            "{start};<{src}>;{src};{dst};from-trunk;{channel};{dstchannel};{disposition};{uniqueid};{did};{linkedid}\n"
        )
    }
}

const TABLE_HEADER: &str =
    "calldate;clid;src;dst;dcontext;channel;dstchannel;disposition;uniqueid;did;linkedid\n";

/// The legs of one call from outside, an announcement first; counts it.
fn call(number: u64, truth: &mut Truth) -> Vec<Leg> {
    let (src, own) = match number % 4 {
        0 => ("+79161234501", Some("101")),
        1 => ("89161234502", Some("102")),
        2 => ("79161234503", None),
        _ => ("79169999999", None),
    };
    let answered_by = ["101", "102", "205", ""][usize::try_from(number / 4 % 4).unwrap()];
    let is_known = number % 4 != 3;
    truth.calls += 1;
    truth.known += u64::from(is_known);
    truth.answered += u64::from(is_known && !answered_by.is_empty());
    truth.own_then += u64::from(own == Some(answered_by));
    truth.own_now += u64::from(own.is_some());
    let leg = |step: u64, dstchannel: String, disposition| Leg {
        start: format!(
            "2026-11-{:02} {:02}:{:02}:{step:02}",
            1 + number / 100,
            number % 24,
            number % 60
        ),
        src: src.to_owned(),
        dst: if step == 0 { "s" } else { "101" },
        channel: format!("PJSIP/trunk-{number:08x}"),
        dstchannel,
        disposition,
        uniqueid: format!("{}.{step}", 1_795_000_000 + number),
        linkedid: format!("{}.0", 1_795_000_000 + number),
        did: if number.is_multiple_of(2) {
            "74951234567"
        } else {
            "78121234567"
        },
    };
    let mut legs = vec![
        leg(0, String::new(), "ANSWERED"),
        leg(5, "PJSIP/101-000000aa".to_owned(), "NO ANSWER"),
    ];
    if !answered_by.is_empty() {
        legs.push(leg(25, format!("PJSIP/{answered_by}-000000ab"), "ANSWERED"));
    }
    legs
}

/// Calls that take no part.
fn left_out(number: u64, truth: &mut Truth) -> Leg {
    let (src, dst) = match number % 3 {
        0 => ("101", "89161112233"),
        1 => ("101", "102"),
        _ => ("anonymous", "s"),
    };
    *match number % 3 {
        0 => &mut truth.outgoing,
        1 => &mut truth.internal,
        _ => &mut truth.without_number,
    } += 1;
    Leg {
        start: "2026-11-05 12:00:00".to_owned(),
        src: src.to_owned(),
        dst,
        channel: if src == "101" {
            "PJSIP/101-1"
        } else {
            "PJSIP/trunk-1"
        }
        .to_owned(),
        dstchannel: "PJSIP/102-2".to_owned(),
        disposition: "ANSWERED",
        uniqueid: format!("{}.0", 1_796_000_000 + number),
        linkedid: format!("{}.0", 1_796_000_000 + number),
        did: "",
    }
}

/// Writes both files; the legs of neighbouring calls lie between each other, the last ones first.
fn write_files(site: &Site) -> Truth {
    let mut truth = Truth::default();
    let (mut master, mut table) = (String::new(), TABLE_HEADER.to_owned());
    for block in 0..CALLS / 8 {
        let mut legs: Vec<Leg> = (block * 8..block * 8 + 8)
            .flat_map(|number| call(number, &mut truth))
            .collect();
        legs.push(left_out(block, &mut truth));
        legs.sort_by(|one, other| other.start[17..].cmp(&one.start[17..]));
        for leg in &legs {
            master.push_str(&leg.master());
            table.push_str(&leg.table());
        }
        if block * 8 % DAMAGED_EVERY == 0 {
            truth.damaged += 1;
            master.push_str("\"\",\"7916123\"4501,\"never closed\n");
            table.push_str("\u{0}\u{1}garbage;\"\n");
        }
    }
    std::fs::write(site.path("Master.csv"), master).unwrap();
    std::fs::write(site.path("cdr.csv"), table).unwrap();
    truth
}

fn report(ran: &Ran) -> Value {
    assert_eq!(ran.code, 0, "{}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

fn check(report: &Value, truth: &Truth) {
    for (key, expected) in [
        ("calls", truth.calls),
        ("known", truth.known),
        ("answered", truth.answered),
        ("own_then", truth.own_then),
        ("own_now", truth.own_now),
        ("damaged", truth.damaged),
        ("outgoing", truth.outgoing),
        ("internal", truth.internal),
        ("without_number", truth.without_number),
    ] {
        assert_eq!(report[key], expected, "{key}");
    }
    for table in ["by_did", "by_hour", "by_employee"] {
        for (key, of_all) in [("own_then", truth.own_then), ("own_now", truth.own_now)] {
            let lines = report[table].as_array().unwrap();
            let sum: u64 = lines.iter().map(|line| line[key].as_u64().unwrap()).sum();
            assert_eq!(sum, of_all, "{table} {key}");
        }
    }
}

/// The same figures from every form of the file, with and without a daemon, in every form of output.
#[test]
fn a_replay_tells_the_truth_in_every_form() {
    let site = Site::with_csv(CLIENTS);
    let truth = write_files(&site);
    assert!(truth.damaged > 3 && truth.own_then > 100 && truth.own_now > truth.own_then);
    let mut daemon = Daemon::start(&site);
    let through_daemon = report(&site.run(&["replay", "cdr.csv", "--json"]));
    check(&through_daemon, &truth);
    assert_eq!(
        daemon.metric("pryamo_answers_total", ""),
        0,
        "no call was answered"
    );
    assert_eq!(daemon.stop(), Some(0));
    let alone = report(&site.run(&["replay", "cdr.csv", "--json"]));
    assert_eq!(alone, through_daemon);
    let master = [
        "replay",
        "Master.csv",
        "--did-column",
        "userfield",
        "--json",
    ];
    let master = report(&site.run(&master));
    for key in [
        "by_did",
        "by_hour",
        "by_employee",
        "reasons",
        "damaged",
        "from",
        "until",
    ] {
        assert_eq!(master[key], alone[key], "{key}");
    }
    check(&master, &truth);
    assert_eq!(alone["by_did"].as_array().unwrap().len(), 2);
    assert_eq!(alone["by_employee"].as_array().unwrap().len(), 3);
    assert!(alone["reasons"]["nobody_can_be_rung"].as_u64().unwrap() > 0);
    check_table_and_page(&site, &truth);
}

fn check_table_and_page(site: &Site, truth: &Truth) {
    for lang in ["ru", "en"] {
        let page = format!("calls-{lang}.html");
        let ran = site.run(&["replay", "cdr.csv", "--html", &page, "--lang", lang]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let percent = |part: u64| (part * 100 + truth.known / 2) / truth.known;
        for expected in [
            format!("{:>9}  calls from outside", truth.calls),
            format!(
                "{:>9}  reached their own person then ({} %)",
                truth.own_then,
                percent(truth.own_then)
            ),
            format!(
                "{:>9}  would ring their own person first now ({} %)",
                truth.own_now,
                percent(truth.own_now)
            ),
        ] {
            assert!(ran.out.contains(&expected), "{expected}\n{}", ran.out);
        }
        let html = std::fs::read_to_string(site.path(&page)).unwrap();
        for foreign in [
            "http:", "https:", "//", "src=", "url(", "@import", "<script", "<b>С",
        ] {
            assert!(!html.contains(foreign), "{foreign}");
        }
        assert!(html.contains("prefers-color-scheme: dark"));
        check_markup(&html, truth, lang);
    }
}

/// The page is well formed, and its figures are those of the table.
fn check_markup(html: &str, truth: &Truth, lang: &str) {
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..roxmltree::ParsingOptions::default()
    };
    let page = roxmltree::Document::parse_with_options(html, options).unwrap();
    assert_eq!(page.root_element().attribute("lang"), Some(lang));
    let mut texts = String::new();
    for node in page.descendants().filter(roxmltree::Node::is_text) {
        write!(texts, "{}|", node.text().unwrap_or_default()).unwrap();
    }
    let thousands = if lang == "ru" { '\u{a0}' } else { ',' };
    let number = |count: u64| match (count / 1000, count % 1000) {
        (0, rest) => rest.to_string(),
        (some, rest) => format!("{some}{thousands}{rest:03}"),
    };
    for count in [truth.calls, truth.known, truth.own_then, truth.own_now] {
        assert!(texts.contains(&number(count)), "{count}");
    }
    assert!(
        texts.contains("Анна <b>Соколова</b>"),
        "as written, escaped"
    );
    let bars = page.descendants().filter(|node| node.has_tag_name("rect"));
    assert!(bars.count() >= 24 * 3);
}

#[test]
fn a_file_that_is_no_cdr_is_told() {
    let site = Site::with_csv(CLIENTS);
    std::fs::write(site.path("notes.txt"), "Иван;Пётр\nnothing, here\n").unwrap();
    for (arguments, expected) in [
        (&["replay", "notes.txt"][..], "is no Asterisk CDR file"),
        (&["replay", "nowhere.csv"], "cannot read nowhere.csv"),
    ] {
        let ran = site.run(arguments);
        assert_eq!(ran.code, 1);
        assert!(ran.err.contains(expected), "{}", ran.err);
        assert!(ran.out.is_empty());
    }
}

#[test]
fn calls_of_the_past_are_the_owners_to_ask_about() {
    let site = Site::with_csv(CLIENTS);
    let daemon = Daemon::start(&site);
    let body = br#"[{"phone":"79161234501","did":null,"at":"2026-11-20T10:00:00Z"}]"#;
    let refused = daemon.raw(&crate::daemon::posting(
        "/api/v1/replay",
        "application/json",
        body,
    ));
    assert_eq!(refused.status, 401);
    let token = std::fs::read_to_string(site.path("data/control.token")).unwrap();
    let ask = |body: &str| {
        let length = body.len();
        let request = format!(
            "POST /api/v1/replay HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        daemon.raw(request.as_bytes())
    };
    let answer = ask(std::str::from_utf8(body).unwrap());
    assert_eq!(answer.json()[0]["rings"], "101");
    assert_eq!(answer.json()[0]["rings_own"], true);
    assert_eq!(ask("[{]").status, 400);
    let one = std::str::from_utf8(&body[1..body.len() - 1]).unwrap();
    let many = vec![one; pryamo::replay::MOST_QUESTIONS + 1].join(",");
    assert_eq!(ask(&format!("[{many}]")).status, 413);
}
