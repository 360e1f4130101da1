//! The command line as a person meets it: what is printed, and the exit code.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::Stdio;

use serde_json::Value;

use pryamo::config::Config;
use pryamo::serve;

use crate::daemon::{Daemon, Site, free_address, pryamo, start};

const CLIENTS: &str = "\
id;kind;name;company;phone;responsible;extension
1;contact;Иван Петров;ООО «Ромашка»;79161234501;Анна Соколова;101
2;contact;Мария Весна;;79161234502;Виктор Новенький;
3;company;ЗАО «Лютик»;;79161234503;Борис Жуков;102
";

const COMMANDS: [&str; 14] = [
    "serve",
    "setup",
    "demo",
    "check",
    "explain",
    "sync",
    "import",
    "employees",
    "journal",
    "replay",
    "password",
    "reload",
    "shadow",
    "config",
];

#[test]
fn the_help_of_every_command_shows_an_example() {
    let folder = tempfile::tempdir().unwrap();
    let all = pryamo(folder.path(), &["--help"]);
    assert_eq!(all.code, 0);
    assert!(all.out.contains("Exit codes: 0 done"), "{}", all.out);
    for command in COMMANDS {
        let help = pryamo(folder.path(), &[command, "--help"]);
        assert_eq!(help.code, 0, "{command}");
        let example = format!("Example: pryamo {command}");
        assert!(help.out.contains(&example), "{command}: {}", help.out);
        assert!(
            all.out.contains(&format!("\n  {command} ")),
            "{command}: {}",
            all.out
        );
    }
}

#[test]
fn bad_usage_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &[][..],
        &["serv"],
        &["explain"],
        &["explain", "79161234501", "--at", "tomorrow"],
        &["sync", "--accept-deletions"],
        &["check", "--nothing"],
        &["check", "--config", "nowhere.toml"],
    ] {
        let ran = pryamo(folder.path(), arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.err);
        assert!(!ran.err.is_empty() && ran.out.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_typo_in_the_configuration_is_told_with_the_nearest_key_and_its_line() {
    for (config, expected) in [
        (
            "[forward]\nlisen = \"127.0.0.1:1\"\n",
            "line 3: [forward]: unknown key `lisen`; did you mean `listen`?",
        ),
        (
            "[frward]\n",
            "line 2: unknown key `frward`; did you mean `forward`?",
        ),
        (
            "[[crm]]\nkind = \"bitrix\"\n",
            "line 3: `crm.kind = \"bitrix\"` is not known",
        ),
        (
            "[[crm]]\nkind = \"csv\"\nfiel = \"clients.csv\"\n",
            "`fiel`; did you mean `file`?",
        ),
        ("[forward\n", "is no TOML"),
        (
            "[forward]\nlisten = \"0.0.0.0:8077\"\n",
            "line 3: `forward.listen",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pryamo.toml");
        let data = format!("data_dir = '{}'\n", folder.path().join("data").display());
        std::fs::write(&file, format!("{data}{config}\n")).unwrap();
        let ran = pryamo(folder.path(), &["serve"]);
        assert_eq!(ran.code, 2, "{config}{}", ran.err);
        assert!(ran.err.contains(expected), "{config}{}", ran.err);
    }
}

#[test]
fn without_a_daemon_commands_say_so() {
    let site = Site::with_csv(CLIENTS);
    let commands = [
        &["explain", "79161234501"][..],
        &["employees"],
        &["sync"],
        &["journal"],
    ];
    let refused = |when: &str| {
        for arguments in commands {
            let ran = site.run(arguments);
            assert_eq!(ran.code, 1, "{when}: {arguments:?}");
            assert!(
                ran.err.starts_with("pryamo: no pryamo "),
                "{when}: {}",
                ran.err
            );
            assert!(ran.err.contains("`pryamo serve`"), "{when}: {}", ran.err);
        }
    };
    refused("never started");
    let mut daemon = Daemon::start(&site);
    assert_eq!(site.run(&["employees"]).code, 0);
    assert_eq!(daemon.stop(), Some(0));
    refused("stopped");
}

#[test]
fn a_taken_port_is_told() {
    let site = Site::with_csv(CLIENTS);
    let _taken = TcpListener::bind(site.address).unwrap();
    let ran = site.run(&["serve"]);
    assert_eq!(ran.code, 1);
    let expected = format!("{} is taken", site.address);
    assert!(ran.err.contains(&expected), "{}", ran.err);
    assert!(ran.err.contains("`forward.listen`"), "{}", ran.err);
}

#[test]
fn a_second_daemon_on_the_same_folder_is_refused_and_harms_nothing() {
    let site = Site::with_csv(CLIENTS);
    let daemon = Daemon::start(&site);
    let config = std::fs::read_to_string(site.config()).unwrap();
    let other = config.replace(&site.address.to_string(), &free_address().to_string());
    std::fs::write(site.path("other.toml"), other).unwrap();
    let ran = pryamo(site.folder.path(), &["serve", "--config", "other.toml"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("in use"), "{}", ran.err);
    assert!(
        daemon
            .forward("phone=79161234501")
            .starts_with("number=101")
    );
    assert_eq!(
        site.run(&["employees"]).code,
        0,
        "the first one's token is whole"
    );
}

#[test]
fn explain_tells_who_and_why() {
    let site = Site::with_csv(CLIENTS);
    let _daemon = Daemon::start(&site);
    let known = site.run(&["explain", "8 (916) 123-45-01", "--did", "74951234567"]);
    assert_eq!(known.code, 0, "{}", known.err);
    assert!(
        known.out.contains("rings 101, Анна Соколова"),
        "{}",
        known.out
    );
    assert!(known.out.contains("shows Иван Петров"), "{}", known.out);
    let nobody = site.run(&["explain", "79161234502"]);
    assert_eq!(nobody.code, 4);
    assert!(nobody.out.contains("nobody is rung"), "{}", nobody.out);
    assert!(nobody.out.contains("Виктор Новенький"), "{}", nobody.out);
    let unknown = site.run(&["explain", "+79169999999", "--json"]);
    assert_eq!(unknown.code, 4);
    let unknown: Value = serde_json::from_str(&unknown.out).unwrap();
    assert_eq!(unknown["reason"], "unknown_caller");
}

#[test]
fn employees_are_listed_with_what_is_wrong_with_them() {
    let site = Site::with_csv(CLIENTS);
    let _daemon = Daemon::start(&site);
    let listed = site.run(&["employees"]);
    assert_eq!(listed.code, 0, "{}", listed.err);
    let line = |name: &str| {
        let found = listed.out.lines().find(|line| line.contains(name));
        found.unwrap_or_else(|| panic!("{name} is missing: {}", listed.out))
    };
    assert!(line("Анна Соколова").contains("101"), "{}", listed.out);
    assert!(
        line("Виктор Новенький").contains("extension"),
        "{}",
        listed.out
    );
    let listed: Vec<Value> = serde_json::from_str(&site.run(&["employees", "--json"]).out).unwrap();
    assert_eq!(listed.len(), 3);
}

#[test]
fn sync_takes_over_what_has_changed() {
    let site = Site::with_csv(CLIENTS);
    let daemon = Daemon::start(&site);
    let changed = CLIENTS.replace("Анна Соколова;101", "Борис Жуков;102");
    std::fs::write(site.path("new.csv"), changed).unwrap();
    std::fs::rename(site.path("new.csv"), site.path("clients.csv")).unwrap();
    let ran = site.run(&["sync", "--crm", "list"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("list: contact: up to date"), "{}", ran.out);
    assert!(
        daemon
            .forward("phone=79161234501")
            .starts_with("number=102")
    );
    let full: Value = serde_json::from_str(&site.run(&["sync", "--full", "--json"]).out).unwrap();
    assert_eq!(full[0]["crm"], "list");
    let unknown = site.run(&["sync", "--crm", "lsit"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.err.contains("`lsit`"), "{}", unknown.err);
}

/// A source that lost most of its cards is not believed, however often it is read, until somebody
/// says so.
#[test]
fn an_empty_source_deletes_nothing() {
    let rows = |count: usize| {
        let mut rows = String::from("id;name;phone;responsible;extension\n");
        for index in 0..count {
            writeln!(rows, "{index};Клиент {index};791612345{index:02};Анна;101").unwrap();
        }
        rows
    };
    let site = Site::with_csv(&rows(50));
    let daemon = Daemon::start(&site);
    for shrunken in ["", "id;name;phone\n", rows(5).as_str()] {
        std::fs::write(site.path("new.csv"), shrunken).unwrap();
        std::fs::rename(site.path("new.csv"), site.path("clients.csv")).unwrap();
        let ran = site.run(&["sync", "--full"]);
        assert_eq!(ran.code, 1, "{shrunken:?}: {}{}", ran.out, ran.err);
        let last = daemon.forward("phone=79161234549");
        assert!(last.starts_with("number=101"), "{shrunken:?}: {last}");
    }
    let told = site.run(&["sync", "--full"]).out;
    assert!(
        told.contains("45 of 50") && told.contains("--accept-deletions"),
        "{told}"
    );
    let ran = site.run(&["sync", "--full", "--accept-deletions"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_eq!(daemon.forward("phone=79161234549"), "");
    assert!(
        daemon
            .forward("phone=79161234504")
            .starts_with("number=101")
    );
}

/// Importing a file once or twice, with or without a daemon, gives the same mirror.
#[test]
fn replay_changes_nothing() {
    let site = Site::with_csv("");
    std::fs::remove_file(site.path("clients.csv")).unwrap();
    std::fs::write(site.path("export.csv"), CLIENTS).unwrap();
    let import = |when: &str| -> Value {
        let ran = site.run(&["import", "export.csv", "--crm", "list", "--json"]);
        assert_eq!(ran.code, 0, "{when}: {}", ran.err);
        serde_json::from_str(&ran.out).unwrap()
    };
    let first = import("without a daemon");
    assert_eq!(
        first["cards"],
        serde_json::json!({"contact": 2, "company": 1})
    );
    assert_eq!(first["phones"], 3);
    assert_eq!(
        first["without_extension"],
        serde_json::json!(["Виктор Новенький"])
    );
    assert_eq!(import("without a daemon, again"), first);
    let daemon = Daemon::start_unready(&site);
    let answers = || {
        ["79161234501", "79161234502", "79161234503"]
            .map(|phone| daemon.forward(&format!("phone={phone}")))
    };
    let before = answers();
    assert!(
        before[0].starts_with("number=101") && before[2].starts_with("number=102"),
        "{before:?}"
    );
    assert_eq!(import("through the daemon"), first);
    assert_eq!(import("through the daemon, again"), first);
    assert_eq!(answers(), before);
}

#[test]
fn what_cannot_be_imported_is_told() {
    let site = Site::with_csv(CLIENTS);
    std::fs::write(site.path("page.csv"), "<html><body>Log in</body></html>").unwrap();
    for (file, crm, expected) in [
        ("nowhere.csv", "list", "cannot read nowhere.csv"),
        (
            "clients.csv",
            "lsit",
            "no [[crm]] is named `lsit`; there is list",
        ),
        ("page.csv", "list", "line 1"),
    ] {
        let ran = site.run(&["import", file, "--crm", crm]);
        assert_eq!(ran.code, 1, "{file}: {}", ran.out);
        assert!(ran.err.contains(expected), "{file}: {}", ran.err);
    }
}

#[test]
fn check_names_what_is_to_mend() {
    let site = Site::with_csv(CLIENTS);
    let lacking = site.run(&["check"]);
    assert_eq!(lacking.code, 3, "{}", lacking.out);
    assert!(lacking.out.contains("Виктор Новенький"), "{}", lacking.out);
    let whole = CLIENTS.replace("Новенький;", "Новенький;103");
    std::fs::write(site.path("clients.csv"), whole).unwrap();
    let good = site.run(&["check"]);
    assert_eq!(good.code, 0, "{}{}", good.out, good.err);
    let daemon = Daemon::start(&site);
    let running = site.run(&["check"]);
    assert_eq!(running.code, 0, "{}", running.out);
    assert!(
        running
            .out
            .contains(&format!("answers at {}", site.address)),
        "{}",
        running.out
    );
    drop(daemon);
    std::fs::remove_file(site.path("clients.csv")).unwrap();
    let bad = site.run(&["check"]);
    assert_eq!(bad.code, 3, "{}", bad.out);
    assert!(bad.out.contains("FAULT crm list"), "{}", bad.out);
    let listed: Vec<Value> = serde_json::from_str(&site.run(&["check", "--json"]).out).unwrap();
    assert!(
        listed
            .iter()
            .any(|one| one["part"] == "crm list" && one["mend"] != ""),
        "{listed:?}"
    );
    let nothing = Site::new("");
    assert_eq!(nothing.run(&["check"]).code, 3, "no [[crm]] at all");
}

#[test]
fn config_shows_what_is_in_force_and_no_secret() {
    let site = Site::with_csv(CLIENTS);
    std::fs::write(site.path("token"), "s3cr3t-from-a-file\n").unwrap();
    let config = std::fs::read_to_string(site.config()).unwrap();
    let secret = format!("token_file = '{}'\n[[crm]]", site.path("token").display());
    std::fs::write(site.config(), config.replacen("[[crm]]", &secret, 1)).unwrap();
    for arguments in [&["config"][..], &["config", "--json"]] {
        let ran = site.run(arguments);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.out.contains(&site.address.to_string()), "{}", ran.out);
        assert!(ran.out.contains("***"), "{}", ran.out);
        assert!(!(ran.out + ran.err.as_str()).contains("s3cr3t"));
    }
}

#[test]
fn the_example_in_the_repository_is_the_one_that_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let printed = pryamo(folder.path(), &["config", "--example"]);
    assert_eq!(printed.code, 0);
    let committed = include_str!("../../pryamo.example.toml");
    assert!(
        printed.out == committed,
        "pryamo.example.toml is old: run `make snapshots`"
    );
}

/// Every option of the example, alone and without its comment sign, is taken.
#[test]
fn every_option_of_the_example_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let script = "fn route(incoming, candidates) { candidates }";
    std::fs::write(folder.path().join("route.rhai"), script).unwrap();
    let mut options = 0;
    for block in blocks(&pryamo::config::example()) {
        let needed: Vec<&str> = ["[[crm]]", "name =", "kind =", "url =", "token =", "file ="]
            .iter()
            .filter(|_| block.header == "[[crm]]")
            .filter_map(|key| {
                block
                    .lines
                    .iter()
                    .copied()
                    .find(|line| line.starts_with(key))
            })
            .collect();
        for option in block.lines.iter().filter(|line| !line.starts_with('[')) {
            // It names a file that is not here.
            if option.split('=').next().unwrap().trim().ends_with("_file") {
                continue;
            }
            // The parts of an OAuth integration stand together, and in place of a token.
            let is_oauth = OAUTH.iter().any(|key| option.starts_with(key));
            let alone = |line: &&&str| OAUTH.iter().any(|key| line.starts_with(key));
            let needed: Vec<&str> = if is_oauth {
                let url = needed.iter().filter(|line| !line.starts_with("token"));
                url.chain(block.lines.iter().filter(alone))
                    .copied()
                    .collect()
            } else {
                needed.clone()
            };
            let mut text = format!("data_dir = '{}'\n", folder.path().display());
            if option.starts_with("data_dir") {
                text.clear();
            }
            if block.header == "[[crm]]" {
                text.push_str(&needed.join("\n"));
                text.push('\n');
            } else if block.header.starts_with("[crm.") {
                text.push_str("[[crm]]\nkind = \"csv\"\nfile = \"x.csv\"\n");
                writeln!(text, "{}", block.header).unwrap();
            } else {
                writeln!(text, "{}", block.header).unwrap();
            }
            if !needed.contains(option) {
                writeln!(text, "{option}").unwrap();
            }
            // A rule about a card is whole or none.
            if block.header == "[[rules.card]]" {
                let rest = ["field", "is", "ring"].into_iter().filter_map(|key| {
                    let mut lines = block.lines.iter();
                    lines.find(|line| line.starts_with(key) && *line != option)
                });
                rest.for_each(|line| writeln!(text, "{line}").unwrap());
            }
            let config = Config::parse(&text, Some(folder.path().join("pryamo.toml")), &[]);
            let config = config.unwrap_or_else(|error| panic!("{error}\n{text}"));
            for table in &config.crms {
                let opened = serve::open_crm(&config, table, false);
                assert!(opened.is_ok(), "{:?}\n{text}", opened.err());
            }
            options += 1;
        }
    }
    assert!(options > 20, "{options} options");
}

const OAUTH: [&str; 4] = [
    "client_id",
    "client_secret",
    "redirect_uri",
    "authorization_code",
];

/// A table of the example with its options, comment signs taken off.
struct Block<'a> {
    header: &'a str,
    lines: Vec<&'a str>,
}

fn blocks(example: &str) -> Vec<Block<'_>> {
    let is_option = |line: &str| {
        let key = line.split_once(" = ").map_or("", |(key, _)| key);
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || "_-\"@.*".contains(letter);
        !key.is_empty() && key.chars().all(is_part)
    };
    let mut blocks = vec![Block {
        header: "",
        lines: Vec::new(),
    }];
    for line in example.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if line.starts_with('[') {
            let end = line.rfind(']').unwrap() + 1;
            let header = &line[..end];
            blocks.push(Block {
                header,
                lines: vec![header],
            });
        } else if line == "What every [[crm]] may have besides:" {
            let lines = vec!["[[crm]]", "kind = \"csv\"", "file = \"x.csv\""];
            blocks.push(Block {
                header: "[[crm]]",
                lines,
            });
        } else if is_option(line) {
            blocks.last_mut().unwrap().lines.push(line);
        }
    }
    blocks
}

/// `/forward`, `/name`, the API and `explain` never disagree.
#[test]
fn one_path() {
    let site = Site::with_csv(CLIENTS);
    let daemon = Daemon::start(&site);
    for phone in [
        "79161234501",
        "79161234502",
        "79161234503",
        "79169999999",
        "101",
        "anonymous",
    ] {
        let api = daemon
            .get(&format!("/api/v1/route?phone={phone}&did=s"))
            .json();
        let explained = site.run(&["explain", phone, "--did", "s", "--json"]);
        let explained: Value = serde_json::from_str(&explained.out).unwrap();
        assert_eq!(explained, api, "{phone}");
        let name = api["name"].as_str().unwrap_or_default();
        assert_eq!(
            daemon.get(&format!("/name?phone={phone}")).body,
            name,
            "{phone}"
        );
        let answer = daemon.forward(&format!("phone={phone}&trunk=s"));
        let number = api["number"].as_str().unwrap_or_default();
        if name.is_empty() {
            assert_eq!(answer, "", "{phone}");
        } else {
            assert!(
                answer.starts_with(&format!("number={number}&")),
                "{phone}: {answer}"
            );
        }
    }
}

#[test]
fn the_demos_printed_answers_are_true() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["demo", "--minutes", "1"];
    let mut demo = start(folder.path(), &arguments, "demo.log", Stdio::piped());
    let mut lines = Vec::new();
    for line in BufReader::new(demo.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let is_last = line.starts_with("Ctrl-C");
        lines.push(line);
        if is_last {
            break;
        }
    }
    let mut questions = 0;
    for pair in lines.windows(2) {
        let [question, answer] = pair else { continue };
        let Some(url) = question
            .strip_prefix("curl '")
            .and_then(|rest| rest.strip_suffix('\''))
        else {
            continue;
        };
        let (address, target) = url
            .strip_prefix("http://")
            .unwrap()
            .split_at(url.strip_prefix("http://").unwrap().find('/').unwrap());
        let told = ask(address, target);
        if target.starts_with("/forward") {
            questions += 1;
            let expected = if answer == "(empty)" { "" } else { answer };
            assert_eq!(told, expected, "{question}");
        }
    }
    assert!(questions >= 6, "{lines:?}");
    let printed = lines.iter().find(|line| line.contains("pryamo explain "));
    let arguments: Vec<&str> = printed.unwrap().split(' ').skip(1).collect();
    assert_eq!(pryamo(folder.path(), &arguments).code, 0);
    let stopped = std::process::Command::new("kill")
        .arg(demo.id().to_string())
        .status();
    assert!(stopped.unwrap().success());
    assert!(demo.wait().unwrap().success());
}

fn ask(address: &str, target: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream
        .write_all(&crate::daemon::request("GET", target))
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// A CRM that is only named: what its own export button wrote is a first mirror without any key.
#[test]
fn an_export_is_a_mirror_without_any_key() {
    let site = Site::new(
        "[[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\n\
         [crm.employees]\n\"Анна Соколова\" = { extension = 101 }\n",
    );
    let header = "ID;Имя;Фамилия;Рабочий телефон;Мобильный телефон;Ответственный\n";
    let export = |row: &str| {
        std::fs::write(site.path("export.csv"), format!("\u{feff}{header}{row}\n")).unwrap();
        let path = site.path("export.csv").display().to_string();
        site.run(&["import", &path, "--crm", "sales"])
    };
    let imported = export("156;Иван;Петров;8 (916) 123-45-67;;Анна Соколова");
    assert_eq!(imported.code, 0, "{imported:?}");
    let daemon = Daemon::start(&site);
    let answer = daemon.forward("phone=79161234567&trunk=s");
    assert!(
        answer.starts_with("number=101&ring=20&reason=responsible&name=%D0%98%D0%B2%D0%B0%D0%BD"),
        "{answer}"
    );
    assert_eq!(daemon.forward("phone=79161234568&trunk=s"), "");
    let imported = export("157;Пётр;Зимин;;+7 916 123 45 68;анна соколова");
    assert_eq!(imported.code, 0, "{imported:?}");
    assert!(
        daemon
            .forward("phone=79161234568&trunk=s")
            .starts_with("number=101&")
    );
    let checked = site.run(&["check"]);
    assert_eq!(checked.code, 3);
    assert!(
        checked.out.contains("only what was imported answers"),
        "{}",
        checked.out
    );
}
