//! The Bitrix24 connector: [`recorded`] answers, a made-up [`portal`], and whether that portal
//! itself keeps to the [`documentation`].

mod changes;
mod documentation;
mod events;
mod hooks;
mod people;
mod portal;
mod recorded;
mod tokens;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt};
use pryamo::crm::{Common, Crm, CrmError, Hook, KINDS, Page};
use pryamo::phone::E164;
use pryamo::record::{CrmName, EntityKind};

use crate::fake_bitrix24::{FakeBitrix24, Options};
use crate::world::{Entry, SharedWorld, User, World};

const CODE: &str = "k0d3example";
const CLIENT_SECRET: &str = "s3cretexample";

/// The connector with a portal's address and more settings.
fn connect(url: &str, settings: &str) -> Arc<dyn Crm> {
    connect_in(Path::new("/nonexistent/bitrix24"), url, settings)
}

/// The connector that mirrors these fields of the cards too.
fn connect_for(fields: &[&str], url: &str) -> Arc<dyn Crm> {
    open(Path::new("/nonexistent/bitrix24"), fields, url, "")
}

/// The connector that keeps what must survive in this folder.
fn connect_in(folder: &Path, url: &str, settings: &str) -> Arc<dyn Crm> {
    open(folder, &[], url, settings)
}

fn open(folder: &Path, fields: &[&str], url: &str, settings: &str) -> Arc<dyn Crm> {
    let common = Common {
        name: CrmName::new("sales"),
        wanted: EntityKind::ALL.to_vec(),
        fields: fields.iter().map(ToString::to_string).collect(),
        share: 0.8,
        asked_lately: false,
        state_dir: folder.to_owned(),
        config_dir: PathBuf::new(),
    };
    let kind = KINDS.iter().find(|kind| kind.name == "bitrix24");
    let kind = kind.expect("the row of Bitrix24");
    let table = format!("url = '{url}'\n{settings}").parse().unwrap();
    (kind.open)(table, common).unwrap()
}

/// The settings of the made-up portal's application, that of `Options::default`.
fn application(fake: &FakeBitrix24) -> String {
    format!(
        "client_id = 'local.1example'\nclient_secret = '{CLIENT_SECRET}'\noauth_url = '{}'\n{}",
        fake.address(),
        at_speed(100.0)
    )
}

/// A portal that is no bottleneck.
async fn portal_with(world: &SharedWorld, options: Options) -> FakeBitrix24 {
    let options = Options {
        speed: 100.0,
        ..options
    };
    FakeBitrix24::start(Arc::clone(world), options).await
}

fn hook(body: &str) -> Hook<'_> {
    Hook {
        content_type: "application/x-www-form-urlencoded",
        body: body.as_bytes(),
    }
}

/// Settings for a portal of a usual plan whose time runs this many times faster.
fn at_speed(speed: f64) -> String {
    format!(
        "limits = {{ requests_per_second = {}, operating_seconds = {} }}",
        2.0 * speed,
        480.0 / speed
    )
}

/// A portal that is no bottleneck, and the connector to it.
async fn fast_portal(world: World) -> (FakeBitrix24, Arc<dyn Crm>) {
    let options = Options {
        speed: 100.0,
        ..Options::default()
    };
    let fake = FakeBitrix24::start(world.shared(), options).await;
    let crm = connect(&fake.url(), &at_speed(100.0));
    (fake, crm)
}

fn contact(id: u64) -> Entry {
    Entry {
        id,
        name: format!("Name{id}"),
        last_name: "Example".into(),
        responsible: 1 + id % 3,
        phones: vec![format!("+7 900 {id:07}")],
        // Minutes apart, the latest just before the portal's clock begins.
        modified: 1_795_348_800 - 60 * i64::try_from(id).unwrap(),
        ..Entry::default()
    }
}

/// Contacts with gaps between their identifiers.
fn contacts(count: u64) -> World {
    World {
        users: (1..=3).map(user).collect(),
        contacts: (1..=count).map(|place| contact(place * 3)).collect(),
        ..World::default()
    }
}

fn user(id: u64) -> User {
    User {
        id,
        first_name: format!("User{id}"),
        last_name: "Example".into(),
        active: id != 2,
        extension: (id != 3).then(|| format!("10{id}")),
        mobile: Some(format!("+7 901 000-00-0{id}")),
        email: format!("user{id}@example.com"),
        ..User::default()
    }
}

fn phone(digits: u64) -> E164 {
    E164::from_digits(digits).unwrap()
}

/// All pages, and the error that ended them.
async fn drain(mut pages: BoxStream<'_, Result<Page, CrmError>>) -> (Vec<Page>, Option<CrmError>) {
    let mut read = Vec::new();
    while let Some(page) = pages.next().await {
        match page {
            Ok(page) => read.push(page),
            Err(error) => return (read, Some(error)),
        }
    }
    (read, None)
}

fn ids(pages: &[Page]) -> Vec<u64> {
    let cards = pages.iter().flat_map(|page| &page.cards);
    cards
        .map(|card| card.id.as_str().parse().unwrap())
        .collect()
}

fn label(error: Option<&CrmError>) -> &'static str {
    error.map_or("well", CrmError::label)
}

/// Everything that an error could ever print.
fn printed(error: &CrmError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        text = format!("{text} {deeper} {deeper:?}");
        cause = deeper.source();
    }
    text
}
