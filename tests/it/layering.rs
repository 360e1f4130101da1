//! Holds the source to `ARCHITECTURE.md`: the tree, and which module may name which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a call meets: none of it may know a CRM.
const PATH_OF_A_CALL: [&str; 17] = [
    "call",
    "chain",
    "caller_name",
    "decision",
    "directory",
    "hours",
    "matcher",
    "pbx",
    "phone",
    "presence",
    "reception",
    "record",
    "router",
    "rules",
    "script",
    "shadow",
    "web",
];

/// Decides without doing anything.
const MIDDLE: [&str; 10] = [
    "phone",
    "call",
    "record",
    "matcher",
    "chain",
    "hours",
    "presence",
    "rules",
    "caller_name",
    "decision",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn architecture() -> String {
    std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap()
}

/// The part of `ARCHITECTURE.md` under this heading.
fn chapter(heading: &str) -> String {
    let text = architecture();
    let start = format!("\n## {heading}\n");
    let (_, rest) = text
        .split_once(&start)
        .unwrap_or_else(|| panic!("ARCHITECTURE.md has no chapter `{heading}`"));
    rest.split("\n## ").next().unwrap().to_owned()
}

/// All files below a folder, with their paths from the package's root.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let inside = path.strip_prefix(root()).unwrap();
                found.push(inside.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The Rust files below a folder.
fn sources(folder: &str) -> Vec<String> {
    let mut found = files(folder);
    found.retain(|file| Path::new(file).extension().is_some_and(|end| end == "rs"));
    found
}

/// `src/crm/mod.rs` belongs to `crm`.
fn module_of(file: &str) -> &str {
    let inside = file.strip_prefix("src/").unwrap();
    let first = inside.split('/').next().unwrap();
    first.strip_suffix(".rs").unwrap_or(first)
}

/// A file's code without comments and without its tests, which stand at its end.
fn code_of(file: &str) -> String {
    const TESTS: [&str; 3] = [
        "\n#[cfg(test)]\nmod ",
        "\n#[cfg(any(test, fuzzing))]\npub(crate) fn ",
        "\n#[cfg(any(test, fuzzing))]\npub(super) fn ",
    ];
    if file.ends_with("/fuzz.rs") && file != "src/fuzz.rs" {
        return String::new();
    }
    let text = std::fs::read_to_string(root().join(file)).unwrap();
    let tests = TESTS.iter().filter_map(|begin| text.find(begin)).min();
    let without_tests = &text[..tests.unwrap_or(text.len())];
    without_tests
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// The modules that some code names behind `crate::`.
fn named_in(code: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|letter| letter.is_alphanumeric() || "_$".contains(letter)) {
            continue;
        }
        let rest = &code[at + found.len()..];
        match rest.strip_prefix('{') {
            Some(list) => named.extend(first_words(list)),
            None => named.extend([word(rest)]),
        }
    }
    named.remove("");
    named
}

fn word(text: &str) -> String {
    let is_part = |letter: &char| letter.is_alphanumeric() || *letter == '_';
    text.chars().take_while(is_part).collect()
}

/// The first words of the paths in `a::b, c::{d, e}, f}`.
fn first_words(list: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut depth = 0;
    let mut begins = true;
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            letter if begins && depth == 0 && !letter.is_whitespace() => {
                words.push(word(&list[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    words
}

/// The table of `ARCHITECTURE.md`: `None` for a module that may name all.
fn allowed() -> BTreeMap<String, Option<BTreeSet<String>>> {
    let words = |cell: &str| -> BTreeSet<String> {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    let mut table = BTreeMap::new();
    for line in chapter("Which module may name which").lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", modules, may_name, _, ""] = cells.as_slice() else {
            continue;
        };
        for module in words(modules) {
            let names = (*may_name != "all").then(|| words(may_name));
            table.insert(module, names);
        }
    }
    table
}

/// What each module names besides itself, with the file that does.
fn named() -> BTreeMap<String, BTreeMap<String, String>> {
    let mut named: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for file in &sources("src") {
        let module = module_of(file);
        if matches!(module, "lib" | "main") {
            continue;
        }
        let others = named.entry(module.to_owned()).or_default();
        for other in named_in(&code_of(file)) {
            if other != module {
                others.insert(other, file.clone());
            }
        }
    }
    named
}

#[test]
fn the_tree_is_as_written() {
    let written: BTreeSet<String> = chapter("The tree")
        .lines()
        .filter_map(|line| line.trim_start().split(' ').next())
        .filter(|word| word.starts_with("src/"))
        .map(str::to_owned)
        .collect();
    let there: BTreeSet<String> = files("src").into_iter().collect();
    // A folder stands for the files in it.
    let holds = |line: &String, file: &String| {
        line == file || (line.ends_with('/') && file.starts_with(line.as_str()))
    };
    let missing: Vec<_> = there
        .iter()
        .filter(|file| !written.iter().any(|line| holds(line, file)))
        .collect();
    let gone: Vec<_> = written
        .iter()
        .filter(|line| !there.iter().any(|file| holds(line, file)))
        .collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "ARCHITECTURE.md, \"The tree\": not there {missing:?}, there but gone {gone:?}"
    );
}

#[test]
fn modules_name_only_what_they_may() {
    let allowed = allowed();
    let named = named();
    let modules: Vec<&String> = named.keys().collect();
    let in_table: Vec<&String> = allowed.keys().collect();
    assert_eq!(modules, in_table, "the modules and the rows of the table");
    for (module, names) in &named {
        let Some(may_name) = &allowed[module] else {
            continue;
        };
        for (other, file) in names {
            let hint = "see ARCHITECTURE.md, \"Which module may name which\"";
            assert!(may_name.contains(other), "{file} names {other}; {hint}");
        }
        for other in may_name {
            assert!(
                names.contains_key(other),
                "{module} may name {other} and does not: take it out of ARCHITECTURE.md"
            );
        }
    }
}

#[test]
fn nobody_names_those_who_put_the_parts_together() {
    for (module, names) in named() {
        for top in ["cli", "serve"] {
            let by = names.get(top).filter(|_| module != "cli");
            assert_eq!(by, None, "{module} names {top}");
        }
    }
}

/// Not even by way of others.
#[test]
fn nothing_on_a_calls_path_can_reach_a_crm() {
    let named = named();
    for start in PATH_OF_A_CALL {
        let mut reached: BTreeSet<&str> = BTreeSet::new();
        let mut next = vec![start];
        while let Some(module) = next.pop() {
            if reached.insert(module) {
                next.extend(named[module].keys().map(String::as_str));
            }
        }
        for far in ["crm", "sync", "config"] {
            assert!(!reached.contains(far), "{start} reaches {far}");
        }
    }
}

/// What decides does no input or output, is not async and reads no clock: the same question always
/// has the same answer.
#[test]
fn the_middle_is_pure() {
    const IMPURE: [&str; 13] = [
        "async ",
        ".await",
        "tokio",
        "futures::",
        "Timestamp::now",
        "Zoned::now",
        "SystemTime",
        "Instant",
        "std::fs",
        "std::net",
        "std::io",
        "std::env",
        "std::thread",
    ];
    for file in &sources("src") {
        if !MIDDLE.contains(&module_of(file)) {
            continue;
        }
        let code = code_of(file);
        for word in IMPURE {
            assert!(!code.contains(word), "{file} has `{word}`");
        }
    }
}

/// A promise without a test is a wish.
#[test]
fn every_promise_has_its_test() {
    let mut code = String::new();
    for file in sources("tests/it").iter().chain(&sources("src")) {
        code.push_str(&std::fs::read_to_string(root().join(file)).unwrap());
    }
    let mut promises = 0;
    for line in chapter("Promises").lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", promise, _, ""] = cells.as_slice() else {
            continue;
        };
        let Some(name) = promise
            .strip_prefix('`')
            .and_then(|rest| rest.strip_suffix('`'))
        else {
            continue;
        };
        promises += 1;
        assert!(
            code.contains(&format!("fn {name}(")),
            "no test is named {name}"
        );
    }
    assert!(promises >= 8, "{promises} promises");
}

#[test]
fn names_are_found_however_they_are_written() {
    for (code, expected) in [
        ("use crate::call::Did;", vec!["call"]),
        (
            "use crate::{call::{Did, Call}, record, rules::Rule};",
            vec!["call", "record", "rules"],
        ),
        (
            "fn f(x: crate::phone::E164) { crate::metrics::count(); }",
            vec!["metrics", "phone"],
        ),
        ("use other_crate::call;", vec![]),
        ("pub(crate) fn f() {}", vec![]),
    ] {
        let expected: BTreeSet<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(named_in(code), expected, "{code}");
    }
}
