//! Set-up: connects a CRM as `pryamo setup` does, reads the configuration again, offers the dialplan,
//! and shows what `pryamo check` finds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::commands::{CommandError, Ended};
use super::view::View;
use super::{Fault, Page};
use crate::api::reload::Reloaded;
use crate::fault;
use crate::phone::Region;
use crate::setup::{self, Answers, Finding, Level};

/// Exit codes of `pryamo check`: all is well, something is to be mended.
const CHECKED: [Option<i32>; 2] = [Some(0), Some(3)];

#[derive(Template)]
#[template(path = "setup.html")]
struct Shown<'a> {
    view: &'a View,
    /// The configuration's file.
    place: String,
    kinds: [Kind; 3],
    asked: Asked,
    /// What is wrong, and what was done.
    fault: Option<String>,
    done: Vec<String>,
    /// What the CRM that was tried says, or everything that was checked.
    findings: Vec<Line>,
    dialplan: Option<String>,
}

/// A kind of CRM, and what it is asked for.
struct Kind {
    word: &'static str,
    title: &'static str,
    hint: &'static str,
    url: Option<&'static str>,
    has_token: bool,
}

/// A finding as a row.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(default)]
    part: String,
    #[serde(flatten)]
    finding: Finding,
}

impl Line {
    /// What cannot be mended is not told as a warning.
    fn is_good(&self) -> bool {
        self.finding.level == Level::Good || self.finding.mend.is_empty()
    }

    fn badge(&self, view: &View) -> (&'static str, &'static str) {
        match self.finding.level {
            _ if self.is_good() => ("good", view.language.say("в порядке", "well")),
            Level::Good | Level::Warning => ("warn", view.language.say("внимание", "look")),
            Level::Fault => ("bad", view.language.say("ошибка", "fault")),
        }
    }
}

/// What was answered. Secrets are not shown again.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    crm: String,
    name: String,
    url: String,
    token: String,
    file: String,
    region: String,
}

impl Asked {
    fn answers(&self, view: &View) -> Result<Answers, String> {
        let filled = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let region = match filled(&self.region) {
            None => Region::default(),
            Some(written) => written.to_uppercase().parse().map_err(|_| {
                let what = view.say("Это не код страны", "This is no country's code");
                format!("{what}: {written}")
            })?,
        };
        let file = filled(&self.file).map(PathBuf::from);
        if file.as_ref().is_some_and(|file| !is_table(file)) {
            let text = view.say(
                "Путь к таблице пишется целиком: от / до .csv",
                "Write the table's whole path: from / to .csv",
            );
            return Err(text.to_owned());
        }
        Ok(Answers {
            crm: self.crm.clone(),
            name: filled(&self.name),
            url: filled(&self.url).map(Into::into),
            token: filled(&self.token).map(Into::into),
            file,
            region,
            data_dir: None,
            listen: None,
        })
    }

    /// What may be shown again: of Bitrix24 the address is the key.
    fn without_secrets(mut self) -> Self {
        self.token.clear();
        if self.crm == "bitrix24" {
            self.url.clear();
        }
        self
    }
}

/// What is told of a table shows a part of it: no other file of this server may be read that way.
fn is_table(file: &Path) -> bool {
    let ending = file.extension().and_then(|ending| ending.to_str());
    file.is_absolute() && ending.is_some_and(|ending| ending.eq_ignore_ascii_case("csv"))
}

fn kinds(view: &View) -> [Kind; 3] {
    let say = |russian, english| view.language.say(russian, english);
    [
        Kind {
            word: "bitrix24",
            title: say("Битрикс24", "Bitrix24"),
            hint: say(
                "Разработчикам → Другое → Входящий вебхук с правами crm, user_basic, department.",
                "Developer resources → Other → Inbound webhook with the rights crm, user_basic, department.",
            ),
            url: Some(say(
                "Адрес вебхука: https://имя.bitrix24.ru/rest/17/код/",
                "The webhook's address: https://name.bitrix24.com/rest/17/code/",
            )),
            has_token: false,
        },
        Kind {
            word: "amocrm",
            title: say("amoCRM или Kommo", "amoCRM or Kommo"),
            hint: say(
                "Администратор создаёт внешнюю интеграцию и долгосрочный токен.",
                "As an administrator make a private integration and a long-lived token.",
            ),
            url: Some(say(
                "Адрес аккаунта: https://имя.amocrm.ru",
                "The account's address: https://name.kommo.com",
            )),
            has_token: true,
        },
        Kind {
            word: "csv",
            title: say("Таблица CSV", "A CSV table"),
            hint: say(
                "Столбцы: name, phone, responsible, extension. Файл лежит на этом сервере.",
                "Columns: name, phone, responsible, extension. The file is on this server.",
            ),
            url: None,
            has_token: false,
        },
    ]
}

impl<'a> Shown<'a> {
    fn of(page: &Page, view: &'a View) -> Self {
        Self {
            view,
            place: setup::place(page.config.as_deref()).display().to_string(),
            kinds: kinds(view),
            asked: Asked::default(),
            fault: None,
            done: Vec::new(),
            findings: Vec::new(),
            dialplan: None,
        }
    }

    fn is_open(&self, kind: &Kind) -> bool {
        self.asked.crm == kind.word
    }
}

/// The made-up company of `demo` has nothing to set up.
fn refuse_demo(page: &Page, view: &View) -> Result<(), Fault> {
    if page.settings.open_to_all {
        let text = view.say(
            "Это пример: здесь ничего не настраивается.",
            "This is the demo: nothing is set up here.",
        );
        return Err(Fault::Wrong(text.to_owned()));
    }
    Ok(())
}

pub(super) async fn show(State(page): State<Arc<Page>>, view: View) -> Response {
    if !view.is_administrator() {
        return Fault::Forbidden.into_response();
    }
    view.render(&Shown::of(&page, &view))
}

/// Tries a CRM; where it answers, writes it down and takes it over.
pub(super) async fn connect(
    State(page): State<Arc<Page>>,
    view: View,
    Form(asked): Form<Asked>,
) -> Response {
    if let Err(fault) = refuse_demo(&page, &view) {
        return fault.into_response();
    }
    let mut shown = Shown::of(&page, &view);
    let connected = match asked.answers(&view) {
        Ok(answers) => try_and_write(&page, &mut shown, &answers).await,
        Err(text) => Err(text),
    };
    if let Err(text) = connected {
        shown.fault = Some(text);
        shown.asked = asked.without_secrets();
    }
    view.render(&shown)
}

async fn try_and_write(
    page: &Page,
    shown: &mut Shown<'_>,
    answers: &Answers,
) -> Result<(), String> {
    let path = setup::place(page.config.as_deref());
    let text = written(&path, answers).await?;
    let tried = setup::try_crm(answers).await;
    let is_bad = tried.iter().any(|one| one.level == Level::Fault);
    shown.findings = tried.into_iter().map(line).collect();
    if is_bad {
        let text = shown.view.say(
            "CRM не подключена, ничего не записано. Почему, сказано ниже.",
            "The CRM is not connected, nothing was written. See below why.",
        );
        return Err(text.to_owned());
    }
    let stamp = shown.view.now.strftime("%Y%m%d-%H%M%S").to_string();
    let stored = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || setup::write(&path, &text, &stamp)).await
    };
    let stored = stored
        .map_err(|error| error.to_string())?
        .map_err(|error| fault::told(&error))?;
    let say = |russian, english| shown.view.language.say(russian, english);
    let mut done = vec![format!(
        "{}: {}",
        say("Записано", "Written"),
        path.display()
    )];
    if let Some(backup) = stored.backup {
        let before = say("прежний файл", "the file before");
        done.push(format!("{before}: {}", backup.display()));
    }
    shown.done = done;
    let reloaded = page.api.reloads.ask().await?;
    shown.done.extend(told(shown.view, &reloaded));
    Ok(())
}

/// The configuration with these answers in it.
async fn written(path: &Path, answers: &Answers) -> Result<String, String> {
    let (path, answers) = (path.to_owned(), answers.clone());
    let text = tokio::task::spawn_blocking(move || {
        let existing = setup::read(&path)?;
        setup::config_text(existing.as_deref(), &answers)
    });
    let text = text.await.map_err(|error| error.to_string())?;
    text.map_err(|error| fault::told(&error))
}

fn line(finding: Finding) -> Line {
    Line {
        part: String::new(),
        finding,
    }
}

/// What came of reading the configuration again.
fn told(view: &View, reloaded: &Reloaded) -> Vec<String> {
    let mut told = Vec::new();
    if reloaded.taken.is_empty() {
        told.push(
            view.say("В файле ничего не изменилось.", "The file changes nothing.")
                .to_owned(),
        );
    } else {
        let what = view.say("Действует с этого момента", "In force from now on");
        told.push(format!("{what}: {}", reloaded.taken.join(", ")));
    }
    if !reloaded.waiting.is_empty() {
        let what = view.say("Ждёт перезапуска pryamo", "Waits for a restart of pryamo");
        told.push(format!("{what}: {}", reloaded.waiting.join(", ")));
    }
    told
}

/// Reads the configuration again.
pub(super) async fn reload(State(page): State<Arc<Page>>, view: View) -> Response {
    if let Err(fault) = refuse_demo(&page, &view) {
        return fault.into_response();
    }
    let mut shown = Shown::of(&page, &view);
    match page.api.reloads.ask().await {
        Ok(reloaded) => shown.done = told(&view, &reloaded),
        Err(text) => {
            let nothing = view.say("Ничего не изменилось", "Nothing has changed");
            shown.fault = Some(format!("{nothing}. {text}"));
        }
    }
    view.render(&shown)
}

/// Shows what `pryamo check` finds.
pub(super) async fn check(State(page): State<Arc<Page>>, view: View) -> Response {
    let mut shown = Shown::of(&page, &view);
    match page.commands.run(&["check", "--json"]).await {
        Ok(ended) if CHECKED.contains(&ended.code) => match serde_json::from_str(&ended.out) {
            Ok(lines) => shown.findings = lines,
            Err(error) => shown.fault = Some(error.to_string()),
        },
        other => shown.fault = Some(failed(other)),
    }
    view.render(&shown)
}

/// What is to be done with the dialplan.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    install: bool,
}

/// Shows the dialplan, or puts it in place.
pub(super) async fn dialplan(
    State(page): State<Arc<Page>>,
    view: View,
    Form(wanted): Form<Wanted>,
) -> Response {
    let mut arguments = vec!["dialplan"];
    if wanted.install {
        if let Err(fault) = refuse_demo(&page, &view) {
            return fault.into_response();
        }
        arguments.push("--install");
    }
    let mut shown = Shown::of(&page, &view);
    match page.commands.run(&arguments).await {
        Ok(ended) if ended.code == Some(0) && wanted.install => {
            shown.done = ended.out.lines().map(str::to_owned).collect();
        }
        Ok(ended) if ended.code == Some(0) => shown.dialplan = Some(ended.out),
        other => shown.fault = Some(failed(other)),
    }
    view.render(&shown)
}

/// Why a command did not do what it should.
fn failed(ended: Result<Ended, CommandError>) -> String {
    match ended {
        Err(error) => fault::told(&error),
        Ok(ended) => {
            let said = ended.err.trim();
            said.strip_prefix("pryamo: ").unwrap_or(said).to_owned()
        }
    }
}
