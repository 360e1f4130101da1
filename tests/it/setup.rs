//! `pryamo setup` through the real binary: with options alone, and at a terminal.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use pryamo::config::Config;

use crate::daemon::{Daemon, Ran, Site, free_address, pryamo};
use crate::fake_amocrm::{self, FakeAmocrm};
use crate::fake_bitrix24::{FakeBitrix24, Options};
use crate::lab::{Lab, asterisk_versions};
use crate::world::World;

/// Runs it in this folder, without an exchange.
fn setup(folder: &Path, options: &[&str]) -> Ran {
    let (data, listen) = (folder.join("data"), free_address().to_string());
    let mut all = vec!["setup", "--yes", "--pbx", "none"];
    // Asked again, it is told nothing that the file says otherwise.
    let there = std::fs::read_to_string(folder.join("pryamo.toml")).unwrap_or_default();
    if !there.contains("listen") {
        all.extend(["--listen", &listen]);
    }
    all.extend(["--data-dir", data.to_str().unwrap()]);
    all.extend(["--config", "pryamo.toml"]);
    all.extend(options);
    pryamo(folder, &all)
}

fn written(folder: &Path) -> Config {
    let path = folder.join("pryamo.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    Config::parse(&text, Some(path), &[]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_is_tried_and_written_down() {
    let fake = FakeBitrix24::start(World::office(3).shared(), Options::default()).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("url"), format!("{}\n", fake.url())).unwrap();
    let options = ["--crm", "bitrix24", "--url-file", "url", "--region", "kz"];
    let ran = setup(folder.path(), &options);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("2 employees, 2 of them"), "{ran:?}");
    assert!(ran.out.contains("pryamo serve --config"), "{ran:?}");
    assert!(!(ran.out + ran.err.as_str()).contains("k0d3example"));
    let config = written(folder.path());
    assert_eq!(
        config.crms[0].own["url"].as_str(),
        Some(fake.url().as_str())
    );
    assert_eq!(config.phone.region.to_string(), "KZ");
    let mode = std::fs::metadata(folder.path().join("pryamo.toml")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let again = setup(folder.path(), &options);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.err.contains("`bitrix24`"), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_answer_is_not_written() {
    let fake = FakeBitrix24::start(World::office(3).shared(), Options::default()).await;
    let wrong = fake.url().replace("k0d3example", "wr0ng");
    let nobody = format!("http://{}/rest/1/k0d3example/", free_address());
    for (url, mend) in [
        (wrong, "make a new incoming webhook"),
        (nobody, "reaches the portal"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let ran = setup(folder.path(), &["--crm", "bitrix24", "--url", &url]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.out.contains(mend), "{ran:?}");
        assert!(ran.err.contains("nothing was written"), "{ran:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn an_existing_configuration_is_added_to() {
    let fake = FakeAmocrm::start(World::office(3).shared(), fake_amocrm::Options::default());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pryamo.toml");
    let before =
        "# by hand\n[[crm]]\nname = \"list\" # ours\nkind = \"csv\"\nfile = \"clients.csv\"\n";
    std::fs::write(&path, before).unwrap();
    std::fs::write(folder.path().join("token"), fake.token()).unwrap();
    let ran = setup(
        folder.path(),
        &[
            "--crm",
            "amocrm",
            "--url",
            &fake.url(),
            "--token-file",
            "token",
        ],
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    let text = std::fs::read_to_string(&path).unwrap();
    for line in before.lines() {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(written(folder.path()).crms.len(), 2);
    let backups = std::fs::read_dir(folder.path())
        .unwrap()
        .filter_map(|file| {
            let name = file.unwrap().file_name().into_string().unwrap();
            name.strip_prefix("pryamo.toml.").map(|_| name.clone())
        });
    let backups: Vec<String> = backups.collect();
    assert_eq!(backups.len(), 1, "{backups:?}");
    let former = std::fs::read_to_string(folder.path().join(&backups[0])).unwrap();
    assert_eq!(former, before);
}

#[test]
fn without_a_terminal_the_missing_options_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (options, missing) in [
        (&["setup"][..], "--crm"),
        (&["setup", "--crm", "bitrix24"], "--url"),
        (
            &["setup", "--crm", "amocrm", "--url", "https://x.example"],
            "--token-file",
        ),
        (&["setup", "--crm", "csv", "--yes"], "--file"),
    ] {
        let mut options = options.to_vec();
        options.extend(["--config", "pryamo.toml"]);
        let ran = pryamo(folder.path(), &options);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains(missing), "{ran:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Where the calls of the trunk arrive: first nothing asks pryamo, then it is as the README says.
const BEFORE: &str = "[lab-entry]\nexten => _X.,1,Goto(ivr-1,s,1)\n";
const ENTRY: &str =
    "[lab-entry]\nexten => _X.,1,Gosub(pryamo,${EXTEN},1)\n same => n,Goto(ivr-1,s,1)\n";

/// From the first command to the first routed call: as an administrator goes through the README.
#[tokio::test(flavor = "multi_thread")]
async fn from_set_up_to_the_first_routed_call() {
    let fake = FakeBitrix24::start(World::office(3).shared(), Options::default()).await;
    for version in asterisk_versions() {
        let conf = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(conf.path(), BEFORE).unwrap();
        let site = Site::new("");
        let url = format!("http://{}/forward", site.address);
        let mut lab = Lab::start_with(&version, conf.path(), &url);
        lab.phone("101", "answer");
        let (before, _) = lab.call("79160000001", "74951110001");
        assert_eq!(before.went, "ivr", "{version}: nothing asks pryamo yet");
        site.configure(&format!(
            "[asterisk]\nfolder = '{}'\ncommand = '{}'\n",
            lab.etc().display(),
            lab.console_command()
        ));
        let began = Instant::now();
        std::fs::write(site.path("url"), fake.url()).unwrap();
        let ran = site.run(&["setup", "--yes", "--crm", "bitrix24", "--url-file", "url"]);
        assert_eq!(ran.code, 0, "{version}: {ran:?}");
        assert!(
            ran.out.contains("Asterisk has taken it"),
            "{version}: {ran:?}"
        );
        assert!(!ran.out.contains("FAULT"), "{version}: {ran:?}");
        let daemon = Daemon::start(&site);
        let custom = lab.etc().join("extensions_custom.conf");
        let installed = std::fs::read_to_string(&custom).unwrap();
        std::fs::write(&custom, installed.replace(BEFORE, ENTRY)).unwrap();
        lab.console("dialplan reload");
        let (routed, _) = lab.call("79160000001", "74951110002");
        let took = began.elapsed();
        assert_eq!(routed.went, "101", "{version}: {}", daemon.log());
        assert!(!routed.name.is_empty(), "{version}");
        println!("Asterisk {version}: from `pryamo setup` to a routed call in {took:.1?}");
        let check = site.run(&["check"]);
        assert!(!check.out.contains("FAULT"), "{version}: {check:?}");
    }
}

/// Answers at a terminal of its own: prompt by prompt, as a person would.
const TERMINAL: &str = r#"
import os, pty, select, sys, time
program, folder, table = sys.argv[1:4]
pid, line = pty.fork()
if pid == 0:
    os.chdir(folder)
    os.execv(program, [program, "setup", "--config", "pryamo.toml", "--pbx", "none", "--listen", sys.argv[4]])
seen = b""
def until(words):
    global seen
    end = time.time() + 30
    while words not in seen:
        if not select.select([line], [], [], max(0, end - time.time()))[0]:
            sys.exit("waited in vain for %r: %r" % (words, seen))
        seen += os.read(line, 4096)
    seen = seen.split(words, 1)[1]
until(b"Where are the clients"); until(b"CSV"); os.write(line, b"\x1b[A\r")
until(b"Country"); os.write(line, b"\r")
until(b"Folder"); os.write(line, folder.encode() + b"/data\r")
until(b"file"); os.write(line, b"nowhere.csv\r")
until(b"Once more"); until(b"file"); os.write(line, table.encode() + b"\r")
until(b"pryamo serve")
try:
    while os.read(line, 4096): pass
except OSError: pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn at_a_terminal_it_asks_until_the_answer_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let table = "id;kind;name;phone;responsible;extension\n1;contact;Иван;79161234501;Анна;101\n";
    std::fs::write(folder.path().join("clients.csv"), table).unwrap();
    let ran: Ran = Command::new("python3")
        .args(["-c", TERMINAL, env!("CARGO_BIN_EXE_pryamo")])
        .arg(folder.path())
        .args(["clients.csv", &free_address().to_string()])
        .env("TERM", "xterm")
        .env("LANG", "C.UTF-8")
        .output()
        .unwrap()
        .into();
    assert_eq!(ran.code, 0, "{ran:?}");
    let config = written(folder.path());
    let file = folder.path().join("clients.csv");
    assert_eq!(config.crms[0].own["file"].as_str(), file.to_str());
    assert_eq!(config.data_dir, folder.path().join("data"));
}
