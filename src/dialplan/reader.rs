//! Reads the dialplan files of an Asterisk and names what is dangerous where callers are asked about.
//!
//! Only as much of the language as that takes; what it does not understand, it passes over. Each
//! danger was seen with real calls behind the vendor page's context.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Files read at most.
const MOST_FILES: usize = 300;
/// The largest part of a file that is read: FreePBX writes some megabytes.
const LARGEST_FILE: usize = 16 * 1024 * 1024;
/// Lines kept of all files.
const MOST_LINES: usize = 500_000;

/// A step of a dialplan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The file, and the line in it from 1.
    pub place: (PathBuf, usize),
    /// The context.
    pub context: String,
    /// The extension or pattern.
    pub extension: String,
    /// What it does, label and priority left out.
    pub does: String,
}

/// Something that will lose or endanger calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Danger {
    /// The file, and the line in it from 1.
    pub place: (PathBuf, usize),
    /// The context.
    pub context: String,
    /// What is wrong.
    pub kind: Kind,
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A caller's number stands in an address as it came.
    NotEncoded,
    /// A pattern that also fits `h`.
    FitsHangup,
    /// Nothing limits how long an answer may take.
    NoAnswerLimit,
    /// Nothing limits how long a connection may take.
    NoConnectLimit,
    /// The call is given away instead of being rung.
    GivenAway,
    /// A name is set even if there is none.
    NameWipedOut,
    /// An address that needs a name to be looked up.
    Localhost,
}

impl Kind {
    /// What happens.
    pub fn text(self) -> &'static str {
        match self {
            Self::NotEncoded => {
                "the caller's number stands in the address as it came: with a `,`, `#` or `&` in it the question is another one"
            }
            Self::FitsHangup => {
                "the pattern also fits `h`: when a caller hangs up, the question is asked again"
            }
            Self::NoAnswerLimit => "nothing limits how long the caller waits for the answer",
            Self::NoConnectLimit => "nothing limits how long the caller waits for the connection",
            Self::GivenAway => {
                "Goto gives the call away: an employee who is busy, off or away loses it"
            }
            Self::NameWipedOut => "an empty answer wipes out the name that the provider sent",
            Self::Localhost => "`localhost` has to be looked up, and may be tried as ::1 first",
        }
    }

    /// What to do about it.
    pub fn mend(self) -> &'static str {
        match self {
            Self::NotEncoded => "write ${URIENCODE(${CALLERID(num)})}, or use `pryamo dialplan`",
            Self::FitsHangup => {
                "write _[+0-9a-zA-Z]. and _X in place of it, or use `pryamo dialplan`"
            }
            Self::NoAnswerLimit => "put Set(CURLOPT(httptimeout)=3) before the question",
            Self::NoConnectLimit => "put Set(CURLOPT(conntimeout)=1) before the question",
            Self::GivenAway => {
                "ring by Dial(Local/NUMBER@from-internal/n,20) and go on when it comes back, or use `pryamo dialplan`"
            }
            Self::NameWipedOut => "set the name only where ${LEN(...)} of it is above 0",
            Self::Localhost => "write 127.0.0.1",
        }
    }

    /// Says whether calls are lost by it.
    pub fn is_grave(self) -> bool {
        matches!(
            self,
            Self::GivenAway | Self::NoAnswerLimit | Self::NotEncoded
        )
    }
}

/// What the files say.
#[derive(Debug, Default)]
pub struct Dialplan {
    /// All steps in the order in which Asterisk reads them.
    pub lines: Vec<Line>,
    /// The files read.
    pub files: BTreeSet<PathBuf>,
}

impl Dialplan {
    /// Reads `extensions.conf` of this folder and what it includes. A file that cannot be read is
    /// passed over; `None` if there is no `extensions.conf`.
    pub fn read(folder: &Path) -> Option<Self> {
        let mut dialplan = Self::default();
        let text = read_file(&folder.join("extensions.conf"))?;
        let mut reading = Reading::default();
        dialplan.take_file(folder, &folder.join("extensions.conf"), &text, &mut reading);
        Some(dialplan)
    }

    fn take_file(&mut self, folder: &Path, path: &Path, text: &str, reading: &mut Reading) {
        if self.files.len() >= MOST_FILES || !self.files.insert(path.to_owned()) {
            return;
        }
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(named) = reading.take_line(path, number, line, &mut self.lines) {
                for included in fitting_files(folder, &named) {
                    if let Some(text) = read_file(&included) {
                        self.take_file(folder, &included, &text, reading);
                    }
                }
            }
        }
    }

    /// Takes a single text, as a test or a tool has it.
    pub fn of_text(path: &Path, text: &str) -> Self {
        let mut dialplan = Self::default();
        let mut reading = Reading::default();
        for (number, line) in (1..).zip(text.lines()) {
            let _ = reading.take_line(path, number, line, &mut dialplan.lines);
        }
        dialplan
    }

    /// The contexts that ask pryamo or the vendor's module.
    pub fn asking(&self) -> BTreeSet<&str> {
        let asking = self.lines.iter().filter(|line| line.way().is_some());
        asking.map(|line| line.context.as_str()).collect()
    }

    /// Every step that asks, and whom.
    pub fn questions(&self) -> Vec<Question<'_>> {
        let question = |line| {
            let way = Line::way(line)?;
            let (before, _) = line.does.split_once("/forward")?;
            Some(Question {
                line,
                by_agi: way == Way::Agi,
                address: before.rsplit_once("//").map(|(_, address)| address),
            })
        };
        self.lines.iter().filter_map(question).collect()
    }

    /// Every danger in them; `internal` is the employees' context.
    pub fn dangers(&self, internal: &str) -> Vec<Danger> {
        let mut contexts: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
        for line in &self.lines {
            contexts.entry(&line.context).or_default().push(line);
        }
        let asking = self.asking();
        let mut dangers = Vec::new();
        for (context, lines) in contexts {
            if asking.contains(context) {
                look_at(&lines, internal, &mut dangers);
            }
        }
        dangers
    }
}

/// A step that asks where a call shall go.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The step.
    pub line: &'a Line,
    /// By `AGI()`, else by `CURL()`.
    pub by_agi: bool,
    /// Host and port as they are written.
    pub address: Option<&'a str>,
}

/// How a step asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Curl,
    Agi,
}

impl Line {
    /// How this step asks where a call shall go; `None` if it does not.
    fn way(&self) -> Option<Way> {
        let at = self.does.find("/forward")?;
        let behind = self.does.get(at + "/forward".len()..)?;
        // `/forwarding.php` is somebody else's.
        if !(behind.is_empty() || behind.starts_with(['?', ')', ',', '}'])) {
            return None;
        }
        let before = self.does.get(..at)?;
        if before.contains("CURL(") {
            return Some(Way::Curl);
        }
        before
            .to_ascii_lowercase()
            .contains("agi://")
            .then_some(Way::Agi)
    }
}

fn look_at(lines: &[&Line], internal: &str, dangers: &mut Vec<Danger>) {
    let mut add = |line: &Line, kind| {
        dangers.push(Danger {
            place: line.place.clone(),
            context: line.context.clone(),
            kind,
        });
    };
    let sets = |option: &str| lines.iter().any(|line| line.does.contains(option));
    let mut patterns_told = BTreeSet::new();
    let into_internal = format!("{internal},");
    for (index, line) in lines.iter().enumerate() {
        if let Some(way) = line.way() {
            if has_raw_caller(&line.does) {
                add(line, Kind::NotEncoded);
            }
            if line.does.contains("//localhost") {
                add(line, Kind::Localhost);
            }
            if way == Way::Curl && !sets("CURLOPT(httptimeout)") {
                add(line, Kind::NoAnswerLimit);
            }
            if way == Way::Curl && !sets("CURLOPT(conntimeout)") {
                add(line, Kind::NoConnectLimit);
            }
            if fits_hangup(&line.extension) && patterns_told.insert(&line.extension) {
                add(line, Kind::FitsHangup);
            }
        }
        let application = line.does.trim_start();
        if application.starts_with("Goto") && application.contains(&into_internal) {
            add(line, Kind::GivenAway);
        }
        let before = index.checked_sub(1).and_then(|at| lines.get(at));
        let is_guarded = before.is_some_and(|before| {
            before.extension == line.extension && before.does.contains("GotoIf(")
        });
        if sets_a_name(application) && !is_guarded {
            add(line, Kind::NameWipedOut);
        }
    }
}

/// A name is taken over from an answer, not made up on the spot.
fn sets_a_name(application: &str) -> bool {
    ["Set(CALLERID(name)=${", "Set(CALLERID(all)=${"]
        .iter()
        .any(|start| application.starts_with(start))
}

fn has_raw_caller(does: &str) -> bool {
    ["${CALLERID(num)}", "${CALLERID(number)}", "${CALLERIDNUM}"]
        .iter()
        .any(|raw| {
            does.match_indices(raw).any(|(at, _)| {
                let before = does.get(..at).unwrap_or_default();
                !before.ends_with("URIENCODE(")
            })
        })
}

/// Says whether a pattern fits the extension that runs when a caller hangs up.
fn fits_hangup(extension: &str) -> bool {
    let Some(pattern) = extension.strip_prefix('_') else {
        return extension == "h";
    };
    // What stands behind the first sign must fit nothing at all.
    let rest = match pattern.strip_prefix('[') {
        _ if pattern == "." || pattern == "!" => return true,
        Some(set) => {
            let Some((signs, rest)) = set.split_once(']') else {
                return false;
            };
            let letters: Vec<char> = signs.chars().collect();
            let is_in_range = letters
                .windows(3)
                .any(|range| matches!(range, [from, '-', to] if (*from..=*to).contains(&'h')));
            if !letters.contains(&'h') && !is_in_range {
                return false;
            }
            rest
        }
        None => match pattern.strip_prefix('h') {
            Some(rest) => rest,
            None => return false,
        },
    };
    rest.is_empty() || rest == "!"
}

/// Where the reading stands; goes on over the end of a file, as it does in Asterisk.
#[derive(Default)]
struct Reading {
    context: String,
    extension: String,
    /// Inside `;-- ... --;`.
    in_comment: bool,
}

impl Reading {
    /// Takes a line; gives what it includes.
    fn take_line(
        &mut self,
        path: &Path,
        number: usize,
        written: &str,
        lines: &mut Vec<Line>,
    ) -> Option<String> {
        let plain = self.without_comments(written);
        let line = plain.trim();
        for directive in ["#include", "#tryinclude"] {
            if let Some(named) = line.strip_prefix(directive) {
                let named = named.trim().trim_matches(['"', '<', '>']);
                return (!named.is_empty()).then(|| named.to_owned());
            }
        }
        if let Some(rest) = line.strip_prefix('[') {
            let (context, _) = rest.split_once(']')?;
            context.trim().clone_into(&mut self.context);
            self.extension.clear();
            return None;
        }
        let (key, value) = line.split_once('=')?;
        let value = value.strip_prefix('>').unwrap_or(value).trim();
        let step = match key.trim().to_ascii_lowercase().as_str() {
            "exten" => {
                let (extension, step) = value.split_once(',')?;
                extension.trim().clone_into(&mut self.extension);
                step
            }
            "same" => value,
            _ => return None,
        };
        let (_priority, does) = step.split_once(',')?;
        if lines.len() < MOST_LINES {
            lines.push(Line {
                place: (path.to_owned(), number),
                context: self.context.clone(),
                extension: self.extension.clone(),
                does: does.trim().to_owned(),
            });
        }
        None
    }

    /// The line without comments; `\;` is a semicolon.
    fn without_comments(&mut self, written: &str) -> String {
        let mut plain = String::new();
        let mut rest = written;
        loop {
            if self.in_comment {
                let Some((_, behind)) = rest.split_once("--;") else {
                    return plain;
                };
                self.in_comment = false;
                rest = behind;
            }
            let Some((before, behind)) = rest.split_once(';') else {
                plain.push_str(rest);
                return plain;
            };
            if let Some(before) = before.strip_suffix('\\') {
                plain.push_str(before);
                plain.push(';');
                rest = behind;
                continue;
            }
            plain.push_str(before);
            // `;---` is a line of dashes, not the beginning of a block.
            if !behind.starts_with("--") || behind.starts_with("---") {
                return plain;
            }
            self.in_comment = true;
            rest = behind.get(2..).unwrap_or_default();
        }
    }
}

fn read_file(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE as u64)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The files that an `#include` means: one, or all that fit a `*` in the last part of its name.
fn fitting_files(folder: &Path, named: &str) -> Vec<PathBuf> {
    let path = folder.join(named);
    let Some((start, end)) = path
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.split_once('*'))
    else {
        return vec![path];
    };
    let Some(Ok(entries)) = path.parent().map(std::fs::read_dir) else {
        return Vec::new();
    };
    let fits = |name: &str| {
        name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(fits))
        .map(|entry| entry.path())
        .take(MOST_FILES)
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(usize, Kind)> {
        let dialplan = Dialplan::of_text(Path::new("extensions_custom.conf"), text);
        let dangers = dialplan.dangers("from-internal");
        dangers
            .iter()
            .map(|danger| (danger.place.1, danger.kind))
            .collect()
    }

    #[test]
    fn the_vendors_context_has_its_dangers() {
        // As its page prints it.
        let text = include_str!("../../tests/lab/dialplans/vendor.conf")
            .replace("@FORWARD_URL@", "http://localhost:8077/forward");
        let expected = [
            (7, Kind::NotEncoded),
            (7, Kind::Localhost),
            (7, Kind::FitsHangup),
            (8, Kind::NameWipedOut),
            (9, Kind::GivenAway),
        ];
        assert_eq!(kinds(&text), expected);
    }

    #[test]
    fn each_danger_is_named_and_its_mend_is_not() {
        let ask = "Set(HASH(f)=${CURL(http://127.0.0.1:8077/forward?phone=${URIENCODE(${CALLERID(num)})})})";
        let limits =
            "same => n,Set(CURLOPT(httptimeout)=3)\nsame => n,Set(CURLOPT(conntimeout)=1)\n";
        for (text, expected, why) in [
            (format!("[x]\nexten => s,1,NoOp()\n{limits}same => n,{ask}\n"), vec![], "all is well"),
            (
                format!("[x]\nexten => s,1,{ask}\n"),
                vec![(2, Kind::NoAnswerLimit), (2, Kind::NoConnectLimit)],
                "no limits",
            ),
            (
                format!("[x]\nexten = _!,1,NoOp()\n{limits}same = n(a),{ask}\n"),
                vec![(5, Kind::FitsHangup)],
                "written without >, with a label",
            ),
            (
                "[x]\nexten => s,1,AGI(agi://localhost:4574/forward?phone=${CALLERID(num)})\n".to_owned(),
                vec![(2, Kind::NotEncoded), (2, Kind::Localhost)],
                "FastAGI needs no limits of CURL's",
            ),
            ("[x]\nexten => _.,1,AGI(agi://127.0.0.1/other)\nsame => n,Goto(from-internal,1,1)\n".to_owned(), vec![], "asks nobody"),
            (format!("[x]\n;exten => s,1,{ask}\n;-- \nexten => s,1,{ask}\n--; \n"), vec![], "comments"),
            (
                format!("[x]\nexten => s,1,{ask}\n{limits}same => n,GotoIf($[1]?a)\nsame => n,Set(CALLERID(name)=${{N}})\n"),
                vec![],
                "a name behind a condition",
            ),
            (
                format!("[x]\nexten => s,1,{ask}\n{limits}[y]\nexten => s,1,Goto(from-internal,101,1)\n"),
                vec![],
                "another context",
            ),
            (
                format!("[x]\nexten => s,1,{ask}\n{limits}[y]\nexten => 1,1,NoOp()\n[x](+)\nexten => t,1,Goto(from-internal,101,1)\n"),
                vec![(8, Kind::GivenAway)],
                "a context in two parts",
            ),
        ] {
            assert_eq!(kinds(&text), expected, "{why}: {text}");
        }
    }

    #[test]
    fn a_pattern_that_fits_the_hangup_is_known() {
        for (pattern, expected) in [
            ("_.", true),
            ("_!", true),
            ("_X.", false),
            ("_X!", false),
            ("s", false),
            ("h", true),
            ("_[+0-9a-zA-Z].", false),
            ("_[+0-9a-zA-Z]!", true),
            ("_[+0-9a-z]", true),
            ("_[0-9]!", false),
            ("_[", false),
            ("_h!", true),
            ("", false),
        ] {
            assert_eq!(fits_hangup(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn included_files_are_read_in_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        std::fs::create_dir(folder.path().join("more")).unwrap();
        write(
            "extensions.conf",
            "[a]\nexten => s,1,One()\n#include \"b.conf\"\nsame => n,Four()\n#tryinclude none.conf\n#include more/*.conf\n",
        );
        write(
            "b.conf",
            "same => n,Two()\n#include extensions.conf\nsame => n,Three()\n",
        );
        write("more/c.conf", "[c]\nexten => s,1,Five()\n");
        write("more/c.txt", "[c]\nexten => s,1,No()\n");
        let dialplan = Dialplan::read(folder.path()).unwrap();
        let does: Vec<&str> = dialplan
            .lines
            .iter()
            .map(|line| line.does.as_str())
            .collect();
        assert_eq!(does, ["One()", "Two()", "Three()", "Four()", "Five()"]);
        assert!(Dialplan::read(&folder.path().join("more")).is_none());
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(text in "(\\[[a-z]{0,3}\\]|exten ?=>? ?|same => ?|n,|_[.!\\[h]|;--|--;|\\\\;|CURL\\(|/forward|\\n|.){0,60}") {
            let _ = kinds(&text);
        }
    }
}
