//! Set-up on the page: a CRM is connected, the configuration read again, the dialplan offered,
//! everything checked.

use crate::daemon::{Daemon, Site, wait_for};
use crate::fake_amocrm::{self, FakeAmocrm};
use crate::fake_bitrix24::{FakeBitrix24, Options};
use crate::page::{PASSWORD, Visitor, set_password};
use crate::world::{World, call_of};

/// A form of the page, with the session's token.
fn send(visitor: &mut Visitor, path: &str, fields: &[(&str, &str)]) -> crate::daemon::Answer {
    let token = visitor.token();
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("csrf", &token);
    form.extend_pairs(fields);
    visitor.ask("POST", path, &form.finish())
}

/// The files beside the configuration that are its former states.
fn backups(site: &Site) -> usize {
    let names = std::fs::read_dir(site.folder.path()).unwrap();
    let names = names.map(|file| file.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.starts_with("pryamo.toml."))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crm_is_tried_written_down_and_answers() {
    let bitrix24 = FakeBitrix24::start(World::office(3).shared(), Options::default()).await;
    let amocrm = FakeAmocrm::start(World::office(3).shared(), fake_amocrm::Options::default());
    let site = Site::new("# by hand\n");
    let before = std::fs::read_to_string(site.config()).unwrap();
    let daemon = Daemon::start_unready(&site);
    set_password(&site, "anna", "");
    let mut anna = Visitor::new(&daemon);
    anna.sign_in("anna", PASSWORD);
    let now = anna.get("/").body;
    assert!(now.contains("No CRM is connected") && now.contains("href=\"/setup\""));
    assert_eq!(daemon.forward(&call_of(1)), "");
    // A wrong key: what is wrong and what mends it; nothing is written, and the key is not shown.
    let wrong = bitrix24.url().replace("k0d3example", "wr0ng");
    let refused = send(
        &mut anna,
        "/setup/crm",
        &[("crm", "bitrix24"), ("url", &wrong)],
    );
    assert!(
        refused.body.contains("nothing was written")
            && refused.body.contains("make a new incoming webhook"),
        "{}",
        refused.body
    );
    assert!(!refused.body.contains("wr0ng"));
    assert_eq!(std::fs::read_to_string(site.config()).unwrap(), before);
    // The right one is written, taken over without a restart, and calls are answered by it.
    let url = bitrix24.url();
    let connected = send(
        &mut anna,
        "/setup/crm",
        &[("crm", "bitrix24"), ("url", &url)],
    );
    for told in ["Written: ", "In force from now on", "2 employees"] {
        assert!(connected.body.contains(told), "{told}: {}", connected.body);
    }
    assert!(!connected.body.contains("k0d3example"));
    wait_for("the first call of a client", || {
        (daemon.rings(&call_of(1)).as_deref() == Some("101")).then_some(())
    });
    let written = std::fs::read_to_string(site.config()).unwrap();
    assert!(written.contains("# by hand") && written.contains("hook_secret"));
    assert_eq!(backups(&site), 1);
    // Once is enough; another CRM is added to it.
    let again = send(
        &mut anna,
        "/setup/crm",
        &[("crm", "bitrix24"), ("url", &url)],
    );
    assert!(again.body.contains("already"), "{}", again.body);
    let (url, token) = (amocrm.url(), amocrm.token());
    let second = [
        ("crm", "amocrm"),
        ("url", url.as_str()),
        ("token", token.as_str()),
        ("name", "retail"),
    ];
    let second = send(&mut anna, "/setup/crm", &second);
    assert!(second.body.contains("Written: "), "{}", second.body);
    assert!(!second.body.contains(&token));
    assert_eq!(backups(&site), 2);
    wait_for("both mirrors", || {
        let page = anna.get("/mirrors").body;
        (page.contains("<h2>bitrix24</h2>") && page.contains("<h2>retail</h2>")).then_some(())
    });
}

#[test]
fn a_wrong_answer_is_told() {
    let site = Site::new("");
    let before = std::fs::read_to_string(site.config()).unwrap();
    let daemon = Daemon::start_unready(&site);
    set_password(&site, "anna", "");
    let mut anna = Visitor::new(&daemon);
    anna.sign_in("anna", PASSWORD);
    for (fields, told) in [
        (
            &[("crm", "bitrix24"), ("url", "x"), ("region", "X1")][..],
            "no country",
        ),
        (&[("crm", "csv"), ("file", "clients.csv")], "whole path"),
        (&[("crm", "csv"), ("file", "/etc/passwd")], "whole path"),
        (&[("crm", "amocrm"), ("url", "https://x.example")], "token"),
        (&[("crm", "oracle")], "say which CRM"),
    ] {
        let answer = send(&mut anna, "/setup/crm", fields);
        assert!(answer.body.contains(told), "{told}: {}", answer.body);
    }
    assert_eq!(std::fs::read_to_string(site.config()).unwrap(), before);
}

#[test]
fn what_the_commands_say_is_shown() {
    let rows = "id;name;phone;responsible;extension\n1;Иван;79161234501;Анна;101\n";
    let site = Site::with_csv(rows);
    let asterisk = site.path("asterisk");
    std::fs::create_dir(&asterisk).unwrap();
    let crms = format!(
        "[asterisk]\nfolder = '{}'\ncommand = 'no-such-asterisk'\n\
         [[crm]]\nname = \"list\"\nkind = \"csv\"\nfile = \"clients.csv\"\n",
        asterisk.display()
    );
    site.configure(&crms);
    let daemon = Daemon::start(&site);
    set_password(&site, "anna", "");
    let mut anna = Visitor::new(&daemon);
    anna.sign_in("anna", PASSWORD);
    let checked = send(&mut anna, "/setup/check", &[]).body;
    let command = site.run(&["check", "--json"]);
    let findings: serde_json::Value = serde_json::from_str(&command.out).unwrap();
    assert_eq!(
        checked.matches("<span class=\"badge").count(),
        findings.as_array().unwrap().len(),
        "{checked}"
    );
    assert!(checked.contains("1 may sign in"), "{checked}");
    let shown = send(&mut anna, "/setup/dialplan", &[("install", "false")]).body;
    assert!(shown.contains("[pryamo-call]"), "{shown}");
    // There is no Asterisk: it says so, and nothing is written.
    let failed = send(&mut anna, "/setup/dialplan", &[("install", "true")]).body;
    assert!(failed.contains("no-such-asterisk"), "{failed}");
    assert_eq!(std::fs::read_dir(&asterisk).unwrap().count(), 0);
    // The file, read again: a good one is taken over, a bad one changes nothing.
    site.configure(&format!("[name]\nbytes = 20\n{crms}"));
    let reloaded = send(&mut anna, "/setup/reload", &[]).body;
    assert!(
        reloaded.contains("In force from now on: name.bytes"),
        "{reloaded}"
    );
    site.configure("[forwrad]\n");
    let refused = send(&mut anna, "/setup/reload", &[]).body;
    assert!(
        refused.contains("Nothing has changed") && refused.contains("forwrad"),
        "{refused}"
    );
    assert_eq!(daemon.rings("phone=79161234501").as_deref(), Some("101"));
}

#[test]
fn a_viewer_sets_nothing_up() {
    let rows = "id;name;phone;responsible;extension\n1;Иван;79161234501;Анна;101\n";
    let site = Site::with_csv(rows);
    let daemon = Daemon::start(&site);
    set_password(&site, "olga", "--viewer");
    let mut olga = Visitor::new(&daemon);
    olga.sign_in("olga", PASSWORD);
    assert!(!olga.get("/").body.contains("href=\"/setup\""));
    assert_eq!(olga.get("/setup").status, 403);
    let before = std::fs::read_to_string(site.config()).unwrap();
    let fields = [("crm", "csv"), ("file", "/etc/passwd")];
    for path in ["crm", "reload", "check", "dialplan"] {
        let path = format!("/setup/{path}");
        assert_eq!(send(&mut olga, &path, &fields).status, 403, "{path}");
    }
    assert_eq!(std::fs::read_to_string(site.config()).unwrap(), before);
}
