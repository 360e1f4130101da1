//! The one path of a call: read the caller, look up, rank, judge, answer.
//!
//! Every front end, `explain` and the API come through [`Router::route`]. It cannot fail: what goes
//! wrong becomes the standard route. It knows no CRM; what the directory lacks is asked for through
//! [`Refresh`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::call::{Did, DidPattern, Extension, IncomingCall};
use crate::decision::{Decision, Reason, SkipReason, Step};
use crate::directory::{Colleague, Directory, Keep, Refresh, Refreshed, Roster};
use crate::fault;
use crate::matcher::{self, Order};
use crate::phone::{self, CallerNumber, E164, Region};
use crate::record::{CrmName, Entity, EntityKind};
use crate::rules::{Candidate, Facts, Rule, Verdict};

/// What the router is told by the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `match.order`.
    pub order: Vec<EntityKind>,
    /// `match.live_lookup_ms`; zero for never.
    pub live_lookup: Duration,
    /// `phone.region`.
    pub region: Region,
    /// `[phone.did]`: regions of single DIDs.
    pub did_regions: BTreeMap<DidPattern, Region>,
    /// The CRMs in the order of the configuration.
    pub crms: Vec<Scope>,
}

/// For which calls a CRM is asked.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The CRM.
    pub name: CrmName,
    /// `crm.did`; empty for all calls.
    pub did: Vec<DidPattern>,
}

impl Scope {
    fn holds(&self, did: Option<&Did>) -> bool {
        self.did.is_empty()
            || did.is_some_and(|did| self.did.iter().any(|pattern| pattern.matches(did)))
    }
}

/// Whether somebody really calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A caller waits.
    Call,
    /// Somebody only wants to know; nothing is stored.
    Explain,
}

/// Decides where calls go. Shared by all front ends.
pub struct Router {
    settings: Settings,
    crm_order: Vec<CrmName>,
    directory: Arc<dyn Directory>,
    refresh: Arc<dyn Refresh>,
    rules: Vec<Box<dyn Rule>>,
}

impl Router {
    /// Puts a router together.
    pub fn new(
        settings: Settings,
        directory: Arc<dyn Directory>,
        refresh: Arc<dyn Refresh>,
        rules: Vec<Box<dyn Rule>>,
    ) -> Self {
        let crm_order = settings
            .crms
            .iter()
            .map(|scope| scope.name.clone())
            .collect();
        Self {
            settings,
            crm_order,
            directory,
            refresh,
            rules,
        }
    }

    /// Decides where a call goes.
    ///
    /// Waits for nothing but the directory when the number is known there; else at most
    /// `match.live_lookup_ms` for the CRMs.
    pub async fn route(&self, call: &IncomingCall, now: Timestamp, purpose: Purpose) -> Decision {
        let mut steps = Vec::with_capacity(8);
        let roster = self.directory.roster();
        let phone = match self.read(call, &roster, &mut steps) {
            Ok(phone) => phone,
            Err(decision) => return *decision,
        };
        let mut decision = match self
            .entities(phone, call.did.as_ref(), purpose, &mut steps)
            .await
        {
            Ok(entities) => self.decide(entities, call, now, &roster, steps),
            Err(error) => {
                let text = fault::told(&error);
                tracing::error!(
                    error = text,
                    "the directory failed; the call goes the standard route"
                );
                steps.push(Step::Failed(text));
                Decision::standard_route(Reason::Fault, steps)
            }
        };
        decision.caller = Some(phone);
        decision
    }

    /// Reads the caller; gives the decision at once where the number is not a client's.
    fn read(
        &self,
        call: &IncomingCall,
        roster: &Roster,
        steps: &mut Vec<Step>,
    ) -> Result<E164, Box<Decision>> {
        if let Some(did) = call.did.as_ref().filter(|did| did.is_after_the_call()) {
            steps.push(Step::CallerGone(did.clone()));
            return Err(standard_route(Reason::AfterTheCall, steps));
        }
        let phone = match phone::read_caller(&call.phone, self.region(call.did.as_ref())) {
            CallerNumber::Number(phone) => phone,
            CallerNumber::Short(short) => {
                steps.push(Step::CallerIsShort(short));
                return Err(standard_route(Reason::ShortNumber, steps));
            }
            CallerNumber::Unreadable => {
                steps.push(Step::CallerUnreadable(call.phone.clone()));
                return Err(standard_route(Reason::NoNumber, steps));
            }
        };
        steps.push(Step::ReadCaller {
            written: call.phone.clone(),
            phone,
        });
        if let Some(owner) = roster.owner_of(phone) {
            steps.push(Step::CallerIsEmployee(Arc::clone(owner)));
            let mut decision = standard_route(Reason::EmployeeCalls, steps);
            decision.caller = Some(phone);
            decision.employee = Some(Arc::clone(owner));
            return Err(decision);
        }
        Ok(phone)
    }

    fn region(&self, did: Option<&Did>) -> Region {
        let Some(did) = did else {
            return self.settings.region;
        };
        let fitting = self
            .settings
            .did_regions
            .iter()
            .filter(|(pattern, _)| pattern.matches(did));
        let most_exact = fitting.max_by_key(|(pattern, _)| pattern.exactness());
        most_exact.map_or(self.settings.region, |(_, region)| *region)
    }

    /// The entities with this number, from the directory or, where it has none, from the CRMs.
    async fn entities(
        &self,
        phone: E164,
        did: Option<&Did>,
        purpose: Purpose,
        steps: &mut Vec<Step>,
    ) -> Result<Vec<Entity>, crate::directory::DirectoryError> {
        let with_deals = self.settings.order.contains(&EntityKind::Deal);
        let mut entities = self.directory.lookup(phone, with_deals).await?;
        let (inside, outside): (Vec<&Scope>, Vec<&Scope>) = self
            .settings
            .crms
            .iter()
            .partition(|scope| scope.holds(did));
        for scope in &outside {
            steps.push(Step::OtherDids(scope.name.clone(), did.cloned()));
        }
        entities.retain(|entity| inside.iter().any(|scope| scope.name == entity.crm));
        if !entities.is_empty() {
            steps.push(Step::Found(entities.len()));
            return Ok(entities);
        }
        steps.push(Step::Missed);
        if self.settings.live_lookup.is_zero() {
            steps.push(Step::NotAsked);
            return Ok(entities);
        }
        let crms: Vec<CrmName> = inside.iter().map(|scope| scope.name.clone()).collect();
        let keep = if purpose == Purpose::Call {
            Keep::Yes
        } else {
            Keep::No
        };
        let deadline = self.settings.live_lookup;
        for (crm, refreshed) in self.refresh.refresh(phone, &crms, deadline, keep).await {
            if let Refreshed::Found(found) = &refreshed {
                entities.extend(found.iter().cloned());
            }
            steps.push(Step::Asked(crm, refreshed));
        }
        Ok(entities)
    }

    fn decide(
        &self,
        entities: Vec<Entity>,
        call: &IncomingCall,
        now: Timestamp,
        roster: &Roster,
        mut steps: Vec<Step>,
    ) -> Decision {
        let order = Order {
            kinds: &self.settings.order,
            crms: &self.crm_order,
        };
        let ranked = matcher::rank(entities, order);
        for (entity, reason) in &ranked.left_out {
            steps.push(Step::LeftOut(entity.into(), *reason));
        }
        if ranked.candidates.len() > 1 {
            for (index, entity) in ranked.candidates.iter().enumerate() {
                let because = matcher::because(entity, ranked.candidates.get(index + 1), order);
                steps.push(Step::Ranked {
                    place: index + 1,
                    entity: entity.into(),
                    because,
                });
            }
        }
        let facts = Facts { call, now, roster };
        let mut rung = None;
        for (index, entity) in ranked.candidates.iter().enumerate() {
            let responsible = entity.responsible.as_ref();
            let employee = responsible.and_then(|id| roster.get(&entity.crm, id));
            match self.judge(&Candidate { entity, employee }, &facts) {
                Ok((employee, extension)) => {
                    rung = Some((index, employee, extension));
                    break;
                }
                Err(why) => steps.push(Step::PassedOver(entity.into(), why)),
            }
        }
        if let Some((index, employee, extension)) = rung {
            let entity = take_named(ranked.candidates, index);
            if let Some(entity) = &entity {
                steps.push(Step::Ring(
                    entity.into(),
                    Arc::clone(&employee),
                    extension.clone(),
                ));
            }
            return Decision {
                ring: Some(extension),
                reason: Reason::Responsible,
                caller: None,
                entity,
                employee: Some(employee),
                steps,
            };
        }
        let best = ranked.candidates.into_iter().next();
        let reason = if best.is_some() {
            Reason::NobodyCanBeRung
        } else {
            Reason::UnknownCaller
        };
        let mut decision = *standard_route(reason, &mut steps);
        decision.entity = best;
        decision
    }

    fn judge(
        &self,
        candidate: &Candidate<'_>,
        facts: &Facts<'_>,
    ) -> Result<(Arc<Colleague>, Extension), SkipReason> {
        let mut handed = None;
        for rule in &self.rules {
            match rule.judge(candidate, facts) {
                Verdict::Ring => {}
                Verdict::Skip(why) => return Err(why),
                Verdict::Hand(extension) => {
                    handed = Some(extension);
                    break;
                }
            }
        }
        let employee = candidate.employee.ok_or(SkipReason::NoResponsible)?;
        let own = employee.extension.as_ref().ok().cloned();
        let extension = handed.or(own).ok_or_else(|| SkipReason::NoExtension {
            employee: employee.name.clone(),
            why: "no extension".to_owned(),
        })?;
        Ok((Arc::clone(employee), extension))
    }
}

/// Takes the entity that decided; a deal, which has only a title, lends its name from the best of
/// the caller's other cards.
fn take_named(mut candidates: Vec<Entity>, index: usize) -> Option<Entity> {
    let is_deal = |entity: &Entity| entity.kind == EntityKind::Deal;
    if candidates.get(index).is_some_and(is_deal) {
        let person = candidates.iter().find(|other| !is_deal(other));
        let named = person.map(|person| (person.name.clone(), person.company.clone()));
        if let (Some((name, company)), Some(deal)) = (named, candidates.get_mut(index)) {
            (deal.name, deal.company) = (name, company);
        }
    }
    (index < candidates.len()).then(|| candidates.swap_remove(index))
}

fn standard_route(reason: Reason, steps: &mut Vec<Step>) -> Box<Decision> {
    let mut steps = std::mem::take(steps);
    steps.push(Step::StandardRoute(reason));
    Box::new(Decision::standard_route(reason, steps))
}
