//! Who may take a call, in which order: the responsible, and whom to ring in their place.
//!
//! Pure: ranked entities, the roster and the policy go in, candidates come out. Whether a candidate may
//! be rung now, the rules judge; nobody is a candidate twice, so no call goes round in a circle.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::call::{Did, DidPattern, Extension, ExtensionPattern, Outgoing, Target};
use crate::decision::{CandidateName, Role, SkipReason};
use crate::directory::{Colleague, Roster};
use crate::record::Entity;

/// `[route]`: whom to ring when the responsible cannot take the call, and for how long.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(from = "Written")]
pub struct Settings {
    /// What holds unless a department or DID says otherwise.
    #[serde(flatten)]
    pub all: Policy,
    /// Other policies for calls to single DIDs: `[route.did."7495*"]`.
    pub did: BTreeMap<DidPattern, Policy>,
    /// Other policies for clients of a department's employees, by its name or identifier.
    pub department: BTreeMap<String, Policy>,
    /// Which telephones outside may be dialled for the step `mobile`.
    pub outgoing: Outgoing,
}

/// `[route]` as it is written: the general policy has no table of its own.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Written {
    when_away: Option<Vec<Away>>,
    ring_seconds: Option<u64>,
    most_tries: Option<usize>,
    total_seconds: Option<u64>,
    did: BTreeMap<DidPattern, Policy>,
    department: BTreeMap<String, Policy>,
    outgoing: Outgoing,
}

impl From<Written> for Settings {
    fn from(written: Written) -> Self {
        Self {
            all: Policy {
                when_away: written.when_away,
                ring_seconds: written.ring_seconds,
                most_tries: written.most_tries,
                total_seconds: written.total_seconds,
            },
            did: written.did,
            department: written.department,
            outgoing: written.outgoing,
        }
    }
}

/// A part of the policy; what it leaves out, the more general one says.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Whom to ring in which order when the responsible cannot take the call. Default: deputy, head,
    /// next.
    pub when_away: Option<Vec<Away>>,
    /// Seconds that each one is rung. Default: 20.
    pub ring_seconds: Option<u64>,
    /// How many are rung for one call at most. Default: 4.
    pub most_tries: Option<usize>,
    /// Seconds after which no further one is rung. Default: 90.
    pub total_seconds: Option<u64>,
}

impl Policy {
    /// Seconds that each one is rung.
    pub const RING_SECONDS: u64 = 20;
    /// How many are rung at most.
    pub const MOST_TRIES: usize = 4;
    /// Seconds after which no further one is rung.
    pub const TOTAL_SECONDS: u64 = 90;
    /// Whom to ring where nothing else is said.
    pub const WHEN_AWAY: [Away; 3] = [Away::Deputy, Away::Head, Away::Next];
}

/// A step of `when_away`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Away {
    /// The responsible's mobile phones, those that `route.outgoing` allows.
    Mobile,
    /// The responsible's deputy, then the deputy's.
    Deputy,
    /// The head of the responsible's department, then those above.
    Head,
    /// The responsible of the caller's next entity, then of the one behind it.
    Next,
    /// A group, a queue or any extension.
    Extension(Extension),
}

impl<'de> Deserialize<'de> for Away {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = String::deserialize(deserializer)?;
        match written.as_str() {
            "mobile" => Ok(Self::Mobile),
            "deputy" => Ok(Self::Deputy),
            "head" => Ok(Self::Head),
            "next" => Ok(Self::Next),
            // Any digits here: what the administrator writes is no text from a CRM. The router's own
            // pattern is looked at when the configuration is read.
            digits => Extension::read(digits, &ExtensionPattern::any())
                .map(Self::Extension)
                .map_err(|_| {
                    serde::de::Error::custom(format!(
                        "`when_away` holds \"{written}\"; there is \"mobile\", \"deputy\", \"head\", \"next\" and extensions such as \"600\""
                    ))
                }),
        }
    }
}

impl Serialize for Away {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Mobile => "mobile",
            Self::Deputy => "deputy",
            Self::Head => "head",
            Self::Next => "next",
            Self::Extension(extension) => extension.as_str(),
        })
    }
}

/// The policy that holds for one call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InForce<'a> {
    /// Whom to ring in place of the responsible.
    pub when_away: &'a [Away],
    /// Seconds that each one is rung.
    pub ring_seconds: u64,
    /// How many are rung at most.
    pub most_tries: usize,
    /// Seconds after which no further one is rung.
    pub total_seconds: u64,
}

impl Settings {
    /// The options with their defaults, for the example configuration.
    pub const EXAMPLE: &'static str = "\
# [route]
# when_away = [\"deputy\", \"head\", \"next\"]   # whom to ring when the responsible cannot take the call:
#                                # \"mobile\", \"deputy\", \"head\" of the department, responsible of the
#                                # \"next\" card, or an extension (a group, a queue) such as \"600\"
# ring_seconds = 20              # each one is rung so long
# most_tries = 4                 # so many are rung for one call
# total_seconds = 90             # no further one is rung after this
# [route.did.\"7495*\"]            # any of these, for calls to some numbers
# when_away = [\"deputy\", \"600\"]
# [route.department.\"Sales\"]     # or for clients of a department's employees; wins over the DID's
# when_away = [\"head\"]
# [route.outgoing]               # for \"mobile\": telephones that may be dialled at your cost
# numbers = [\"79*\"]              # none when left out
# strip = \"7\"                    # taken off the front of the international number
# prefix = \"8\"                   # put there instead
";

    /// The policy for a call to this DID whose caller belongs to this employee. A department's word
    /// stands above a DID's, that above the general one.
    pub fn in_force(
        &self,
        did: Option<&Did>,
        responsible: Option<&Colleague>,
        roster: &Roster,
    ) -> InForce<'_> {
        let of_department = responsible.and_then(|responsible| {
            let mut policies = self.department.iter();
            let own = policies.find(|(name, _)| roster.belongs_to(responsible, name));
            own.map(|(_, policy)| policy)
        });
        let of_did = did.and_then(|did| {
            let fitting = self.did.iter().filter(|(pattern, _)| pattern.matches(did));
            let exactest = fitting.max_by_key(|(pattern, _)| pattern.exactness());
            exactest.map(|(_, policy)| policy)
        });
        let order = [of_department, of_did, Some(&self.all)];
        let policies = || order.iter().copied().flatten();
        InForce {
            when_away: policies()
                .find_map(|policy| policy.when_away.as_deref())
                .unwrap_or(&Policy::WHEN_AWAY),
            ring_seconds: policies()
                .find_map(|policy| policy.ring_seconds)
                .unwrap_or(Policy::RING_SECONDS),
            most_tries: policies()
                .find_map(|policy| policy.most_tries)
                .unwrap_or(Policy::MOST_TRIES),
            total_seconds: policies()
                .find_map(|policy| policy.total_seconds)
                .unwrap_or(Policy::TOTAL_SECONDS),
        }
    }

    /// Every policy, with the words that name its place.
    pub fn policies(&self) -> impl Iterator<Item = (String, &Policy)> {
        let dids = self
            .did
            .iter()
            .map(|(did, policy)| (format!("route.did.\"{did}\""), policy));
        let departments = self.department.iter();
        let departments =
            departments.map(|(name, policy)| (format!("route.department.\"{name}\""), policy));
        [("route".to_owned(), &self.all)]
            .into_iter()
            .chain(dids)
            .chain(departments)
    }
}

/// Somebody who may be rung.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// What would be rung.
    pub target: Target,
    /// Whose it is; `None` for a group.
    pub employee: Option<Arc<Colleague>>,
    /// Why they are a candidate.
    pub role: Role,
    /// Whose deputy, head or mobile phone it is.
    pub of: Option<Arc<Colleague>>,
    /// The entity that brought them, by its place among the ranked ones.
    pub entity: Option<usize>,
}

impl Candidate {
    /// An extension that a rule or `when_away` names, with its employee where one has it.
    pub fn named(extension: &Extension, role: Role, roster: &Roster) -> Self {
        Self {
            target: extension.clone().into(),
            employee: roster.at(extension).first().cloned(),
            role,
            of: None,
            entity: None,
        }
    }

    /// As a step speaks of them.
    pub fn name(&self, entities: &[Entity]) -> CandidateName {
        let entity = self.entity.and_then(|index| entities.get(index));
        CandidateName {
            target: self.target.clone(),
            employee: self.employee.clone(),
            role: self.role,
            of: self.of.clone(),
            entity: entity.map(Into::into),
        }
    }
}

/// The candidates for one call, in order, and the entities that bring none.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    /// Who may be rung, the first one first. No target stands here twice.
    pub candidates: Vec<Candidate>,
    /// Entities whose responsible can never be rung, by their place, and why.
    pub dead: Vec<(usize, SkipReason)>,
}

impl Chain {
    /// Adds a candidate unless their phone is there already, or they themselves are.
    pub fn push(&mut self, candidate: Candidate) {
        let is_there = |known: &Candidate| {
            known.target == candidate.target
                || (candidate.role != Role::OtherPhone && same_person(known, &candidate))
        };
        if !self.candidates.iter().any(is_there) {
            self.candidates.push(candidate);
        }
    }

    /// Puts a candidate first, and out of any other place.
    pub fn prefer(&mut self, candidate: Candidate) {
        self.candidates
            .retain(|known| known.target != candidate.target);
        self.candidates.insert(0, candidate);
    }
}

fn same_person(one: &Candidate, other: &Candidate) -> bool {
    match (&one.employee, &other.employee) {
        (Some(one), Some(other)) => one.crm == other.crm && one.id == other.id,
        _ => false,
    }
}

/// Whose client the caller is: the responsible of the first entity that has one who can be rung, or
/// else the first whom the roster knows at all.
pub fn responsible<'a>(entities: &[Entity], roster: &'a Roster) -> Option<&'a Arc<Colleague>> {
    let of = |entity: &Entity| roster.get(&entity.crm, entity.responsible.as_ref()?);
    let mut first = None;
    for employee in entities.iter().filter_map(of) {
        if employee.active && employee.extension.is_ok() {
            return Some(employee);
        }
        first.get_or_insert(employee);
    }
    first
}

/// Puts the candidates for a caller with these entities together; `base` is their [`responsible`].
pub fn build(
    entities: &[Entity],
    base: Option<&Arc<Colleague>>,
    roster: &Roster,
    policy: &InForce<'_>,
    outgoing: &Outgoing,
) -> Chain {
    let mut chain = Chain::default();
    let mut living = Vec::new();
    for (index, entity) in entities.iter().enumerate() {
        match reachable(entity, roster) {
            Ok((employee, extension)) => living.push((index, employee, extension)),
            Err(why) => chain.dead.push((index, why)),
        }
    }
    let mut living = living.into_iter();
    let Some(base) = base else {
        add_groups(&mut chain, policy, roster);
        return chain;
    };
    if let Some((index, employee, extension)) = living.next() {
        chain.push(candidate(
            Role::Responsible,
            employee,
            extension,
            Some(index),
        ));
    }
    let others: Vec<_> = living.collect();
    for step in policy.when_away {
        match step {
            Away::Mobile => add_mobiles(&mut chain, base, outgoing),
            Away::Deputy => add_deputies(&mut chain, base, roster),
            Away::Head => {
                for head in roster.heads_of(base) {
                    add_in_place_of(&mut chain, Role::Head, head, base);
                }
            }
            Away::Next => {
                for (index, employee, extension) in &others {
                    let role = Role::NextResponsible;
                    chain.push(candidate(role, employee, extension, Some(*index)));
                }
            }
            Away::Extension(extension) => {
                chain.push(Candidate::named(extension, Role::Group, roster));
            }
        }
    }
    chain
}

/// The employee of an entity and what may be rung for them; nobody is hidden behind a dead card.
fn reachable<'a>(
    entity: &Entity,
    roster: &'a Roster,
) -> Result<(&'a Arc<Colleague>, &'a Extension), SkipReason> {
    let responsible = entity
        .responsible
        .as_ref()
        .ok_or(SkipReason::NoResponsible)?;
    let employee = roster
        .get(&entity.crm, responsible)
        .ok_or_else(|| SkipReason::UnknownEmployee(responsible.clone()))?;
    if !employee.active {
        return Err(SkipReason::Dismissed(employee.name.clone()));
    }
    match &employee.extension {
        Ok(extension) => Ok((employee, extension)),
        Err(error) => Err(SkipReason::NoExtension {
            employee: employee.name.clone(),
            id: employee.id.clone(),
            why: error.clone(),
        }),
    }
}

fn candidate(
    role: Role,
    employee: &Arc<Colleague>,
    extension: &Extension,
    entity: Option<usize>,
) -> Candidate {
    Candidate {
        target: extension.clone().into(),
        employee: Some(Arc::clone(employee)),
        role,
        of: None,
        entity,
    }
}

fn add_in_place_of(
    chain: &mut Chain,
    role: Role,
    employee: &Arc<Colleague>,
    base: &Arc<Colleague>,
) {
    if let (true, Ok(extension)) = (employee.active, &employee.extension) {
        chain.push(Candidate {
            of: Some(Arc::clone(base)),
            ..candidate(role, employee, extension, None)
        });
    }
}

fn add_mobiles(chain: &mut Chain, base: &Arc<Colleague>, outgoing: &Outgoing) {
    if !base.active {
        return;
    }
    for mobile in &base.mobiles {
        if let Some(number) = outgoing.dial(&mobile.digits().to_string()) {
            chain.push(Candidate {
                target: Target::Outside(number),
                employee: Some(Arc::clone(base)),
                role: Role::OtherPhone,
                of: Some(Arc::clone(base)),
                entity: None,
            });
        }
    }
}

/// The deputy, the deputy's deputy and so on, each once.
fn add_deputies(chain: &mut Chain, base: &Arc<Colleague>, roster: &Roster) {
    let mut seen = vec![&base.id];
    let mut of = base;
    while let Some(deputy) = roster.deputy_of(of) {
        if seen.contains(&&deputy.id) {
            return;
        }
        seen.push(&deputy.id);
        add_in_place_of(chain, Role::Deputy, deputy, of);
        of = deputy;
    }
}

/// For a caller of whose employees nothing is known: the groups alone.
fn add_groups(chain: &mut Chain, policy: &InForce<'_>, roster: &Roster) {
    for step in policy.when_away {
        if let Away::Extension(extension) = step {
            chain.push(Candidate::named(extension, Role::Group, roster));
        }
    }
}
