//! How a card lies in the tables, and how it comes out again.
//!
//! Ten million numbers must fit under 300 bytes each, so what is nearly always a number is stored as
//! one, and what is nearly always empty costs a byte of the row's header. Knows nothing of
//! transactions.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, Type, ValueRef};

use super::asked::Asked;
use crate::phone::E164;
use crate::record::{Card, CrmName, EmployeeId, Entity, EntityId, EntityKind, Stage};

/// Bytes of one phone in `entities.phones`: 15 digits need 50 bits.
const PHONE_BYTES: usize = 7;

/// A text that most CRMs write as a number: stored as one where nothing is lost by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Digits without leading zeros; for an instant, whole seconds.
    Number(i64),
    /// Anything else.
    Text(Box<str>),
}

impl Key {
    /// Sorts before every key that stands for an identifier.
    pub(super) const FIRST: Self = Self::Number(-1);

    /// The key of an identifier; two different texts never share one.
    pub(super) fn of(text: &str) -> Self {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'));
        match text.parse() {
            Ok(number) if plain => Self::Number(number),
            _ => Self::Text(text.into()),
        }
    }

    /// The key of an instant: whole seconds, or RFC 3339 where there is a fraction.
    fn of_instant(instant: Timestamp) -> Self {
        if instant.subsec_nanosecond() == 0 {
            Self::Number(instant.as_second())
        } else {
            Self::Text(instant.to_string().into())
        }
    }

    /// The text that the key was made of.
    pub(super) fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Number(number) => Cow::Owned(number.to_string()),
            Self::Text(text) => Cow::Borrowed(text),
        }
    }

    pub(super) fn instant(&self) -> Option<Timestamp> {
        self.lent().instant()
    }

    /// The same key, borrowed.
    pub(super) fn lent(&self) -> KeyRef<'_> {
        match self {
            Self::Number(number) => KeyRef::Number(*number),
            Self::Text(text) => KeyRef::Text(text),
        }
    }
}

/// A [`Key`] whose text lies elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyRef<'a> {
    /// See [`Key::Number`].
    Number(i64),
    /// See [`Key::Text`].
    Text(&'a str),
}

impl<'a> KeyRef<'a> {
    /// Reads what a column holds; `None` where it is empty.
    pub(super) fn of_column(value: ValueRef<'a>) -> FromSqlResult<Option<Self>> {
        match value {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(number) => Ok(Some(Self::Number(number))),
            ValueRef::Text(_) => Ok(Some(Self::Text(value.as_str()?))),
            _ => Err(FromSqlError::InvalidType),
        }
    }

    /// A key of its own.
    pub(super) fn owned(self) -> Key {
        match self {
            Self::Number(number) => Key::Number(number),
            Self::Text(text) => Key::Text(text.into()),
        }
    }

    /// Makes something of the text that the key was made of.
    pub(super) fn told<T>(self, make: impl FnOnce(&str) -> T) -> T {
        match self {
            Self::Number(number) => make(itoa::Buffer::new().format(number)),
            Self::Text(text) => make(text),
        }
    }

    fn instant(self) -> Option<Timestamp> {
        match self {
            Self::Number(seconds) => Timestamp::from_second(seconds).ok(),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

impl ToSql for Key {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Number(number) => number.to_sql(),
            Self::Text(text) => text.to_sql(),
        }
    }
}

impl FromSql for Key {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Integer(number) => Ok(Self::Number(number)),
            ValueRef::Text(_) => Ok(Self::Text(value.as_str()?.into())),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

/// A CRM's number in `crms` and a kind, as one small number: which cards belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source(pub(super) i64);

impl Source {
    /// Room for kinds to come.
    pub(super) const KINDS_PER_CRM: i64 = 8;

    /// The cards of this kind in this CRM.
    pub(super) fn new(crm: i64, kind: EntityKind) -> Self {
        Self(crm * Self::KINDS_PER_CRM + code(kind))
    }

    /// The CRM's number.
    pub(super) fn crm(self) -> i64 {
        self.0.div_euclid(Self::KINDS_PER_CRM)
    }

    /// The kind; `None` if a damaged row names one that does not exist.
    pub(super) fn kind(self) -> Option<EntityKind> {
        let wanted = self.0.rem_euclid(Self::KINDS_PER_CRM);
        EntityKind::ALL
            .into_iter()
            .find(|kind| code(*kind) == wanted)
    }

    /// The cards of another kind in the same CRM.
    pub(super) fn sibling(self, kind: EntityKind) -> Self {
        Self::new(self.crm(), kind)
    }
}

/// The number of a kind in the file. Never changes.
fn code(kind: EntityKind) -> i64 {
    match kind {
        EntityKind::Contact => 0,
        EntityKind::Company => 1,
        EntityKind::Lead => 2,
        EntityKind::Deal => 3,
    }
}

/// The number of a stage in the file. Never changes.
fn stage_code(stage: Stage) -> i64 {
    match stage {
        Stage::Open => 0,
        Stage::Closed => 1,
        Stage::Junk => 2,
    }
}

/// A card in the form in which it is stored, less its identity: equal rows are equal cards.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) company: Option<String>,
    pub(super) responsible: Option<Key>,
    pub(super) modified: Option<Key>,
    pub(super) stage: i64,
    /// Sorted, each once, packed; `None` without any.
    pub(super) phones: Option<Vec<u8>>,
    pub(super) links: Option<Key>,
    /// A JSON object; `None` when empty.
    pub(super) fields: Option<String>,
}

impl Row {
    /// Packs a card and the numbers found in it.
    pub(super) fn pack(card: &Card, phones: &[E164]) -> rusqlite::Result<Self> {
        Ok(Self {
            name: card.name.clone(),
            company: card.company.clone(),
            responsible: card.responsible.as_ref().map(|id| Key::of(id.as_str())),
            modified: card.modified.map(Key::of_instant),
            stage: stage_code(card.stage),
            phones: pack_phones(phones),
            links: pack_links(&card.links)?,
            fields: (!card.fields.is_empty())
                .then(|| serde_json::to_string(&card.fields).map_err(unwritable))
                .transpose()?,
        })
    }

    /// Reads a row of `name, company, responsible, modified, stage, phones, links, fields`.
    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            name: row.get(0)?,
            company: row.get(1)?,
            responsible: row.get(2)?,
            modified: row.get(3)?,
            stage: row.get(4)?,
            phones: row.get(5)?,
            links: row.get(6)?,
            fields: row.get(7)?,
        })
    }

    /// What a call asks of the card that has this row.
    pub(super) fn asked<'a>(&'a self, entity: i64, source: Source, id: &'a Key) -> Asked<'a> {
        Asked {
            entity,
            source,
            id: id.lent(),
            name: &self.name,
            company: self.company.as_deref(),
            responsible: self.responsible.as_ref().map(Key::lent),
            modified: self.modified.as_ref().map(Key::lent),
            stage: self.stage,
            links: self.links.as_ref().map(Key::lent),
            fields: self.fields.as_deref(),
        }
    }

    /// The numbers, as the keys of the table of callers.
    pub(super) fn phone_keys(&self) -> Vec<i64> {
        self.phones.as_deref().map_or_else(Vec::new, unpack_phones)
    }
}

fn pack_phones(phones: &[E164]) -> Option<Vec<u8>> {
    let mut digits: Vec<u64> = phones.iter().map(|phone| phone.digits()).collect();
    digits.sort_unstable();
    digits.dedup();
    let packed = digits
        .iter()
        .flat_map(|number| number.to_le_bytes().into_iter().take(PHONE_BYTES));
    (!digits.is_empty()).then(|| packed.collect())
}

/// The numbers in an entity's `phones`, as the keys of the table of callers.
pub(super) fn unpack_phones(packed: &[u8]) -> Vec<i64> {
    packed
        .chunks(PHONE_BYTES)
        .map(|bytes| {
            bytes
                .iter()
                .rev()
                .fold(0, |number, byte| (number << 8) | i64::from(*byte))
        })
        .collect()
}

/// The key of a phone in the table of callers.
pub(super) fn phone_key(phone: E164) -> i64 {
    phone.digits().cast_signed()
}

/// A contact's one company, by far the most common link, is that company's number and nothing else.
fn pack_links(links: &[(EntityKind, EntityId)]) -> rusqlite::Result<Option<Key>> {
    if let [(EntityKind::Company, id)] = links
        && let number @ Key::Number(_) = Key::of(id.as_str())
    {
        return Ok(Some(number));
    }
    if links.is_empty() {
        return Ok(None);
    }
    let json = serde_json::to_string(links).map_err(unwritable)?;
    Ok(Some(Key::Text(json.into())))
}

/// The cards that a row's `links` name.
pub(super) fn unpack_links(links: Option<&Key>) -> rusqlite::Result<Vec<(EntityKind, Key)>> {
    match links {
        None => Ok(Vec::new()),
        Some(Key::Number(company)) => Ok(vec![(EntityKind::Company, Key::Number(*company))]),
        Some(Key::Text(json)) => {
            let links: Vec<(EntityKind, EntityId)> =
                serde_json::from_str(json).map_err(unreadable)?;
            Ok(links
                .into_iter()
                .map(|(kind, id)| (kind, Key::of(id.as_str())))
                .collect())
        }
    }
}

/// An entity as a lookup reads it.
pub(super) struct Found {
    /// The row's number in the table of entities.
    pub(super) number: i64,
    /// CRM and kind.
    pub(super) source: Source,
    /// The identifier.
    pub(super) id: Key,
    links: Option<Key>,
    /// What the caller gets; the company's name is not yet filled in.
    pub(super) entity: Entity,
}

impl Found {
    /// Makes an entity of what is stored; `crms` says what the CRMs are called.
    pub(super) fn of(asked: Asked<'_>, crms: &HashMap<i64, CrmName>) -> rusqlite::Result<Self> {
        let source = asked.source;
        let (Some(crm), Some(kind)) = (crms.get(&source.crm()), source.kind()) else {
            return Err(rusqlite::Error::IntegralValueOutOfRange(1, source.0));
        };
        let fields = match asked.fields {
            None => BTreeMap::new(),
            Some(json) => serde_json::from_str(json).map_err(unreadable)?,
        };
        let entity = Entity {
            crm: crm.clone(),
            kind,
            id: asked.id.told(EntityId::new),
            name: asked.name.to_owned(),
            company: asked.company.map(str::to_owned),
            responsible: asked.responsible.map(|id| id.told(EmployeeId::new)),
            modified: asked.modified.and_then(KeyRef::instant),
            stage: match asked.stage {
                0 => Stage::Open,
                1 => Stage::Closed,
                2 => Stage::Junk,
                other => return Err(rusqlite::Error::IntegralValueOutOfRange(7, other)),
            },
            fields,
        };
        Ok(Self {
            number: asked.entity,
            source,
            id: asked.id.owned(),
            links: asked.links.map(KeyRef::owned),
            entity,
        })
    }

    /// The company whose name this entity lacks; `None` if it has one or names no company.
    pub(super) fn missing_company(&self) -> rusqlite::Result<Option<Key>> {
        if self
            .entity
            .company
            .as_ref()
            .is_some_and(|name| !name.is_empty())
        {
            return Ok(None);
        }
        if let Some(Key::Number(company)) = self.links {
            return Ok(Some(Key::Number(company)));
        }
        let links = unpack_links(self.links.as_ref())?;
        let company = links
            .into_iter()
            .find(|(kind, _)| *kind == EntityKind::Company);
        Ok(company.map(|(_, id)| id))
    }
}

/// The error of a text that cannot be written as JSON.
pub(super) fn unwritable(error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

/// The error of a stored JSON text that cannot be read.
pub(super) fn unreadable(error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_written_plainly_becomes_a_number() {
        let text = |text: &str| Key::Text(text.into());
        for (written, expected, why) in [
            ("0", Key::Number(0), "zero itself"),
            ("17", Key::Number(17), "plain"),
            ("9223372036854775807", Key::Number(i64::MAX), "the largest"),
            (
                "9223372036854775808",
                text("9223372036854775808"),
                "too large",
            ),
            ("017", text("017"), "the zero would be lost"),
            ("+17", text("+17"), "the sign would be lost"),
            ("-1", text("-1"), "so would this one's meaning"),
            ("", text(""), "nothing"),
            ("C-17", text("C-17"), "letters"),
            ("١٧", text("١٧"), "digits of another script"),
        ] {
            let key = Key::of(written);
            assert_eq!(key, expected, "{written:?}: {why}");
            assert_eq!(key.text(), written);
        }
    }

    #[test]
    fn instants_keep_their_fraction() {
        for written in [
            "2026-11-22T10:00:00Z",
            "2026-11-22T10:00:00.123456789Z",
            "1969-12-31T23:59:59Z",
        ] {
            let instant: Timestamp = written.parse().unwrap();
            assert_eq!(Key::of_instant(instant).instant(), Some(instant));
        }
    }

    #[test]
    fn phones_are_packed_sorted_and_once() {
        let phones = [
            79_161_234_567,
            999_999_999_999_999,
            1_000_000,
            79_161_234_567,
        ]
        .map(|digits| E164::from_digits(digits).unwrap());
        let packed = pack_phones(&phones).unwrap();
        assert_eq!(packed.len(), 3 * PHONE_BYTES);
        assert_eq!(
            unpack_phones(&packed),
            [1_000_000, 79_161_234_567, 999_999_999_999_999]
        );
        assert_eq!(pack_phones(&[]), None);
    }

    #[test]
    fn links_come_out_as_they_went_in() {
        let company = |id: &str| (EntityKind::Company, EntityId::new(id));
        let contact = |id: &str| (EntityKind::Contact, EntityId::new(id));
        for links in [
            vec![],
            vec![company("5")],
            vec![company("C-5")],
            vec![contact("5")],
            vec![contact("5"), contact("6"), company("7")],
        ] {
            let packed = pack_links(&links).unwrap();
            let unpacked = unpack_links(packed.as_ref()).unwrap();
            let expected: Vec<_> = links
                .iter()
                .map(|(kind, id)| (*kind, Key::of(id.as_str())))
                .collect();
            assert_eq!(unpacked, expected);
        }
    }

    #[test]
    fn a_source_names_crm_and_kind() {
        for kind in EntityKind::ALL {
            let source = Source::new(7, kind);
            assert_eq!((source.crm(), source.kind()), (7, Some(kind)));
        }
        assert_eq!(Source(7 * 8 + 7).kind(), None);
    }
}
