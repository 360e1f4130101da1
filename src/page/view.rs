//! What every page has: its language, its frame, the person who looks, and how figures are written.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;

use askama::Template;
use axum::extract::{FromRequestParts, Path, Query, Request};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Redirect, Response};
use http::header::{self, HeaderValue};
use http::request::Parts;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::access::Visitor;
use super::users::Role;
use super::{Fault, Page};
use crate::told::Language;

/// The cookie that keeps the language.
const COOKIE: &str = "pryamo_language";
/// What a browser may load and do here. Everything is our own, and nothing stands inside a page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Shown while the former module is asked too.
const COMPARISON: &str = "/comparison";
/// Shown to administrators.
const SETUP: &str = "/setup";

/// A section: path, Russian and English name.
type Section = (&'static str, &'static str, &'static str);

/// The sections.
const MENU: [Section; 8] = [
    ("/", "Сейчас", "Now"),
    ("/who", "Кому номер?", "Who gets it?"),
    ("/employees", "Сотрудники", "Employees"),
    ("/hygiene", "Порядок", "Hygiene"),
    ("/journal", "Журнал", "Journal"),
    ("/mirrors", "Копии CRM", "Mirrors"),
    (COMPARISON, "Сравнение", "Comparison"),
    (SETUP, "Настройка", "Set-up"),
];

/// What a page is shown with.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) language: Language,
    base: String,
    /// The page's own path, to mark it in the menu.
    path: String,
    visitor: Option<Visitor>,
    has_comparison: bool,
    pub(super) zone: TimeZone,
    pub(super) now: Timestamp,
}

impl FromRequestParts<Arc<Page>> for View {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, page: &Arc<Page>) -> Result<Self, Infallible> {
        let header = |name: header::HeaderName| {
            let value = parts.headers.get(name);
            value
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        let chosen = header(header::COOKIE)
            .split(';')
            .filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
            .find_map(Language::read);
        let spoken = header(header::ACCEPT_LANGUAGE)
            .split(',')
            .find_map(|one| Language::read(one.trim()));
        let base = page.settings.base_path.clone();
        let path = parts.uri.path();
        Ok(Self {
            language: chosen.or(spoken).unwrap_or(page.settings.language),
            path: path.strip_prefix(base.as_str()).unwrap_or(path).to_owned(),
            base,
            visitor: parts.extensions.get::<Visitor>().cloned(),
            has_comparison: page.api.shadow.is_on(),
            zone: page.zone.clone(),
            now: (page.api.clock)(),
        })
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    clippy::unused_self,
    reason = "templates call these, and give references"
)]
impl View {
    /// One of two texts.
    pub(super) fn say<'a>(&self, russian: &'a str, english: &'a str) -> &'a str {
        self.language.say(russian, english)
    }

    /// An address of ours, as a browser must ask for it.
    pub(super) fn href(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// An asset's address; it changes with the asset.
    pub(super) fn asset(&self, file: &str) -> String {
        self.href(&super::assets::address(file))
    }

    /// The sections that this person sees.
    pub(super) fn menu(&self) -> Vec<Section> {
        let is_shown = |path| match path {
            COMPARISON => self.has_comparison,
            SETUP => self.is_administrator(),
            _ => true,
        };
        let all = MENU.into_iter();
        all.filter(|(path, ..)| is_shown(*path)).collect()
    }

    /// What marks the menu's own place.
    pub(super) fn is_at(&self, path: &str) -> bool {
        self.path == path || (path.len() > 1 && self.path.starts_with(path))
    }

    /// The path, to come back to it.
    pub(super) fn here(&self) -> &str {
        &self.path
    }

    pub(super) fn is_signed_in(&self) -> bool {
        self.visitor.is_some()
    }

    pub(super) fn name(&self) -> &str {
        self.visitor.as_ref().map_or("", |visitor| &visitor.name)
    }

    /// What forms must carry.
    pub(super) fn token(&self) -> &str {
        self.visitor.as_ref().map_or("", |visitor| &visitor.token)
    }

    pub(super) fn is_administrator(&self) -> bool {
        let role = self.visitor.as_ref().map(|visitor| visitor.role);
        role == Some(Role::Administrator)
    }

    /// The other language, and what it calls itself.
    pub(super) fn other_language(&self) -> (&'static str, &'static str) {
        match self.language {
            Language::Ru => ("en", "English"),
            Language::En => ("ru", "Русский"),
        }
    }

    /// A count with its thousands set apart by narrow no-break spaces.
    pub(super) fn count(&self, count: &u64) -> String {
        let digits = count.to_string();
        let mut written = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                written.push('\u{202f}');
            }
            written.push(digit);
        }
        written
    }

    /// A share in percent with one decimal place; a dash of nothing.
    pub(super) fn share(&self, part: &u64, whole: &u64) -> String {
        // To the nearest tenth.
        let Some(thousandth) = (part * 1000 + whole / 2).checked_div(*whole) else {
            return "—".to_owned();
        };
        let point = self.say(",", ".");
        format!("{}{point}{}\u{a0}%", thousandth / 10, thousandth % 10)
    }

    /// A moment by the office's clock: the time alone for today.
    pub(super) fn moment(&self, at: &Timestamp) -> String {
        let zoned = at.to_zoned(self.zone.clone());
        let today = self.now.to_zoned(self.zone.clone()).date();
        let written = if zoned.date() == today {
            zoned.strftime("%H:%M:%S")
        } else {
            zoned.strftime(self.say("%d.%m.%Y %H:%M", "%Y-%m-%d %H:%M"))
        };
        written.to_string()
    }

    /// A span in words, the largest unit alone.
    pub(super) fn span(&self, seconds: &u64) -> String {
        let (number, russian, english) = match seconds {
            0..120 => (*seconds, "с", "s"),
            120..7200 => (seconds / 60, "мин", "min"),
            7200..172_800 => (seconds / 3600, "ч", "h"),
            _ => (seconds / 86_400, "дн", "days"),
        };
        format!("{number}\u{a0}{}", self.say(russian, english))
    }

    /// The page as an answer.
    pub(super) fn render(&self, template: &impl Template) -> Response {
        match template.render() {
            Ok(text) => Html(text).into_response(),
            Err(error) => Fault::Failed(error.to_string()).into_response(),
        }
    }
}

/// What every answer of the page carries, whatever it is.
pub(super) async fn protect(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Where a form or link may send somebody back to: one of our own pages, else the first one.
pub(super) fn own_path(path: &str) -> &str {
    let is_own = path.starts_with('/') && !path.starts_with("//") && !path.contains('\\');
    if is_own { path } else { "/" }
}

/// A text as a part of an address.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Back {
    to: String,
}

/// Keeps the language in a cookie and goes back.
pub(super) async fn choose_language(
    view: View,
    Path(code): Path<String>,
    Query(Back { to }): Query<Back>,
) -> Response {
    let Some(language) = Language::read(&code) else {
        return Fault::NotFound.into_response();
    };
    let to = view.href(own_path(&to));
    let mut cookie = format!(
        "{COOKIE}={}; Max-Age=31536000; SameSite=Lax",
        language.as_str()
    );
    // Writing into a string does not fail.
    let _ = write!(cookie, "; Path={}", view.href("/"));
    ([(header::SET_COOKIE, cookie)], Redirect::to(&to)).into_response()
}

#[cfg(test)]
impl View {
    /// What a stranger has at `path`, at noon of 22 November 2026.
    pub(super) fn of_stranger(language: Language, path: &str) -> Self {
        Self {
            language,
            base: "/pryamo".to_owned(),
            path: path.to_owned(),
            visitor: None,
            has_comparison: false,
            zone: TimeZone::UTC,
            now: Timestamp::from_second(1_795_348_800).unwrap(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(language: Language) -> View {
        View::of_stranger(language, "/journal")
    }

    #[test]
    fn figures_are_written_as_people_of_the_language_write_them() {
        let (ru, en) = (view(Language::Ru), view(Language::En));
        assert_eq!(ru.count(&1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(ru.count(&999), "999");
        assert_eq!(ru.share(&1, &3), "33,3\u{a0}%");
        assert_eq!(en.share(&2, &3), "66.7\u{a0}%");
        assert_eq!(en.share(&0, &0), "—");
        assert_eq!(ru.span(&7200), "2\u{a0}ч");
        let at = |ago: i64| Timestamp::from_second(1_795_348_800 - ago).unwrap();
        assert_eq!(ru.moment(&at(60)), "11:59:00");
        assert_eq!(ru.moment(&at(86_400)), "21.11.2026 12:00");
        assert_eq!(en.moment(&at(86_400)), "2026-11-21 12:00");
        assert_eq!(ru.href("/journal"), "/pryamo/journal");
    }
}
