//! The one path of a call: read the caller, look up, rank, judge, answer.
//!
//! Every front end, `explain` and the API come through [`Router::route`]. It cannot fail: what goes
//! wrong becomes the standard route. It knows no CRM; what the directory lacks is asked for through
//! [`Refresh`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::call::{Did, DidPattern, IncomingCall};
use crate::chain::{self, Candidate, InForce};
use crate::decision::{Decision, Reason, SkipReason, Step};
use crate::directory::{Directory, Keep, Refresh, Refreshed, Roster};
use crate::fault;
use crate::matcher::{self, Order};
use crate::phone::{self, CallerNumber, E164, Region};
use crate::presence::Presence;
use crate::record::{CrmName, Entity, EntityKind};
use crate::rules::{Arrangement, Before, Facts, Rule, Verdict};

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
    /// `[route]`.
    pub route: chain::Settings,
    /// `office.time_zone`.
    pub zone: TimeZone,
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
    presence: Arc<dyn Presence>,
    rules: Vec<Box<dyn Rule>>,
}

/// A candidate who is rung, by what is known of them.
struct Chosen {
    candidate: Candidate,
    ring_seconds: u64,
}

impl Router {
    /// Puts a router together.
    pub fn new(
        settings: Settings,
        directory: Arc<dyn Directory>,
        refresh: Arc<dyn Refresh>,
        presence: Arc<dyn Presence>,
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
            presence,
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
        let facts = Facts {
            call,
            caller: phone,
            now,
            zone: &self.settings.zone,
            roster: &roster,
            entities: &[],
            presence: &*self.presence,
        };
        for rule in &self.rules {
            if let Before::StandardRoute(said) = rule.before(phone, &facts) {
                steps.push(Step::Told("rule", said));
                let mut decision = *standard_route(Reason::NotRouted, &mut steps);
                decision.caller = Some(phone);
                return decision;
            }
        }
        let mut decision = match self
            .entities(phone, call.did.as_ref(), purpose, &mut steps)
            .await
        {
            Ok(entities) => self.decide(entities, &facts, steps),
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
        let scopes = &self.settings.crms;
        for scope in scopes.iter().filter(|scope| !scope.holds(did)) {
            steps.push(Step::OtherDids(scope.name.clone(), did.cloned()));
        }
        let inside = || scopes.iter().filter(|scope| scope.holds(did));
        entities.retain(|entity| inside().any(|scope| scope.name == entity.crm));
        if !entities.is_empty() {
            steps.push(Step::Found(entities.len()));
            return Ok(entities);
        }
        steps.push(Step::Missed);
        if self.settings.live_lookup.is_zero() {
            steps.push(Step::NotAsked);
            return Ok(entities);
        }
        let crms: Vec<CrmName> = inside().map(|scope| scope.name.clone()).collect();
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

    fn decide(&self, entities: Vec<Entity>, facts: &Facts<'_>, mut steps: Vec<Step>) -> Decision {
        let order = Order {
            kinds: &self.settings.order,
            crms: &self.crm_order,
        };
        let ranked = matcher::rank(entities, order);
        for (entity, reason) in &ranked.left_out {
            steps.push(Step::LeftOut(entity.into(), *reason));
        }
        let entities = ranked.candidates;
        if entities.len() > 1 {
            for (index, entity) in entities.iter().enumerate() {
                let because = matcher::because(entity, entities.get(index + 1), order);
                steps.push(Step::Ranked {
                    place: index + 1,
                    entity: entity.into(),
                    because,
                });
            }
        }
        let facts = Facts {
            entities: &entities,
            ..*facts
        };
        let responsible = chain::responsible(&entities, facts.roster);
        let policy = self.settings.route.in_force(
            facts.call.did.as_ref(),
            responsible.map(|known| &**known),
            facts.roster,
        );
        let mut arrangement = Arrangement::default();
        if !entities.is_empty() {
            arrangement.chain = chain::build(
                &entities,
                responsible,
                facts.roster,
                &policy,
                &self.settings.route.outgoing,
            );
        }
        for (index, why) in &arrangement.chain.dead {
            if let Some(entity) = entities.get(*index) {
                steps.push(Step::PassedOver(entity.into(), why.clone()));
            }
        }
        for rule in &self.rules {
            rule.arrange(&mut arrangement, &facts);
        }
        steps.append(&mut arrangement.steps);
        let chosen = self.choose(&arrangement, &policy, &facts, &mut steps);
        let name = arrangement.name;
        match chosen {
            Ok(chosen) => ring(chosen, name, entities, steps),
            Err(reason) => {
                let mut decision = *standard_route(reason, &mut steps);
                decision.name = name;
                decision.entity = entities.into_iter().next();
                decision
            }
        }
    }

    /// The first candidate whom no rule forbids; or why there is none.
    fn choose(
        &self,
        arrangement: &Arrangement,
        policy: &InForce<'_>,
        facts: &Facts<'_>,
        steps: &mut Vec<Step>,
    ) -> Result<Chosen, Reason> {
        let (call, entities) = (facts.call, facts.entities);
        let candidates = &arrangement.chain.candidates;
        if arrangement.standard_route {
            return Err(Reason::NotRouted);
        }
        if candidates.is_empty() && entities.is_empty() {
            return Err(Reason::UnknownCaller);
        }
        if call.tried.len() >= policy.most_tries {
            return Err(Reason::TriesSpent);
        }
        let left = policy.total_seconds.saturating_sub(call.waited.as_secs());
        if left == 0 {
            return Err(Reason::TimeSpent);
        }
        for candidate in candidates {
            match self.judge(candidate, facts) {
                None => {
                    let ring_seconds = policy.ring_seconds.min(left);
                    steps.push(Step::Ring(candidate.name(entities), ring_seconds));
                    return Ok(Chosen {
                        candidate: candidate.clone(),
                        ring_seconds,
                    });
                }
                Some(why) => steps.push(Step::Skipped(candidate.name(entities), why)),
            }
        }
        Err(Reason::NobodyCanBeRung)
    }

    /// Why this candidate may not be rung now; `None` if they may.
    fn judge(&self, candidate: &Candidate, facts: &Facts<'_>) -> Option<SkipReason> {
        let tried = &facts.call.tried;
        if let Some(index) = tried
            .iter()
            .position(|tried| tried == candidate.target.as_str())
        {
            let is_last = index + 1 == tried.len();
            let status = facts.call.status.filter(|_| is_last);
            return Some(SkipReason::AlreadyTried(status));
        }
        self.rules
            .iter()
            .find_map(|rule| match rule.judge(candidate, facts) {
                Verdict::Ring => None,
                Verdict::Skip(why) => Some(why),
            })
    }
}

fn ring(chosen: Chosen, name: Option<String>, entities: Vec<Entity>, steps: Vec<Step>) -> Decision {
    let Chosen {
        candidate,
        ring_seconds,
    } = chosen;
    Decision {
        ring: Some(candidate.target),
        ring_seconds,
        reason: candidate.role.reason(),
        caller: None,
        entity: take_named(entities, candidate.entity.unwrap_or(0)),
        employee: candidate.employee,
        name,
        steps,
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
