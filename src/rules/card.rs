//! `[[rules.card]]`: a field or tag of the caller's card decides: to one extension first, not to its
//! responsible, or the standard route.

use serde::Deserialize;

use super::{Arrangement, Facts, Kind, Opening, Rule, Verdict};
use crate::call::Extension;
use crate::chain::Candidate;
use crate::decision::{CardMatch, Held, Role, Said, SkipReason, Step};
use crate::record::Entity;

/// The row of `rules::KINDS`.
pub(super) const KIND: Kind = Kind {
    name: "card",
    example: "\
[[rules.card]]                 # any number of these, each about one field of the caller's card
field = \"UF_CRM_VIP\"           # one of the CRM's `fields`; also name, company, kind; amoCRM: tags
is = \"1\"                       # what it must be, or: contains = \"VIP\"
crm = \"sales\"                  # only cards of this CRM; of all when left out
ring = \"105\"                   # this extension first; or: skip = true, not its responsible; or:
                               # standard_route = true
",
    open,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    field: String,
    is: Option<String>,
    contains: Option<String>,
    crm: Option<String>,
    ring: Option<String>,
    #[serde(default)]
    skip: bool,
    #[serde(default)]
    standard_route: bool,
}

struct CardFields(Vec<Condition>);

struct Condition {
    field: String,
    wanted: Held,
    crm: Option<String>,
    action: Action,
}

enum Action {
    Ring(Extension),
    Skip,
    StandardRoute,
}

fn open(table: Option<toml::Value>, opening: &Opening) -> Result<Option<Box<dyn Rule>>, String> {
    let Some(table) = table else {
        return Ok(None);
    };
    let written: Vec<Written> = table.try_into().map_err(|error: toml::de::Error| {
        let text = error.message();
        if text.contains("expected a sequence") {
            return "write [[rules.card]] with two brackets: there may be several".to_owned();
        }
        text.to_owned()
    })?;
    let conditions = written
        .into_iter()
        .map(|written| condition(written, opening));
    Ok(Some(Box::new(CardFields(
        conditions.collect::<Result<_, _>>()?,
    ))))
}

fn condition(written: Written, opening: &Opening) -> Result<Condition, String> {
    let field = written.field;
    let fold = |text: String| text.trim().to_lowercase();
    let wanted = match (written.is, written.contains) {
        (Some(value), None) => Held::Is(fold(value)),
        (None, Some(part)) => Held::Contains(fold(part)),
        _ => {
            return Err(format!(
                "the one about `{field}` needs either `is` or `contains`"
            ));
        }
    };
    let action = match (written.ring, written.skip, written.standard_route) {
        (Some(extension), false, false) => Extension::read(&extension, &opening.pattern)
            .map(Action::Ring)
            .map_err(|error| format!("`ring` of the one about `{field}`: {error}"))?,
        (None, true, false) => Action::Skip,
        (None, false, true) => Action::StandardRoute,
        _ => {
            return Err(format!(
                "the one about `{field}` needs one of `ring`, `skip = true`, `standard_route = true`"
            ));
        }
    };
    Ok(Condition {
        field,
        wanted,
        crm: written.crm,
        action,
    })
}

impl Condition {
    fn holds(&self, entity: &Entity) -> bool {
        if self
            .crm
            .as_deref()
            .is_some_and(|crm| crm != entity.crm.as_str())
        {
            return false;
        }
        let value = match self.field.as_str() {
            "name" => Some(entity.name.as_str()),
            "company" => entity.company.as_deref(),
            "kind" => Some(entity.kind.as_str()),
            field => entity.fields.get(field).map(String::as_str),
        };
        let value = value.unwrap_or_default().trim().to_lowercase();
        match &self.wanted {
            Held::Is(wanted) => value == *wanted,
            Held::Contains(part) => value.contains(part),
        }
    }

    /// What it has found in this card.
    fn found(&self, entity: &Entity) -> CardMatch {
        CardMatch {
            crm: entity.crm.clone(),
            kind: entity.kind,
            id: entity.id.clone(),
            field: self.field.clone(),
            held: self.wanted.clone(),
        }
    }
}

impl Rule for CardFields {
    fn arrange(&self, arrangement: &mut Arrangement, facts: &Facts<'_>) {
        // The first condition stands first in the end.
        for condition in self.0.iter().rev() {
            let Some(entity) = facts.entities.iter().find(|entity| condition.holds(entity)) else {
                continue;
            };
            let said = match &condition.action {
                Action::Skip => continue,
                Action::StandardRoute => {
                    arrangement.standard_route = true;
                    Said::CardStandardRoute(condition.found(entity))
                }
                Action::Ring(extension) => {
                    let candidate = Candidate::named(extension, Role::CardField, facts.roster);
                    arrangement.chain.prefer(candidate);
                    Said::CardRings(condition.found(entity), extension.clone())
                }
            };
            arrangement.steps.push(Step::Told("card", said));
        }
    }

    fn judge(&self, candidate: &Candidate, facts: &Facts<'_>) -> Verdict {
        let entity = candidate.entity.and_then(|index| facts.entities.get(index));
        let Some(entity) = entity else {
            return Verdict::Ring;
        };
        let skips = |condition: &&Condition| {
            matches!(condition.action, Action::Skip) && condition.holds(entity)
        };
        match self.0.iter().find(skips) {
            Some(condition) => Verdict::Skip(SkipReason::CardField(condition.found(entity))),
            None => Verdict::Ring,
        }
    }
}
