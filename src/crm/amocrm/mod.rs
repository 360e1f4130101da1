//! amoCRM and Kommo: one REST interface (v4) on the account's own host.
//!
//! Cards come by pages and by search, employees from the users' list. Knows neither the directory
//! nor any call. Facts are the vendor's pages (amocrm.ru/developers/content, developers.kommo.com);
//! what they leave open is told where it matters. The parts: `settings` opens the
//! connector, `link` sends one request, `token` says with which right, `wire`
//! reads the answer. `lists` walks over all cards, `changes` reads the young ones, `read` those that
//! are named and `search` those that have a number. `hook` takes what the account sends, `events`
//! fetches what it keeps for us (by way of `track`), `webhooks` looks whether it still sends,
//! `account` knows who it is, `lack` what it does not do, `check` looks for what is to mend.
//!
//! amoCRM's API calls its deals `leads`. Deals carry no phone: they are found by their contacts.

mod account;
mod changes;
mod check;
mod events;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod hook;
mod lack;
mod link;
mod lists;
mod read;
mod search;
mod settings;
mod token;
mod track;
mod webhooks;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use jiff::Timestamp;
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;

use self::account::Identity;
use self::lack::Lack;
use self::link::{Answer, Link, refusal};
use self::lists::Place;
use self::token::Tokens;
use self::webhooks::Watch;
use self::wire::{List, Row, User};
use super::budget::Lane;
use super::optional::{Part, Weight};
use super::{Crm, CrmError, Cursor, Finding, Hook, HookError, Kind, News, Page, Since, in_path};
use crate::phone::E164;
use crate::record::{
    Card, CrmName, Department, Employee, EmployeeId, EntityId, EntityKind, Event, Notice, Staff,
};

/// amoCRM and Kommo.
pub const KIND: Kind = Kind {
    name: "amocrm",
    example: settings::EXAMPLE,
    open: settings::open,
};

/// The kinds that amoCRM has, those that most callers are found by first.
const KINDS: [EntityKind; 3] = [EntityKind::Contact, EntityKind::Company, EntityKind::Deal];
/// The most rows that one request may bring.
const LARGEST_PAGE_RECORDS: u32 = 250;
/// Pages of users that are read before the list is taken for endless.
const MOST_USER_PAGES: u32 = 100;

/// An amoCRM or Kommo account.
struct Amocrm {
    link: Arc<Link>,
    tokens: Tokens,
    name: CrmName,
    kinds: Vec<EntityKind>,
    fields: Vec<String>,
    account: Identity,
    watch: Watch,
    /// The groups of users, told with the account.
    groups: Part<Vec<Department>>,
    /// Filters are ignored, silently.
    no_filters: Lack,
    /// The list of events may not be read, or makes no sense.
    no_events: Lack,
    /// The lists of deleted cards make no sense.
    no_deleted: Lack,
}

/// What a list answered.
enum Listed<T> {
    Rows(List<T>),
    /// 204: nothing, or nothing more.
    Nothing,
    /// 504: fewer rows at a time, please.
    TooHeavy,
}

/// A request's query, names and values not yet encoded.
type Query = Vec<(&'static str, String)>;

impl Amocrm {
    fn new(
        link: Arc<Link>,
        tokens: Tokens,
        name: CrmName,
        kinds: Vec<EntityKind>,
        fields: Vec<String>,
    ) -> Self {
        let account = Identity::behind(link.base());
        Self {
            link,
            tokens,
            name,
            kinds,
            fields,
            account,
            watch: Watch::default(),
            groups: Part::new("groups of users", Weight::Wanted),
            no_filters: Lack::default(),
            no_events: Lack::default(),
            no_deleted: Lack::default(),
        }
    }

    /// Asks a list; the second part is the CRM's clock.
    async fn list<T: DeserializeOwned>(
        &self,
        lane: Lane,
        path: &str,
        query: &Query,
    ) -> Result<(Listed<T>, Option<Timestamp>), CrmError> {
        let method = method_of(path);
        let answer = self.ask(lane, path, query).await?;
        let time = answer.server_time;
        let listed = match answer.status {
            StatusCode::NO_CONTENT => Listed::Nothing,
            StatusCode::GATEWAY_TIMEOUT => Listed::TooHeavy,
            _ => {
                let list: List<T> = body(&method, &answer)?;
                self.check_next(&method, list.next())?;
                Listed::Rows(list)
            }
        };
        Ok((listed, time))
    }

    /// Asks, and in the background again while the fault looks passing.
    async fn ask(&self, lane: Lane, path: &str, query: &Query) -> Result<Answer, CrmError> {
        let mut tries = self.link.tries(lane);
        loop {
            match self.ask_once(lane, path, query).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => tries.wait_after(fault).await?,
            }
        }
    }

    /// Asks with the right in hand, and with a new one if that was refused.
    async fn ask_once(&self, lane: Lane, path: &str, query: &Query) -> Result<Answer, CrmError> {
        let method = method_of(path);
        let token = self.tokens.current().await?;
        let (token, answer) = self.ask_with(token, lane, path, query).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return passing(&method, answer);
        }
        let token = self.tokens.instead_of(token).await?;
        let (_, answer) = self.ask_with(token, lane, path, query).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            return Err(CrmError::Unauthorized(
                "a newly renewed token is refused too; is `crm.url` the account that the \
                 integration belongs to?"
                    .to_owned(),
            ));
        }
        passing(&method, answer)
    }

    /// Gives the token that was sent as well: the given one may have been renewed while the request
    /// waited for its turn.
    async fn ask_with(
        &self,
        token: SecretString,
        lane: Lane,
        path: &str,
        query: &Query,
    ) -> Result<(SecretString, Answer), CrmError> {
        self.link.admit(lane).await?;
        let token = self.tokens.newest(token);
        let request = self.link.get(path).query(query);
        let request = request.bearer_auth(token.expose_secret());
        let answer = self.link.send(lane, &method_of(path), request).await?;
        Ok((token, answer))
    }

    /// The next page is asked for by its number, but an answer that points elsewhere is not ours.
    fn check_next(&self, method: &str, next: Option<&str>) -> Result<(), CrmError> {
        let base = self.link.base();
        let is_ours = |next: &str| {
            base.join(next)
                .is_ok_and(|url| url.host_str() == base.host_str() && url.port() == base.port())
        };
        if next.is_none_or(is_ours) {
            return Ok(());
        }
        Err(shape(method, "`_links.next` points to another host"))
    }

    /// Scheme, host and port: where the account's own interface is.
    fn site(&self) -> String {
        self.link.base().origin().ascii_serialization()
    }

    fn cards(&self, kind: EntityKind, rows: Vec<Row>) -> Result<Vec<Card>, CrmError> {
        rows.into_iter()
            .filter_map(|row| row.into_card(kind, &self.fields).transpose())
            .collect::<Result<_, _>>()
            .map_err(|text| shape(&method_of(path_of(kind)), text))
    }
}

#[async_trait]
impl Crm for Amocrm {
    fn kinds(&self) -> &[EntityKind] {
        &self.kinds
    }

    fn card_address(&self, kind: EntityKind, id: &EntityId) -> Option<String> {
        let list = match kind {
            EntityKind::Contact => "contacts",
            EntityKind::Company => "companies",
            EntityKind::Deal => "leads",
            EntityKind::Lead => return None,
        };
        let id = in_path(id.as_str());
        Some(format!("{}/{list}/detail/{id}", self.site()))
    }

    /// Users have no pages of their own.
    fn employee_address(&self, _id: &EmployeeId) -> Option<String> {
        Some(format!("{}/settings/users/", self.site()))
    }

    fn walks_may_miss(&self) -> bool {
        true
    }

    async fn employees(&self) -> Result<Staff, CrmError> {
        let mut employees = Vec::new();
        for page in 1..=MOST_USER_PAGES {
            let query = vec![
                ("page", page.to_string()),
                ("limit", LARGEST_PAGE_RECORDS.to_string()),
                ("with", "group,phone_number".to_owned()),
            ];
            let (listed, _) = self
                .list::<User>(Lane::Change, USERS, &query)
                .await
                .map_err(name_the_right)?;
            let list = match listed {
                Listed::Rows(list) => list,
                Listed::Nothing => break,
                Listed::TooHeavy => return Err(too_heavy(USERS)),
            };
            let is_last = !list.has_more();
            employees.extend(list.into_rows().into_iter().map(Employee::from));
            if is_last {
                break;
            }
        }
        if employees.is_empty() {
            // Every account has its administrator: no users is a fault, not a fact.
            return Err(shape(&method_of(USERS), "a list without any user"));
        }
        let groups = account::groups(self).await;
        let groups = self.groups.settle(&self.name, groups)?;
        Ok(Staff {
            departments: with_unnamed(groups, &employees),
            employees,
        })
    }

    fn walk(
        &self,
        kind: EntityKind,
        from: Option<Cursor>,
    ) -> BoxStream<'_, Result<Page, CrmError>> {
        let place = from.as_ref().map_or(Place::START, Place::read);
        lists::walk(self, kind, place).boxed()
    }

    fn changes(&self, kind: EntityKind, since: Since) -> BoxStream<'_, Result<Page, CrmError>> {
        changes::changes(self, kind, since.time).boxed()
    }

    async fn read(&self, kind: EntityKind, ids: &[EntityId]) -> Result<Page, CrmError> {
        read::read(self, kind, ids).await
    }

    async fn receive(&self, hook: Hook<'_>) -> Result<Vec<Notice>, HookError> {
        let told = hook::read(hook)?;
        self.account.recognise(&told.account)?;
        Ok(told.notices(&self.kinds))
    }

    fn has_news(&self) -> bool {
        true
    }

    async fn news(&self, from: Option<Cursor>) -> Result<News, CrmError> {
        events::news(self, from).await
    }

    async fn find(&self, phone: E164) -> Result<Vec<Card>, CrmError> {
        search::find(self, phone).await
    }

    async fn check(&self) -> Vec<Finding> {
        check::findings(self).await
    }
}

/// The groups, and those of users that the account does not name: a head may be set for each.
fn with_unnamed(mut groups: Vec<Department>, employees: &[Employee]) -> Vec<Department> {
    for id in employees.iter().flat_map(|one| &one.departments) {
        if groups.iter().all(|group| group.id != *id) {
            groups.push(Department {
                id: id.clone(),
                name: String::new(),
                parent: None,
                head: None,
            });
        }
    }
    groups
}

const USERS: &str = "/api/v4/users";

fn path_of(kind: EntityKind) -> &'static str {
    match kind {
        EntityKind::Contact => "/api/v4/contacts",
        EntityKind::Company => "/api/v4/companies",
        // No kind `Lead` reaches this place; amoCRM's leads are our deals.
        EntityKind::Lead | EntityKind::Deal => "/api/v4/leads",
    }
}

fn method_of(path: &str) -> String {
    format!("GET {path}")
}

fn shape(method: &str, text: impl Into<String>) -> CrmError {
    CrmError::Shape {
        method: method.to_owned(),
        text: text.into(),
    }
}

fn too_heavy(path: &str) -> CrmError {
    CrmError::Unreachable {
        method: method_of(path),
        cause: "HTTP 504 Gateway Timeout".into(),
    }
}

/// Lets through what the asker judges: an answer with a list, without one, too heavy, or that there
/// is no such card. A 404 that is no JSON comes from a gateway and says nothing of any card.
fn passing(method: &str, answer: Answer) -> Result<Answer, CrmError> {
    match answer.status {
        StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::GATEWAY_TIMEOUT => Ok(answer),
        StatusCode::NOT_FOUND if answer.is_json => Ok(answer),
        _ => Err(refusal(method, &answer)),
    }
}

fn body<T: DeserializeOwned>(method: &str, answer: &Answer) -> Result<T, CrmError> {
    if answer.status != StatusCode::OK || !answer.is_json {
        return Err(refusal(method, answer));
    }
    wire::read(&answer.body).map_err(|text| shape(method, text))
}

/// One notice for each card, the one that says most.
fn strongest(notices: impl IntoIterator<Item = Notice>) -> Vec<Notice> {
    let mut events: BTreeMap<(EntityKind, EntityId), Event> = BTreeMap::new();
    for Notice { kind, id, event } in notices {
        let known = events.entry((kind, id)).or_insert(event);
        *known = event.max(*known);
    }
    let notice = |((kind, id), event)| Notice { kind, id, event };
    events.into_iter().map(notice).collect()
}

/// Only an administrator's token reads the users.
fn name_the_right(error: CrmError) -> CrmError {
    match error {
        CrmError::Forbidden { method, text } => CrmError::Forbidden {
            method,
            text: format!("{text}; let an administrator of the account generate `crm.token`"),
        },
        other => other,
    }
}
