//! The way in: passwords, sessions, who may do what, and forms that are really ours.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Form;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, Method, StatusCode};
use moka::sync::Cache;
use secrecy::SecretString;
use serde::Deserialize;
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;
use tower_sessions::cookie::SameSite;
use tower_sessions::{Expiry, Session, SessionManagerLayer};

use super::session::{LASTS, Sessions};
use super::users::{Role, User, Users};
use super::view::{View, encoded, own_path};
use super::{Fault, Page, Settings};
use crate::fault;
use crate::secret;

/// The file with the code that lets the first person set a password.
const CODE: &str = "page-first.code";
/// Of a session's token and of the first code.
const SECRET_BYTES: usize = 16;
/// The session's keys.
const NAME: &str = "name";
const STAMP: &str = "stamp";
const TOKEN: &str = "token";
/// Where a form carries the session's token; a script sends it in the header.
const FIELD: &str = "csrf";
const HEADER: &str = "x-csrf-token";
/// No form of ours is longer.
const LONGEST_FORM: usize = 64 * 1024;
/// So many wrong passwords in [`FORGOTTEN`] for one name from one address, and from one address.
const MOST_FOR_NAME: u32 = 5;
const MOST_FOR_ADDRESS: u32 = 30;
const FORGOTTEN: Duration = Duration::from_mins(10);
/// Passwords that are looked at at once: each takes 19 MiB and a processor for a while.
const MOST_AT_ONCE: usize = 2;

/// Who may come in, and who is in. Lives as long as the process.
pub struct Door {
    users: Users,
    sessions: Sessions,
    code: PathBuf,
    failures: Cache<String, u32>,
    looks: Semaphore,
}

/// Somebody who is in.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    pub(super) name: String,
    pub(super) role: Role,
    /// What forms must carry.
    pub(super) token: String,
}

impl Door {
    /// Opens the door of a folder. Where nobody has a password yet, makes the code of the first one.
    pub fn open(data_dir: &Path) -> Self {
        let door = Self {
            users: Users::of(data_dir),
            sessions: Sessions::new(),
            code: data_dir.join(CODE),
            failures: Cache::builder()
                .max_capacity(100_000)
                .time_to_live(FORGOTTEN)
                .build(),
            looks: Semaphore::new(MOST_AT_ONCE),
        };
        door.prepare_code();
        door
    }

    fn prepare_code(&self) {
        match self.users.all() {
            Ok(all) if all.is_empty() => {
                let made = secret::made_up::<SECRET_BYTES>()
                    .and_then(|code| secret::write(&self.code, code.as_bytes()));
                match made {
                    Ok(()) => tracing::warn!(
                        code = %self.code.display(),
                        "nobody can sign in to the page yet: run `pryamo password`, or open /first with the code in this file"
                    ),
                    Err(error) => tracing::error!(
                        %error,
                        "the page's first code cannot be written; run `pryamo password`"
                    ),
                }
            }
            // Gone with the first password.
            Ok(_) => drop(std::fs::remove_file(&self.code)),
            Err(error) => tracing::error!(
                error = fault::told(&error),
                "nobody can sign in to the page"
            ),
        }
    }

    /// The layer that finds a request's session.
    pub(super) fn sessions(&self, settings: &Settings) -> SessionManagerLayer<Sessions> {
        let path = match settings.base_path.as_str() {
            "" => "/",
            path => path,
        };
        let lasts = i64::try_from(LASTS.as_secs()).unwrap_or(i64::MAX);
        SessionManagerLayer::new(self.sessions.clone())
            .with_name("pryamo")
            .with_path(path.to_owned())
            .with_secure(settings.https)
            // Not strict: a link in a message or a card leads to the page, not to its door.
            .with_same_site(SameSite::Lax)
            .with_expiry(Expiry::OnInactivity(
                tower_sessions::cookie::time::Duration::seconds(lasts),
            ))
    }

    /// The person behind a session, as the file says it now.
    async fn visitor(&self, session: &Session) -> Option<Visitor> {
        let name: String = session.get(NAME).await.ok()??;
        let stamp: String = session.get(STAMP).await.ok()??;
        let all = self.users.all().ok()?;
        let user = all.get(&name).filter(|user| user.stamp() == stamp)?;
        let token = token(session).await?;
        Some(Visitor {
            role: user.role,
            name,
            token,
        })
    }

    /// False also where the file cannot be read.
    fn has_users(&self) -> bool {
        self.users.all().is_ok_and(|all| !all.is_empty())
    }

    /// False also where the file cannot be read: nobody takes over then.
    fn awaits_the_first(&self) -> bool {
        self.users.all().is_ok_and(|all| all.is_empty())
    }

    fn is_shut(&self, keys: &[(String, u32)]) -> bool {
        keys.iter()
            .any(|(key, most)| self.failures.get(key).is_some_and(|count| count >= *most))
    }

    fn count_failure(&self, keys: &[(String, u32)]) {
        for (key, _) in keys {
            let count = self.failures.get(key).unwrap_or(0);
            self.failures.insert(key.clone(), count.saturating_add(1));
        }
    }

    /// Looks at a password, a few at a time. As long for a name that nobody has.
    async fn look(&self, name: &str, password: SecretString) -> Option<User> {
        let _permit = self.looks.acquire().await.ok()?;
        let user = self.users.all().ok()?.remove(name);
        let looked = tokio::task::spawn_blocking(move || {
            let is_known = user.is_some();
            let user = user.unwrap_or_else(User::nobody);
            let is_right = user.is_password(&password);
            (is_known && is_right).then_some(user)
        });
        looked.await.ok()?
    }
}

/// The session's own token, made when it is first wanted.
async fn token(session: &Session) -> Option<String> {
    if let Some(token) = session.get::<String>(TOKEN).await.ok()? {
        return Some(token);
    }
    let token = secret::made_up::<SECRET_BYTES>().ok()?;
    session.insert(TOKEN, &token).await.ok()?;
    Some(token)
}

/// Lets signed-in people in; of those who send something, only with the session's token, and
/// administrators only.
pub(super) async fn guard(
    State(page): State<Arc<Page>>,
    session: Session,
    request: Request,
    next: Next,
) -> Response {
    let visitor = if page.settings.open_to_all {
        token(&session).await.map(|token| Visitor {
            name: "demo".to_owned(),
            role: Role::Administrator,
            token,
        })
    } else {
        page.door.visitor(&session).await
    };
    let Some(visitor) = visitor else {
        return show_the_door(&page, &request);
    };
    let mut request = request;
    if request.method() != Method::GET && request.method() != Method::HEAD {
        request = match with_token(request, &visitor).await {
            Ok(request) => request,
            Err(fault) => return fault.into_response(),
        };
        let signs_out = request.uri().path().ends_with("/sign-out");
        if visitor.role < Role::Administrator && !signs_out {
            return Fault::Forbidden.into_response();
        }
    }
    request.extensions_mut().insert(visitor);
    next.run(request).await
}

/// To the sign-in, and from there back; a part of a page that is loaded alone takes the whole page along.
fn show_the_door(page: &Page, request: &Request) -> Response {
    let has_users = page.door.has_users();
    let base = &page.settings.base_path;
    let door = if has_users { "sign-in" } else { "first" };
    let asked = request.uri().path_and_query().map_or("/", |it| it.as_str());
    let asked = asked.strip_prefix(base.as_str()).unwrap_or(asked);
    let is_part = request.headers().contains_key("hx-request")
        || request
            .headers()
            .get("accept")
            .is_some_and(|kind| kind == "text/event-stream");
    if is_part || request.method() != Method::GET {
        let to = format!("{base}/{door}");
        return (StatusCode::UNAUTHORIZED, [("hx-redirect", to)]).into_response();
    }
    let to = format!("{base}/{door}?to={}", encoded(asked));
    (StatusCode::SEE_OTHER, [(LOCATION, to)]).into_response()
}

/// The request again, if it carries the visitor's token.
async fn with_token(request: Request, visitor: &Visitor) -> Result<Request, Fault> {
    let is_ours = |given: &[u8]| bool::from(given.ct_eq(visitor.token.as_bytes()));
    if let Some(given) = request.headers().get(HEADER) {
        return if is_ours(given.as_bytes()) {
            Ok(request)
        } else {
            Err(Fault::Stale)
        };
    }
    let is_form = request.headers().get(CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes()
            .starts_with(b"application/x-www-form-urlencoded")
    });
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, LONGEST_FORM)
        .await
        .map_err(|_| Fault::Stale)?;
    let prefix = format!("{FIELD}=");
    let given = body
        .split(|byte| *byte == b'&')
        .find_map(|pair| pair.strip_prefix(prefix.as_bytes()));
    if !is_form || !given.is_some_and(is_ours) {
        return Err(Fault::Stale);
    }
    Ok(Request::from_parts(parts, Body::from(body)))
}

/// The sign-in and the first password.
#[derive(Template)]
#[template(path = "door.html")]
struct Shown<'a> {
    view: &'a View,
    is_first: bool,
    to: String,
    name: String,
    fault: Option<String>,
}

impl Shown<'_> {
    fn action(&self) -> &'static str {
        if self.is_first { "/first" } else { "/sign-in" }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct To {
    to: String,
}

pub(super) async fn show_sign_in(view: View, Query(To { to }): Query<To>) -> Response {
    show_door(&view, false, to)
}

pub(super) async fn show_first(
    State(page): State<Arc<Page>>,
    view: View,
    Query(To { to }): Query<To>,
) -> Response {
    if page.door.has_users() {
        return Redirect::to(&view.href("/sign-in")).into_response();
    }
    show_door(&view, true, to)
}

fn show_door(view: &View, is_first: bool, to: String) -> Response {
    view.render(&Shown {
        view,
        is_first,
        to,
        name: String::new(),
        fault: None,
    })
}

/// The form again, with what is wrong.
fn refuse(
    view: &View,
    is_first: bool,
    given: &SignIn,
    status: StatusCode,
    fault: &str,
) -> Response {
    let shown = Shown {
        view,
        is_first,
        to: given.to.clone(),
        name: given.name.clone(),
        fault: Some(fault.to_owned()),
    };
    (status, view.render(&shown)).into_response()
}

#[derive(Deserialize)]
pub(super) struct SignIn {
    name: String,
    password: SecretString,
    #[serde(default)]
    to: String,
    /// Of the first person only.
    #[serde(default)]
    code: String,
}

pub(super) async fn sign_in(
    State(page): State<Arc<Page>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    session: Session,
    view: View,
    Form(given): Form<SignIn>,
) -> Response {
    let refuse = |status, text: &str| refuse(&view, false, &given, status, text);
    let keys = keys(&given.name, peer, &headers);
    if page.door.is_shut(&keys) {
        tracing::warn!(name = given.name, "too many wrong passwords for the page");
        let text = view.say(
            "Слишком много неверных паролей. Подождите десять минут.",
            "Too many wrong passwords. Wait ten minutes.",
        );
        return refuse(StatusCode::TOO_MANY_REQUESTS, text);
    }
    let Some(user) = page.door.look(&given.name, given.password.clone()).await else {
        page.door.count_failure(&keys);
        let text = view.say("Неверное имя или пароль.", "Wrong name or password.");
        return refuse(StatusCode::UNAUTHORIZED, text);
    };
    enter(&session, &given.name, &user, &view, &given.to).await
}

/// Sets the first password: whoever can read `data_dir` may.
pub(super) async fn first(
    State(page): State<Arc<Page>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    session: Session,
    view: View,
    Form(given): Form<SignIn>,
) -> Response {
    let refuse = |status, text: &str| refuse(&view, true, &given, status, text);
    let door = &page.door;
    if !door.awaits_the_first() {
        return Redirect::to(&view.href("/sign-in")).into_response();
    }
    let keys = keys("", peer, &headers);
    let code = std::fs::read_to_string(&door.code).unwrap_or_default();
    let is_code = bool::from(code.trim().as_bytes().ct_eq(given.code.trim().as_bytes()));
    if door.is_shut(&keys) || code.is_empty() || !is_code {
        door.count_failure(&keys);
        let text = view.say(
            "Это не тот код. Он лежит в файле page-first.code в папке data_dir.",
            "This is not the code. It is in the file page-first.code in data_dir.",
        );
        return refuse(StatusCode::UNAUTHORIZED, text);
    }
    let set = {
        let (users, name, password) = (
            door.users.clone(),
            given.name.clone(),
            given.password.clone(),
        );
        tokio::task::spawn_blocking(move || users.set(&name, Role::Administrator, &password)).await
    };
    match set {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return refuse(StatusCode::UNPROCESSABLE_ENTITY, &fault::told(&error)),
        Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
    door.prepare_code();
    match door
        .users
        .all()
        .ok()
        .and_then(|mut all| all.remove(&given.name))
    {
        Some(user) => enter(&session, &given.name, &user, &view, &given.to).await,
        None => Redirect::to(&view.href("/sign-in")).into_response(),
    }
}

/// Begins a session under a new identifier, so that one planted before the sign-in is worth nothing.
async fn enter(session: &Session, name: &str, user: &User, view: &View, to: &str) -> Response {
    let entered = async {
        if session.id().is_some() {
            session.flush().await?;
        }
        session.insert(NAME, name).await?;
        session.insert(STAMP, user.stamp()).await?;
        session.cycle_id().await
    };
    if let Err(error) = entered.await {
        return Fault::Failed(error.to_string()).into_response();
    }
    tracing::info!(name, "signed in to the page");
    Redirect::to(&view.href(own_path(to))).into_response()
}

pub(super) async fn sign_out(session: Session, view: View) -> Response {
    // One that is gone already is out too.
    let _ = session.flush().await;
    Redirect::to(&view.href("/sign-in")).into_response()
}

/// What failures are counted by. A proxy of this machine tells who is behind it.
fn keys(name: &str, peer: SocketAddr, headers: &HeaderMap) -> [(String, u32); 2] {
    let mut address = peer.ip().to_canonical();
    if address.is_loopback() {
        let told = headers.get("x-forwarded-for");
        let told = told.and_then(|told| told.to_str().ok()?.rsplit(',').next());
        if let Some(behind) = told.and_then(|told| told.trim().parse::<IpAddr>().ok()) {
            address = behind;
        }
    }
    [
        (format!("{address} {name}"), MOST_FOR_NAME),
        (address.to_string(), MOST_FOR_ADDRESS),
    ]
}
