//! What a call asks of a card, as bytes: all cards of a number lie in one row, one after the other.
//!
//! A card is the length of what follows, its number in `entities`, its source, two bytes that say
//! what is there, and then that: identifier, name, company, responsible, moment of change, links,
//! fields. Numbers have seven bits a byte, the lowest first; a text has its length before it. The
//! form is that of the file: it never changes but with the file's format.

use rusqlite::types::Type;

use super::row::{KeyRef, Source};

/// Bits of the first byte that say what a key is, at the key's place.
const NO_KEY: u8 = 0;
const NUMBER: u8 = 1;
const TEXT: u8 = 2;
/// Bits of the second byte. Above them stands the stage.
const HAS_COMPANY: u8 = 1;
const HAS_FIELDS: u8 = 2;
const STAGE_SHIFT: u32 = 2;
/// More stages than this have no room.
const STAGES: i64 = 64;

/// What a call asks of a card; the texts lie elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    /// The card's number in the table of entities.
    pub(super) entity: i64,
    pub(super) source: Source,
    pub(super) id: KeyRef<'a>,
    pub(super) name: &'a str,
    pub(super) company: Option<&'a str>,
    pub(super) responsible: Option<KeyRef<'a>>,
    pub(super) modified: Option<KeyRef<'a>>,
    pub(super) stage: i64,
    pub(super) links: Option<KeyRef<'a>>,
    pub(super) fields: Option<&'a str>,
}

/// Packed cards that are not what [`Asked::pack`] makes: the file is damaged.
#[derive(Debug, thiserror::Error)]
#[error("the cards of a number are packed as no card is")]
struct Damaged;

impl From<Damaged> for rusqlite::Error {
    fn from(damaged: Damaged) -> Self {
        Self::FromSqlConversionFailure(0, Type::Blob, Box::new(damaged))
    }
}

impl<'a> Asked<'a> {
    /// Reads a row of `entity, source, id, name, company, responsible, modified, stage, links,
    /// fields`.
    pub(super) fn read(row: &'a rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let key = |column| Ok(KeyRef::of_column(row.get_ref(column)?)?);
        let id: rusqlite::Result<Option<KeyRef<'_>>> = key(2);
        Ok(Self {
            entity: row.get(0)?,
            source: Source(row.get(1)?),
            id: id?.ok_or(Damaged)?,
            name: row.get_ref(3)?.as_str()?,
            company: row.get_ref(4)?.as_str_or_null()?,
            responsible: key(5)?,
            modified: key(6)?,
            stage: row.get(7)?,
            links: key(8)?,
            fields: row.get_ref(9)?.as_str_or_null()?,
        })
    }

    /// Makes the bytes of this card, its length first.
    pub(super) fn pack(&self) -> rusqlite::Result<Vec<u8>> {
        let stage = u8::try_from(self.stage)
            .ok()
            .filter(|_| self.stage < STAGES)
            .ok_or(rusqlite::Error::IntegralValueOutOfRange(7, self.stage))?;
        let keys = [Some(self.id), self.responsible, self.modified, self.links];
        let kinds = keys
            .iter()
            .rev()
            .fold(0, |kinds, key| kinds << 2 | kind(*key));
        let company = self.company.map_or(0, |_| HAS_COMPANY);
        let fields = self.fields.map_or(0, |_| HAS_FIELDS);

        let mut card = Vec::with_capacity(64 + self.name.len());
        push_number(&mut card, self.entity.cast_unsigned());
        push_number(&mut card, self.source.0.cast_unsigned());
        card.extend([kinds, stage << STAGE_SHIFT | fields | company]);
        push_key(&mut card, Some(self.id));
        push_text(&mut card, self.name);
        if let Some(company) = self.company {
            push_text(&mut card, company);
        }
        for key in [self.responsible, self.modified, self.links] {
            push_key(&mut card, key);
        }
        if let Some(fields) = self.fields {
            push_text(&mut card, fields);
        }
        let mut packed = Vec::with_capacity(card.len() + 2);
        push_number(&mut packed, card.len() as u64);
        packed.append(&mut card);
        Ok(packed)
    }

    fn unpack(card: &'a [u8]) -> Result<Self, Damaged> {
        let mut bytes = Bytes(card);
        let entity = bytes.number()?.cast_signed();
        let source = Source(bytes.number()?.cast_signed());
        let (kinds, more) = (bytes.byte()?, bytes.byte()?);
        let asked = Self {
            entity,
            source,
            id: bytes.key(kinds)?.ok_or(Damaged)?,
            name: bytes.text()?,
            company: bytes.text_if(more & HAS_COMPANY)?,
            responsible: bytes.key(kinds >> 2)?,
            modified: bytes.key(kinds >> 4)?,
            stage: i64::from(more >> STAGE_SHIFT),
            links: bytes.key(kinds >> 6)?,
            fields: bytes.text_if(more & HAS_FIELDS)?,
        };
        if bytes.0.is_empty() {
            Ok(asked)
        } else {
            Err(Damaged)
        }
    }
}

/// One card of several, still packed.
pub(super) struct Packed<'a> {
    /// The card's number in the table of entities.
    pub(super) entity: i64,
    /// All of it, its length too.
    pub(super) bytes: &'a [u8],
}

/// The cards of a number; none after one that is damaged.
pub(super) fn unpack(cards: &[u8]) -> impl Iterator<Item = rusqlite::Result<Asked<'_>>> {
    each(cards, |card, _| Asked::unpack(card))
}

/// The same without a look at what is in each.
pub(super) fn split(cards: &[u8]) -> impl Iterator<Item = rusqlite::Result<Packed<'_>>> {
    each(cards, |card, bytes| {
        let entity = Bytes(card).number()?.cast_signed();
        Ok(Packed { entity, bytes })
    })
}

/// Makes something of each card: of what its length tells of, and of that with the length.
fn each<'a, T: 'a>(
    cards: &'a [u8],
    make: impl Fn(&'a [u8], &'a [u8]) -> Result<T, Damaged> + 'a,
) -> impl Iterator<Item = rusqlite::Result<T>> + 'a {
    let mut rest = Bytes(cards);
    std::iter::from_fn(move || {
        if rest.0.is_empty() {
            return None;
        }
        let before = rest.0;
        let done = rest.part().and_then(|card| {
            let taken = before.len() - rest.0.len();
            make(card, before.get(..taken).unwrap_or_default())
        });
        if done.is_err() {
            rest = Bytes(&[]);
        }
        Some(done.map_err(rusqlite::Error::from))
    })
}

fn kind(key: Option<KeyRef<'_>>) -> u8 {
    match key {
        None => NO_KEY,
        Some(KeyRef::Number(_)) => NUMBER,
        Some(KeyRef::Text(_)) => TEXT,
    }
}

fn push_key(bytes: &mut Vec<u8>, key: Option<KeyRef<'_>>) {
    match key {
        None => {}
        // The sign stands lowest: a moment before 1970 is short, too.
        Some(KeyRef::Number(number)) => {
            push_number(bytes, (number << 1 ^ number >> 63).cast_unsigned());
        }
        Some(KeyRef::Text(text)) => push_text(bytes, text),
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    push_number(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

/// What is left to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> Result<u8, Damaged> {
        let (first, rest) = self.0.split_first().ok_or(Damaged)?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u64, Damaged> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Damaged)
    }

    /// As many bytes as the number before them says.
    fn part(&mut self) -> Result<&'a [u8], Damaged> {
        let length = usize::try_from(self.number()?).map_err(|_| Damaged)?;
        let (part, rest) = self.0.split_at_checked(length).ok_or(Damaged)?;
        self.0 = rest;
        Ok(part)
    }

    fn text(&mut self) -> Result<&'a str, Damaged> {
        std::str::from_utf8(self.part()?).map_err(|_| Damaged)
    }

    fn text_if(&mut self, bit: u8) -> Result<Option<&'a str>, Damaged> {
        (bit != 0).then(|| self.text()).transpose()
    }

    fn key(&mut self, kinds: u8) -> Result<Option<KeyRef<'a>>, Damaged> {
        match kinds & 3 {
            NO_KEY => Ok(None),
            NUMBER => {
                let number = self.number()?;
                let sign = (number & 1).cast_signed().wrapping_neg();
                Ok(Some(KeyRef::Number((number >> 1).cast_signed() ^ sign)))
            }
            TEXT => self.text().map(|text| Some(KeyRef::Text(text))),
            _ => Err(Damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::directory::embedded::row::Key;

    fn keys() -> impl Strategy<Value = Key> {
        prop_oneof![
            any::<i64>().prop_map(Key::Number),
            (-2i64..300).prop_map(Key::Number),
            any::<String>().prop_map(|text| Key::Text(text.into())),
        ]
    }

    /// A card that owns what [`Asked`] borrows.
    type Owned = (
        (i64, i64, i64, String),
        [Option<Key>; 3],
        (Key, Option<String>, Option<String>),
    );

    fn cards() -> impl Strategy<Value = Vec<Owned>> {
        let text = || proptest::option::of(any::<String>());
        let key = || proptest::option::of(keys());
        let card = (
            (any::<i64>(), any::<i64>(), 0..STAGES, any::<String>()),
            [key(), key(), key()],
            (keys(), text(), text()),
        );
        proptest::collection::vec(card, 0..5)
    }

    fn asked((plain, keys, more): &Owned) -> Asked<'_> {
        let [responsible, modified, links] = keys.each_ref().map(|key| key.as_ref().map(Key::lent));
        Asked {
            entity: plain.0,
            source: Source(plain.1),
            id: more.0.lent(),
            name: &plain.3,
            company: more.1.as_deref(),
            responsible,
            modified,
            stage: plain.2,
            links,
            fields: more.2.as_deref(),
        }
    }

    proptest! {
        #[test]
        fn cards_come_out_as_they_went_in(cards in cards()) {
            let packed: Vec<Vec<u8>> = cards.iter().map(|card| asked(card).pack().unwrap()).collect();
            let together = packed.concat();
            let out: Vec<Asked<'_>> = unpack(&together).map(Result::unwrap).collect();
            let expected: Vec<Asked<'_>> = cards.iter().map(asked).collect();
            prop_assert_eq!(out, expected);
            for ((one, packed), card) in split(&together).zip(&packed).zip(&cards) {
                let one = one.unwrap();
                prop_assert_eq!((one.entity, one.bytes), (card.0.0, packed.as_slice()));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = unpack(&bytes).count() + split(&bytes).count();
        }

        #[test]
        fn a_damaged_card_is_an_error_and_no_panic(
            cards in cards(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
        ) {
            let mut bytes: Vec<u8> = cards.iter().flat_map(|card| asked(card).pack().unwrap()).collect();
            prop_assume!(!bytes.is_empty());
            let whole = bytes.clone();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = unpack(&bytes).count() + split(&bytes).count();
            let cut = cut.index(whole.len());
            let read = unpack(&whole[..cut]).collect::<rusqlite::Result<Vec<_>>>();
            prop_assert!(read.is_err() || read.unwrap().len() < cards.len());
        }
    }

    #[test]
    fn the_form_in_the_file_stays() {
        let card = Asked {
            entity: 300,
            source: Source(8),
            id: KeyRef::Number(17),
            name: "Ы",
            company: Some(""),
            responsible: Some(KeyRef::Text("a")),
            modified: Some(KeyRef::Number(-1)),
            stage: 2,
            links: None,
            fields: None,
        };
        let expected = [
            13, 0xac, 2, 8, 0b01_1001, 0b1001, 34, 2, 0xd0, 0xab, 0, 1, b'a', 1,
        ];
        assert_eq!(card.pack().unwrap(), expected);
    }

    #[test]
    fn a_stage_without_room_is_not_packed() {
        for stage in [-1, STAGES, i64::MAX] {
            let card = Asked {
                entity: 1,
                source: Source(8),
                id: KeyRef::Number(1),
                name: "",
                company: None,
                responsible: None,
                modified: None,
                stage,
                links: None,
                fields: None,
            };
            assert!(card.pack().is_err(), "{stage}");
        }
    }
}
