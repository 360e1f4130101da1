//! `pryamo dialplan` with a real Asterisk, and what `pryamo check` says of what it finds.

use std::path::Path;

use crate::daemon::{Ran, Site};
use crate::lab::{Dialplan, Lab, asterisk_versions, dialplans};

const CUSTOM: &str = "extensions_custom.conf";

/// A site whose Asterisk has its files here and is asked so.
fn site(folder: &Path, command: &str) -> Site {
    Site::new(&format!(
        "[asterisk]\nfolder = '{}'\ncommand = '{command}'\nstandard = \"ivr-1,s,1\"\n",
        folder.display()
    ))
}

/// The files beside the one that is changed: its former states.
fn backups(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| {
        let name = entry.unwrap().file_name();
        name.to_str().unwrap().to_owned()
    });
    names
        .filter(|name| name.starts_with(CUSTOM) && name != CUSTOM)
        .collect()
}

fn went_well(ran: &Ran) {
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn it_is_installed_once_and_removed_without_a_trace() {
    for version in asterisk_versions() {
        let url = "http://127.0.0.1:8077/forward";
        let lab = Lab::start_with(&version, &dialplans().join("vendor.conf"), url);
        let custom = lab.etc().join(CUSTOM);
        let before = std::fs::read_to_string(&custom).unwrap();
        let site = site(&lab.etc(), &lab.console_command());
        let read = || std::fs::read_to_string(&custom).unwrap();
        let shown = || lab.console("dialplan show pryamo-call");

        let dry = site.run(&["dialplan", "--install", "--dry-run"]);
        went_well(&dry);
        assert_eq!(read(), before);

        let installed = site.run(&["dialplan", "--install"]);
        went_well(&installed);
        assert!(installed.err.contains("[itgrix-transfer]"), "{installed:?}");
        assert_eq!(read(), dry.out);
        assert!(read().starts_with(&before), "{version}");
        assert!(shown().contains("Dial(Local/"), "{version}: {}", shown());
        assert_eq!(backups(&lab.etc()).len(), 1);

        let again = site.run(&["dialplan", "--install"]);
        went_well(&again);
        assert!(again.out.contains("has it already"), "{again:?}");
        assert_eq!(read(), dry.out);
        assert_eq!(backups(&lab.etc()).len(), 1);

        let removed = site.run(&["dialplan", "--remove"]);
        went_well(&removed);
        assert_eq!(read(), before);
        assert!(!shown().contains("Dial(Local/"), "{version}");
    }
}

#[test]
fn a_dialplan_that_asterisk_does_not_take_is_put_back() {
    for version in asterisk_versions() {
        let url = "http://127.0.0.1:8077/forward";
        let lab = Lab::start(&version, Dialplan::Vendor, url);
        let custom = lab.etc().join(CUSTOM);
        // A context of the same name in a file that comes first.
        let extensions = lab.etc().join("extensions.conf");
        let text = std::fs::read_to_string(&extensions).unwrap();
        let earlier = "[pryamo-ask]\nexten => s,1,NoOp(somebody else's)\n same => n,Return()\n";
        std::fs::write(
            &extensions,
            text.replace(
                "#include \"extensions_custom.conf\"",
                &format!("{earlier}#include \"more.conf\""),
            ),
        )
        .unwrap();
        std::fs::write(lab.etc().join("more.conf"), "").unwrap();
        let before = std::fs::read_to_string(&custom).unwrap();
        let site = site(&lab.etc(), &lab.console_command());
        let ran = site.run(&["dialplan", "--install"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains("does not include"), "{ran:?}");
        std::fs::write(
            lab.etc().join("more.conf"),
            "#include \"extensions_custom.conf\"\n",
        )
        .unwrap();
        // Included, but Asterisk looks at another folder's files: nothing of it arrives.
        let elsewhere = tempfile::tempdir().unwrap();
        for name in ["extensions.conf", "more.conf", CUSTOM] {
            std::fs::copy(lab.etc().join(name), elsewhere.path().join(name)).unwrap();
        }
        std::fs::write(&extensions, text).unwrap();
        let site = self::site(elsewhere.path(), &lab.console_command());
        let ran = site.run(&["dialplan", "--install"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains("is as it was"), "{ran:?}");
        let after = std::fs::read_to_string(elsewhere.path().join(CUSTOM)).unwrap();
        assert_eq!(after, before);
        assert_eq!(backups(elsewhere.path()), [""; 0]);
    }
}

#[test]
fn without_an_asterisk_nothing_is_changed() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("extensions.conf", "#include \"extensions_custom.conf\"\n");
    write(CUSTOM, "[a]\n");
    let site = site(folder.path(), "/nowhere/asterisk");
    let ran = site.run(&["dialplan", "--install"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("`asterisk.command`"), "{ran:?}");
    let text = std::fs::read_to_string(folder.path().join(CUSTOM)).unwrap();
    assert_eq!(text, "[a]\n");
    let missing = self::site(&folder.path().join("none"), "/nowhere/asterisk");
    let ran = missing.run(&["dialplan", "--install"]);
    assert_eq!(ran.code, 1, "{ran:?}");
}

#[test]
fn the_exchange_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let site = site(folder.path(), "/nowhere/asterisk");
    let printed = || {
        let ran = site.run(&["dialplan"]);
        went_well(&ran);
        ran.out
    };
    assert!(printed().contains("@from-internal/n"));
    write("extensions.conf", "#include extensions_additional.conf\n");
    for (line, expected) in [
        (
            "exten => s,1,Gosub(macro-dial-one,s,1(15,tr,101))",
            "Gosub(macro-dial-one,",
        ),
        ("exten => s,1,Macro(dial-one,15,tr,101)", "Macro(dial-one,"),
        // Neither: Asterisk cannot be asked, and the newest form is printed.
        ("exten => s,1,NoOp()", "Gosub(macro-dial-one,"),
    ] {
        write("extensions_additional.conf", &format!("[x]\n{line}\n"));
        assert!(printed().contains(expected), "{line}");
    }
    let by_agi = site.run(&["dialplan", "--agi"]);
    assert!(
        by_agi.out.contains("AGI(agi://127.0.0.1:4574/forward?"),
        "{by_agi:?}"
    );
    let bad = site.run(&["dialplan", "--install", "--remove"]);
    assert_eq!(bad.code, 2);
}

#[test]
fn check_names_the_dangers_of_the_vendors_context_and_none_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let site = site(folder.path(), "/nowhere/asterisk");
    let of_dialplan = || {
        let lines = site.run(&["check"]).out;
        let found = lines.lines().filter(|line| line.contains(" dialplan: "));
        found.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of_dialplan(), [""; 0]);
    write("extensions.conf", "#include extensions_custom.conf\n");
    assert_eq!(of_dialplan().len(), 1, "nothing asks");
    let vendors = std::fs::read_to_string(dialplans().join("vendor.conf")).unwrap();
    write(
        CUSTOM,
        &vendors.replace(
            "@FORWARD_URL@",
            &format!("http://localhost:{}/forward", site.address.port()),
        ),
    );
    let found = of_dialplan();
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(
        found.iter().all(|line| line.contains("[itgrix-transfer]")),
        "{found:?}"
    );
    write(CUSTOM, &site.run(&["dialplan"]).out);
    let found = of_dialplan();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("ok"), "{found:?}");
}
