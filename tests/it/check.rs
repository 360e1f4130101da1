//! What `pryamo check` says of broken set-ups: `docs/check.md` is made here and compared, so that
//! people review the words that somebody reads at two in the morning.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use regex::Regex;

use crate::daemon::{Daemon, PATIENCE, Ran, Site, free_address};
use crate::fake_amocrm::{self, FakeAmocrm};
use crate::fake_bitrix24::{FakeBitrix24, Mood, Options};
use crate::lab::dialplans;
use crate::tls::{Authority, Door};
use crate::world::World;

const CLIENTS: &str = "\
id;kind;name;company;phone;responsible;extension
1;contact;Иван Петров;ООО «Ромашка»;79161234501;Анна Соколова;101
2;contact;Мария Весна;;79161234502;Борис Жуков;102
";

const LIST: &str = "[[crm]]\nname = \"list\"\nkind = \"csv\"\nfile = \"clients.csv\"\n";

/// A PBX that is as it should be, but for its files.
const CONSOLE: &str = r#"case "$2" in
    "core show function CURL") echo "$CURL_IS";;
    "dialplan show "*) echo "[ Context '${2#dialplan show }' created by 'pbx_config' ]";;
    "core show hints") echo "  101@ext-local : PJSIP/101 State:Idle"; echo "  102@ext-local : PJSIP/102 State:Idle";;
esac
"#;

/// A machine with pryamo's configuration and a PBX's files.
struct Machine {
    site: Site,
    /// What to write for what differs from run to run.
    shown: Vec<(String, &'static str)>,
}

impl Machine {
    /// Everything in order but what `more` says; `more` ends with `[[crm]]` tables.
    fn new(more: &str) -> Self {
        let site = Site::new("");
        let machine = Self {
            site,
            shown: Vec::new(),
        };
        std::fs::write(machine.site.path("clients.csv"), CLIENTS).unwrap();
        std::fs::create_dir(machine.site.path("asterisk")).unwrap();
        machine.configure(more);
        machine.console("is there");
        machine.pbx("extensions.conf", "#include extensions_custom.conf\n");
        let ours = machine.site.run(&["dialplan"]);
        assert_eq!(ours.code, 0, "{ours:?}");
        machine.pbx("extensions_custom.conf", &ours.out);
        machine
    }

    fn configure(&self, more: &str) {
        let folder = self.site.path("asterisk");
        let folder = folder.display();
        self.site.configure(&format!(
            "[fastagi]\nlisten = \"\"\n[asterisk]\nfolder = '{folder}'\ncommand = '/bin/sh {folder}/console'\n{more}"
        ));
        self.mode("pryamo.toml", 0o600);
    }

    fn mode(&self, name: &str, mode: u32) {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.site.path(name), mode).unwrap();
    }

    fn pbx(&self, name: &str, text: &str) {
        std::fs::write(self.site.path("asterisk").join(name), text).unwrap();
    }

    fn console(&self, curl: &str) {
        self.pbx("console", &format!("CURL_IS='{curl}'\n{CONSOLE}"));
    }

    /// Writes `shown` in the place of an address that differs from run to run.
    fn showing(mut self, address: &impl ToString, shown: &'static str) -> Self {
        self.shown.push((address.to_string(), shown));
        self
    }

    /// The whole output as it looks on any machine.
    fn told(&self) -> (i32, String) {
        let Ran { code, out, err } = self.site.run(&["check"]);
        let mut text = out + err.as_str();
        for (address, shown) in &self.shown {
            text = text.replace(address, shown);
        }
        let folder = self.site.folder.path().display();
        for (from, to) in [
            (self.site.address.to_string(), "127.0.0.1:8077"),
            (format!("{folder}/data"), "/var/lib/pryamo"),
            (format!("{folder}/asterisk"), "/etc/asterisk"),
            (format!("/private{folder}"), "/etc/pryamo"),
            (folder.to_string(), "/etc/pryamo"),
        ] {
            text = text.replace(&from, to);
        }
        for (pattern, to) in [
            (r"\d+ GiB are free", "40 GiB are free"),
            (r"\S+ \(process \d+\)", "some-program (process 812)"),
            (r"\d+ (s|min) old", "8 s old"),
            (r"clock is \d+ h behind", "clock is 3 h behind"),
        ] {
            text = Regex::new(pattern)
                .unwrap()
                .replace_all(&text, to)
                .into_owned();
        }
        (code, text)
    }
}

/// Answers every connection with these bytes, for as long as the test runs.
fn answer_on(listener: TcpListener, bytes: &'static str) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Who leaves early needs no answer.
            let _ = read_head(&stream);
            let _ = (&stream).write_all(bytes.as_bytes());
        }
    });
}

fn read_head(stream: &TcpStream) -> std::io::Result<Vec<String>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let lines = BufReader::new(stream).lines();
    lines
        .take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty()))
        .collect()
}

/// Asterisk's Manager Interface, which lets nobody in.
fn refusing_ami() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = (&stream).write_all(b"Asterisk Call Manager/9.0.0\r\n");
            let _ = read_head(&stream);
            let refused = b"Response: Error\r\nMessage: Authentication failed\r\n\r\n";
            let _ = (&stream).write_all(refused);
        }
    });
    address
}

/// Another server's answers, with a clock three hours ahead of ours.
fn with_clock_ahead(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = pass_on(&stream, server);
        }
    });
    address
}

fn pass_on(stream: &TcpStream, server: SocketAddr) -> std::io::Result<()> {
    let head = read_head(stream)?;
    let mut behind = TcpStream::connect(server)?;
    write!(behind, "{}\r\nConnection: close\r\n\r\n", head.join("\r\n"))?;
    let mut answer = Vec::new();
    behind.read_to_end(&mut answer)?;
    let later = pryamo::serve::clock()() + jiff::SignedDuration::from_mins(3 * 60 + 20);
    let date = later
        .strftime("date: %a, %d %b %Y %H:%M:%S GMT\r\n")
        .to_string();
    let end = answer
        .windows(2)
        .position(|two| two == b"\r\n")
        .unwrap_or(0)
        + 2;
    let (first, rest) = answer.split_at(end);
    // Its links lead to itself; both ports have five digits, so that the length stays true.
    let own_address = stream.local_addr()?.to_string();
    let rest = String::from_utf8_lossy(rest).replace(&server.to_string(), &own_address);
    let own = Regex::new("(?i)(^|\n)date: [^\r]*\r\n").unwrap();
    let mut stream = stream;
    stream.write_all(first)?;
    stream.write_all(date.as_bytes())?;
    stream.write_all(own.replace(&rest, "$1").as_bytes())
}

fn amocrm(fake: &FakeAmocrm, url: &str) -> String {
    let table = fake.table().replace(&fake.url(), url);
    format!("[[crm]]\nname = \"retail\"\nkind = \"amocrm\"\n{table}")
}

fn account() -> FakeAmocrm {
    let now = pryamo::serve::clock()().as_second();
    let options = fake_amocrm::Options {
        now,
        token_ends: 4_102_444_800,
        ..fake_amocrm::Options::default()
    };
    FakeAmocrm::start(World::office(3).shared(), options)
}

fn host(url: &str) -> String {
    let rest = url.split_once("://").unwrap().1;
    rest.split('/').next().unwrap().to_owned()
}

/// A portal that is like this, and a machine that asks it.
async fn portal(options: Options, mood: Mood, code: &str) -> (FakeBitrix24, Machine) {
    let fake = FakeBitrix24::start(World::office(3).shared(), options).await;
    fake.set_mood(mood);
    let url = fake.url().replace("k0d3example", code);
    let machine = Machine::new(&format!(
        "[[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\nurl = \"{url}\"\n"
    ));
    let machine = machine.showing(&host(&fake.url()), "127.0.0.1:9000");
    (fake, machine)
}

/// The page as it grows.
struct Page(String);

impl Page {
    fn add(&mut self, title: &str, machine: &Machine) {
        let (code, text) = machine.told();
        assert_ne!(code, 0, "{title}: nothing is found:\n{text}");
        writeln!(
            self.0,
            "\n## {title}\n\nExit code {code}.\n\n```text\n{text}```"
        )
        .unwrap();
    }
}

fn of_configuration(page: &mut Page) {
    let nothing = Machine::new("");
    page.add("The configuration names no CRM", &nothing);

    let typo = Machine::new(LIST);
    typo.configure("[phone]\nregoin = \"RU\"\n");
    page.add("A typo in the configuration", &typo);

    let readable = Machine::new(&format!("[ami]\nsecret = \"s3cret\"\n{LIST}"));
    readable.mode("pryamo.toml", 0o644);
    page.add("Everybody can read the secrets", &readable);
}

fn of_machine(page: &mut Page) {
    let taken = Machine::new(LIST);
    let listener = TcpListener::bind(taken.site.address).unwrap();
    answer_on(
        listener,
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
    );
    page.add("Another program has the port", &taken);

    let file = Machine::new(LIST);
    std::fs::write(file.site.path("data"), "").unwrap();
    page.add("The folder for the mirror is a file", &file);

    let damaged = Machine::new(LIST);
    std::fs::create_dir(damaged.site.path("data")).unwrap();
    damaged.mode("data", 0o700);
    let garbage = "no database at all, and longer than its head would be ".repeat(100);
    std::fs::write(damaged.site.path("data/directory.sqlite"), garbage).unwrap();
    page.add("The mirror is damaged", &damaged);
}

async fn of_bitrix24(page: &mut Page) {
    let well = Options::default;
    let (_fake, machine) = portal(well(), Mood::Well, "wr0ng").await;
    page.add(
        "Bitrix24: the webhook's secret is wrong, or it was deleted",
        &machine,
    );

    let scopes = Options {
        scopes: vec!["user_basic", "department"],
        ..well()
    };
    let (_fake, machine) = portal(scopes, Mood::Well, "k0d3example").await;
    page.add("Bitrix24: the webhook may not read cards", &machine);

    let (_fake, machine) = portal(well(), Mood::OverloadLimit, "k0d3example").await;
    page.add("Bitrix24: the vendor has blocked the portal", &machine);

    let nobody = free_address();
    let machine = Machine::new(&format!(
        "[[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\nurl = \"http://{nobody}/rest/1/k0d3example/\"\n"
    ));
    let machine = machine.showing(&nobody, "127.0.0.1:9000");
    page.add("Bitrix24: nothing answers at the address", &machine);

    let fake = FakeBitrix24::start(World::office(3).shared(), well()).await;
    let own = Authority::new("The company's own").sign("127.0.0.1", |_| {});
    let door = Door::before(fake.server(), own).await;
    let url = door.through(&fake.url());
    let machine = Machine::new(&format!(
        "[[crm]]\nname = \"sales\"\nkind = \"bitrix24\"\nurl = \"{url}\"\n"
    ));
    page.add(
        "Bitrix24: a portal of your own, whose certificate nobody knows",
        &machine,
    );
}

fn of_amocrm(page: &mut Page) {
    let now = pryamo::serve::clock()().as_second();
    let options = fake_amocrm::Options {
        now,
        token_ends: now + 5 * 86_400,
        ..fake_amocrm::Options::default()
    };
    let soon = FakeAmocrm::start(World::office(3).shared(), options);
    let ends = jiff::Timestamp::from_second(now + 5 * 86_400).unwrap();
    let machine = Machine::new(&amocrm(&soon, &soon.url()));
    let machine = machine.showing(&ends.strftime("%F"), "2026-12-01");
    page.add("amoCRM: the token soon ends", &machine);

    let revoked = account();
    revoked.set_mood(fake_amocrm::Mood::Revoked);
    let machine = Machine::new(&amocrm(&revoked, &revoked.url()));
    page.add("amoCRM: the token was revoked", &machine);

    let fake = account();
    let server: SocketAddr = host(&fake.url()).parse().unwrap();
    let ahead = with_clock_ahead(server);
    let machine = Machine::new(&amocrm(&fake, &format!("http://{ahead}")));
    page.add("This machine's clock is wrong", &machine);

    let fake = account();
    let machine = Machine::new(&amocrm(&fake, &fake.url()));
    let _daemon = Daemon::start(&machine.site);
    page.add("Nobody has an extension", &machine);
}

fn of_pbx(page: &mut Page) {
    let machine = Machine::new(LIST);
    machine.console("No function by that name registered.");
    page.add("Asterisk lacks CURL", &machine);

    let machine = Machine::new(LIST);
    machine.pbx("extensions_custom.conf", "");
    page.add("The dialplan is not installed", &machine);

    let machine = Machine::new(LIST);
    let vendors = std::fs::read_to_string(dialplans().join("vendor.conf")).unwrap();
    let url = format!("http://localhost:{}/forward", machine.site.address.port());
    machine.pbx(
        "extensions_custom.conf",
        &vendors.replace("@FORWARD_URL@", &url),
    );
    page.add("The dialplan of the vendor's page", &machine);

    let machine = Machine::new(LIST);
    let moved = free_address();
    let text = std::fs::read_to_string(machine.site.config()).unwrap();
    let text = text.replace(&machine.site.address.to_string(), &moved.to_string());
    std::fs::write(machine.site.config(), text).unwrap();
    let machine = machine.showing(&moved, "127.0.0.1:8078");
    page.add("The dialplan asks at another port", &machine);

    let machine = Machine::new(LIST);
    machine.pbx(
        "extensions.conf",
        "#include extensions_additional.conf\n#include extensions_custom.conf\n",
    );
    machine.pbx(
        "extensions_additional.conf",
        "[ext-did-0002]\nexten => 74951234567,1,Goto(ivr-1,s,1)\n",
    );
    page.add("FreePBX: no route leads to pryamo", &machine);

    let ami = refusing_ami();
    let machine = Machine::new(&format!(
        "[ami]\naddress = \"{ami}\"\nsecret = \"wrong\"\n{LIST}"
    ));
    let machine = machine.showing(&ami, "127.0.0.1:5038");
    page.add("The Manager Interface refuses the password", &machine);
}

/// `make snapshots` writes the page anew.
#[tokio::test(flavor = "multi_thread")]
async fn broken_set_ups_are_told_as_reviewed() {
    let mut page = Page(String::from(
        "# What `pryamo check` says\n\nOf broken set-ups, one fault each; all else is in order. A line that is not `ok` is followed by what to\n\
         do. The CRMs here are stand-ins on the same machine, hence their `http://`. This page is made by a test, so\n\
         it is what the program says.\n",
    ));
    of_configuration(&mut page);
    of_machine(&mut page);
    of_bitrix24(&mut page).await;
    of_amocrm(&mut page);
    of_pbx(&mut page);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/check.md");
    if std::env::var_os("PRYAMO_TEST_SNAPSHOTS").is_some() {
        std::fs::write(&path, &page.0).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page.0 == reviewed,
        "the page differs; look at it and run `make snapshots`:\n{}",
        page.0
    );
}

/// Nothing is told of a set-up that is in order, and no warning is without its mend.
#[test]
fn a_set_up_in_order_has_nothing_to_mend() {
    let machine = Machine::new(LIST);
    let (code, text) = machine.told();
    assert_eq!(code, 0, "{text}");
    let _daemon = Daemon::start(&machine.site);
    let (code, text) = machine.told();
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("ok    employees: 2 active, 2 extensions"),
        "{text}"
    );
    let hinted = "  101@ext-local : PJSIP/101 State:Idle";
    machine.pbx(
        "console",
        &format!("[ \"$2\" = 'core show hints' ] && echo '{hinted}'\ntrue\n"),
    );
    let (code, text) = machine.told();
    assert_eq!(code, 3, "{text}");
    assert!(
        text.contains("neither a hint nor an endpoint for 102:"),
        "{text}"
    );
}

/// FreePBX's Custom Destination must be there, and be chosen.
#[test]
fn freepbx_is_followed_from_the_route_to_pryamo() {
    let machine = Machine::new(LIST);
    machine.pbx(
        "extensions.conf",
        "#include extensions_additional.conf\n#include extensions_custom.conf\n",
    );
    let destination = "[customdests]\nexten => dest-1,1,Gosub(pryamo,s,1())\n";
    let route = "[ext-did-0002]\nexten => 74951234567,1,Goto(customdests,dest-1,1)\n";
    for (text, code, words) in [
        (destination.to_owned(), 3, "no inbound route leads to it"),
        (
            format!("{destination}{route}"),
            0,
            "a route leads to pryamo",
        ),
        (
            "[ext-did-0002]\nexten => _X.,1,Goto(pryamo,${EXTEN},1)\n".to_owned(),
            0,
            "a route leads to pryamo",
        ),
    ] {
        machine.pbx("extensions_additional.conf", &text);
        let (found, told) = machine.told();
        assert_eq!(found, code, "{told}");
        assert!(told.contains(words), "{told}");
    }
}
