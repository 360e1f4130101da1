//! What docs/security.md promises of secrets, files and memory; and that the tests it names are there.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::daemon::{Daemon, Site, free_address, free_listener, posting, pryamo, raw, wait_for};
use crate::fake_amocrm::{self, FakeAmocrm};
use crate::fake_bitrix24::{FakeBitrix24, Mood, Options};
use crate::page::{PASSWORD, Visitor, set_password};
use crate::world::{World, call_of};

/// Stands in every secret of the test, and nowhere else.
const PLANTED: &str = "pl4nted";
/// The secret that is all digits, which somebody may write without quotes.
const DIGITS: &str = "4444777755556666";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder of the repository whose name ends so.
fn files(below: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.to_str().unwrap().ends_with(ending) {
            found.push(path);
        }
    }
}

/// The names of all tests in the source.
fn tests() -> BTreeSet<String> {
    let mut sources = Vec::new();
    files(&repository().join("src"), ".rs", &mut sources);
    files(&repository().join("tests/it"), ".rs", &mut sources);
    let mut names = BTreeSet::new();
    for source in sources {
        let text = std::fs::read_to_string(source).unwrap();
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            let function = line.strip_prefix("async ").unwrap_or(line);
            let name = function
                .strip_prefix("fn ")
                .map(|rest| rest.split(['(', '<']));
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some(mut name) = name {
                if is_test || in_proptest(line, &text) {
                    names.insert(name.next().unwrap().to_owned());
                }
                is_test = false;
            }
        }
    }
    names
}

/// A property's arguments are drawn with `in`.
fn in_proptest(line: &str, text: &str) -> bool {
    text.contains("proptest!") && line.contains(" in ")
}

/// A test that is named and is not there would promise what nobody holds.
#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let manual = std::fs::read_to_string(repository().join("docs/security.md")).unwrap();
    let mut rows = 0;
    let mut named = BTreeSet::new();
    for row in manual.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [threat, what_happens, held_by] = cells.as_slice() else {
            panic!("a row of three cells was expected: {row}");
        };
        if *threat == "Threat" {
            continue;
        }
        rows += 1;
        assert!(!what_happens.is_empty(), "{row}");
        let tests = held_by.split('`').skip(1).step_by(2);
        let tests: Vec<String> = tests.map(str::to_owned).collect();
        let says_none = *held_by == "no test";
        assert_eq!(says_none, tests.is_empty(), "nothing holds it: {row}");
        named.extend(tests);
    }
    assert!(rows > 40, "{rows} rows");
    let there = tests();
    let gone: Vec<&String> = named.iter().filter(|name| !there.contains(*name)).collect();
    assert!(gone.is_empty(), "docs/security.md names {gone:?}");
    // The names are those of tests: of one in the source, of a property, of an asynchronous one.
    for name in [
        "memory_is_kept_private",
        "no_query_is_an_error",
        "planted_secrets_are_told_nowhere",
    ] {
        assert!(there.contains(name), "{name}");
    }
    assert!(!there.contains("in_proptest"));
}

/// An exchange that refuses everybody and repeats what they said.
fn echoing_exchange() -> SocketAddr {
    let listener = free_listener();
    let address = listener.local_addr().unwrap();
    // Ends with the process: it waits for callers.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.write_all(b"Asterisk Call Manager/9.0.0\r\n");
                let mut said = [0; 2048];
                let length = stream.read(&mut said).unwrap_or(0);
                let said = String::from_utf8_lossy(&said[..length]).replace("\r\n", " ");
                let _ = write!(
                    stream,
                    "Response: Error\r\nMessage: refused: {said}\r\n\r\n"
                );
            });
        }
    });
    address
}

/// Everything that pryamo has said, and where.
#[derive(Default)]
struct Said(Vec<(String, String)>);

impl Said {
    fn add(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.0.push((place.into(), text.into()));
    }

    /// Runs a command in its forms and keeps what it prints.
    fn run(&mut self, site: &Site, arguments: &[&str]) {
        let ran = site.run(arguments);
        self.add(format!("{arguments:?}"), ran.out + ran.err.as_str());
    }

    fn is_clean(&self, secrets: &[String]) {
        let mut leaks = String::new();
        for (place, text) in &self.0 {
            for secret in secrets {
                if let Some(at) = text.find(secret.as_str()) {
                    let from = text.floor_char_boundary(at.saturating_sub(120));
                    let to = text.floor_char_boundary((at + 60).min(text.len()));
                    writeln!(leaks, "{place}: {secret}: ...{}...", &text[from..to]).unwrap();
                }
            }
        }
        assert!(leaks.is_empty(), "secrets were told:\n{leaks}");
    }
}

/// An office whose every secret is planted; what the CRMs are like is up to them.
struct Office {
    portal: FakeBitrix24,
    account: FakeAmocrm,
    site: Site,
    healthy: String,
}

impl Office {
    async fn open() -> Self {
        let options = Options {
            per_second: 1000.0,
            code: "pl4ntedwebhook",
            client_secret: "pl4nted-client-secret",
            application_token: "pl4nted-application-token",
            ..Options::default()
        };
        let portal = FakeBitrix24::start(World::office(20).shared(), options).await;
        let account = FakeAmocrm::start(World::office(3).shared(), fake_amocrm::Options::default());
        let site = Site::new("");
        let token = site.path("forward.token");
        std::fs::write(&token, "pl4nted-forward-token\n").unwrap();
        let url = portal.url();
        let host = url.split("/rest/").next().unwrap();
        let healthy = format!(
            "token_file = '{}'\nallow = [\"192.0.2.1\"]\n\
             [log]\nlevel = \"debug\"\n[match]\nlive_lookup_ms = 1500\n\
             [ami]\naddress = \"{}\"\nsecret = \"pl4nted-manager-secret\"\n\
             [[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\nurl = \"{url}\"\n\
             limits = {{ requests_per_second = 1000 }}\nhook_secret = \"pl4nted-hook-secret\"\n\
             application_token = \"pl4nted-application-token\"\n\
             [[crm]]\nname = \"application\"\nkind = \"bitrix24\"\nurl = \"{host}/\"\n\
             client_id = \"local.1\"\nclient_secret = \"pl4nted-other-secret\"\n\
             refresh_token = \"pl4nted-refresh-token\"\noauth_url = \"{host}/\"\n\
             [[crm]]\nname = \"retail\"\nkind = \"amocrm\"\nurl = \"{}\"\n\
             token = \"pl4nted.amocrm.token\"\n\
             [[crm]]\nname = \"code\"\nkind = \"amocrm\"\nurl = \"{}\"\nclient_id = \"{}\"\n\
             client_secret = \"pl4nted-amocrm-secret\"\nredirect_uri = \"{}\"\n\
             authorization_code = \"pl4nted-code\"\n",
            token.display(),
            echoing_exchange(),
            account.url(),
            account.url(),
            fake_amocrm::CLIENT_ID,
            fake_amocrm::REDIRECT_URI,
        );
        let office = Self {
            portal,
            account,
            site,
            healthy,
        };
        office.configure(&office.healthy);
        office
    }

    /// Tables may follow, and a key of the whole stands before them all.
    fn configure(&self, tables: &str) {
        self.site.configure(tables);
        let written = std::fs::read_to_string(self.site.config()).unwrap();
        let shadow = "shadow = \"http://me:pl4ntedword@127.0.0.1:9/forward?key=pl4ntedkey\"\n";
        std::fs::write(self.site.config(), shadow.to_owned() + written.as_str()).unwrap();
    }

    fn control_token(&self) -> String {
        std::fs::read_to_string(self.site.path("data/control.token")).unwrap()
    }

    /// What the daemon answers to its owner.
    fn own(&self, daemon: &Daemon, method: &str, path: &str, body: &str) -> String {
        let token = self.control_token();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = daemon.raw(request.as_bytes());
        answer.head + answer.body.as_str()
    }
}

/// All commands that say something of the configuration or ask the daemon.
const COMMANDS: [&[&str]; 16] = [
    &["check"],
    &["check", "--json"],
    &["config"],
    &["config", "--json"],
    &["explain", "89160000001"],
    &["explain", "89160000001", "--json"],
    &["explain", "79031112233"],
    &["employees"],
    &["employees", "--json"],
    &["journal"],
    &["journal", "--json"],
    &["shadow"],
    &["shadow", "--json"],
    &["dialplan", "--for", "asterisk"],
    &["dialplan", "--for", "freepbx", "--agi"],
    &["reload", "--json"],
];

const PAGES: [&str; 9] = [
    "/",
    "/journal",
    "/journal.csv",
    "/who?phone=89160000001",
    "/employees",
    "/hygiene",
    "/mirrors",
    "/comparison",
    "/setup",
];

/// What the daemon answers to strangers, to Asterisk, to monitors and to its own commands.
fn ask_everything(office: &Office, daemon: &Daemon, said: &mut Said) {
    for path in [
        "/forward?phone=89160000001&trunk=s&callid=1.1&token=pl4nted-forward-token",
        "/forward?phone=79031112244&trunk=s&callid=1.2",
        "/name?phone=89160000001",
        "/healthz",
        "/readyz",
        "/metrics",
        "/api/v1/route?phone=89160000001",
        "/api/v1/employees",
        "/api/v1/sync",
        "/api/v1/journal?limit=100",
        "/api/v1/shadow",
        "/hooks/sales/pl4nted-hook-secret",
        "/hooks/nobody/pl4nted-hook-secret",
    ] {
        said.add(path, daemon.get(path).body);
        said.add(path, office.own(daemon, "GET", path, ""));
    }
    let form = "application/x-www-form-urlencoded";
    let notice = b"event=ONCRMCONTACTUPDATE&data[FIELDS][ID]=1&auth[application_token]=pl4nted-application-token";
    for (secret, body) in [
        ("pl4nted-hook-secret", &notice[..]),
        (
            "pl4nted-hook-secret",
            b"auth[application_token]=pl4nted-wrong&event=X",
        ),
        ("pl4nted-wrong", notice),
        ("pl4nted-hook-secret", b"\xff{pl4nted"),
    ] {
        let path = format!("/hooks/sales/{secret}");
        let answer = raw(daemon.address, &posting(&path, form, body));
        said.add(path, answer.head + answer.body.as_str());
    }
}

fn look_at_the_page(daemon: &Daemon, said: &mut Said) {
    let mut anna = Visitor::new(daemon);
    for password in ["pl4nted-wrong-password", PASSWORD] {
        let answer = anna.sign_in("anna", password);
        said.add("/sign-in", answer.head + answer.body.as_str());
    }
    for page in PAGES {
        let answer = anna.get(page);
        assert_eq!(answer.status, 200, "{page}");
        said.add(page, answer.body);
    }
    let token = anna.token();
    for (path, fields) in [
        ("/setup/check", String::new()),
        ("/setup/reload", String::new()),
        (
            "/setup/crm",
            "&crm=bitrix24&url=http%3A%2F%2F127.0.0.1%3A9%2Frest%2F1%2Fpl4ntednew%2F".to_owned(),
        ),
        (
            "/setup/crm",
            "&crm=amocrm&url=http%3A%2F%2F127.0.0.1%3A9%2F&token=pl4nted.new.token".to_owned(),
        ),
    ] {
        let answer = anna.ask("POST", path, &format!("csrf={token}{fields}"));
        said.add(path, answer.body);
    }
}

/// Configurations that are wrong where a secret stands.
fn wrong_configurations(healthy: &str) -> Vec<String> {
    let with = |from: &str, to: &str| {
        assert!(healthy.contains(from), "{from}");
        healthy.replacen(from, to, 1)
    };
    let amocrm = "token = \"pl4nted.amocrm.token\"";
    vec![
        with(amocrm, "token = \"pl4nted"),
        with(amocrm, "token = pl4nted"),
        with(amocrm, "token = [\"pl4nted\"]"),
        with(amocrm, &format!("token = {DIGITS}")),
        with(amocrm, "token = \"pl4nted\"\ntoken = \"pl4nted\""),
        with(amocrm, "tokne = \"pl4nted\""),
        with(amocrm, "token = \"\"\"pl4nted\npl4nted\"\"\""),
        with("secret = \"pl4nted-manager", "secrte = \"pl4nted-manager"),
        with("\"pl4nted-manager-secret\"", DIGITS),
        with("\"pl4nted-manager-secret\"", "{ a = \"pl4nted\" }"),
        with("hook_secret = ", "hook_secert = "),
        with("\"pl4nted-hook-secret\"", DIGITS),
        with("\"pl4nted-hook-secret\"", "\"pl4nted/../hook secret\""),
        with("/rest/1/pl4ntedwebhook/", "/rest/pl4nted"),
        with(
            "/rest/1/pl4ntedwebhook/",
            "/rest/1/pl4nted/profile.json?x=pl4nted",
        ),
        with("client_id = \"local.1\"\n", ""),
        with("authorization_code", "authorisation_code"),
        with("token_file = '", "token_file = '/nowhere"),
        with("token_file = '", "token = \"pl4nted\"\ntoken_file = '"),
    ]
}

/// Asks while the CRM is in one bad mood after another.
fn fail_in_every_way(office: &Office, daemon: &Daemon, said: &mut Said) {
    let mut moods = vec![None];
    moods.extend(
        [
            Mood::Revoked,
            Mood::NotJson,
            Mood::Html502(2),
            Mood::Redirect,
            Mood::OverloadLimit,
            Mood::ScopeMissing("crm"),
            Mood::AllDamaged,
        ]
        .map(Some),
    );
    for (index, mood) in moods.into_iter().enumerate() {
        if let Some(mood) = mood {
            office.portal.set_mood(mood);
        }
        let stranger = format!("phone=7903111{index:04}&trunk=s&callid=2.{index}");
        said.add("/forward", daemon.forward(&stranger));
        said.run(&office.site, &["check"]);
        let walk = "{\"crm\": \"sales\", \"order\": {\"full\": true}}";
        let ordered = office.own(daemon, "POST", "/api/v1/sync", walk);
        assert!(ordered.starts_with("http/1.1 200"), "{ordered}");
        said.add("a walk", ordered);
    }
}

/// Reads each wrong configuration by every command that does.
fn write_what_is_wrong(office: &Office, daemon: &Daemon, said: &mut Said) {
    for wrong in wrong_configurations(&office.healthy) {
        office.configure(&wrong);
        for arguments in [
            &["check"][..],
            &["config"],
            &["reload"],
            &["setup", "--yes"],
        ] {
            said.run(&office.site, arguments);
        }
        let reload = office.own(daemon, "POST", "/api/v1/reload", "");
        said.add("a reload", reload);
    }
    let crm = [
        "--crm",
        "bitrix24",
        "--url",
        "http://127.0.0.1:9/rest/1/pl4nted/",
    ];
    let new = office.site.path("new.toml");
    let setup = ["setup", "--yes", "--config", new.to_str().unwrap()];
    let ran = pryamo(office.site.folder.path(), &[&setup[..], &crm].concat());
    said.add("setup", ran.out + ran.err.as_str());
}

/// Everything on the disk that is not made to hold secrets.
fn read_what_is_kept(office: &Office, said: &mut Said) {
    let mut kept = Vec::new();
    files(&office.site.path("data"), "", &mut kept);
    let is_for_secrets = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        ["tokens.json", "control.token"].contains(&name)
    };
    for path in kept.iter().filter(|path| !is_for_secrets(path)) {
        let bytes = std::fs::read(path).unwrap();
        said.add(path.display().to_string(), String::from_utf8_lossy(&bytes));
    }
    assert!(
        kept.iter().any(|path| path.ends_with("journal.sqlite")),
        "{kept:?}"
    );
}

/// No failure of a CRM, of the exchange or of whoever wrote the configuration brings a secret out: not
/// in what commands print, not in the log at its most talkative, not on a page, not in an answer, and
/// not in the files of the journal and the mirror.
#[tokio::test(flavor = "multi_thread")]
async fn planted_secrets_are_told_nowhere() {
    let office = Office::open().await;
    let daemon = Daemon::start_unready(&office.site);
    set_password(&office.site, "anna", "");
    wait_for("the mirror", || {
        (daemon.rings(&call_of(1)).as_deref() == Some("101")).then_some(())
    });
    let mut said = Said::default();
    said.run(&office.site, &["sync", "--crm", "sales", "--full"]);
    fail_in_every_way(&office, &daemon, &mut said);
    office.portal.set_mood(Mood::Well);
    office.account.set_mood(fake_amocrm::Mood::HtmlPage);
    for arguments in COMMANDS {
        said.run(&office.site, arguments);
    }
    ask_everything(&office, &daemon, &mut said);
    look_at_the_page(&daemon, &mut said);
    write_what_is_wrong(&office, &daemon, &mut said);
    let mut secrets = vec![
        PLANTED.to_owned(),
        DIGITS.to_owned(),
        PASSWORD.to_owned(),
        office.control_token(),
    ];
    let log = daemon.log();
    // The test proves nothing where nothing is told.
    for told in ["DEBUG", "sales", "application", "retail", "refused"] {
        assert!(log.contains(told), "{told}: {log}");
    }
    said.add("the log", log);
    drop(daemon);
    read_what_is_kept(&office, &mut said);
    secrets.push("pl4nted".to_uppercase());
    said.is_clean(&secrets);
}

/// A daemon that would let others read its files and dump its memory, had it not been told otherwise.
fn careless(site: &Site) -> Child {
    let script = "umask 0; ulimit -c unlimited 2>/dev/null || ulimit -S -c hard; \
                  exec \"$0\" serve --config \"$1\"";
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_pryamo")])
        .arg(site.config())
        .current_dir(site.folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(site.path("daemon.log")).unwrap());
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("PRYAMO_") {
            command.env_remove(key);
        }
    }
    command.spawn().unwrap()
}

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn office_with_everything(agi: SocketAddr) -> Site {
    let site = Site::new(&format!(
        "[fastagi]\nlisten = \"{agi}\"\n[talks]\ncdr = \"calls.csv\"\n\
         [[crm]]\nname = \"list\"\nkind = \"csv\"\nfile = \"clients.csv\"\n"
    ));
    let rows = "id,name,phone,responsible,extension\n1,Иван,79161234501,Анна,101\n";
    std::fs::write(site.path("clients.csv"), rows).unwrap();
    std::fs::write(site.path("calls.csv"), "").unwrap();
    site
}

/// Whatever the umask.
#[test]
fn files_are_their_owners_alone() {
    let site = office_with_everything(free_address());
    let mut daemon = Daemon::of(&site, careless(&site));
    set_password(&site, "anna", "");
    wait_for("the mirror", || {
        daemon.rings("phone=79161234501&callid=1.1")
    });
    let mut kept = Vec::new();
    wait_for("the journal", || {
        kept.clear();
        files(&site.path("data"), "", &mut kept);
        let is_there = kept.iter().any(|path| path.ends_with("journal.sqlite"));
        is_there.then_some(())
    });
    assert_eq!(daemon.stop(), Some(0));
    files(&site.path("data"), "", &mut kept);
    assert!(kept.len() > 6, "{kept:?}");
    for path in &kept {
        // Some are gone with the daemon.
        let Ok(found) = std::fs::metadata(path) else {
            continue;
        };
        let mode = found.permissions().mode() & 0o777;
        assert_eq!(mode & 0o177, 0, "{}: {mode:o}", path.display());
    }
    let folder = std::fs::metadata(site.path("data")).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
}

/// Killed by a fault of its own, the daemon leaves no copy of its memory, and the limit says so.
#[test]
fn no_core_is_dumped() {
    let site = office_with_everything(free_address());
    let mut process = Running(careless(&site));
    let id = process.0.id();
    wait_for("the daemon's port", || {
        TcpStream::connect(site.address).ok()
    });
    let limits = std::fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
    let limit = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words: Vec<&str> = limit.unwrap().split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{limits}");
    let killed = Command::new("kill")
        .args(["-ABRT", &id.to_string()])
        .status();
    assert!(killed.unwrap().success());
    let ended = process.0.wait().unwrap();
    assert_eq!(ended.signal(), Some(6), "{ended}");
    assert!(!ended.core_dumped(), "{ended}");
}

/// The pages that only their owners see are no one else's either where the daemon's port is asked.
#[test]
fn what_is_no_question_of_asterisks_wants_a_password_or_a_token() {
    let site = office_with_everything(free_address());
    let daemon = Daemon::of(&site, careless(&site));
    for target in [
        "/api/v1/journal",
        "/api/v1/employees",
        "/api/v1/sync",
        "/api/v1/shadow",
    ] {
        assert_eq!(daemon.get(target).status, 401, "{target}");
        let wrong = format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer 0\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(daemon.raw(wrong.as_bytes()).status, 401, "{target}");
    }
    let order = "{\"order\": {\"full\": true}}";
    for (method, target, body) in [
        ("POST", "/api/v1/sync", order),
        ("POST", "/api/v1/reload", ""),
        ("POST", "/api/v1/replay", "[]"),
        ("POST", "/api/v1/import?crm=list", "id,name"),
        ("PUT", "/api/v1/employees/list/1", "{}"),
    ] {
        let bytes = posting(target, "application/json", body.as_bytes());
        let bytes = String::from_utf8(bytes)
            .unwrap()
            .replacen("POST", method, 1);
        let answer = daemon.raw(bytes.as_bytes());
        assert_eq!(answer.status, 401, "{method} {target}");
    }
}

/// As systemd judges it without running it. Left out where systemd is not installed.
#[test]
fn the_unit_is_tight() {
    let unit = repository().join("packaging/pryamo.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    let manual = std::fs::read_to_string(repository().join("docs/security.md")).unwrap();
    let judged = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(&unit)
        .output();
    let Ok(judged) = judged.map(|ran| String::from_utf8_lossy(&ran.stdout).into_owned()) else {
        println!("left out: systemd-analyze is not there");
        assert!(text.contains("ProtectSystem=strict"));
        return;
    };
    let level = judged
        .lines()
        .find_map(|line| line.split_once("Overall exposure level for pryamo.service: "));
    let (_, level) = level.unwrap_or_else(|| panic!("{judged}"));
    let level = level.split(' ').next().unwrap();
    assert!(level.parse::<f64>().unwrap() < 2.0, "{judged}");
    // Each version looks at more.
    let version = Command::new("systemd-analyze").arg("--version").output();
    let version = String::from_utf8_lossy(&version.unwrap().stdout).into_owned();
    let version: Vec<&str> = version.split_whitespace().take(2).collect();
    if manual.contains(&format!("{}'s own judgement", version.join(" "))) {
        assert!(manual.contains(&format!("**{level}**")), "it is {level}");
    }
}
