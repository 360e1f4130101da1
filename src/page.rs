//! The operators' page: who gets which call, and what needs a hand. Rendered here, for browsers.
//!
//! Works without the Internet: style, script and icons are in the binary. Every address but the way in
//! wants a session; whatever changes something wants an administrator and the session's own token.
//! Runs on the runtime of the syncs, never on the threads that answer calls.

mod access;
mod assets;
mod calls;
mod commands;
mod comparison;
mod employees;
mod hygiene;
mod journal;
mod mirrors;
mod now;
mod session;
mod setup;
pub mod steps;
mod trend;
pub mod users;
mod view;
mod who;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::middleware;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use http::StatusCode;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use self::access::Door;
pub use self::commands::Commands;
pub use self::now::Board;
use self::view::{View, encoded};
use crate::api::Api;
use crate::directory::Surveyor;
use crate::journal::Feed;
use crate::presence::Presence;
use crate::record::{CrmName, EmployeeId, EntityId, EntityKind};
use crate::sync::mirror::Mirror;
use crate::told::Language;

/// `[page]`: the operators' page.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether there is a page. Default: true.
    pub enabled: bool,
    /// An address and port for the page alone; with it `forward.listen` has no page. Default: none.
    pub listen: Option<SocketAddr>,
    /// The path under which a reverse proxy shows it: `/pryamo`. Default: none.
    pub base_path: String,
    /// True where browsers reach it by HTTPS only: the session's cookie then never goes without.
    pub https: bool,
    /// The language of a browser that names neither: ru or en. Default: ru.
    pub language: Language,
    /// Nobody is asked for a password: only for the made-up company of `demo`.
    #[serde(skip)]
    pub open_to_all: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: None,
            base_path: String::new(),
            https: false,
            language: Language::Ru,
            open_to_all: false,
        }
    }
}

impl Settings {
    /// The options with their defaults, for the example configuration.
    pub const EXAMPLE: &'static str = "\
# [page]
# enabled = true                 # the operators' page at /; `pryamo password` sets who may see it
# listen = \"127.0.0.1:8079\"      # the page alone, for a proxy that faces people; else at forward.listen
# base_path = \"\"                 # \"/pryamo\" where a reverse proxy shows it under that path
# https = false                  # true where browsers reach it by HTTPS only
# language = \"ru\"                # or \"en\": for browsers that name neither
";

    /// Says what is wrong with a value, in words for the administrator.
    pub fn check(&self) -> Result<(), String> {
        let base = &self.base_path;
        let is_plain = base
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte));
        if base.is_empty() || (base.starts_with('/') && !base.ends_with('/') && is_plain) {
            return Ok(());
        }
        Err(format!(
            "`page.base_path = \"{base}\"` must begin with a slash and end without one: \"/pryamo\""
        ))
    }
}

/// What the pages are made from.
pub struct Page {
    /// What the daemon's JSON addresses answer from: router, directory, mirrors, journal.
    pub api: Arc<Api>,
    /// Who may come in; lives as long as the process.
    pub door: Arc<Door>,
    /// Looks for what is wrong with the cards.
    pub surveyor: Arc<Surveyor>,
    /// Tells of calls as they come; `None` without a journal.
    pub feed: Option<Feed>,
    /// What Now shows of the journal.
    pub board: Board,
    /// How phones stand.
    pub presence: Arc<dyn Presence>,
    /// Runs pryamo's own commands.
    pub commands: Arc<Commands>,
    /// The configuration's file; `None` without one.
    pub config: Option<PathBuf>,
    /// `[page]`.
    pub settings: Settings,
    /// The office's clock.
    pub zone: TimeZone,
    /// Ends what streams.
    pub stop: CancellationToken,
}

impl Page {
    fn mirror(&self, crm: &CrmName) -> Option<&Arc<Mirror>> {
        self.api.mirrors.iter().find(|mirror| mirror.name() == crm)
    }

    /// Where a card is in its CRM.
    fn card_address(&self, crm: &CrmName, kind: EntityKind, id: &EntityId) -> Option<String> {
        self.mirror(crm)?.card_address(kind, id)
    }
}

/// The page's addresses.
pub fn routes(page: &Arc<Page>) -> axum::Router {
    let inside = axum::Router::new()
        .route("/", get(now::show))
        .route("/now/events", get(now::events))
        .route("/journal", get(journal::show))
        .route("/journal.csv", get(journal::export))
        .route("/who", get(who::show))
        .route("/employees", get(employees::show))
        .route("/employees/set", post(employees::set))
        .route("/hygiene", get(hygiene::show))
        .route("/hygiene/refresh", post(hygiene::refresh))
        .route("/mirrors", get(mirrors::show))
        .route("/mirrors/sync", post(mirrors::sync))
        .route("/comparison", get(comparison::show))
        .route("/setup", get(setup::show))
        .route("/setup/crm", post(setup::connect))
        .route("/setup/reload", post(setup::reload))
        .route("/setup/check", post(setup::check))
        .route("/setup/dialplan", post(setup::dialplan))
        .route("/sign-out", post(access::sign_out))
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(page),
            access::guard,
        ));
    let outside = axum::Router::new()
        .route("/sign-in", get(access::show_sign_in).post(access::sign_in))
        .route("/first", get(access::show_first).post(access::first))
        .route("/language/{code}", get(view::choose_language))
        .route("/assets/{file}", get(assets::serve));
    let sessions = page.door.sessions(&page.settings);
    let all = inside
        .merge(outside)
        // Empty: a dialplan with a typo in its address must find nothing to read.
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(sessions)
        .layer(middleware::from_fn(view::protect))
        .with_state(Arc::clone(page));
    if page.settings.base_path.is_empty() {
        return all;
    }
    // A proxy may hand the path on as it came, or without its own part.
    axum::Router::new()
        .nest(&page.settings.base_path, all.clone())
        .fallback_service(all)
}

/// Why a page is not shown.
#[derive(Debug)]
pub enum Fault {
    /// There is no such page, or no such thing on it.
    NotFound,
    /// A form that did not come from our own page, or is too old.
    Stale,
    /// A viewer asked for what only an administrator may do.
    Forbidden,
    /// The form holds what cannot be taken; the text is for the person.
    Wrong(String),
    /// Something failed inside; the text is for the person.
    Failed(String),
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "Такой страницы нет. / There is no such page.".to_owned(),
            ),
            Self::Stale => (
                StatusCode::FORBIDDEN,
                "Страница устарела, откройте её снова. / The page is too old, open it again."
                    .to_owned(),
            ),
            Self::Forbidden => (
                StatusCode::FORBIDDEN,
                "Это может только администратор. / Only an administrator may do this.".to_owned(),
            ),
            Self::Wrong(text) => (StatusCode::UNPROCESSABLE_ENTITY, text),
            Self::Failed(text) => (StatusCode::INTERNAL_SERVER_ERROR, text),
        };
        (status, text).into_response()
    }
}

/// Where an employee is shown.
fn employee_path(crm: &CrmName, id: &EmployeeId) -> String {
    format!(
        "/employees?crm={}&id={}",
        encoded(crm.as_str()),
        encoded(id.as_str())
    )
}

/// Back to a page, behind a form.
fn back_to(view: &View, path: &str) -> Response {
    Redirect::to(&view.href(path)).into_response()
}
