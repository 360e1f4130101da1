//! What the CRM's content means for calls, worked out anew from what the generator knows, against
//! what the mirror holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use jiff::Timestamp;
use pryamo::directory::{CrmRules, Directory, KINDS, Opening, Override, RosterRules};
use pryamo::phone::{E164, Region};
use pryamo::record::{CrmName, EmployeeId, EntityId, EntityKind};

use super::change::Life;
use super::crm::Kind;
use crate::world::{Entry, List, Stage, User, World};

/// The name of the one CRM in the configuration.
pub const CRM: &str = "sales";
/// Differences shown; the rest is counted.
const SHOWN: usize = 25;

/// What the CRM says, seen as a mirror should see it.
pub struct Truth {
    /// Number -> a line for each card that must be found by it.
    cards: BTreeMap<u64, BTreeSet<String>>,
    /// Number -> the extension to ring.
    extensions: BTreeMap<u64, Option<String>>,
    ids: BTreeMap<EntityKind, BTreeSet<u64>>,
    last_ids: BTreeMap<EntityKind, u64>,
    users: BTreeSet<String>,
}

/// The extensions that the configuration gives to users of a CRM without such a field: for all that
/// will ever be hired.
pub fn configured_extension(user: u64) -> Option<String> {
    (!user.is_multiple_of(9)).then(|| (100 + user % 700).to_string())
}

pub fn email(user: u64) -> String {
    format!("user{user}@example.com")
}

impl Truth {
    /// Works it out.
    pub fn of(world: &World, life: &Life, kind: Kind) -> Self {
        let view = View { world, kind };
        let mut holders: BTreeMap<u64, Vec<(List, &Entry)>> = life
            .ever()
            .iter()
            .map(|number| (*number, Vec::new()))
            .collect();
        let mut ids = BTreeMap::new();
        let mut last_ids = BTreeMap::new();
        for &list in kind.lists() {
            for entry in world.list(list) {
                for number in life.numbers_of((list, entry.id)) {
                    holders.get_mut(number).unwrap().push((list, entry));
                }
            }
            let here = world.list(list).iter().map(|entry| entry.id).collect();
            ids.insert(kind_of(list), here);
            last_ids.insert(kind_of(list), life.last_id(list));
        }
        let mut truth = Self {
            cards: BTreeMap::new(),
            extensions: BTreeMap::new(),
            ids,
            last_ids,
            users: world
                .users
                .iter()
                .map(|user| view.user_line(user))
                .collect(),
        };
        for (number, mut cards) in holders {
            view.add_deals(&mut cards);
            truth.extensions.insert(number, view.extension(&cards));
            let lines = cards.iter().map(|(list, entry)| view.line(*list, entry));
            truth.cards.insert(number, lines.collect());
        }
        truth
    }

    /// Every number with the extension that `/forward` must name.
    pub fn extensions(&self) -> &BTreeMap<u64, Option<String>> {
        &self.extensions
    }

    /// How many cards there are, for the figures.
    pub fn cards(&self) -> usize {
        self.ids.values().map(BTreeSet::len).sum()
    }

    /// Opens the directory of a stopped daemon; a line for each difference.
    pub async fn differences(&self, data_dir: &Path, kind: Kind) -> Vec<String> {
        let store = (KINDS[0].open)(
            toml::Table::new(),
            Opening {
                data_dir: data_dir.to_owned(),
                rules: rules(kind),
            },
        )
        .expect("the directory opens after the daemon has stopped");
        let mut lines = Vec::new();
        for (&kind, here) in &self.ids {
            lines.extend(self.compare_ids(&*store, kind, here).await);
        }
        for (&number, expected) in &self.cards {
            let phone = E164::from_digits(number).unwrap();
            let found = store.lookup(phone, true).await.unwrap();
            let found: BTreeSet<String> = found.iter().map(mirrored_line).collect();
            compare_lines(&format!("+{number}"), expected, &found, &mut lines);
        }
        let roster: BTreeSet<String> = store
            .roster()
            .all()
            .iter()
            .map(|one| {
                let extension = one.extension.as_ref().map(ToString::to_string).ok();
                user_line(one.id.as_str(), one.active, extension.as_deref())
            })
            .collect();
        compare_lines("users", &self.users, &roster, &mut lines);
        for &kind in self.ids.keys() {
            let queued = store.queue_length(&CrmName::new(CRM), kind).await.unwrap();
            if queued.waiting > 0 {
                println!(
                    "  {} notices of {kind} cards wait in the queue",
                    queued.waiting
                );
            }
        }
        lines
    }

    async fn compare_ids(
        &self,
        store: &dyn Directory,
        kind: EntityKind,
        here: &BTreeSet<u64>,
    ) -> Vec<String> {
        let crm = CrmName::new(CRM);
        let mut known = BTreeSet::new();
        let all: Vec<EntityId> = (1..=self.last_ids[&kind] + 10)
            .map(EntityId::from)
            .collect();
        for part in all.chunks(500) {
            let some = store.known(&crm, kind, part).await.unwrap();
            known.extend(some.iter().map(|id| id.as_str().parse::<u64>().unwrap()));
        }
        let counts = store.counts().await.unwrap();
        let count = counts.iter().find(|count| count.kind == kind);
        let count = count.map_or(0, |count| count.cards);
        let mut lines = Vec::new();
        if count != here.len() as u64 {
            lines.push(format!(
                "{kind}: the CRM has {}, the mirror {count}",
                here.len()
            ));
        }
        let missing = here.difference(&known);
        lines.extend(missing.map(|id| format!("{kind} {id}: is missing in the mirror")));
        let dead = known.difference(here);
        lines.extend(dead.map(|id| format!("{kind} {id}: is gone, and the mirror has it")));
        lines
    }
}

/// The first differences, and how many more there are.
pub fn told(differences: &[String]) -> String {
    let shown = differences[..differences.len().min(SHOWN)].join("\n  ");
    format!("{} differences:\n  {shown}", differences.len())
}

fn compare_lines(
    what: &str,
    expected: &BTreeSet<String>,
    found: &BTreeSet<String>,
    lines: &mut Vec<String>,
) {
    for missing in expected.difference(found) {
        lines.push(format!("{what}: the mirror lacks    {missing}"));
    }
    for wrong in found.difference(expected) {
        lines.push(format!("{what}: only the mirror has {wrong}"));
    }
}

/// A world through the eyes of one kind of CRM.
struct View<'a> {
    world: &'a World,
    kind: Kind,
}

impl View<'_> {
    /// Adds the deals that name one of the cards, as far as this CRM's deals name them.
    fn add_deals<'w>(&'w self, cards: &mut Vec<(List, &'w Entry)>) {
        let has = |list, id| {
            cards
                .iter()
                .any(|(other, entry)| *other == list && entry.id == id)
        };
        let names_one = |deal: &&Entry| {
            // Bitrix24's list tells the main contact alone.
            let told = if self.kind.is_bitrix24() {
                1
            } else {
                usize::MAX
            };
            let contacts = &deal.contacts[..deal.contacts.len().min(told)];
            contacts.iter().any(|id| has(List::Contacts, *id))
                || deal.company.is_some_and(|id| has(List::Companies, id))
        };
        let deals: Vec<&Entry> = self.world.deals.iter().filter(names_one).collect();
        cards.extend(deals.into_iter().map(|deal| (List::Deals, deal)));
    }

    /// Whom to ring: contacts before companies before leads before deals; of these the last
    /// changed, then the lowest id; whoever cannot be rung is passed over.
    fn extension(&self, cards: &[(List, &Entry)]) -> Option<String> {
        let mut open: Vec<&(List, &Entry)> = cards
            .iter()
            .filter(|(_, entry)| entry.stage == Stage::Open)
            .collect();
        open.sort_by_key(|(list, entry)| (*list, -entry.modified, entry.id));
        open.iter().find_map(|(_, entry)| {
            let users = &self.world.users;
            let user = users.iter().find(|user| user.id == entry.responsible)?;
            self.extension_of(user).filter(|_| user.active)
        })
    }

    fn extension_of(&self, user: &User) -> Option<String> {
        let written = if self.kind.has_extensions() {
            user.extension.clone()
        } else {
            configured_extension(user.id)
        }?;
        let written = written.trim();
        let is_extension =
            (2..=6).contains(&written.len()) && written.bytes().all(|sign| sign.is_ascii_digit());
        is_extension.then(|| written.to_owned())
    }

    fn user_line(&self, user: &User) -> String {
        let extension = self.extension_of(user);
        user_line(&user.id.to_string(), user.active, extension.as_deref())
    }

    fn line(&self, list: List, entry: &Entry) -> String {
        let company = entry.company.and_then(|id| {
            let companies = &self.world.companies;
            let index = companies
                .binary_search_by_key(&id, |company| company.id)
                .ok()?;
            Some(companies[index].name.as_str())
        });
        let name = format!("{} {}", entry.name, entry.last_name);
        let stage = match (entry.stage, list) {
            (Stage::Open, _) => "Open",
            (Stage::Junk, List::Leads) => "Junk",
            (Stage::Closed | Stage::Junk, _) => "Closed",
        };
        card_line(&CardLine {
            kind: kind_of(list),
            id: &entry.id.to_string(),
            name: name.trim(),
            company,
            responsible: Some(&entry.responsible.to_string()),
            modified: Some(entry.modified),
            stage,
        })
    }
}

struct CardLine<'a> {
    kind: EntityKind,
    id: &'a str,
    name: &'a str,
    company: Option<&'a str>,
    responsible: Option<&'a str>,
    modified: Option<i64>,
    stage: &'a str,
}

fn card_line(card: &CardLine<'_>) -> String {
    format!(
        "{} {} '{}' of {:?}, responsible {:?}, changed {:?}, {}",
        card.kind, card.id, card.name, card.company, card.responsible, card.modified, card.stage
    )
}

fn mirrored_line(entity: &pryamo::record::Entity) -> String {
    card_line(&CardLine {
        kind: entity.kind,
        id: entity.id.as_str(),
        name: &entity.name,
        company: entity.company.as_deref(),
        responsible: entity.responsible.as_ref().map(EmployeeId::as_str),
        modified: entity.modified.map(Timestamp::as_second),
        stage: &format!("{:?}", entity.stage),
    })
}

fn user_line(id: &str, active: bool, extension: Option<&str>) -> String {
    let standing = if active { "works here" } else { "is dismissed" };
    format!("{id} {standing}, extension {extension:?}")
}

fn kind_of(list: List) -> EntityKind {
    match list {
        List::Contacts => EntityKind::Contact,
        List::Companies => EntityKind::Company,
        List::Leads => EntityKind::Lead,
        List::Deals => EntityKind::Deal,
    }
}

/// What the daemon's configuration says about employees.
fn rules(kind: Kind) -> RosterRules {
    let configured = (0..2_000_u64)
        .filter(|_| !kind.has_extensions())
        .map(|user| {
            let extension = configured_extension(user);
            (
                email(user),
                Override {
                    extension,
                    ..Override::default()
                },
            )
        });
    let rules = CrmRules::new(Region::default(), configured);
    RosterRules {
        crms: HashMap::from([(CrmName::new(CRM), rules)]),
        ..RosterRules::default()
    }
}
