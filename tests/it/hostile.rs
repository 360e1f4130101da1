//! Hostile numbers, names and extensions go through every reader, and through a real Asterisk: none
//! rings anybody but an employee, and no name is more than a name.

mod calls;
pub mod list;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use percent_encoding::percent_decode_str;
use pryamo::call::Did;

use self::list::{Hostile, KNOWN, extensions, fault_of_name, texts};
use crate::daemon::{Daemon, PATIENCE, Site, connect, free_address};
use crate::fake_amocrm::{self, FakeAmocrm};
use crate::fake_bitrix24::{FakeBitrix24, Options};
use crate::page::{PASSWORD, Visitor, set_password};
use crate::world::{Entry, LONG_AGO, User, World};

/// The only employee whose extension is one.
const ANNA: u64 = 1;
const ANNAS: &str = "101";
/// Employees with other things in that field have their ids from here on.
const OTHERS: u64 = 100;
/// Readers at work at once.
const AT_ONCE: usize = 8;
/// What the client behind `\k` is called.
const IVAN: &str = "Иван Петров";
/// The answer for them.
const IVANS: &str = "number=101&ring=20&reason=responsible&name=%D0%98%D0%B2%D0%B0%D0%BD%20%D0%9F%D0%B5%D1%82%D1%80%D0%BE%D0%B2";

/// The client whose name, or whose employee's extension, is the text of this index.
fn phone_of(operator: &str, index: usize) -> String {
    format!("7{operator}{index:07}")
}

fn client(id: u64, name: &str, phone: &str, responsible: u64) -> Entry {
    Entry {
        id,
        name: name.to_owned(),
        responsible,
        phones: vec![format!("+{phone}")],
        modified: LONG_AGO,
        ..Entry::default()
    }
}

fn employee(id: u64, extension: &str) -> User {
    User {
        id,
        first_name: "Анна".to_owned(),
        last_name: format!("Соколова {id}"),
        active: true,
        extension: Some(extension.to_owned()),
        email: format!("user{id}@example.com"),
        ..User::default()
    }
}

/// Clients with these names, at numbers of this operator; and the one who is called as people are.
fn world(operator: &str) -> World {
    let named = texts().into_iter().enumerate().map(|(index, text)| {
        let id = 1000 + index as u64;
        client(id, &text.text(), &phone_of(operator, index), ANNA)
    });
    let mut contacts = vec![client(1, IVAN, KNOWN, ANNA)];
    contacts.extend(named);
    World {
        users: vec![employee(ANNA, ANNAS)],
        contacts,
        ..World::default()
    }
}

async fn portal(world: World) -> FakeBitrix24 {
    let options = Options {
        per_second: 1000.0,
        ..Options::default()
    };
    FakeBitrix24::start(world.shared(), options).await
}

/// The `[[crm]]` table of a portal; no number is asked live, which would only take time.
fn portals_table(portal: &FakeBitrix24) -> String {
    format!(
        "[[crm]]\nname = \"portal\"\nkind = \"bitrix24\"\nurl = \"{}\"\n\
         limits = {{ requests_per_second = 1000 }}\n",
        portal.url()
    )
}

/// Tells of all texts at once which of them fail, and how.
fn none_fails(faults: &[String]) {
    let count = faults.len();
    assert!(faults.is_empty(), "{count} fail:\n{}", faults.join("\n"));
}

/// Does this for every text, several at a time.
fn each<T: Sync>(all: &[T], look: impl Fn(usize, &T) -> Option<String> + Sync) -> Vec<String> {
    let look = &look;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE)
            .map(|first| {
                scope.spawn(move || {
                    let own = all.iter().enumerate().skip(first).step_by(AT_ONCE);
                    own.filter_map(|(index, one)| look(index, one))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// Everything that comes back for these bytes, which may hold a second request or none at all.
fn answered(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    let mut read = Vec::new();
    // A server that has seen enough may reset the connection.
    let _ = stream.write_all(bytes);
    let _ = stream.read_to_end(&mut read);
    String::from_utf8(read).unwrap()
}

/// A number in an answer that is none of ours.
fn strange_number(answer: &str) -> Option<String> {
    let numbers = answer.split("number=").skip(1);
    let mut numbers = numbers.map(|behind| behind.split('&').next().unwrap());
    let strange = numbers.find(|number| !["", ANNAS].contains(number))?;
    Some(format!("rings {strange:?}"))
}

/// What FastAGI sets for a question; one command for each line that arrived.
fn set_by_agi(address: SocketAddr, head: &[u8]) -> Vec<String> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(head).unwrap();
    let mut commands = Vec::new();
    for line in BufReader::new(stream.try_clone().unwrap()).split(b'\n') {
        // A peer that is refused may be reset.
        let Ok(line) = line else { break };
        let line = String::from_utf8(line).unwrap();
        let reply = if line.starts_with("GET FULL VARIABLE") {
            "200 result=1 (1795347631.12)\n"
        } else {
            "200 result=1\n"
        };
        let _ = stream.write_all(reply.as_bytes());
        commands.push(line);
    }
    commands
}

fn head(script: &str, callerid: &[u8]) -> Vec<u8> {
    let mut head = format!(
        "agi_network: yes\nagi_network_script: {script}\nagi_request: agi://127.0.0.1/{script}\n\
         agi_channel: PJSIP/trunk-1\nagi_uniqueid: 1795347631.13\nagi_extension: 7495\nagi_callerid: "
    )
    .into_bytes();
    // Asterisk ends the line there, whatever the number holds behind it.
    head.extend(callerid.iter().take_while(|byte| **byte != b'\n'));
    head.extend(b"\n\n");
    head
}

/// The values of the four variables, or what else was said. No value can end its command.
fn variables(commands: &[String]) -> Result<[String; 4], String> {
    let names = ["NAME", "REASON", "RING", "NUMBER"];
    let asked = |command: &&String| !command.starts_with("GET FULL VARIABLE \"${");
    let set: Vec<&String> = commands.iter().filter(asked).collect();
    if set.len() != names.len() {
        return Err(format!("{commands:?}"));
    }
    let mut values = [const { String::new() }; 4];
    for ((command, name), value) in set.iter().zip(names).zip(&mut values) {
        let quoted = command
            .strip_prefix(&format!("SET VARIABLE PRYAMO_{name} \""))
            .and_then(|rest| rest.strip_suffix('"'))
            .ok_or_else(|| format!("{command:?}"))?;
        let mut letters = quoted.chars();
        while let Some(letter) = letters.next() {
            let plain = match letter {
                '\\' => letters.next().ok_or_else(|| format!("{command:?}"))?,
                '"' => return Err(format!("{command:?}")),
                plain => plain,
            };
            value.push(plain);
        }
    }
    Ok(values)
}

/// A daemon with the plain client alone, and where its FastAGI listens.
async fn office(world: World) -> (FakeBitrix24, Daemon, SocketAddr, Site) {
    let portal = portal(world).await;
    let agi = free_address();
    let site = Site::new(&format!(
        "[match]\nlive_lookup_ms = 0\n[fastagi]\nlisten = \"{agi}\"\n{}",
        portals_table(&portal)
    ));
    let daemon = Daemon::start(&site);
    (portal, daemon, agi, site)
}

/// What is wrong with the answers to a caller with this number.
fn fault_of_number(daemon: &Daemon, agi: SocketAddr, text: &Hostile) -> Option<String> {
    let encoded = text.encoded();
    let tell = |what: &str, answer: &str| Some(format!("{}: {what}: {answer}", text.line));
    let fits = |body: &str| body.is_empty() || (text.holds_the_known_number() && body == IVANS);
    let answer = daemon.forward(&format!("phone={encoded}&trunk=7495&callid=1.1"));
    if !fits(&answer) {
        return tell("/forward", &answer);
    }
    let name = daemon.get(&format!("/name?phone={encoded}")).body;
    if name != if answer.is_empty() { "" } else { IVAN } {
        return tell("/name", &name);
    }
    let route = daemon.get(&format!("/api/v1/route?phone={encoded}&did=7495"));
    let expected = if answer.is_empty() {
        serde_json::Value::Null
    } else {
        ANNAS.into()
    };
    if route.status != 200 || route.json()["number"] != expected {
        return tell("/api/v1/route", &route.body);
    }
    // As a dialplan sends it that does not encode, line breaks and all.
    let raw = [
        b"GET /forward?phone=".as_slice(),
        &text.bytes,
        b"&trunk=7495&callid=1.1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ]
    .concat();
    let answer = answered(daemon.address, &raw);
    if let Some(strange) = strange_number(&answer) {
        return tell(&strange, &answer);
    }
    // As the number dialled and the call's id they change nothing for a client, but that nobody is
    // rung any more behind the end of a call.
    let answer = daemon.forward(&format!("phone={KNOWN}&trunk={encoded}&callid={encoded}"));
    let is_over = Did::new(&text.text()).is_some_and(|did| did.is_after_the_call());
    if answer != if is_over { "" } else { IVANS } {
        return tell("as the number dialled", &answer);
    }
    let raw = [
        format!("GET /forward?phone={KNOWN}&trunk=").as_bytes(),
        &text.bytes,
        b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ]
    .concat();
    let answer = answered(daemon.address, &raw);
    if let Some(strange) = strange_number(&answer) {
        return tell(&format!("as the number dialled {strange}"), &answer);
    }
    for head in [
        head(&format!("forward?phone={encoded}&callid=1.1"), b""),
        head("forward", &text.bytes),
    ] {
        match variables(&set_by_agi(agi, &head)) {
            Err(commands) => return tell("FastAGI", &commands),
            Ok([_, _, _, number]) if number.is_empty() => {}
            Ok([.., number]) if number == ANNAS && text.holds_the_known_number() => {}
            Ok(values) => return tell("FastAGI", &format!("{values:?}")),
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn no_hostile_number_rings_anybody_but_an_employee() {
    let mut world = world("913");
    world.contacts.truncate(1);
    let (_portal, mut daemon, agi, _site) = office(world).await;
    assert_eq!(daemon.forward(&format!("phone={KNOWN}&trunk=7495")), IVANS);
    let raw =
        format!("GET /forward?phone={KNOWN} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answered(daemon.address, raw.as_bytes()).ends_with(IVANS));
    none_fails(&each(&texts(), |_, text| {
        fault_of_number(&daemon, agi, text)
    }));
    assert!(daemon.is_alive());
    assert_eq!(daemon.metric("pryamo_answers_total", "fault"), 0);
}

/// What is wrong with the answers for a client with this name.
fn fault_of_answers(
    daemon: &Daemon,
    agi: SocketAddr,
    text: &Hostile,
    phone: &str,
) -> Option<String> {
    let tell = |what: &str| Some(format!("{}: {what}", text.line));
    let answer = daemon.forward(&format!("phone={phone}&trunk=7495&callid=1.1"));
    let written = answer.strip_prefix("number=101&ring=20&reason=responsible&name=");
    let Some(written) = written else {
        return tell(&answer);
    };
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte);
    if !written.bytes().all(is_safe) {
        return tell(written);
    }
    let name = percent_decode_str(written).decode_utf8().unwrap();
    if let Some(fault) = fault_of_name(&name) {
        return tell(&format!("{name:?}: {fault}"));
    }
    let plain = daemon.get(&format!("/name?phone={phone}")).body;
    if plain != *name {
        return tell(&format!("/name says {plain:?}, /forward {name:?}"));
    }
    let route = daemon.get(&format!("/api/v1/route?phone={phone}&did=7495"));
    if route.json()["number"] != ANNAS {
        return tell(&route.body);
    }
    let question = head(&format!("forward?phone={phone}&callid=1.1"), b"");
    match variables(&set_by_agi(agi, &question)) {
        Ok([said, reason, ring, number])
            if said == *name && reason == "responsible" && ring == "20" && number == ANNAS =>
        {
            None
        }
        Ok(values) => tell(&format!("FastAGI sets {values:?}")),
        Err(commands) => tell(&format!("FastAGI says {commands}")),
    }
}

/// Of each kind of CRM; a table can hold no more than text.
#[tokio::test(flavor = "multi_thread")]
async fn no_hostile_name_is_more_than_a_name() {
    let portal = portal(world("913")).await;
    let account = FakeAmocrm::start(world("914").shared(), fake_amocrm::Options::default());
    let agi = free_address();
    let site = Site::new(&format!(
        "[match]\nlive_lookup_ms = 0\n[fastagi]\nlisten = \"{agi}\"\n{}\
         [[crm]]\nname = \"account\"\nkind = \"amocrm\"\n{}\
         [crm.employees]\n\"user{ANNA}@example.com\" = {{ extension = \"{ANNAS}\" }}\n\
         [[crm]]\nname = \"list\"\nkind = \"csv\"\nfile = \"clients.csv\"\n",
        portals_table(&portal),
        account.table(),
    ));
    std::fs::write(site.path("clients.csv"), table("915")).unwrap();
    let daemon = Daemon::start(&site);
    set_password(&site, "anna", "");
    let all = texts();
    for operator in ["913", "914", "915"] {
        none_fails(&each(&all, |index, text| {
            fault_of_answers(&daemon, agi, text, &phone_of(operator, index))
        }));
    }
    // What the operators read is made of the same names, and none is markup there.
    let mut anna = Visitor::new(&daemon);
    assert_eq!(anna.sign_in("anna", PASSWORD).status, 303);
    let markup = |text: &Hostile| text.line.contains('<') && text.line.contains('>');
    for (index, text) in all.iter().enumerate().filter(|(_, text)| markup(text)) {
        let page = anna.get(&format!("/who?phone={}", phone_of("913", index)));
        assert_eq!(page.status, 200, "{}", text.line);
        assert!(page.body.contains("Соколова"), "{}", text.line);
        assert!(!page.body.contains(&text.text()), "{}", text.line);
    }
}

/// The same clients as a table. Line breaks stay within their cell.
fn table(operator: &str) -> String {
    let mut table = csv::Writer::from_writer(Vec::new());
    table
        .write_record(["id", "kind", "name", "phone", "responsible", "extension"])
        .unwrap();
    for (index, text) in texts().iter().enumerate() {
        let id = (1 + index).to_string();
        let phone = phone_of(operator, index);
        let row = [&id, "contact", &text.text(), &phone, "Анна", ANNAS];
        table.write_record(row).unwrap();
    }
    String::from_utf8(table.into_inner().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_hostile_extension_is_rung() {
    let all = extensions();
    let mut world = World::default();
    for (index, (text, _)) in all.iter().enumerate() {
        let id = OTHERS + index as u64;
        world.users.push(employee(id, &text.text()));
        world
            .contacts
            .push(client(1000 + id, IVAN, &phone_of("913", index), id));
    }
    let (_portal, daemon, agi, site) = office(world).await;
    none_fails(&each(&all, |index, (text, allowed)| {
        let phone = phone_of("913", index);
        let answer = daemon.forward(&format!("phone={phone}&trunk=7495&callid=1.1"));
        let rung = crate::daemon::value(&answer, "number").unwrap_or_default();
        let fits = rung == allowed.unwrap_or_default();
        let question = head(&format!("forward?phone={phone}&callid=1.1"), b"");
        let set = variables(&set_by_agi(agi, &question));
        let agrees = set.is_ok_and(|[.., number]| number == rung);
        (!fits || !agrees).then(|| format!("{}: {answer}", text.line))
    }));
    let mut listed = String::new();
    for line in site.run(&["employees"]).out.lines() {
        writeln!(listed, "{line}").unwrap();
        let is_unfit = |letter: char| letter.is_control() || letter == '\u{202e}';
        assert!(!line.contains(is_unfit), "{line:?}");
    }
    assert!(listed.contains("Соколова"), "{listed}");
}
