//! A big made-up CRM base, as messy as real ones, with known truth: for every number in it, who is
//! the right person.
//!
//! The truth comes from what the generator knows about the numbers it wrote, never from reading its
//! own text, and by rules written anew here; so it can contradict pryamo. Everything follows from
//! the seed. Numbers lie in ranges that are really assigned; names are made up.

use std::collections::{BTreeMap, HashMap, HashSet};

use pryamo::record::EntityKind;

use crate::world::{Entry, Stage, User, World};

/// How many users the company has.
const USERS: usize = 60;
/// Of these, the first ones are dismissed.
const DISMISSED: usize = 8;
/// How many numbers that nobody has are made.
const STRANGERS: usize = 1_000;
/// 22 November 2026, noon UTC: no card is changed later.
const NOW: i64 = 1_795_348_800;
/// When all cards of an old import were changed.
const IMPORTED: i64 = NOW - 400 * 86_400;

/// The base with its truth.
pub struct Messy {
    pub world: World,
    /// One for each number that some card holds, sorted by number.
    pub truth: Vec<Truth>,
    /// Valid numbers that no card and no user has.
    pub strangers: Vec<u64>,
    /// The users' own mobiles; no card has them.
    pub own_phones: Vec<u64>,
    /// How many phone fields have each mess.
    pub messes: BTreeMap<Mess, usize>,
    /// How many phone fields there are.
    pub fields: usize,
}

/// Who is right for a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truth {
    /// E.164 digits.
    pub number: u64,
    /// Who is to be rung; `None` if nobody of those responsible can be.
    pub expected: Option<Expected>,
    /// True if a contact, a company or an open lead has the number; false if only junk or closed
    /// leads do.
    pub known: bool,
}

/// The right person and by which card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub extension: String,
    pub kind: EntityKind,
    pub id: u64,
    pub name: String,
}

/// How many cards of each kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sizes {
    pub contacts: usize,
    pub companies: usize,
    pub leads: usize,
    pub deals: usize,
}

/// What people do to a phone field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mess {
    /// No country code, or 8 in its place.
    National,
    /// A foreign number without its plus.
    NoPlus,
    /// `00` or `8-10` in place of the plus.
    DialledAbroad,
    /// No-break and narrow spaces, long dashes.
    Typography,
    /// Two numbers in one field.
    TwoInOne,
    /// `доб. 12` behind the number.
    Extension,
    /// Words before or behind the number.
    Words,
    /// A spreadsheet's apostrophe in front.
    Apostrophe,
    /// Invisible signs that come with copying from a telephone's screen.
    Invisible,
    /// Full-width digits.
    FullWidth,
    /// The letter О in place of a zero.
    LetterO,
    /// No number at all: empty, "нет".
    Nothing,
}

/// A base of contacts, companies and leads with every mess.
pub fn base(seed: u64, contacts: usize, companies: usize, leads: usize) -> Messy {
    let sizes = Sizes {
        contacts,
        companies,
        leads,
        deals: 0,
    };
    base_without(seed, sizes, &[])
}

/// A base with deals, and without some messes. Deals have no phones and no part in the truth.
pub fn base_without(seed: u64, sizes: Sizes, without: &[Mess]) -> Messy {
    let mut maker = Maker {
        dice: Dice(seed),
        without: without.iter().copied().collect(),
        used: HashSet::new(),
        holders: HashMap::new(),
        first_numbers: HashMap::new(),
        messes: BTreeMap::new(),
        fields: 0,
    };
    let mut world = World::default();
    let own_phones = maker.users(&mut world);
    maker.companies(&mut world, sizes.companies);
    maker.contacts(&mut world, sizes.contacts);
    maker.leads(&mut world, sizes.leads);
    maker.deals(&mut world, sizes.deals);
    let strangers = (0..STRANGERS).map(|_| maker.fresh_number()).collect();
    let mut truth: Vec<Truth> = maker
        .holders
        .iter()
        .map(|(&number, holders)| judge(number, holders, &world))
        .collect();
    truth.sort_by_key(|truth| truth.number);
    Messy {
        world,
        truth,
        strangers,
        own_phones,
        messes: maker.messes,
        fields: maker.fields,
    }
}

impl Messy {
    /// The cards as a plain table, the responsible by e-mail. A table does not tell who is
    /// dismissed, so the truth does not hold for it where that matters.
    pub fn as_csv(&self) -> String {
        let users: HashMap<u64, &User> = self.world.users.iter().map(|u| (u.id, u)).collect();
        let mut writer = csv::Writer::from_writer(Vec::new());
        let header = [
            "id",
            "kind",
            "name",
            "phone",
            "responsible",
            "extension",
            "stage",
        ];
        writer.write_record(header).unwrap();
        for kind in [EntityKind::Contact, EntityKind::Company, EntityKind::Lead] {
            for entry in entries(&self.world, kind) {
                let user = users[&entry.responsible];
                let stage = match entry.stage {
                    Stage::Open => "open",
                    Stage::Closed => "closed",
                    Stage::Junk => "junk",
                };
                let id = entry.id.to_string();
                let name = full_name(entry);
                let phones = entry.phones.join("\n");
                let extension = user.extension.clone().unwrap_or_default();
                let fields: [&str; 7] = [
                    &id,
                    kind.as_str(),
                    &name,
                    &phones,
                    &user.email,
                    &extension,
                    stage,
                ];
                writer.write_record(fields).unwrap();
            }
        }
        String::from_utf8(writer.into_inner().unwrap()).unwrap()
    }
}

/// The cards of one kind.
pub fn entries(world: &World, kind: EntityKind) -> &[Entry] {
    match kind {
        EntityKind::Contact => &world.contacts,
        EntityKind::Company => &world.companies,
        EntityKind::Lead => &world.leads,
        EntityKind::Deal => &world.deals,
    }
}

/// First and last name, or the title.
pub fn full_name(entry: &Entry) -> String {
    format!("{} {}", entry.name, entry.last_name)
        .trim()
        .to_owned()
}

/// A card by its kind and its place in the world's list.
type Place = (EntityKind, usize);

/// The rules of the order, written a second time: contacts before companies before open leads; then
/// the last changed; then the lowest id; whoever cannot be rung is passed over.
fn judge(number: u64, holders: &[Place], world: &World) -> Truth {
    let mut open: Vec<(u8, i64, u64, Place)> = Vec::new();
    for &(kind, index) in holders {
        let entry = &entries(world, kind)[index];
        let rank = match kind {
            EntityKind::Contact => 1,
            EntityKind::Company => 2,
            EntityKind::Lead if entry.stage == Stage::Open => 3,
            EntityKind::Lead | EntityKind::Deal => continue,
        };
        open.push((rank, -entry.modified, entry.id, (kind, index)));
    }
    open.sort_by_key(|&(rank, age, id, _)| (rank, age, id));
    let expected = open.iter().find_map(|&(_, _, id, (kind, index))| {
        let entry = &entries(world, kind)[index];
        let place = world
            .users
            .binary_search_by_key(&entry.responsible, |user| user.id);
        Some(Expected {
            extension: ringable(&world.users[place.ok()?])?,
            kind,
            id,
            name: full_name(entry),
        })
    });
    Truth {
        number,
        expected,
        known: !open.is_empty(),
    }
}

/// The extension of a user who works here and has one of 2 to 6 digits.
fn ringable(user: &User) -> Option<String> {
    let extension = user.extension.as_deref()?.trim();
    let digits = extension.bytes().all(|b| b.is_ascii_digit());
    (user.active && digits && (2..=6).contains(&extension.len())).then(|| extension.to_owned())
}

/// splitmix64: small, fast, the same everywhere.
pub struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, not including, `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.place(list.len())]
    }

    /// True in so many cases of a thousand.
    fn in_thousand(&mut self, cases: u64) -> bool {
        self.below(1_000) < cases
    }
}

/// Prefix, and how many digits follow it.
type Range = (u64, u32);

#[rustfmt::skip]
const RU_MOBILE: &[Range] = &[
    (7903, 7), (7905, 7), (7906, 7), (7909, 7), (7910, 7), (7911, 7), (7912, 7), (7913, 7),
    (7914, 7), (7915, 7), (7916, 7), (7917, 7), (7918, 7), (7919, 7), (7921, 7), (7925, 7),
    (7926, 7), (7960, 7), (7961, 7), (7962, 7), (7963, 7), (7964, 7), (7965, 7), (7967, 7),
    (7968, 7), (7985, 7),
];
const RU_CITY: &[Range] = &[(7495, 7), (7499, 7), (7812, 7), (7343, 7)];
#[rustfmt::skip]
const KZ: &[Range] = &[
    (7701, 7), (7702, 7), (7705, 7), (7707, 7), (7747, 7), (7771, 7),
];
#[rustfmt::skip]
const FOREIGN: &[Range] = &[
    (37_529, 7), (38_050, 7), (38_067, 7), (99_890, 7), (99_893, 7), (996_555, 6), (37_491, 6),
    (49_151, 8), (1_202_456, 4),
];

#[rustfmt::skip]
const FIRST_NAMES: &[&str] = &[
    "Анна", "Пётр", "Фёдор", "Алёна", "Артём", "Ольга", "Семён", "Юлия", "Борис", "Ксения",
    "Игорь", "Щукарь", "Мария", "Иван", "Эльвира", "Жанна", "John", "Айгуль", "Ирина Петровна",
];
#[rustfmt::skip]
const LAST_NAMES: &[&str] = &[
    "Иванов", "Ёлкин", "Белов", "Чудинов", "О'Нил", "Гуляев", "Мамин-Сибиряк", "Щёлоков",
    "Smith", "Кузнецов (Тверь)", "Ким", "Абдуллаев", "", "\"Борода\"", "Соловьёв", "Цой",
    "Рыбак & сын",
];
#[rustfmt::skip]
const COMPANIES: &[&str] = &[
    "ООО «Ромашка»", "ООО \"Север & Ко\"", "ИП Ёлкин (опт)", "ЗАО «Щёлково-Агро»", "Daisy Ltd.",
    "АО 'Маяк'", "ООО \"Рога и копыта", "Кафе (на углу", "ТД \"ООО \"Вега\"\"",
    "100% Хлеб; булки", "Сервис+", "ООО «Мир № 1», Тверь",
];
#[rustfmt::skip]
const NO_NUMBER: &[&str] = &[
    "", "", "", "нет", "-", "не указан", "уточнить", "0", "+7", "только почта",
];

struct Maker {
    dice: Dice,
    without: HashSet<Mess>,
    used: HashSet<u64>,
    holders: HashMap<u64, Vec<Place>>,
    /// The first number of each card that has any.
    first_numbers: HashMap<Place, u64>,
    messes: BTreeMap<Mess, usize>,
    fields: usize,
}

impl Maker {
    /// Makes the users; tells their mobiles.
    fn users(&mut self, world: &mut World) -> Vec<u64> {
        let mut own_phones = Vec::new();
        for index in 0..USERS {
            let mobile = self.number_of(RU_MOBILE);
            own_phones.push(mobile);
            let extension = match index {
                // A dismissed user's extension went to somebody else.
                _ if index < DISMISSED => Some((110 + index).to_string()),
                8 | 9 => None,
                10 | 11 => Some(String::new()),
                12 => Some(format!("+{mobile}")),
                13 => Some(" 113 ".to_owned()),
                _ if index < 22 => Some((110 + index - 14).to_string()),
                _ => Some((100 + index).to_string()),
            };
            world.users.push(User {
                id: 11 + 3 * index as u64,
                first_name: self.dice.pick(FIRST_NAMES).to_owned(),
                last_name: self.dice.pick(LAST_NAMES).to_owned(),
                active: index >= DISMISSED,
                extension,
                mobile: Some(format!("+{mobile}")),
                email: format!("user{index}@example.com"),
                ..User::default()
            });
        }
        own_phones
    }

    fn companies(&mut self, world: &mut World, count: usize) {
        let mut id = 0;
        for index in 0..count {
            let place = (EntityKind::Company, index);
            let mut entry = self.entry(&mut id);
            entry.name = format!("{} {index}", self.dice.pick(COMPANIES));
            let numbers = self.own_numbers(RU_CITY, 930);
            self.write_phones(&mut entry, &numbers, place);
            world.companies.push(entry);
        }
    }

    fn contacts(&mut self, world: &mut World, count: usize) {
        let mut id = 0;
        for index in 0..count {
            let place = (EntityKind::Contact, index);
            let mut entry = self.entry(&mut id);
            entry.name = String::from(self.dice.pick(FIRST_NAMES));
            entry.last_name = String::from(self.dice.pick(LAST_NAMES));
            let mut numbers = self.own_numbers(RU_MOBILE, 950);
            if !world.companies.is_empty() && self.dice.in_thousand(350) {
                let company = self.dice.place(world.companies.len());
                entry.company = Some(world.companies[company].id);
                if self.dice.in_thousand(250) {
                    self.share(
                        (EntityKind::Company, company),
                        world,
                        &mut numbers,
                        &mut entry,
                    );
                }
            }
            if index > 0 && self.dice.in_thousand(25) {
                let other = (EntityKind::Contact, self.dice.place(index));
                self.share(other, world, &mut numbers, &mut entry);
            }
            self.write_phones(&mut entry, &numbers, place);
            world.contacts.push(entry);
        }
    }

    fn leads(&mut self, world: &mut World, count: usize) {
        let mut id = 0;
        for index in 0..count {
            let place = (EntityKind::Lead, index);
            let mut entry = self.entry(&mut id);
            entry.name = format!("Заявка с сайта #{index} ({})", self.dice.pick(FIRST_NAMES));
            entry.stage = match self.dice.below(100) {
                0..45 => Stage::Open,
                45..85 => Stage::Closed,
                _ => Stage::Junk,
            };
            let mut numbers = Vec::new();
            let others = [
                (EntityKind::Contact, world.contacts.len(), 150),
                (EntityKind::Company, world.companies.len(), 30),
                (EntityKind::Lead, index, 60),
            ];
            for (kind, length, cases) in others {
                if length > 0 && self.dice.in_thousand(cases) {
                    let other = (kind, self.dice.place(length));
                    self.share(other, world, &mut numbers, &mut entry);
                }
            }
            if numbers.is_empty() {
                numbers = self.own_numbers(RU_MOBILE, 960);
            }
            self.write_phones(&mut entry, &numbers, place);
            world.leads.push(entry);
        }
    }

    fn deals(&mut self, world: &mut World, count: usize) {
        let mut id = 0;
        for index in 0..count {
            let mut entry = self.entry(&mut id);
            entry.name = format!("Сделка {index}");
            if self.dice.in_thousand(600) {
                entry.stage = Stage::Closed;
            }
            for _ in 0..=self.dice.below(3) {
                if !world.contacts.is_empty() {
                    let place = self.dice.place(world.contacts.len());
                    let contact = world.contacts[place].id;
                    if !entry.contacts.contains(&contact) {
                        entry.contacts.push(contact);
                    }
                }
            }
            if !world.companies.is_empty() && self.dice.in_thousand(300) {
                let place = self.dice.place(world.companies.len());
                entry.company = Some(world.companies[place].id);
            }
            world.deals.push(entry);
        }
    }

    /// A card with the next id, some responsible and a time that others may have too.
    fn entry(&mut self, last_id: &mut u64) -> Entry {
        *last_id += 1 + self.dice.below(3);
        let modified = match self.dice.below(10) {
            0 | 1 => IMPORTED,
            2..5 => NOW - 3_600 * i64::try_from(self.dice.below(24 * 365)).unwrap(),
            _ => NOW - i64::try_from(self.dice.below(2 * 365 * 86_400)).unwrap(),
        };
        Entry {
            id: *last_id,
            responsible: 11 + 3 * self.dice.below(USERS as u64),
            modified,
            ..Entry::default()
        }
    }

    /// New numbers for a card, or none; mostly from `home`.
    fn own_numbers(&mut self, home: &[Range], cases: u64) -> Vec<u64> {
        let mut numbers = Vec::new();
        if self.dice.in_thousand(cases) {
            numbers.push(self.number_near(home));
            while numbers.len() < 4 && self.dice.in_thousand(180) {
                numbers.push(self.number_near(RU_MOBILE));
            }
        }
        numbers
    }

    /// Takes over a number of another card, and sometimes the time of its last change.
    fn share(
        &mut self,
        (kind, index): Place,
        world: &World,
        numbers: &mut Vec<u64>,
        entry: &mut Entry,
    ) {
        let shared = self
            .first_numbers
            .get(&(kind, index))
            .copied()
            .filter(|number| !numbers.contains(number));
        if let Some(number) = shared {
            numbers.push(number);
            if self.dice.in_thousand(250) {
                entry.modified = entries(world, kind)[index].modified;
            }
        }
    }

    fn number_near(&mut self, home: &[Range]) -> u64 {
        match self.dice.below(100) {
            0..5 => self.number_of(FOREIGN),
            5..9 => self.number_of(KZ),
            9..18 => self.number_of(RU_CITY),
            _ => self.number_of(home),
        }
    }

    fn fresh_number(&mut self) -> u64 {
        self.number_near(RU_MOBILE)
    }

    /// A number that nobody has yet.
    fn number_of(&mut self, ranges: &[Range]) -> u64 {
        loop {
            // The narrow American range runs full in a big base: another one then.
            let (prefix, digits) = self.dice.pick(ranges);
            let room = 10_u64.pow(digits);
            // Subscriber numbers begin with 2 to 7: those are in use in all of these plans.
            let first = (2 + self.dice.below(6)) * (room / 10);
            let number = prefix * room + first + self.dice.below(room / 10);
            if self.used.insert(number) {
                return number;
            }
        }
    }

    /// Writes a card's numbers into its phone fields and remembers who holds them.
    fn write_phones(&mut self, entry: &mut Entry, numbers: &[u64], place: Place) {
        for &number in numbers {
            self.holders.entry(number).or_default().push(place);
            self.first_numbers.entry(place).or_insert(number);
        }
        let mut fields: Vec<String> = Vec::new();
        for &number in numbers {
            let written = self.write(number);
            match fields.last_mut() {
                Some(last) if self.has(Mess::TwoInOne, 250) => {
                    let between = self
                        .dice
                        .pick(&[", ", "; ", " / ", ",", "\n", " или ", ";"]);
                    last.push_str(between);
                    last.push_str(&written);
                }
                _ => fields.push(written),
            }
        }
        if self.dice.in_thousand(30) && self.has(Mess::Nothing, 1_000) {
            fields.push(self.dice.pick(NO_NUMBER).to_owned());
        }
        self.fields += fields.len();
        entry.phones = fields;
    }

    /// Says whether a field gets this mess, in so many cases of a thousand.
    fn has(&mut self, mess: Mess, cases: u64) -> bool {
        let has = self.dice.in_thousand(cases) && !self.without.contains(&mess);
        if has {
            *self.messes.entry(mess).or_default() += 1;
        }
        has
    }

    /// Writes a number as somebody might type it.
    fn write(&mut self, number: u64) -> String {
        let digits = number.to_string();
        let mut text = match digits.strip_prefix('7') {
            Some(national) => self.write_russian(national),
            None => self.write_foreign(&digits),
        };
        if self.has(Mess::Typography, 60) {
            text = text.replace(' ', self.dice.pick(&["\u{a0}", "\u{202f}", "\u{2009}"]));
            text = text.replace('-', self.dice.pick(&["–", "\u{2011}", "—", "−"]));
        }
        if text.contains('0') && self.has(Mess::LetterO, 3) {
            text = text.replacen('0', self.dice.pick(&["О", "O", "о"]), 1);
        }
        if self.has(Mess::FullWidth, 3) {
            text = text.chars().map(full_width).collect();
        }
        if self.has(Mess::Invisible, 10) {
            let (before, behind) = self.dice.pick(&[
                ("\u{202a}", "\u{202c}"),
                ("\u{200e}", ""),
                ("", "\u{200b}"),
                ("\u{feff}", ""),
            ]);
            text = format!("{before}{text}{behind}");
        }
        if self.has(Mess::Extension, 40) {
            let label = self
                .dice
                .pick(&[" доб. ", " доб.", ", доб. ", " ext. ", " (доб. "]);
            let behind = if label.contains('(') { ")" } else { "" };
            text = format!("{text}{label}{}{behind}", 10 + self.dice.below(490));
        } else if self.has(Mess::Words, 40) {
            let before = self.dice.pick(&["", "", "моб. ", "тел.: ", "т.", "раб "]);
            let behind =
                self.dice
                    .pick(&["", " (жена)", " Ирина", " - секретарь", " звонить утром"]);
            text = format!("{before}{text}{behind}");
        } else if self.has(Mess::Apostrophe, 20) {
            text.insert(0, '\'');
        }
        match self.dice.below(40) {
            0 => format!(" {text}"),
            1 => format!("{text} "),
            _ => text,
        }
    }

    /// A number of country code 7, its ten other digits given.
    fn write_russian(&mut self, national: &str) -> String {
        let (area, local) = national.split_at(3);
        let (start, end) = local.split_at(3);
        let (third, fourth) = end.split_at(2);
        let code = if self.has(Mess::National, 550) {
            self.dice.pick(&["8", "8", "8", ""])
        } else {
            self.dice.pick(&["+7", "+7", "+7", "7"])
        };
        let gap = if code.is_empty() { "" } else { " " };
        let dash = if code.is_empty() { "" } else { "-" };
        match self.dice.below(12) {
            0..3 => format!("{code}{national}"),
            3 | 4 => format!("{code}{gap}({area}) {start}-{third}-{fourth}"),
            5 => format!("{code}{gap}{area} {start} {third} {fourth}"),
            6 => format!("{code}{dash}{area}-{start}-{third}-{fourth}"),
            7 => format!("{code}({area}){local}"),
            8 => format!("{code}{gap}{area} {local}"),
            9 => format!("{code}{area} {start}-{third}-{fourth}"),
            10 => format!("{code}{gap}({area}) {start} {end}"),
            _ => format!("{code}{gap}{area}.{start}.{third}.{fourth}"),
        }
    }

    /// A number of any other country.
    fn write_foreign(&mut self, digits: &str) -> String {
        let (code_length, area_length) = match digits.as_bytes() {
            [b'1', ..] => (1, 3),
            [b'4', ..] => (2, 3),
            [b'9', b'9', b'6', ..] => (3, 3),
            _ => (3, 2),
        };
        let (code, national) = digits.split_at(code_length);
        let (area, local) = national.split_at(area_length);
        let plus = if self.has(Mess::NoPlus, 250) {
            ""
        } else if self.has(Mess::DialledAbroad, 60) {
            self.dice.pick(&["00", "810", "8-10-", "8~10 ", "00 "])
        } else {
            "+"
        };
        match self.dice.below(4) {
            0 | 1 => format!("{plus}{digits}"),
            2 => format!("{plus}{code} {area} {local}"),
            _ => format!("{plus}{code} ({area}) {local}"),
        }
    }
}

fn full_width(sign: char) -> char {
    match sign.to_digit(10) {
        Some(digit) => char::from_u32(0xff10 + digit).unwrap(),
        None => sign,
    }
}

#[test]
fn the_same_seed_makes_the_same_base() {
    let (one, same, other) = (
        base(1, 500, 80, 200),
        base(1, 500, 80, 200),
        base(2, 500, 80, 200),
    );
    assert_eq!(one.as_csv(), same.as_csv());
    assert_eq!(one.truth, same.truth);
    assert_eq!(one.strangers, same.strangers);
    assert_ne!(one.as_csv(), other.as_csv());
}

#[test]
fn a_base_has_the_wanted_size_and_sorted_ids() {
    let sizes = Sizes {
        contacts: 1_000,
        companies: 200,
        leads: 500,
        deals: 300,
    };
    let base = base_without(3, sizes, &[]);
    let world = &base.world;
    let lengths = [
        &world.contacts,
        &world.companies,
        &world.leads,
        &world.deals,
    ]
    .map(Vec::len);
    assert_eq!(lengths, [1_000, 200, 500, 300]);
    assert_eq!(world.users.len(), USERS);
    for list in [
        &world.contacts,
        &world.companies,
        &world.leads,
        &world.deals,
    ] {
        assert!(list.is_sorted_by_key(|entry| entry.id));
    }
    assert!(
        world
            .deals
            .iter()
            .all(|deal| !deal.contacts.is_empty() && deal.phones.is_empty())
    );
}

#[test]
fn every_mess_occurs_and_can_be_left_out() {
    let all = [
        Mess::National,
        Mess::NoPlus,
        Mess::DialledAbroad,
        Mess::Typography,
        Mess::TwoInOne,
        Mess::Extension,
        Mess::Words,
        Mess::Apostrophe,
        Mess::Invisible,
        Mess::FullWidth,
        Mess::LetterO,
        Mess::Nothing,
    ];
    let full = base(4, 20_000, 3_000, 6_000);
    for mess in all {
        assert!(
            full.messes.get(&mess).is_some_and(|&count| count >= 30),
            "{mess:?}"
        );
    }
    let share = |mess| full.messes[&mess] * 100 / full.fields;
    assert!(
        (40..65).contains(&share(Mess::National)),
        "{}",
        share(Mess::National)
    );
    assert!(
        (2..6).contains(&share(Mess::Extension)),
        "{}",
        share(Mess::Extension)
    );
    let sizes = Sizes {
        contacts: 2_000,
        ..Sizes::default()
    };
    let clean = base_without(4, sizes, &all);
    assert!(clean.messes.is_empty());
    assert!(
        clean
            .world
            .contacts
            .iter()
            .all(|contact| !contact.phones.contains(&String::new()))
    );
}

#[test]
fn the_truth_has_every_hard_case() {
    let base = base(6, 20_000, 3_000, 6_000);
    let world = &base.world;
    assert!(base.truth.is_sorted_by_key(|truth| truth.number));
    let count = |wanted: fn(&Truth) -> bool| base.truth.iter().filter(|t| wanted(t)).count();
    let nobody = count(|truth| truth.known && truth.expected.is_none());
    assert!(
        nobody > base.truth.len() / 10 && nobody < base.truth.len() / 3,
        "{nobody}"
    );
    assert!(count(|truth| !truth.known) > 1_000);
    let by_kind = |kind| {
        base.truth
            .iter()
            .filter(|t| t.expected.as_ref().is_some_and(|e| e.kind == kind))
            .count()
    };
    for kind in [EntityKind::Contact, EntityKind::Company, EntityKind::Lead] {
        assert!(by_kind(kind) > 1_000, "{kind}");
    }
    let ringable_users = world
        .users
        .iter()
        .filter(|user| ringable(user).is_some())
        .count();
    assert_eq!(ringable_users, USERS - DISMISSED - 5);
    assert!(
        world
            .users
            .iter()
            .any(|user| user.extension.as_deref() == Some(" 113 "))
    );
}

#[test]
fn nobody_has_the_strangers_numbers_and_own_phones() {
    let base = base(7, 2_000, 300, 600);
    let known: HashSet<u64> = base.truth.iter().map(|truth| truth.number).collect();
    assert_eq!(base.strangers.len(), STRANGERS);
    for number in base.strangers.iter().chain(&base.own_phones) {
        assert!(!known.contains(number));
    }
}

#[test]
fn every_number_is_valid_in_its_plan() {
    let base = base(8, 5_000, 500, 1_000);
    let numbers = base.truth.iter().map(|truth| truth.number);
    for number in numbers.chain(base.strangers.iter().copied()) {
        let read = rlibphonenumber::PHONE_NUMBER_UTIL
            .parse(format!("+{number}"), None)
            .unwrap();
        assert!(
            rlibphonenumber::PHONE_NUMBER_UTIL.is_valid_number(&read),
            "+{number}"
        );
    }
}

#[test]
fn what_is_written_is_the_number() {
    let unreadable_here = [
        Mess::NoPlus,
        Mess::DialledAbroad,
        Mess::TwoInOne,
        Mess::Extension,
        Mess::FullWidth,
        Mess::LetterO,
        Mess::Nothing,
    ];
    let sizes = Sizes {
        contacts: 5_000,
        ..Sizes::default()
    };
    let base = base_without(9, sizes, &unreadable_here);
    let known: HashSet<u64> = base.truth.iter().map(|truth| truth.number).collect();
    for field in base
        .world
        .contacts
        .iter()
        .flat_map(|contact| &contact.phones)
    {
        let digits: String = field.chars().filter(char::is_ascii_digit).collect();
        let russian = match (digits.len(), digits.strip_prefix('8')) {
            (11, Some(rest)) => format!("7{rest}"),
            (10, _) => format!("7{digits}"),
            _ => digits,
        };
        assert!(known.contains(&russian.parse().unwrap()), "{field}");
    }
}

#[test]
fn who_cannot_be_rung_is_passed_over() {
    let user = |id, active, extension: Option<&str>| User {
        id,
        active,
        extension: extension.map(str::to_owned),
        ..User::default()
    };
    let entry = |id, responsible, modified, stage| Entry {
        id,
        responsible,
        modified,
        stage,
        ..Entry::default()
    };
    let world = World {
        users: vec![
            user(1, true, Some("101")),
            user(2, false, Some("102")),
            user(3, true, None),
        ],
        contacts: vec![entry(1, 2, 9, Stage::Open), entry(2, 3, 8, Stage::Open)],
        companies: vec![entry(4, 1, 5, Stage::Open), entry(5, 1, 5, Stage::Open)],
        leads: vec![entry(1, 1, 7, Stage::Junk)],
        ..World::default()
    };
    let (contact, company, lead) = (EntityKind::Contact, EntityKind::Company, EntityKind::Lead);
    let holders = [
        (company, 1),
        (contact, 1),
        (contact, 0),
        (lead, 0),
        (company, 0),
    ];
    let truth = judge(79_161_234_567, &holders, &world);
    let expected = truth.expected.unwrap();
    assert_eq!(
        (expected.kind, expected.id, expected.extension.as_str()),
        (company, 4, "101")
    );
    assert!(!judge(79_161_234_567, &[(lead, 0)], &world).known);
}
