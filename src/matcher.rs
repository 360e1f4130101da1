//! Which of the entities that have the caller's number comes first.
//!
//! Pure: no clock, no I/O. The order is total, so the same entities always give the same answer:
//! the kind's place in `match.order`, then the last changed, then the lowest id, then the CRM's place
//! in the configuration.

use std::cmp::{Ordering, Reverse};

use crate::decision::{Because, OutReason};
use crate::record::{CrmName, Entity, EntityKind, Stage};

/// What decides the order.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// `match.order`.
    pub kinds: &'a [EntityKind],
    /// The CRMs as configured.
    pub crms: &'a [CrmName],
}

/// Entities in order, and those that take no part.
#[derive(Debug, Default)]
pub struct Ranked {
    /// The best one first.
    pub candidates: Vec<Entity>,
    /// Those that take no part, and why.
    pub left_out: Vec<(Entity, OutReason)>,
}

/// Sorts entities by the order; junk, closed and unwanted ones are left out.
pub fn rank(entities: Vec<Entity>, order: Order<'_>) -> Ranked {
    let mut ranked = Ranked::default();
    for entity in entities {
        match out_reason(&entity, order.kinds) {
            Some(reason) => ranked.left_out.push((entity, reason)),
            None => ranked.candidates.push(entity),
        }
    }
    ranked.candidates.sort_by(|a, b| compare(a, b, order));
    ranked.left_out.sort_by(|a, b| compare(&a.0, &b.0, order));
    ranked
}

/// Says what gave `entity` its place before `next`.
pub fn because(entity: &Entity, next: Option<&Entity>, order: Order<'_>) -> Because {
    let Some(next) = next else {
        return Because::Last(entity.kind);
    };
    if place(entity, order.kinds) != place(next, order.kinds) {
        return Because::Kind(entity.kind, next.kind);
    }
    match (entity.modified, next.modified) {
        (Some(own), Some(other)) if own != other => Because::ChangedLater(own),
        (Some(own), None) => Because::OnlyDated(own),
        _ if entity.id != next.id => Because::LowerId,
        _ => Because::CrmFirst(entity.crm.clone()),
    }
}

fn out_reason(entity: &Entity, kinds: &[EntityKind]) -> Option<OutReason> {
    match entity.stage {
        Stage::Junk => Some(OutReason::Junk),
        Stage::Closed => Some(OutReason::Closed),
        Stage::Open => (!kinds.contains(&entity.kind)).then_some(OutReason::KindNotWanted),
    }
}

fn compare(a: &Entity, b: &Entity, order: Order<'_>) -> Ordering {
    let crm_place = |entity: &Entity| order.crms.iter().position(|crm| *crm == entity.crm);
    place(a, order.kinds)
        .cmp(&place(b, order.kinds))
        .then_with(|| Reverse(a.modified).cmp(&Reverse(b.modified)))
        .then_with(|| a.id.cmp(&b.id))
        .then_with(|| crm_place(a).cmp(&crm_place(b)))
        .then_with(|| a.crm.cmp(&b.crm))
}

fn place(entity: &Entity, kinds: &[EntityKind]) -> usize {
    kinds
        .iter()
        .position(|kind| *kind == entity.kind)
        .unwrap_or(kinds.len())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::record::EntityId;

    const KINDS: &[EntityKind] = &[EntityKind::Contact, EntityKind::Company, EntityKind::Lead];

    fn entity(crm: &str, kind: EntityKind, id: &str, modified: Option<i64>) -> Entity {
        Entity {
            crm: CrmName::new(crm),
            kind,
            id: EntityId::new(id),
            name: String::new(),
            company: None,
            responsible: None,
            modified: modified.map(|second| Timestamp::from_second(second).unwrap()),
            stage: Stage::Open,
            fields: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn kind_then_last_changed_then_lowest_id_then_crm_decide() {
        let crms = [CrmName::new("b"), CrmName::new("a")];
        let order = Order {
            kinds: KINDS,
            crms: &crms,
        };
        let entities = vec![
            entity("a", EntityKind::Lead, "1", Some(900)),
            entity("a", EntityKind::Contact, "1", None),
            entity("a", EntityKind::Contact, "10", Some(5)),
            entity("a", EntityKind::Contact, "9", Some(5)),
            entity("b", EntityKind::Contact, "9", Some(5)),
            entity("a", EntityKind::Contact, "11", Some(6)),
            entity("a", EntityKind::Company, "1", Some(100)),
        ];
        let ranked = rank(entities, order);
        let names: Vec<String> = ranked
            .candidates
            .iter()
            .map(|entity| format!("{}/{}/{}", entity.crm, entity.kind, entity.id))
            .collect();
        assert_eq!(
            names,
            [
                "a/contact/11",
                "b/contact/9",
                "a/contact/9",
                "a/contact/10",
                "a/contact/1",
                "a/company/1",
                "a/lead/1"
            ]
        );
    }

    #[test]
    fn junk_closed_and_unwanted_take_no_part() {
        let crms = [CrmName::new("a")];
        let order = Order {
            kinds: KINDS,
            crms: &crms,
        };
        let mut junk = entity("a", EntityKind::Lead, "1", None);
        junk.stage = Stage::Junk;
        let mut closed = entity("a", EntityKind::Lead, "2", None);
        closed.stage = Stage::Closed;
        let deal = entity("a", EntityKind::Deal, "3", None);
        let ranked = rank(vec![junk, closed, deal], order);
        assert!(ranked.candidates.is_empty());
        let reasons: Vec<OutReason> = ranked.left_out.iter().map(|(_, reason)| *reason).collect();
        assert_eq!(
            reasons,
            [OutReason::Junk, OutReason::Closed, OutReason::KindNotWanted]
        );
    }

    proptest! {
        #[test]
        fn the_order_does_not_depend_on_the_order_of_arrival(
            seeds in proptest::collection::vec((0usize..3, 0u8..4, 0i64..3, 0usize..2), 1..12),
            turn in 0usize..12,
        ) {
            let crms = [CrmName::new("a"), CrmName::new("b")];
            let order = Order { kinds: KINDS, crms: &crms };
            let mut entities: Vec<Entity> = seeds
                .iter()
                .map(|(kind, id, modified, crm)| {
                    entity(crms[*crm].as_str(), KINDS[*kind], &id.to_string(), Some(*modified))
                })
                .collect();
            let first = rank(entities.clone(), order).candidates;
            let length = entities.len();
            entities.rotate_left(turn % length);
            entities.reverse();
            assert_eq!(first, rank(entities, order).candidates);
        }
    }
}
