//! What monitors see: the metrics of a real daemon, the rules and the dashboard over them, the log.
//!
//! The judge is Prometheus' own `promtool`.

#![expect(clippy::float_cmp, reason = "counts and flags are whole numbers")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use regex::Regex;
use serde_json::Value;

use crate::daemon::{Daemon, Ran, Site, wait_for};
use crate::fake_bitrix24::{FakeBitrix24, Mood, Options};
use crate::page::{PASSWORD, Visitor, set_password};
use crate::world::{World, call_of};

const PROMTOOL: &str = "/usr/bin/promtool";
const CLIENTS: &str = "id;kind;name;company;phone;responsible;extension\n\
                       1;contact;Ivanov;;79161234501;Petrova;101\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Runs promtool in the package's folder, with this on its standard input.
fn promtool(arguments: &[&str], input: &str) -> Ran {
    assert!(
        Path::new(PROMTOOL).exists(),
        "{PROMTOOL} is missing; install it: tests/install test"
    );
    let mut child = Command::new(PROMTOOL)
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap().into()
}

/// Name and type of every metric that the daemon describes.
fn described() -> BTreeMap<String, String> {
    let call = Regex::new(r#"describe_(counter|gauge|histogram)!\(\s*"([a-z_]+)""#).unwrap();
    let found: BTreeMap<String, String> = call
        .captures_iter(&text("src/metrics.rs"))
        .map(|found| (found[2].to_owned(), found[1].to_owned()))
        .collect();
    assert!(found.contains_key("pryamo_answers_total"), "{found:?}");
    found
}

/// Names of metrics in a text, a histogram's series under the histogram's name.
fn named(text: &str) -> BTreeSet<String> {
    let name = Regex::new(r"\bpryamo_[a-z_]+").unwrap();
    let plain = |name: &str| {
        let parts = ["_bucket", "_count", "_sum"];
        let series = parts.iter().find_map(|part| name.strip_suffix(part));
        series.unwrap_or(name).to_owned()
    };
    name.find_iter(text)
        .map(|found| plain(found.as_str()))
        .collect()
}

/// The values of a series whose labels contain all of `labels`.
fn values(metrics: &str, name: &str, labels: &[&str]) -> Vec<f64> {
    let is_it = |line: &&str| {
        let series = line.rsplit_once(' ').map_or("", |(series, _)| series);
        series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
    };
    let lines = metrics.lines().filter(is_it);
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect()
}

#[test]
fn prometheus_takes_the_rules_and_they_fire_when_they_should() {
    for arguments in [
        ["check", "rules", "docs/alerts.yml"],
        ["test", "rules", "tests/monitoring/alerts.test.yml"],
        ["test", "rules", "tests/monitoring/week.test.yml"],
    ] {
        let ran = promtool(&arguments, "");
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        assert!(ran.out.contains("SUCCESS"), "{ran:?}");
    }
}

#[test]
fn prometheus_takes_every_question_of_the_dashboard() {
    let dashboard: Value = serde_json::from_str(&text("docs/grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    let mut count = 0;
    for panel in panels {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            let asked = target["expr"].as_str().unwrap();
            let asked = asked
                .replace("$__rate_interval", "5m")
                .replace("$instance", ".*");
            assert!(!asked.contains('$'), "an unknown variable: {asked}");
            // JSON is YAML.
            write!(
                rules,
                "  - record: asked_{count}\n    expr: {}\n",
                Value::from(asked)
            )
            .unwrap();
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dashboard.yml");
    std::fs::write(&file, &rules).unwrap();
    let ran = promtool(&["check", "rules", file.to_str().unwrap()], "");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains(&format!("{count} rules found")), "{ran:?}");
}

#[test]
fn dashboard_and_rules_name_only_metrics_that_exist() {
    let described = described();
    for file in ["docs/grafana.json", "docs/alerts.yml"] {
        let named = named(&text(file));
        assert!(named.len() > 8, "{file}: {named:?}");
        for name in named {
            assert!(described.contains_key(&name), "{file} names {name}");
        }
    }
}

#[test]
fn the_manual_tells_of_every_metric_and_of_no_other() {
    let row = Regex::new(r"(?m)^\| `(pryamo_[a-z_]+)` \| (\w+) \| ").unwrap();
    let manual = text("docs/monitoring.md");
    let told: BTreeMap<String, String> = row
        .captures_iter(&manual)
        .map(|found| (found[1].to_owned(), found[2].to_owned()))
        .collect();
    assert_eq!(told, described());
}

/// Looks on the page what is to be mended, and waits until monitors see it.
fn survey(site: &Site, daemon: &Daemon) {
    set_password(site, "anna", "");
    let mut anna = Visitor::new(daemon);
    anna.sign_in("anna", PASSWORD);
    assert_eq!(anna.get("/hygiene").status, 200);
    for list in ["shared", "left", "unread", "without_extension"] {
        let label = format!("list=\"{list}\"");
        wait_for(list, || {
            let metrics = daemon.get("/metrics").body;
            values(&metrics, "pryamo_hygiene_findings", &[&label]).pop()
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_has_no_complaint_about_a_daemons_metrics() {
    let fake = FakeBitrix24::start(
        World::office(10).shared(),
        Options {
            per_second: 1000.0,
            ..Options::default()
        },
    )
    .await;
    let site = Site::new(&format!(
        "[match]\nlive_lookup_ms = 4000\n[ami]\naddress = \"127.0.0.1:9\"\nsecret = \"x\"\n\
         [sync]\nchanges_every_seconds = 86400\n[[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\n\
         limits = {{ requests_per_second = 1000 }}\nurl = \"{}\"\n",
        fake.url()
    ));
    let daemon = Daemon::start(&site);
    daemon.forward(&call_of(1));
    daemon.forward("phone=anonymous&trunk=s");
    let metrics = daemon.get("/metrics").body;
    assert_eq!(values(&metrics, "pryamo_breaker_open", &["sales"]), [0.0]);
    survey(&site, &daemon);
    // The webhook is deleted: the first unknown caller suspends the live lookups, the second is told so.
    fake.set_mood(Mood::Revoked);
    daemon.forward("phone=79031112233&trunk=s");
    daemon.forward("phone=79031112234&trunk=s");

    let metrics = daemon.get("/metrics").body;
    let ran = promtool(&["check", "metrics"], &metrics);
    assert_eq!(
        (ran.code, ran.out.as_str(), ran.err.as_str()),
        (0, "", ""),
        "{metrics}"
    );

    let one = |name: &str, labels: &[&str]| {
        let found = values(&metrics, name, labels);
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}\n{metrics}");
        found[0]
    };
    let answered = |source: &str| {
        let source = format!("source=\"{source}\"");
        one("pryamo_answer_seconds_count", &[&source])
    };
    // Of the two unknown callers only the first was asked for.
    assert_eq!(
        [answered("directory"), answered("none"), answered("live")],
        [2.0, 1.0, 1.0]
    );
    assert_eq!(one("pryamo_breaker_open", &["crm=\"sales\""]), 1.0);
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert_eq!(one("pryamo_build_info", &[&version]), 1.0);
    assert!(one("pryamo_start_time_seconds", &[]) > 1.7e9);
    assert_eq!(one("pryamo_ami_connected", &[]), 0.0);
    assert_eq!(one("pryamo_panics_total", &[]), 0.0);
    assert_eq!(one("pryamo_journal_dropped_total", &[]), 0.0);
    let contacts = ["crm=\"sales\"", "kind=\"contact\""];
    assert_eq!(one("pryamo_walk_running", &contacts), 0.0);
    assert_eq!(one("pryamo_walk_done_ratio", &contacts), 1.0);
    let (all, ringable) = (
        one("pryamo_employees", &[]),
        one("pryamo_employees_ringable", &[]),
    );
    assert!(0.0 < ringable && ringable <= all, "{ringable} of {all}");

    let described = described();
    for name in named(&metrics) {
        assert!(described.contains_key(&name), "{name} is not described");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_walk_shows_how_far_it_is() {
    let fake = FakeBitrix24::start(World::office(20_000).shared(), Options::default()).await;
    fake.set_mood(Mood::Slow(300));
    let site = Site::new(&format!(
        "[[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\nurl = \"{}\"\n",
        fake.url()
    ));
    let daemon = Daemon::start_unready(&site);
    let contacts = ["crm=\"sales\"", "kind=\"contact\""];
    wait_for("a part of the walk to be done", || {
        let metrics = daemon.get("/metrics").body;
        let shown = |name: &str| values(&metrics, name, &contacts).first().copied();
        let done = shown("pryamo_walk_done_ratio")?;
        (shown("pryamo_walk_running")? > 0.0 && 0.0 < done && done < 1.0).then_some(())
    });
}

/// Two calls, one with a line break in its id, and the whole log once both stand in it.
fn log_of_two_calls(format: &str) -> Vec<String> {
    let site = Site::with_csv(CLIENTS);
    let crm = "[[crm]]\nname = \"list\"\nkind = \"csv\"\nfile = \"clients.csv\"\n";
    site.configure(&format!("[log]\nformat = \"{format}\"\n{crm}"));
    let daemon = Daemon::start(&site);
    daemon.forward("phone=79161234501&trunk=s&callid=first");
    daemon.forward("phone=8(903)1112233&trunk=s&callid=second%0Aline");
    let log = wait_for("both calls in the log", || {
        let log = daemon.log();
        let masked = ["+7916***4501", "+7903***2233"];
        let has_all = masked.iter().all(|number| log.contains(number));
        (has_all && log.ends_with('\n')).then_some(log)
    });
    for number in ["9161234501", "9031112233", "903)1112233"] {
        assert!(!log.contains(number), "{number}: {log}");
    }
    log.lines().map(str::to_owned).collect()
}

#[test]
fn a_call_is_one_line_of_the_plain_log_and_its_number_is_masked() {
    let lines = log_of_two_calls("plain");
    let calls: Vec<&String> = lines
        .iter()
        .filter(|line| line.contains("took_ms="))
        .collect();
    assert_eq!(calls.len(), 2, "{lines:#?}");
    for (line, parts) in calls.iter().zip([
        ["first", "+7916***4501", "\"101\"", "responsible"],
        ["second", "+7903***2233", "standard route", "unknown_caller"],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
}

#[test]
fn a_call_is_one_line_of_the_json_log_and_its_number_is_masked() {
    let lines = log_of_two_calls("json");
    let read = lines.iter().map(|line| serde_json::from_str(line).unwrap());
    let calls: Vec<Value> = read
        .filter(|line: &Value| line["message"] == "call")
        .collect();
    let shown = |key: &str| {
        calls
            .iter()
            .map(|call| call[key].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(shown("caller"), ["+7916***4501", "+7903***2233"]);
    assert_eq!(shown("decision"), ["101", "standard route"]);
    assert_eq!(shown("reason"), ["responsible", "unknown_caller"]);
    assert!(
        calls.iter().all(|call| call["took_ms"].is_number()),
        "{calls:?}"
    );
}
